from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler import codec
from reconciler.archive import MANIFEST, Entry, Manifest, Piece, examine, write
from reconciler.errors import ConfigError, PassError

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
ALLOWED = {"runner": re.compile(r"key|units/[a-z/]+\.json"), "controller": re.compile(r"store\.db")}
PIECES = [Piece("runner/key", b"k" * 32), Piece("runner/units/prod/a.json", b"{}"), Piece("controller/store.db", b"")]
Say = Callable[[tarfile.TarFile], None]


def made(folder: Path, *pieces: Piece) -> Path:
    path = folder / "b.tar"
    write(path, pieces or PIECES, {"runner": {"fence": "7"}}, NOW, "0.1.0")
    return path


def test_what_is_written_is_what_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"0123456789 and what was added meanwhile")
    path = made(tmp_path, *PIECES[:2], Piece("controller/store.db", path=tmp_path / "long", size=10))
    assert path.stat().st_mode & 0o777 == 0o600
    found = examine(path, ALLOWED)
    assert found.manifest.made_at == NOW
    assert found.manifest.planes == {"runner": {"fence": "7"}}
    assert set(found.manifest.files) == {"runner/key", "runner/units/prod/a.json", "controller/store.db"}
    found.unpack("runner", tmp_path / "r")
    found.unpack("controller", tmp_path / "c")
    files = {str(p.relative_to(tmp_path)): p for p in (*(tmp_path / "r").rglob("*"), *(tmp_path / "c").rglob("*"))}
    assert {name: p.read_bytes() for name, p in files.items() if p.is_file()} == {
        "r/key": b"k" * 32,
        "r/units/prod/a.json": b"{}",
        "c/store.db": b"0123456789",
    }
    assert {p.stat().st_mode & 0o777 for p in files.values() if p.is_file()} == {0o600}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "c", "long", "r"]


def test_no_backup_is_overwritten(tmp_path: Path) -> None:
    path = made(tmp_path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="no backup is overwritten"):
        made(tmp_path)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="is no folder"):
        made(tmp_path / "nowhere")
    assert [p.name for p in tmp_path.iterdir()] == ["b.tar"]


def test_a_file_that_shrank_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"12")
    with pytest.raises(PassError, match="try again") as caught:
        made(tmp_path, Piece("controller/store.db", path=tmp_path / "short", size=3))
    assert caught.value.reason == "BackupTorn"
    assert [p.name for p in tmp_path.iterdir()] == ["short"]


@pytest.mark.parametrize("left", [0, 1, 511, 512, 1000, 1024, 2048, 2560, 2600, 3100])
def test_one_that_was_cut_short_is_refused(tmp_path: Path, left: int) -> None:
    path = made(tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(PassError) as caught:
        examine(path, ALLOWED)
    assert caught.value.reason == "BackupInvalid"


# --- hostile ones


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Say:
    def say(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = len(data), kind, link
        tar.addfile(info, io.BytesIO(data))

    return say


def manifest(files: dict[str, Entry], number: int = 1) -> Say:
    return member(MANIFEST, codec.encode(Manifest(number, NOW, "9", {}, files)))


EMPTY = Entry(0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
KEY = member("runner/key")
HOSTILE: dict[str, tuple[list[Say], str]] = {
    "a way up": ([member("runner/units/../../../etc/passwd")], r"passwd' is no name"),
    "a root": ([member("/etc/passwd")], "passwd' is no name"),
    "a dot": ([member("runner/units/./a.json")], "is no name"),
    "another plane": ([member("forge/key")], "is no name"),
    "another name": ([member("runner/locks")], "is no name"),
    "a long name": ([member("runner/" + "x" * 5000)], "is no name"),
    "a link": ([member("runner/key", kind=tarfile.SYMTYPE, link="/etc/shadow")], "is no plain file"),
    "a hard link": ([member("runner/key", kind=tarfile.LNKTYPE, link="/etc/shadow")], "is no plain file"),
    "a device": ([member("runner/key", kind=tarfile.CHRTYPE)], "is no plain file"),
    "a pipe": ([member("runner/key", kind=tarfile.FIFOTYPE)], "is no plain file"),
    "a folder": ([member("runner/units", kind=tarfile.DIRTYPE)], "is no plain file"),
    "twice": ([KEY, KEY], "has runner/key twice"),
    "two manifests": ([manifest({}), manifest({})], "follows its manifest"),
    "more after it": ([manifest({}), KEY], "follows its manifest"),
    "none": ([KEY], "has no manifest"),
    "no JSON": ([member(MANIFEST, b"{")], "manifest cannot be read"),
    "not said": ([KEY, manifest({})], "does not know runner/key"),
    "not there": ([manifest({"runner/key": EMPTY})], "runner/key is missing"),
    "damaged": ([member("runner/key", b"x"), manifest({"runner/key": EMPTY})], "runner/key was damaged"),
}


def told(folder: Path, says: list[Say]) -> Path:
    path = folder / "h.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for say in says:
            say(tar)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_backup_is_refused_by_name(tmp_path: Path, name: str) -> None:
    says, what = HOSTILE[name]
    with pytest.raises(PassError, match=what) as caught:
        examine(told(tmp_path, says), ALLOWED)
    assert caught.value.reason == "BackupInvalid"
    assert "Nothing of it was used" in str(caught.value)


def test_one_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="install that version") as caught:
        examine(told(tmp_path, [manifest({}, 2)]), ALLOWED)
    assert caught.value.reason == "BackupTooNew"


def test_one_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        examine(tmp_path / "none.tar", ALLOWED)


def test_one_that_is_exchanged_in_between_is_found_out(tmp_path: Path) -> None:
    path = made(tmp_path)
    found = examine(path, ALLOWED)
    path.write_bytes(path.read_bytes().replace(b"k" * 32, b"K" * 32))
    with pytest.raises(PassError, match="not what it was a moment ago"):
        found.unpack("runner", tmp_path / "r")


def test_what_is_there_already_is_not_written_over(tmp_path: Path) -> None:
    found = examine(made(tmp_path), ALLOWED)
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        found.unpack("runner", tmp_path / "r")
    assert not (tmp_path / "elsewhere").exists()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_other_bytes_are_refused_or_mean_the_same(
    flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path = made(folder)
    before = examine(path, ALLOWED)
    data = bytearray(path.read_bytes())
    for at, byte in flips:
        data[at % len(data)] = byte
    path.write_bytes(data)
    reason, files = "", before.manifest.files
    try:
        files = examine(path, ALLOWED).manifest.files
    except PassError as error:
        reason = error.reason
    assert reason in ("", "BackupInvalid", "BackupTooNew")
    assert files == before.manifest.files

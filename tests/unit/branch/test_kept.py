from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from reconciler.branch import kept
from reconciler.branch.kept import KeptEntries
from reconciler.desired.entries import parse_entry
from reconciler.desired.load import Loader
from reconciler.model import Commit, Entry
from tests.kit.graph import Graph

FILES = Graph(chains=20, length=5, leaves=30).files()
BLOBS = {path: f"{number:040x}" for number, path in enumerate(FILES)}
ENTRIES = [path for path in FILES if not path.endswith("/environment.yaml")]
WANTED = {path: BLOBS[path] for path in ENTRIES}
COMMIT = Commit("a" * 40)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "entries"


def parsed() -> list[Entry]:
    found = [parse_entry(path, FILES[path].encode()) for path in ENTRIES]
    return [entry for entry in found if isinstance(entry, Entry)]


@pytest.fixture
def written(file: Path) -> KeptEntries:
    first = KeptEntries(file)
    first.find(WANTED)
    assert first.due()
    first.keep(parsed(), BLOBS)
    assert not first.due()
    return KeptEntries(file)


def test_the_next_start_has_them(written: KeptEntries) -> None:
    assert list(written.find(WANTED).values()) == parsed()
    assert not written.due()


def test_few_are_not_looked_for(written: KeptEntries) -> None:
    assert not written.find(dict(list(WANTED.items())[:10]))


def test_they_are_written_again_once_much_is_new(written: KeptEntries) -> None:
    written.find(WANTED)
    for _ in range(6):
        assert not written.due()
        written.find(dict(list(WANTED.items())[:10]))
    written.find(dict(list(WANTED.items())[:10]))
    assert written.due()


def test_what_somebody_else_could_have_written_is_not_read(
    file: Path, written: KeptEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert written.find(WANTED)
    for mode in (0o620, 0o602):
        file.chmod(mode)
        assert not written.find(WANTED)
    file.chmod(0o600)
    assert written.find(WANTED)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)
        assert not written.find(WANTED)
    moved = file.rename(file.with_name("moved"))
    file.symlink_to(moved)
    assert not written.find(WANTED)


def test_a_file_of_other_code_counts_for_nothing_and_is_replaced(
    file: Path, written: KeptEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_code", lambda: "other")
    assert not written.find(WANTED)
    assert written.due()
    written.keep(parsed(), BLOBS)
    assert written.find(WANTED)
    assert file.stat().st_mode & 0o777 == 0o600


def test_without_its_own_sources_nothing_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_code", lambda: None)
    one = KeptEntries(file)
    one.keep(parsed(), BLOBS)
    assert not one.find(WANTED)
    assert not file.exists()


def test_no_room_and_too_much_cost_time_alone(
    file: Path, written: KeptEntries, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = KeptEntries(file.parent / "missing" / "entries")
    missing.keep(parsed(), BLOBS)
    assert not missing.find(WANTED)
    monkeypatch.setattr(kept, "_LARGEST", 100)
    assert not written.find(WANTED)
    file.unlink()
    written.keep(parsed(), BLOBS)
    assert not file.exists()


def test_a_commit_means_the_same_and_only_what_is_not_known_is_read(written: KeptEntries) -> None:
    asked: set[str] = set()

    def read(ids: object) -> Mapping[str, bytes]:
        assert isinstance(ids, set)
        asked.update(ids)
        return {blob: FILES[path].encode() for path, blob in BLOBS.items() if blob in ids}

    fresh = Loader().load(COMMIT, BLOBS, read)
    asked.clear()
    assert Loader(written.find).load(COMMIT, BLOBS, read) == fresh
    assert asked == {BLOBS[path] for path in FILES if path not in ENTRIES}


def test_the_code_is_what_is_there() -> None:
    found = kept._code()
    assert found is not None
    assert len(found) == 64

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconciler.durable import ABANDONED, FileLock, append, is_locked, read_json, sweep, write_atomic, write_new
from reconciler.errors import PassError

HOLDING = """
import sys, pathlib
from reconciler.durable import FileLock
lock = FileLock(pathlib.Path(sys.argv[1]))
print(lock.take(), flush=True)
sys.stdin.read()
"""


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    write_atomic(path, b'{"a": 1}')
    write_atomic(path, b'{"a": 2}', mode=0o644)
    assert read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    write_atomic(tmp_path / "f", b"x")
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(IsADirectoryError):
        write_atomic(path, b"x")
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "kept"]


def test_a_new_file_is_written_where_there_is_none(tmp_path: Path) -> None:
    assert write_new(tmp_path / "f", b"first")
    assert not write_new(tmp_path / "f", b"second")
    assert (tmp_path / "f").read_bytes() == b"first"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_line_is_added_or_the_file_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    append(path, b"one\n")
    append(path, b"two\n")
    assert path.read_bytes() == b"one\ntwo\n"
    assert path.stat().st_mode & 0o777 == 0o600

    def full(_handle: int) -> None:
        raise OSError("no room")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no room"):
        append(path, b"three\n")
    assert path.read_bytes() == b"one\ntwo\n"


def test_what_killed_writers_left_is_swept_up_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    old, new = tmp_path / "deep" / ".f.json.abc_1234", tmp_path / "deep" / ".f.json.abc_5678"
    others = [tmp_path / name for name in ("f.json", ".hidden", ".f.json.toolonger", ".f.json.UPPER_12")]
    for path in (old, new, *others):
        path.touch()
    for path in (old, *others):
        os.utime(path, (0, path.stat().st_mtime - ABANDONED - 60))
    sweep(tmp_path)
    assert not old.exists()
    assert all(path.exists() for path in (new, *others))
    sweep(tmp_path / "none")


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b'{"a": ')
    with pytest.raises(PassError, match="f: not JSON"):
        read_json(tmp_path / "f")


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "f")


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l"), FileLock(tmp_path / "l")
    assert not is_locked(tmp_path / "l")
    assert first.take()
    assert first.take()
    assert is_locked(tmp_path / "l")
    assert not second.take()
    first.release()
    first.release()
    assert not is_locked(tmp_path / "l")
    with second:
        assert not first.take()
    assert first.take()
    first.release()


def test_a_lock_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "l")
    holder.take()
    with pytest.raises(PassError, match=r"held this lock for 0\.01 s.*`fuser`") as caught, FileLock(holder.path, 0.01):
        pass
    assert caught.value.reason == "LockBusy"
    later = threading.Timer(0.02, holder.release)
    later.start()
    with FileLock(holder.path):
        assert is_locked(holder.path)
    later.join()
    assert not is_locked(holder.path)


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "l"
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert is_locked(path)
        child.kill()
    assert not is_locked(path)


@pytest.mark.parametrize("inherit", [False, True])
def test_a_started_program_holds_the_lock_only_when_it_shall(inherit: bool, tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "l")
    lock.take()
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[lock.fileno()] if inherit else [],
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        lock.release()
        assert is_locked(tmp_path / "l") is inherit
        child.kill()
    assert not is_locked(tmp_path / "l")


def test_a_lock_that_is_not_held_has_no_descriptor(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "l")
    with pytest.raises(ValueError, match="not held"):
        lock.fileno()
    lock.take()
    assert os.fstat(lock.fileno()).st_ino == (tmp_path / "l").stat().st_ino
    lock.release()


def test_a_lock_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "no" / "l").take()

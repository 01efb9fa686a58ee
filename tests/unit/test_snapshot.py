from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler import snapshot
from reconciler.durable import write_atomic
from reconciler.errors import PassError


def every(name: str) -> bool:
    return not name.endswith(".lock")


def test_every_file_below_the_names_is_taken_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "units" / "prod").mkdir(parents=True)
    (tmp_path / "units" / "prod" / "a.json").write_bytes(b"a")
    (tmp_path / "units" / "x.lock").touch()
    (tmp_path / "key").write_bytes(b"k")
    (tmp_path / "other").write_bytes(b"o")
    found = snapshot.take(tmp_path, ("key", "units", "missing"), every)
    assert [(one.name, one.data) for one in found] == [("key", b"k"), ("units/prod/a.json", b"a")]


@contextmanager
def writing(one: Path, two: Path) -> Iterator[None]:
    """Somebody who writes the same number into both, first into `one`, and rests a little."""
    ended = threading.Event()

    def write() -> None:
        number = 0
        while not ended.wait(0.003):
            number += 1
            write_atomic(one, b"%d" % number, durable=False)
            write_atomic(two, b"%d" % number, durable=False)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_all_of_it_is_of_one_moment(tmp_path: Path) -> None:
    one, two = tmp_path / "m" / "one", tmp_path / "m" / "a" / "two"
    two.parent.mkdir(parents=True)
    for path in (one, two):
        path.write_bytes(b"0")
    with writing(one, two):
        for _ in range(200):
            said = {piece.name: piece.data or b"" for piece in snapshot.take(tmp_path, ("m",), every)}
            assert int(said["m/one"]) - int(said["m/a/two"]) in (0, 1)  # a draft that was there besides may be empty


def test_without_a_still_moment_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    real = snapshot._read

    def read(one: Path) -> object:
        found = real(one)
        write_atomic(path, b"x" * (len(path.read_bytes()) + 1))
        return found

    monkeypatch.setattr(snapshot, "_read", read)
    with pytest.raises(PassError, match="try again when fewer jobs run") as caught:
        snapshot.take(tmp_path, ("f",), every, patience=0.2)
    assert caught.value.reason == "BackupBusy"

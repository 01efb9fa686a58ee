"""The files of a folder as they all are at one moment, while others write there.

Nobody is kept waiting: the files are read, and read again where they have changed meanwhile, until a whole look finds that none
has. Between the last two looks lies a moment at which all of them were so: what is taken is what a loss of power would have left then,
and that everything here survives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from reconciler.archive import Piece
from reconciler.errors import PassError

PATIENCE = 60.0  # seconds
_Mark = tuple[int, int, int, int]


def take(folder: Path, names: Iterable[str], counts: Callable[[str], bool], patience: float = PATIENCE) -> list[Piece]:
    """Every file below the names (files or folders) whose path in the folder `counts`.

    Raises:
        PassError: "BackupBusy": there was no moment without a change.
    """
    tops, deadline = tuple(names), time.monotonic() + patience
    read: dict[str, tuple[_Mark, bytes]] = {}
    while True:
        marks = {name: _mark(folder / name) for name in _below(folder, tops) if counts(name)}
        known = {name: mark for name, (mark, _) in read.items()}
        if marks == known:
            return [Piece(name, data) for name, (_, data) in sorted(read.items())]
        if time.monotonic() > deadline:
            what = f"{folder}: something was written there all the time, for {patience:g} s"
            raise PassError("BackupBusy", f"{what}: try again when fewer jobs run")
        read = {name: one for name, one in read.items() if known[name] == marks.get(name)}
        read |= {name: found for name in marks.keys() - read.keys() if (found := _read(folder / name))}


def _below(folder: Path, tops: Iterable[str]) -> Iterator[str]:
    for top in tops:
        if (folder / top).is_file():
            yield top
        for place, _, files in os.walk(folder / top):
            yield from (os.path.relpath(os.path.join(place, file), folder) for file in files)  # noqa: PTH118 - thousands


def _mark(path: Path) -> _Mark | None:
    """What is another once the file was written, or replaced; None: it is gone again."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(path: Path) -> tuple[_Mark, bytes] | None:
    """The file's bytes, and its mark from before they were read."""
    mark = _mark(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return (mark, data) if mark is not None else None

"""A folder in one file: how a job's root gets into a worker's folder, where the job itself writes nothing.

What is in a worker may be hostile and still at work. So nobody outside follows a path in there: the folder is packed by its job, and
unpacked by the worker.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

Entry = tuple[str, str, str | int]  # path, kind, and where a link leads or how long a file is
FOLDER, FILE, LINK = "folder", "file", "link"


def pack(folder: Path, into: BinaryIO, *, without: frozenset[str] = frozenset()) -> None:
    """All of the folder, which is the caller's own, but what has one of these names or suffixes."""
    entries = list(_entries(folder, "", without))
    contents = [(folder / path).read_bytes() if kind == FILE else b"" for path, kind, _ in entries]
    told = [[p, k, len(c) if k == FILE else v] for (p, k, v), c in zip(entries, contents, strict=True)]
    into.write(json.dumps(told).encode() + b"\n")
    into.writelines(contents)
    into.flush()


def unpack(packed: BinaryIO, folder: Path) -> None:
    """Into a folder that is empty. Raises EOFError: not all of it is there."""
    for path, kind, value in json.loads(packed.readline()):
        place = folder / path
        if kind == FOLDER:
            place.mkdir(mode=0o700)
        elif kind == LINK:
            place.symlink_to(value)
        else:
            content = packed.read(value)
            if len(content) != value:
                raise EOFError(f"{path} is cut off")
            place.write_bytes(content)


def empty(folder: Path, keep: frozenset[str] = frozenset(), untouched: int | None = None) -> None:
    """Remove all that is in it, whatever rights that has; of folders that are kept, what is in them. The folder with that inode
    stays as it is. Raises OSError.
    """
    folder.chmod(0o700)
    with os.scandir(folder) as found:
        for entry in found:
            if entry.inode() == untouched:
                continue
            if not entry.is_dir(follow_symlinks=False):
                Path(entry.path).unlink()
                continue
            empty(Path(entry.path), untouched=untouched)
            if entry.name not in keep:
                Path(entry.path).rmdir()


def _entries(folder: Path, below: str, without: frozenset[str]) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda one: one.name):
            path = f"{below}{entry.name}"
            if without & {entry.name, Path(path).suffix}:
                continue
            if entry.is_symlink():
                yield path, LINK, os.readlink(entry.path)  # noqa: PTH115 - an entry is no Path
            elif entry.is_dir():
                yield path, FOLDER, 0
                yield from _entries(Path(entry.path), f"{path}/", without)
            else:
                yield path, FILE, 0

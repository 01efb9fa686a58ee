"""A pinned tree on disk, as the audit reads it: path -> git's mode and content."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from reconciler.git.tree import FILE, PROGRAM


class TreeOnDisk(Mapping[str, tuple[str, bytes]]):
    """Files are read when they are asked for, and at most `limit` bytes of each. Links are told, and not followed."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def __getitem__(self, path: str) -> tuple[str, bytes]:
        if path not in self._paths:
            raise KeyError(path)
        file = self._folder / path
        mode = file.lstat().st_mode
        if not stat.S_ISREG(mode):
            return f"{mode:06o}", b""
        with file.open("rb") as opened:
            return PROGRAM if mode & stat.S_IXUSR else FILE, opened.read(self._limit)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @cached_property
    def _paths(self) -> frozenset[str]:
        found = set()
        for parent, folders, files in os.walk(self._folder):
            links = [name for name in folders if Path(parent, name).is_symlink()]
            found |= {Path(parent, name).relative_to(self._folder).as_posix() for name in (*files, *links)}
        return frozenset(found)

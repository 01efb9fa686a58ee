"""Where a plane keeps what must outlive its processes: a few named documents, each replaced as a whole.

A name is a path, parts separated by `/`. Whoever changes a document that others may change too does all of it, the look included,
inside `exclusive`, and inside `again`: a folder lets others wait meanwhile; elsewhere nobody can be made to wait, and who was
faster shows when the slower one writes.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from reconciler.durable import PATIENCE, FileLock, sync_folder, write_atomic, write_new
from reconciler.errors import PassError

T = TypeVar("T")
P = ParamSpec("P")

TRIES = 12  # times that a step is begun anew because somebody was faster
PAUSE = 0.05  # seconds before the second try, at the most; twice as long before each further one
LONGEST_PAUSE = 1.0


class ConflictError(PassError):
    """Somebody else changed what was to be changed, since it was read. Nothing was written."""

    def __init__(self, place: str) -> None:
        super().__init__("MemoryChanged", f"{place} was changed by somebody else at this moment; it is tried again.")


class Cabinet(Protocol):
    """Documents by name. After a crash at any point each holds its old bytes or its new ones.

    Every verb raises what its place raises where that is broken: OSError of a folder, PassError "MemoryUnavailable" of a bucket.
    """

    @property
    def place(self) -> str:
        """Where it is, for people."""

    def within(self, name: str) -> Cabinet:
        """The part whose names begin with `<name>/`."""

    def read(self, name: str) -> bytes | None:
        """What the document holds; None: there is none."""

    def look(self, name: str) -> Hashable:
        """What is another after each change, and costs less than a read; None: there is no such document."""

    def write(self, name: str, data: bytes) -> None:
        """Make the document, or replace what this process read of it last; it is durable when this returns.

        Raises:
            ConflictError: it is not that any more. Not in a folder, where `exclusive` sees to it.
        """

    def create(self, name: str, data: bytes) -> bool:
        """As `write`, where there is no such document. False: there is one. Of two who try, one succeeds."""

    def append(self, name: str, line: str) -> None:
        """Add a whole line to the document, behind whatever a crash left. Only inside `exclusive`. Raises as `write`."""

    def delete(self, name: str) -> None:
        """Remove the document, if there is one. Raises as `write`."""

    def names(self, under: str, *, oldest_first: bool = False) -> list[str]:
        """The documents whose names begin with `<under>/`, or all; by name, or by when they were last written."""

    def stamp(self, name: str, at: datetime) -> None:
        """Remember a moment under this name."""

    def stamped(self, name: str) -> datetime | None:
        """The moment that was remembered; None: there is none."""

    def exclusive(self, name: str, over: str, patience: float = PATIENCE) -> AbstractContextManager[None]:
        """The right to change the documents whose names begin with `over`; `name` is the right's.

        Where others cannot be made to wait, what was read of them stays as it was read until the end, and so is of one moment.

        Raises:
            PassError: "LockBusy", after `patience` seconds.
        """


def again(step: Callable[[], T]) -> T:
    """Do a step that looks, decides and writes; anew, where somebody was faster.

    Raises:
        ConflictError: somebody always was.
    """
    for tried in range(TRIES - 1):
        try:
            return step()
        except ConflictError:
            longest = min(PAUSE * 2**tried, LONGEST_PAUSE)
            time.sleep(random.uniform(0, longest))  # noqa: S311 - so that two do not meet again
    return step()


def repeated(method: Callable[P, T]) -> Callable[P, T]:
    """A method that is such a step as a whole, see `again`."""

    @wraps(method)
    def step(*args: P.args, **kwargs: P.kwargs) -> T:
        return again(lambda: method(*args, **kwargs))

    return step


class FolderCabinet:
    """A folder of files, which a lock file guards. See `Cabinet`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        """See `Cabinet`."""
        return str(self.folder)

    def within(self, name: str) -> FolderCabinet:
        """See `Cabinet`."""
        return FolderCabinet(self.folder / name)

    def read(self, name: str) -> bytes | None:
        """See `Cabinet`."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def look(self, name: str) -> Hashable:
        """See `Cabinet`."""
        try:
            status = (self.folder / name).stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def write(self, name: str, data: bytes) -> None:
        """See `Cabinet`."""
        write_atomic(self._made(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """See `Cabinet`."""
        return write_new(self._made(name), data)

    def append(self, name: str, line: str) -> None:
        """See `Cabinet`."""
        path = self._made(name)
        fresh = not path.exists()
        with path.open("ab+") as file:
            os.fchmod(file.fileno(), 0o600)
            size = file.seek(0, os.SEEK_END)
            torn = size and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write(("\n" if torn else "").encode() + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync_folder(path.parent)

    def delete(self, name: str) -> None:
        """See `Cabinet`."""
        (self.folder / name).unlink(missing_ok=True)

    def names(self, under: str, *, oldest_first: bool = False) -> list[str]:
        """See `Cabinet`. What a writer that was killed left half written is no document."""
        found = [path for path in (self.folder / under).rglob("*") if path.is_file() and path.name[0] != "."]
        found.sort(key=(lambda path: path.stat().st_mtime_ns) if oldest_first else None)
        return [path.relative_to(self.folder).as_posix() for path in found]

    def stamp(self, name: str, at: datetime) -> None:
        """See `Cabinet`. The moment is the file's time of change."""
        path = self._made(name)
        path.touch(mode=0o600)
        os.utime(path, (at.timestamp(), at.timestamp()))

    def stamped(self, name: str) -> datetime | None:
        """See `Cabinet`."""
        try:
            return datetime.fromtimestamp((self.folder / name).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    @contextmanager
    def exclusive(self, name: str, over: str, patience: float = PATIENCE) -> Iterator[None]:  # noqa: ARG002 - the protocol's
        """See `Cabinet`. `FileLock`: the kernel ends it with its holder."""
        with FileLock(self._made(name), patience):
            yield

    def _made(self, name: str) -> Path:
        """The file; its folder is there."""
        path = self.folder / name
        if not path.parent.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path


def cabinet_of(place: Path | Cabinet) -> Cabinet:
    """The cabinet itself, or that of a folder."""
    return FolderCabinet(place) if isinstance(place, Path) else place

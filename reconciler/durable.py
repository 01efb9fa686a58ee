"""Files that survive a crash, and locks that do not: the standard library only, for both planes."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self

from reconciler.errors import PassError

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # as `write_atomic` names them
ABANDONED = 3600.0  # seconds


def write_atomic(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True, named: bool = True) -> None:
    """Replace the file as a whole: after a crash at any point it holds the old bytes or the new ones.

    The folder must exist. On disk when this returns, unless `durable` is False: then a loss of power may take it, and the old
    file too. Not `named`: its bytes are on disk, its name is not waited for, so that a loss of power leaves the old file or the
    new one. An error leaves the old file and no temporary one.
    """
    name = _written_beside(path, data, mode, durable=durable)
    try:
        os.replace(name, path)  # noqa: PTH105 - a job does this often: the standard library's own call, without its path's
    except BaseException:
        _remove(name)
        raise
    if durable and named:
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, mode: int = 0o600, *, durable: bool = True) -> bool:
    """As `write_atomic`, and only where there is no such file; False: there is one. Of two who try, one succeeds."""
    name = _written_beside(path, data, mode, durable=durable)
    try:
        os.link(name, path)
    except FileExistsError:
        return False
    finally:
        _remove(name)
    if durable:
        sync_folder(path.parent)
    return True


def append(path: Path, line: bytes, *, durable: bool = True) -> None:
    """Add a line to the file, made if need be: after a crash it is there or not. An error leaves the file as it was.

    On disk when this returns, unless `durable` is False; the name of a new file is not. A loss of power meanwhile may tear the
    line. Only where nobody else appends.
    """
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "ab", buffering=0) as file:
        before = os.fstat(handle).st_size
        try:
            _write_all(file, line)
            if durable:
                os.fsync(handle)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, before)
            raise


def _written_beside(path: Path, data: bytes, mode: int, *, durable: bool) -> str:
    """A temporary file with these bytes, in the folder of the path; its name. An error leaves none."""
    handle, name = _opened_beside(path)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            os.fchmod(handle, mode)
            _write_all(file, data)
            if durable:
                os.fsync(handle)
    except BaseException:
        _remove(name)
        raise
    return name


def _opened_beside(path: Path) -> tuple[int, str]:
    """As `tempfile.mkstemp`, for a tenth of its price in a process that was just forked."""
    while True:
        name = f"{path.parent}/.{path.name}.{secrets.token_hex(4)}"
        with suppress(FileExistsError):
            return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), name


def _write_all(file: IO[bytes], data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _remove(name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name)  # noqa: PTH108 - as above


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left half written, here and below. A living one's file is never so old."""
    for path in folder.rglob(".*.????????"):
        with suppress(FileNotFoundError):
            if TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime > ABANDONED:
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Make names that were created, renamed or removed in the folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> object:
    """What the file holds.

    Raises:
        FileNotFoundError: there is no such file.
        PassError: "FileCorrupt", the file is not JSON. `write_atomic` never leaves such a file behind.
    """
    return json_of(path.read_bytes(), str(path))


def json_of(data: bytes, place: str) -> object:
    """What the bytes say. Raises PassError "FileCorrupt", see `read_json`; `place` is where they are from."""
    try:
        return json.loads(data)
    except ValueError as error:
        raise PassError(
            "FileCorrupt",
            f"{place}: not JSON ({error}); something else wrote it: restore it from a backup or remove it",
        ) from error


def open_plain(path: Path) -> BinaryIO:
    """A file in a folder that somebody hostile writes into: never what a link leads to, and nothing that keeps us waiting.

    Raises:
        OSError: there is no such file, or it is a link, a pipe, a folder.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(handle, "rb")


PATIENCE = 300.0  # seconds that a lock is waited for: what it guards are files, written in a moment
PACE = 0.05  # seconds between two looks at it, at the most


class FileLock:
    """An advisory lock that the kernel releases when its last holder dies, however it dies.

    The descriptor is not inherited by programs that are started; a forked child does hold the lock with its parent.
    The file stays behind when the lock is released: removing it would let two holders lock two files of one name.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        """`patience`: seconds that `with` waits for another holder."""
        self.path, self._patience = path, patience
        self._handle: int | None = None

    def take(self) -> bool:
        """Try to become the holder. False: somebody else is."""
        return self._handle is not None or self._taken(time.monotonic())

    def _taken(self, ends: float) -> bool:
        """Try until then. Looks again and again: a thread cannot be called back from the kernel's own wait."""
        handle, pace = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), 0.001
        try:
            while not _flocked(handle):
                if time.monotonic() >= ends:
                    os.close(handle)
                    return False
                time.sleep(pace)
                pace = min(2 * pace, PACE)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle
        return True

    def fileno(self) -> int:
        """The descriptor that holds the lock, for a caller that hands it to a child on purpose.

        Raises:
            ValueError: the lock is not held.
        """
        if self._handle is None:
            raise ValueError(f"{self.path}: the lock is not held")
        return self._handle

    def release(self) -> None:
        """Let go of this process's hold. Does nothing when it has none."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        """Raises PassError "LockBusy": another holder outlasted our patience."""
        if self._handle is None and not self._taken(time.monotonic() + self._patience):
            raise PassError(
                "LockBusy",
                f"{self.path}: another process has held this lock for {self._patience:g} s. It is tried again by itself; "
                "if it stays so, end the process that `fuser` names for it: the lock goes with it.",
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _flocked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock. Never creates the file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False

"""One command of an engine as a process that outlives this one if it must, and ends when it is told to."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from reconciler.errors import UnitError
from reconciler.runner.terraform import leftover

KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE
BEAT = 0.2  # seconds between looks at the output while a command runs; its end is noticed at once


class Child(Protocol):
    """A process of ours: a `subprocess.Popen`, or what stands for the engine in a jail and ends as it does."""

    pid: int
    returncode: int | None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code."""


@runtime_checkable
class Distant(Protocol):
    """A command that is no process of ours: another one carries it out, and is ended where nobody asks for it any more."""

    returncode: int | None

    def ended(self, seconds: float | None) -> bool:
        """Wait up to `seconds` for its end (None: for as long as it takes)."""

    def ask(self, number: signal.Signals) -> None:
        """Ask it to end."""

    def abandon(self) -> None:
        """Wait for it no more."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""


class Jail(Protocol):
    """Where commands run instead of here. The folder is its own; the variables it may add to."""

    @property
    def largest(self) -> int:
        """Bytes that a file of its may come to. What an engine prints beyond is lost, and the engine does not say so."""

    def start(
        self, argv: Sequence[str | Path], env: Mapping[str, str], output: int, errors: int, locks: tuple[int, ...]
    ) -> Child | Distant:
        """Start it in a session and a group of its own, with its streams in these files; the locks live as it does."""


@dataclass(frozen=True, slots=True)
class Stop:
    """How a command is ended when its time is over: a signal to it alone, then KILL to its group after the grace.

    The signal goes to the engine only: a provider that got it too would die in the middle of a call. It is sent
    once: a second one makes an engine exit at once.
    """

    deadline: float  # time.monotonic()
    signal: signal.Signals
    grace: float  # seconds


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. `stopped`: its deadline passed, or someone asked; `killed`: it did not heed that."""

    code: int
    stopped: bool
    killed: bool


class Outlet:
    """What a command writes into, and what of it was not read yet: a new file of this user's alone, or one that is only in memory.

    It is read by its descriptor: whatever the command leaves under its name does not matter.
    """

    def __init__(self, path: Path | None, room: int = 0) -> None:
        """None: in memory, where the system can. `room`: bytes that it may come to on a disk that fills.

        Raises:
            UnitError: "DiskFull", there are not so many.
        """
        self.handle, self._at = _private(path) if path else _nameless(), 0
        try:
            _reserve(self.handle, room, path)
        except BaseException:
            self.close()
            raise

    def read(self, most: int) -> bytes:
        """The next bytes, as far as they are there. Moves nothing: the command writes where it is."""
        chunk = os.pread(self.handle, most, self._at)
        self._at += len(chunk)
        return chunk

    @property
    def size(self) -> int:
        """All bytes that are there."""
        return os.fstat(self.handle).st_size

    def close(self) -> None:
        """What is in memory is gone then."""
        os.close(self.handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Command:
    """A command that runs in its own session with its output in files.

    No pipe: a reader that dies would break an apply. Its own session: what ends this process's group does not end it.
    `locks` are inherited, so that a flock on one lives for as long as the engine or one of its providers; what the engine
    leaves behind is killed when it has ended. At `note` stands how it is to be ended, should this process die.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        folder: Path,
        env: Mapping[str, str],
        *,
        output: Outlet,
        errors: Outlet,
        locks: tuple[int, ...] = (),
        note: Path | None = None,
        jail: Jail | None = None,
    ) -> None:
        self._step, self._path = str(argv[1]), note
        self._note: leftover.Note | None = None
        if jail is None:
            self._process: Child | Distant = subprocess.Popen(
                argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output.handle, stderr=errors.handle,
                start_new_session=True, pass_fds=locks,
            )  # fmt: skip
            _unlimit(self._process.pid)
        else:
            self._process = jail.start(argv, env, output.handle, errors.handle, locks)
        self._asked = False

    @property
    def pid(self) -> int:
        """The engine's process, which leads its own group; 0, if it is none of ours."""
        return 0 if isinstance(self._process, Distant) else self._process.pid

    def ask(self, number: signal.Signals) -> None:
        """Ask it to end, once. Safe from a signal handler and from other threads."""
        if not self._asked and self._process.returncode is None:
            self._asked = True
            self._write_note()  # before: whoever comes after this process must not ask again
            if isinstance(self._process, Distant):
                self._process.ask(number)
            else:
                os.kill(self.pid, number)

    def wait(self, stop: Stop, beat: Callable[[], None], first: Callable[[], None] | None = None) -> Ended:
        """Wait for the end. Calls `beat` now and then, and once after the end; `first` at once, and it must not raise."""
        if self._path is not None and self.pid:
            self._note = leftover.noted(self.pid, self._step, stop.signal, stop.deadline, stop.grace)
            self._write_note()
        if first is not None:
            first()
        with _Watch(self._process) as watch:
            killed = self._wait_within(watch, stop, beat)
            self._sweep()  # before the process is reaped: its group's number is its own until then
        if self._path is not None:
            leftover.forget(self._path)
        code = self._process.wait()
        beat()
        return Ended(code, self._asked, killed)

    def _write_note(self) -> None:
        if self._path is not None and self._note is not None:
            leftover.write(self._path, replace(self._note, asked=time.time() if self._asked else None))

    def _wait_within(self, watch: _Watch, stop: Stop, beat: Callable[[], None]) -> bool:
        while not watch.ended(min(BEAT, stop.deadline - time.monotonic())):
            beat()
            if self._asked or time.monotonic() >= stop.deadline:
                self.ask(stop.signal)
                return self._kill_after(watch, time.monotonic() + stop.grace, beat)
        return False

    def _kill_after(self, watch: _Watch, last: float, beat: Callable[[], None]) -> bool:
        while not watch.ended(min(BEAT, last - time.monotonic())):
            beat()
            if time.monotonic() >= last:
                self._sweep()
                watch.ended(None)
                return True
        return False

    def _sweep(self) -> None:
        """End what is left of the group: providers, and what they started."""
        if isinstance(self._process, Distant):
            self._process.abandon()
            return
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of zombies
            os.killpg(self.pid, signal.SIGKILL)


class _Watch:
    """Notices a process's end at once, without reaping it where the system lets us."""

    def __init__(self, process: Child | Distant) -> None:
        self._process = process
        self._handle: int | None = None
        if not isinstance(process, Distant) and hasattr(os, "pidfd_open"):
            self._handle = os.pidfd_open(process.pid)
        self._poll = select.poll()
        if self._handle is not None:
            self._poll.register(self._handle, select.POLLIN)

    def ended(self, seconds: float | None) -> bool:
        """Wait up to `seconds` (None: for as long as it takes)."""
        if isinstance(self._process, Distant):
            return self._process.ended(seconds)
        if self._handle is not None:
            return bool(self._poll.poll(None if seconds is None else max(0.0, seconds) * 1000))
        try:
            self._process.wait(None if seconds is None else max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)


def _unlimit(pid: int) -> None:
    """The memory of this process may be limited; that of an engine, and of its providers, is another matter."""
    prlimit, (_, hard) = getattr(resource, "prlimit", None), resource.getrlimit(resource.RLIMIT_DATA)
    if prlimit is not None:
        with suppress(ProcessLookupError):
            prlimit(pid, resource.RLIMIT_DATA, (hard, hard))


def _reserve(handle: int, room: int, path: Path | None) -> None:
    """Have the disk keep room for the file, which stays as long as it is. Where the system cannot, nothing is kept."""
    if not room:
        return
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if fallocate is None:
        return
    if fallocate(handle, KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(room)) < 0:
        number = ctypes.get_errno()
        if number in (errno.ENOSPC, errno.EDQUOT):
            what = f"Nothing was begun: there is no room for the engine's output ({room >> 20:,} MiB, {path})"
            raise UnitError("DiskFull", f"{what}. Make room there; it is tried again by itself.", transient=True)


def _private(path: Path) -> int:
    """A new file: what an earlier command left under that name is not written through."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _nameless() -> int:
    """A file without a name."""
    if sys.platform == "linux":
        return os.memfd_create("output")
    handle, name = tempfile.mkstemp()
    os.unlink(name)  # noqa: PTH108 - as it is told
    return handle

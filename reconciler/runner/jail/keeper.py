"""The process beside a jail: it holds the job's locks, serves the way out, hands signals on, and ends with the engine.

It is forked from the job's process and outlives it, as an engine without a jail does. When it is killed, bubblewrap dies
with it and takes the jail along: a kernel ends everything in a namespace whose first process ends.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from reconciler.runner.jail import bare, seccomp
from reconciler.runner.jail.cell import HOSTS, Cell
from reconciler.runner.jail.egress import Refusal, note
from reconciler.runner.jail.proxy import Proxy
from reconciler.runner.jail.space import confine, enter, enter_as, too_much
from reconciler.runner.jail.users import end_all, hand_over

FAILED = 1  # as an engine that did nothing
LOOK = 0.2  # seconds between looks at how much the engine has written
ASKED = (signal.SIGTERM, signal.SIGINT)
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python, and not for those whom it starts


class Kept:
    """A jail's keeper, to wait for as for a `subprocess.Popen`."""

    def __init__(self, pid: int, cell: Cell | None = None) -> None:
        self.pid, self._cell = pid, cell
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, which is the engine's; 128 and more if a signal ended that, negative if one ended this.

        Raises:
            subprocess.TimeoutExpired: not yet.
        """
        if self.returncode is None:
            self._await(timeout)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            if self.returncode < 0 and self._cell is not None:  # it was killed, and ended nobody but the engine
                _end_rest(self._cell)
            if self._cell is not None and self._cell.bwrap is None:
                bare.adopt(orphans=False)
        return self.returncode

    def _await(self, timeout: float | None) -> None:
        handle = os.pidfd_open(self.pid)
        try:
            if not select.select([handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("engine", timeout or 0)
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True)
class Jailer:
    """Starts programs in one cell. What `process.Command` asks of a jail. `leashed`: they end with who starts them."""

    cell: Cell
    leashed: bool = False

    @property
    def largest(self) -> int:
        """Bytes that a file may come to."""
        return self.cell.limits.file

    def start(
        self, argv: Sequence[str | Path], env: Mapping[str, str], output: int, errors: int, locks: tuple[int, ...]
    ) -> Kept:
        """Start it, with its streams in these files. The keeper holds the locks; the program inside holds nothing."""
        user, kept = self.cell.user, locks
        _make_scratch(self.cell.work / "tmp")
        if user is not None:
            for folder in self.cell.writable(env):
                hand_over(folder, user.uid)
            kept = (*locks, user.handle)
        if self.cell.bwrap is None:
            bare.adopt()  # what outlives its keeper comes to us
        seccomp.program(network=self.cell.bwrap is not None or self.cell.network)  # here, where it is remembered
        parent = os.getpid() if self.leashed else None
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)  # none is lost before the keeper can hand it on
        try:
            pid = os.fork()
            if pid == 0:
                _become(self.cell, argv, env, (output, errors), kept, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return Kept(pid, self.cell)


def _make_scratch(path: Path) -> None:
    """What an earlier command left there may be a link to somewhere else, which would be shown to this one."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    path.mkdir(exist_ok=True, mode=0o700)


def _become(
    cell: Cell,
    argv: Sequence[str | Path],
    env: Mapping[str, str],
    streams: tuple[int, int],
    locks: tuple[int, ...],
    parent: int | None,
) -> NoReturn:
    """Be the keeper; if it has a `parent`, for as long as that lives."""
    code = FAILED
    try:
        if parent is not None:
            bare.end_with(parent)
        gc.freeze()  # what is the job's is not looked at again: each page looked at would be copied
        os.setsid()
        signal.set_wakeup_fd(-1)
        hold_only(streams, locks)
        code = _Keeper(cell).keep(argv, env)
    except BaseException:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the job's
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def hold_only(streams: tuple[int, int], locks: tuple[int, ...]) -> None:
    """Of a forked process: close what is its parent's, but for these locks; the streams become its output and its errors."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    moved = [os.dup(stream) for stream in streams]  # one of them may have a number that is about to be taken
    os.dup2(nowhere, 0)
    os.dup2(moved[0], 1)
    os.dup2(moved[1], 2)
    last = 2
    for handle in (*sorted(set(locks) - {0, 1, 2}), max(os.sysconf("SC_OPEN_MAX"), 1 << 16)):
        os.closerange(last + 1, handle)
        last = handle


class _Keeper:
    """Runs in its own process; its main thread waits, others serve."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._child = self._engine = 0
        self._asked = False

    def keep(self, argv: Sequence[str | Path], env: Mapping[str, str]) -> int:
        """Start the program, keep it company, and return its exit code."""
        for number in ASKED:
            signal.signal(number, self._hand_on)
        start = self._start_bare if self._cell.bwrap is None else self._start_housed
        start(argv, env)
        threading.Thread(target=self._measure, args=(self._cell.writable(env),), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)  # in this thread alone: it is the one to wake
        code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        if self._cell.bwrap is None:
            _end_rest(self._cell)
        return code if code >= 0 else 128 - code

    def _start_bare(self, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        bare.adopt()
        self._engine = self._child = os.fork()
        if self._child == 0:
            _turn_into_engine(self._cell, argv, env)

    def _start_housed(self, argv: Sequence[str | Path], env: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        info, told = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            ours.close()
            _turn_into_bubblewrap(self._cell, argv, env, theirs, told)
        theirs.close()
        os.close(told)
        handles = _received(ours, len(self._cell.ways))
        with os.fdopen(info, "rb") as said:
            self._engine = _number_in(said.read())
        self._serve(handles)

    def _serve(self, handles: list[int]) -> None:
        proxy = Proxy(self._cell.egress, self._refused)
        for handle, (_, straight) in zip(handles, self._cell.ways, strict=False):
            proxy.serve(socket.socket(fileno=handle), straight)

    def _refused(self, refusal: Refusal) -> None:
        os.write(2, f"The jail refused a connection to {refusal.target}: {refusal.why}.\n".encode())
        with suppress(OSError):
            note(self._cell.refusals, refusal)

    def _measure(self, folders: tuple[Path, ...]) -> None:
        """End an engine that fills the disk."""
        while True:
            time.sleep(LOOK)
            if what := next(filter(None, (too_much(one, self._cell.limits) for one in folders)), None):
                os.write(2, f"The engine was ended: its folder holds {what}.\n".encode())
                self._kill()
                return

    def _hand_on(self, number: int, _frame: object) -> None:
        """Give the signal to the engine; one that cannot have begun yet is ended: nobody would hear it."""
        if self._asked:
            return
        self._asked = True
        if self._engine and _heeds(self._engine, number):
            with suppress(ProcessLookupError):
                os.kill(self._engine, number)
        else:
            self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._engine or self._child, signal.SIGKILL)


def _turn_into_bubblewrap(
    cell: Cell, argv: Sequence[str | Path], env: Mapping[str, str], keeper: socket.socket, info: int
) -> NoReturn:
    """Become bubblewrap, in a network and with mounts of its own."""
    assert cell.bwrap is not None  # noqa: S101 - that is how it was chosen
    with _last_frame():
        _reset_signals()
        listening = [address for address, _ in cell.ways]
        found: Mapping[Path, Path] = {}
        handles = (_in_memory(seccomp.program()), info, _in_memory(HOSTS))
        if cell.user is None:
            listeners = enter(cell.work, listening)
        else:
            listeners, found = enter_as(cell.user.uid, cell.outside, listening)
        socket.send_fds(keeper, [b"."], [one.fileno() for one in listeners])
        for handle in handles:
            os.set_inheritable(handle, True)
        confine(cell.limits)
        words = cell.command(argv, env, *handles, found)
        os.execve(found.get(cell.bwrap, cell.bwrap), words, cell.environment(env))  # noqa: S606 - no shell


def _turn_into_engine(cell: Cell, argv: Sequence[str | Path], env: Mapping[str, str]) -> NoReturn:
    """Become the engine itself."""
    with _last_frame():
        _reset_signals()
        os.closerange(3, max(os.sysconf("SC_OPEN_MAX"), 1 << 16))
        bare.shut_in(cell, env)
        os.execve(argv[0], [os.fspath(word) for word in argv], cell.environment(env))  # noqa: S606 - no shell


@contextmanager
def _last_frame() -> Iterator[None]:
    """Of a forked process that becomes another program, or ends: nothing may return into the keeper's."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - see above
        os.write(
            2, f"The jail could not be made: {error}. `reconciler runner describe` tells of its probes.\n".encode()
        )
    finally:
        os._exit(FAILED)


def _reset_signals() -> None:
    for number in (*ASKED, *IGNORED):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _end_rest(cell: Cell) -> None:
    """Whatever the engine has left behind, where no namespace ended that; and whoever died and came to us."""
    if cell.user is not None:
        end_all(cell.user.uid)
    elif cell.bwrap is None:
        bare.end_shut_in()


def _received(keeper: socket.socket, most: int) -> list[int]:
    """The sockets that listen inside; none, if there is no inside."""
    _, handles, _, _ = socket.recv_fds(keeper, 1, most)
    return handles


def _number_in(said: bytes) -> int:
    """The engine's process, as bubblewrap tells it; 0, if there is none."""
    try:
        return int(json.loads(said)["child-pid"])
    except (ValueError, KeyError):
        return 0


def _heeds(pid: int, number: int) -> bool:
    """Whether the process has said what is to be done at this signal. The first of a namespace is deaf to others."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def _in_memory(data: bytes) -> int:
    """A file that is nowhere, to be read from its beginning."""
    handle = os.memfd_create("jail")
    os.write(handle, data)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle

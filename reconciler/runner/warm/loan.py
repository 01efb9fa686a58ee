"""A job's side: ask for a worker, have it run the engine's commands, give it back.

What changes nothing is waited for by the job itself. For an apply a process stands in for the engine: it asks the worker, waits for the answer, and ends as
the engine would. So whatever holds an engine to its deadline, or lets it outlive its job, holds there. A worker whose job is gone, and who stood in for it, is killed.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from reconciler import codec
from reconciler.runner.access.endpoint import Address
from reconciler.runner.jail.keeper import ASKED, Kept, hold_only
from reconciler.runner.jail.space import Limits
from reconciler.runner.terraform.engine import PLAN_FILE
from reconciler.runner.terraform.rescue import ERRORED_STATE
from reconciler.runner.terraform.state import WORK_STATE
from reconciler.runner.warm import parcel
from reconciler.runner.warm.spec import Spec

LOST = 99  # exit code of who stands in for a worker that is gone, or answers what no engine would
PATIENCE = 2.0  # seconds for an answer to whether there is a worker
COLD = 30.0  # seconds until a worker begins, which may have been started a moment ago
HEED = 3  # seconds that a plan may take to come to its end when it is cancelled
LARGEST = 1 << 17  # bytes
OF_A_FOLDER = frozenset({"TF_CLI_CONFIG_FILE", "TMPDIR"})  # a worker has its own
UNPACKED = frozenset({".out", ".err", "tmp"})  # suffixes, and a folder
# What is wanted of each command, beside its output, when it ends with one of these codes.
LEFT: Mapping[str, tuple[frozenset[int], tuple[str, ...]]] = {
    "plan": (frozenset({2}), (PLAN_FILE,)),
    "apply": (frozenset(range(256)), (WORK_STATE, ERRORED_STATE)),
}
CODES = range(256)
ENDS = (0, 1, 2)


@dataclass(frozen=True, slots=True)
class Door:
    """Where jobs ask for workers: a socket that they inherit."""

    asks: socket.socket

    def ask(self, spec: Spec, what: str) -> Loan | None:
        """A worker, which is this job's until it gives it back; None: there is none for it now. `what` it shall plan: what none could a
        while ago is not tried again.
        """
        said = json.dumps({"what": what, "spec": codec.encode(spec).decode()}).encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(PATIENCE)
        try:
            with theirs:
                socket.send_fds(self.asks, [said], [theirs.fileno()], socket.MSG_DONTWAIT)
            answer, handles, _, _ = socket.recv_fds(ours, LARGEST, 2)
        except OSError:
            ours.close()
            return None
        if not handles:
            ours.close()
            return None
        told, (control, *listeners) = json.loads(answer), (socket.socket(fileno=handle) for handle in handles)
        desk = Address(listeners[0], told["token"]) if listeners else None
        return Loan(spec, told["number"], control, ours, desk)


@dataclass(frozen=True, slots=True)
class Loan:
    """A worker that is this job's. `desk`: where it fetches keys; they are the job's to hand out."""

    spec: Spec
    number: int
    control: socket.socket
    owner: socket.socket
    desk: Address | None = None

    def back(self, *, whole: bool, why: str = "", changes: bool = False) -> None:
        """Give it back; `whole`: it did what it was asked to, else it is ended. `why` what came of it is of no use; `changes`: it found some."""
        with suppress(OSError):
            self.owner.send(json.dumps({"whole": whole, "why": why, "changes": changes}).encode())
        for one in (self.owner, self.control, *([self.desk.listener] if self.desk else [])):
            one.close()


# The name of a process that waits for a worker: what it waits for computes, in a process that descends from no job.
STANDS_IN = b"warm-stand-in"


@dataclass(frozen=True, slots=True)
class Seat:
    """Runs a folder's commands in a worker. What `process.Command` asks of a jail.

    The folder is packed for each command, and what that left is copied into it (`LEFT`): between two of them a worker has nothing of a job.
    """

    loan: Loan
    folder: Path
    largest: int = Limits().file
    ran: list[Kept | Answer] = field(default_factory=list)

    def start(
        self, argv: Sequence[str | Path], env: Mapping[str, str], output: int, errors: int, locks: tuple[int, ...]
    ) -> Kept | Answer:
        """Have the worker begin. Raises ValueError: it is not the worker for these variables."""
        if {name: text for name, text in env.items() if name not in OF_A_FOLDER} != self.loan.spec.env:
            raise ValueError("a worker cannot take other variables than it was started with")
        words = [os.fspath(word) for word in argv[1:]]
        packed = self._packed()
        try:
            begun = (
                self._stood_in(words, packed, (output, errors), locks)
                if words[0] == "apply"
                else self._asked(words, packed, output, errors)
            )
        finally:
            os.close(packed)
        self.ran.append(begun)
        return begun

    def _asked(self, words: Sequence[str], packed: int, output: int, errors: int) -> Answer:
        """What changes nothing need not outlive its job."""
        return Answer(self, words[0], errors, lambda: send_run(self.loan.control, words, output, errors, packed))

    def _stood_in(self, words: Sequence[str], packed: int, streams: tuple[int, int], locks: tuple[int, ...]) -> Kept:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)  # none is lost before it can be handed on
        try:
            pid = os.fork()
            if pid == 0:
                _become(self, words, packed, streams, locks)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return Kept(pid)

    @property
    def whole(self) -> bool:
        """Whether each command ended as one of an engine's does."""
        return all(one.returncode in ENDS for one in self.ran)

    def _packed(self) -> int:
        handle = os.memfd_create("root")
        with os.fdopen(os.dup(handle), "wb") as file:
            parcel.pack(self.folder, file, without=UNPACKED)
        os.lseek(handle, 0, os.SEEK_SET)
        return handle


class Answer:
    """A command that a worker carries out, waited for in the job itself. It is lost when the worker is gone, does not begin or does not
    heed in time, or says what no engine would.
    """

    def __init__(self, seat: Seat, step: str, errors: int, begin: Callable[[], None]) -> None:
        self._seat, self._step, self._errors = seat, step, os.dup(errors)
        self._begun = self._cancelled = False
        self._ends = time.monotonic() + COLD
        self.returncode: int | None = None
        with self._losing():
            begin()

    def ended(self, seconds: float | None) -> bool:
        """Wait up to `seconds` for its end (None: for as long as it takes)."""
        last = float("inf") if seconds is None else time.monotonic() + max(0.0, seconds)
        while self.returncode is None and self._heard(min(last, self._ends)):
            with self._losing():
                self._take(json.loads(self._seat.loan.control.recv(LARGEST)))
        if self.returncode is None and time.monotonic() >= self._ends:
            self._lose("it does not answer")
        return self.returncode is not None

    def ask(self, _number: signal.Signals) -> None:
        """Ask it to end; it must, soon, so that there is time for the engine's own."""
        self._cancelled, self._ends = True, min(self._ends, time.monotonic() + HEED)
        with self._losing():
            _send(self._seat.loan.control, {"do": "cancel"})

    def abandon(self) -> None:
        """Wait for it no more."""
        if self.returncode is None:
            self._lose("it was not waited for")

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises subprocess.TimeoutExpired: not yet."""
        if not self.ended(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired(self._step, timeout or 0)
        return self.returncode

    def _heard(self, ends: float) -> bool:
        patience = None if ends == float("inf") else max(0.0, ends - time.monotonic())
        return bool(select.select([self._seat.loan.control], [], [], patience)[0])

    def _take(self, said: Any) -> None:
        if not self._begun:
            check_begun(said, self._step)
            self._begun = True
            if not self._cancelled:
                self._ends = float("inf")
            return
        code = checked_code(said)
        codes, names = LEFT.get(self._step, (frozenset(), ()))
        if code in codes:
            _fetch(self._seat.loan.control, names, self._seat.folder)
        self._end(code)

    @contextmanager
    def _losing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._lose(f"{type(error).__name__}: {error}")

    def _lose(self, why: str) -> None:
        os.write(self._errors, f"The worker is gone: {why}\n".encode())
        self._end(LOST)

    def _end(self, code: int) -> None:
        self.returncode = code
        os.close(self._errors)


def send_run(control: socket.socket, words: Sequence[str], output: int, errors: int, packed: int) -> None:
    """Have a worker begin."""
    _send(control, {"do": "run", "argv": words}, output, errors, packed)


def check_begun(said: Any, step: str) -> None:
    """Raises ValueError: it began something else."""
    if said != {"begun": step}:
        raise ValueError(f"it began {said!r}")


def checked_code(said: Any) -> int:
    """Raises ValueError, KeyError, TypeError: it is none of an engine's."""
    code = said["code"]
    if type(code) is not int or code not in CODES:
        raise ValueError(f"it says {code!r}")
    return code


def _become(
    seat: Seat, words: Sequence[str], packed: int, streams: tuple[int, int], locks: tuple[int, ...]
) -> NoReturn:
    """Stand in for the engine: never returns."""
    code = LOST
    try:
        gc.freeze()
        os.setsid()
        signal.set_wakeup_fd(-1)
        control = seat.loan.control
        hold_only(streams, (*locks, packed, control.fileno(), seat.loan.owner.fileno()))
        with suppress(OSError):
            Path("/proc/self/comm").write_bytes(STANDS_IN)
        code = _asked(control, words, packed)
        codes, names = LEFT.get(words[0], (frozenset(), ()))
        if code in codes:
            _fetch(control, names, seat.folder)
    except BaseException as error:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the job's
        code = LOST
        os.write(2, f"The worker is gone: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def _asked(control: socket.socket, words: Sequence[str], packed: int) -> int:
    """Have the command run, and hand on what this process is asked to. Raises: no such answer as an engine would give."""
    send_run(control, words, 1, 2, packed)
    control.settimeout(COLD)
    check_begun(json.loads(control.recv(LARGEST)), words[0])
    control.settimeout(None)
    for number in ASKED:
        signal.signal(number, lambda *_: _send(control, {"do": "cancel"}))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    code = checked_code(json.loads(control.recv(LARGEST)))
    for number in ASKED:
        signal.signal(number, signal.SIG_IGN)
    return code


def _fetch(control: socket.socket, names: Sequence[str], folder: Path) -> None:
    """Copy what the command left: under another name, until it is whole."""
    parts = [folder / f".{name}.part" for name in names]
    handles = [os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600) for part in parts]
    _send(control, {"do": "fetch", "names": names}, *handles)
    if not select.select([control], [], [], COLD)[0]:
        raise TimeoutError("what it left does not come")
    found = json.loads(control.recv(LARGEST))["fetched"]
    for name, part, handle in zip(names, parts, handles, strict=True):
        os.close(handle)
        if name in found:
            part.replace(folder / name)
        else:
            part.unlink()


def _send(control: socket.socket, what: dict[str, Any], *handles: int) -> None:
    socket.send_fds(control, [json.dumps(what).encode()], handles)

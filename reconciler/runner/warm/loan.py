"""A job's side: ask for a worker, have it run the engine's commands, give it back.

For each command a process stands in for the engine: it asks the worker, waits for the answer, and ends as the engine would. So whatever
holds an engine to its deadline, or lets it outlive its job, holds here. When it is killed, and the job is gone or gives the worker back,
the worker is killed.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from reconciler import codec
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
            answer, handles, _, _ = socket.recv_fds(ours, LARGEST, 1)
        except OSError:
            ours.close()
            return None
        if not handles:
            ours.close()
            return None
        return Loan(spec, json.loads(answer)["number"], socket.socket(fileno=handles[0]), ours)


@dataclass(frozen=True, slots=True)
class Loan:
    """A worker that is this job's."""

    spec: Spec
    number: int
    control: socket.socket
    owner: socket.socket

    def back(self, *, whole: bool, why: str = "", changes: bool = False) -> None:
        """Give it back; `whole`: it did what it was asked to, else it is ended. `why` what came of it is of no use; `changes`: it found some."""
        with suppress(OSError):
            self.owner.send(json.dumps({"whole": whole, "why": why, "changes": changes}).encode())
        self.owner.close()
        self.control.close()


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
    ran: list[Kept] = field(default_factory=list)

    def start(
        self, argv: Sequence[str | Path], env: Mapping[str, str], output: int, errors: int, locks: tuple[int, ...]
    ) -> Kept:
        """Have the worker begin. Raises ValueError: it is not the worker for these variables."""
        if {name: text for name, text in env.items() if name not in OF_A_FOLDER} != self.loan.spec.env:
            raise ValueError("a worker cannot take other variables than it was started with")
        words = [os.fspath(word) for word in argv[1:]]
        packed = self._packed()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)  # none is lost before it can be handed on
        try:
            pid = os.fork()
            if pid == 0:
                _become(self, words, packed, (output, errors), locks)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(packed)
        self.ran.append(Kept(pid))
        return self.ran[-1]

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
    _send(control, {"do": "run", "argv": words}, 1, 2, packed)
    control.settimeout(COLD)
    if json.loads(control.recv(LARGEST)) != {"begun": words[0]}:
        raise ValueError("it began something else")
    control.settimeout(None)
    for number in ASKED:
        signal.signal(number, partial(_cancel, control))
    signal.signal(signal.SIGALRM, _give_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    code = json.loads(control.recv(LARGEST))["code"]
    if type(code) is not int or code not in CODES:
        raise ValueError(f"it says {code!r}")
    for number in ASKED:
        signal.signal(number, signal.SIG_IGN)
    return code


def _cancel(control: socket.socket, number: int, _frame: object) -> None:
    """A plan that does not heed that is given up soon, so that there is time for the engine's own; an apply never."""
    _send(control, {"do": "cancel"})
    if number == signal.SIGTERM:
        signal.alarm(HEED)


def _give_up(*_: object) -> NoReturn:
    raise TimeoutError("it does not heed that it was cancelled")


def _fetch(control: socket.socket, names: Sequence[str], folder: Path) -> None:
    """Copy what the command left: under another name, until it is whole."""
    parts = [folder / f".{name}.part" for name in names]
    handles = [os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600) for part in parts]
    _send(control, {"do": "fetch", "names": names}, *handles)
    found = json.loads(control.recv(LARGEST))["fetched"]
    for name, part, handle in zip(names, parts, handles, strict=True):
        os.close(handle)
        if name in found:
            part.replace(folder / name)
        else:
            part.unlink()


def _send(control: socket.socket, what: dict[str, Any], *handles: int) -> None:
    socket.send_fds(control, [json.dumps(what).encode()], handles)

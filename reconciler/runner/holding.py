"""Who holds a state: the lock that anybody's Terraform respects, taken by the job itself and released by it alone.

The engine runs with `-lock=false`: a lock of its own would not say whose job it is, and stay for ever where it is killed. A
lock is broken only when nothing of its holder can live any more, and that is proven, recorded and said. (docs/decisions/0020)
"""

from __future__ import annotations

import os
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from reconciler import codec
from reconciler.errors import PassError, ReconcilerError, SupersededError, UnitError
from reconciler.model import Job, JobId, Operation, UnitId
from reconciler.runner.host import Host
from reconciler.runner.request import checked_id
from reconciler.runner.terraform import leftover
from reconciler.runner.terraform.begun import boot
from reconciler.runner.terraform.leftover import Process
from reconciler.runner.terraform.state import Backend
from reconciler.runner.terraform.statelock import Found, LockInfo, StateLock
from reconciler.runner.unitlock import LockHolder, machine

PATIENCE = 60.0  # seconds that a job waits for another's lock
LOOK_EVERY = 1.0  # seconds
LONGEST = 200  # characters of what a lock says
BROKEN, KEPT = "state-lock-broken", "state-lock-not-broken"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose lock it is, as its `Info` says: enough to prove one day that nothing of it lives.

    `task` is the ARN of its ECS task, and `at` when it took the lock. `spool` names the very folder of jobs on that host; `boot` the host's start, of all its containers; `machine` the host,
    as far as it has a name that stays. Each may be empty, where the system does not tell: then nothing is proven by it.
    """

    installation: str
    memory: str
    unit: UnitId
    job: JobId
    fence: int
    host: str
    machine: str
    boot: str
    spool: str
    pid: int
    born: int
    task: str = ""
    at: datetime | None = None


class Proof(Protocol):
    """A way to know that a holder is dead."""

    def __call__(self, holder: Holder) -> str | None:
        """Why nothing of it can live any more, in words for the audit log; None: no proof."""


class Hold:
    """A state that is this job's. Without a lock (`Backend.lock`), nobody else can reach the state at all.

    `after`: the dead job whose lock this one took over, so that nobody came between the two.
    """

    def __init__(self, lock: StateLock | None, info: LockInfo, after: JobId | None = None) -> None:
        self._lock, self._info, self._kept, self.after = lock, info, False, after

    def check(self) -> None:
        """Right before the state is changed. Raises UnitError "StateLocked": somebody took the lock away."""
        if self._lock is None:
            return
        found = self._lock.look()
        if found is None or found.info.id != self._info.id:
            whose = f"{_who(found)} has it" if found else "nobody has it"
            what = f"this job's lock of the state was removed by somebody else ({self._lock.place}; {whose} now)"
            raise UnitError(
                "StateLocked", f"{what}, so nothing is changed; it is tried again by itself.", transient=True
            )

    def alone(self) -> bool:
        """Whether nobody else had the state since the hold began."""
        with suppress(UnitError):
            self.check()
            return True
        return False

    def keep(self) -> None:
        """Let nobody have the state until the next job of this runner has looked: that one takes the lock over."""
        self._kept = True

    def release(self) -> None:
        """End the hold, if it is still this job's. One that cannot be released now is the next job's to break."""
        if self._lock is None or self._kept:
            return
        try:
            found = self._lock.look()
            if found is not None and found.info.id == self._info.id:
                self._lock.drop(found.tag)
        except ReconcilerError as error:
            sys.stderr.write(f"runner: {self._lock.place} was not released: {error} The next job takes it over.\n")


@contextmanager
def held(
    host: Host,
    backend: Backend,
    state: UnitId,
    job: Job,
    *,
    unwanted: Callable[[], bool] = lambda: False,
) -> Iterator[Hold]:
    """Hold the state of that name while a job works on it. The caller has the right to it on this runner (`Memory.unit_lock`).

    Raises:
        UnitError: "StateLocked": somebody has it, and is not proven dead. SupersededError: `unwanted` while it waited.
    """
    hold = _take(host, backend.lock(state), job, unwanted, time.monotonic() + PATIENCE)
    try:
        yield hold
    finally:
        hold.release()


def _take(host: Host, lock: StateLock | None, job: Job, unwanted: Callable[[], bool], deadline: float) -> Hold:
    if lock is None:
        return Hold(None, LockInfo(""))
    info = _said(host, job, lock)
    proofs: tuple[Proof, ...] = (died_here(host), died_as_task(host))
    while True:
        if lock.take(info):
            return Hold(lock, info)
        found = lock.look()
        if found is not None and (hold := _break(host, lock, found, info, job, proofs)):
            return hold
        if unwanted():
            raise SupersededError("The job was cancelled while it waited for the state's lock; it is decided afresh.")
        if found is not None and time.monotonic() >= deadline:
            raise UnitError("StateLocked", _told(host, lock, lock.look() or found), transient=True)
        time.sleep(LOOK_EVERY if found is not None else 0)


def _break(
    host: Host, lock: StateLock, found: Found, info: LockInfo, job: Job, proofs: tuple[Proof, ...]
) -> Hold | None:
    """Take the lock of a dead holder over, in one step: there is no moment at which it is nobody's."""
    holder = holder_of(found.info)
    why = next(filter(None, (proof(holder) for proof in proofs)), None) if holder else None
    if holder is None or why is None:
        return None
    said = {
        "lock": found.info.id,
        "place": lock.place,
        "holder": holder.job,
        "since": found.info.created,
        "job": job.id,
    }
    host.record.event(BROKEN, **said, proof=why)
    tag = lock.replace(found.tag, info)
    if tag is None:  # it was released, or somebody else has it: what was recorded did not happen
        host.record.event(KEPT, **said, proof="the lock had changed by then")
        return None
    sys.stderr.write(f"runner: {lock.place}: the lock of {holder.job} was broken: {why}; {job.id} has it now.\n")
    return Hold(lock, info, holder.job)


# --- who


def _said(host: Host, job: Job, lock: StateLock) -> LockInfo:
    holder = _me(host, job)
    applies = job.operation is Operation.APPLY
    return LockInfo(
        id=str(uuid.uuid4()),
        operation="OperationTypeApply" if applies else "OperationTypePlan",
        info=codec.encode(holder).decode(),
        who=f"reconciler {holder.installation}, job {job.id}@{holder.host}",
        version=host.engine.version,
        created=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        path=lock.path,
    )


def _me(host: Host, job: Job) -> Holder:
    me = leftover.find(os.getpid())
    return Holder(
        installation=host.config.installation,
        memory=host.memory.name,
        unit=job.unit,
        job=job.id,
        fence=job.fence,
        host=socket.gethostname(),
        machine=machine(),
        boot=boot(),
        spool=_identity(host.spool.folder),
        pid=os.getpid(),
        born=me.born if me else 0,
        task=host.here.task,
        at=datetime.now(UTC),
    )


def holder_of(info: LockInfo) -> Holder | None:
    """The job whose lock it is; None: no runner wrote it."""
    try:
        return codec.decode(Holder, info.info)
    except ValueError:
        return None


def _identity(folder: Path) -> str:
    """The very folder, and no copy of it, for as long as the host runs."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


# --- proofs


def died_here(host: Host) -> Proof:
    """A job of this very memory, whose every process this host can vouch for.

    The engine and its providers hold the job's lock in the spool as the job itself does, and the kernel drops it with
    the last of them. A process's number alone would prove nothing: the engine outlives its job.
    """
    memory, booted = host.memory.name, boot()
    its_machine, spool = machine(), _identity(host.spool.folder)

    def proof(holder: Holder) -> str | None:
        if holder.memory != memory or not booted:
            return None
        if holder.boot == booted:
            return (
                f"no process of {holder.job} lives on this host"
                if holder.spool == spool and _dead(host, holder)
                else None
            )
        if its_machine and holder.machine == its_machine:
            return f"the host was started anew since {holder.job} began"
        return None

    return proof


def died_as_task(host: Host) -> Proof:
    """A job of this very memory in a task of ECS, of which only ECS can say whether it lives.

    The proof raises UnitError "UnitBusy" where it does not say.
    """

    def proof(holder: Holder) -> str | None:
        if holder.memory != host.memory.name or not holder.task or holder.at is None:
            return None
        its = LockHolder("", holder.unit, holder.at, holder.job, holder.fence, holder.host, holder.pid, holder.task)
        return next(filter(None, (liveness(its) for liveness in host.here.liveness)), None)

    return proof


def _dead(host: Host, holder: Holder) -> bool:
    try:
        folder = host.spool.job(JobId(checked_id(holder.job)))
    except PassError:
        return False
    return not folder.alive() and not Process(holder.pid, holder.born).lives()


# --- what people are told


def _told(host: Host, lock: StateLock, found: Found) -> str:
    holder, info = holder_of(found.info), found.info
    what = f"The state is locked by {_who(found)} since {_shown(info.created)} ({_shown(info.operation)}; {lock.place})"
    if holder is not None and holder.memory == host.memory.name:
        where = f"in task {holder.task}" if holder.task else f"on the host {holder.host}"
        why = (
            f"It is job {holder.job} of this runner's memory, {where}, and nothing proves here that all of it has ended"
        )
    elif holder is not None:
        why = f"It is a job of another runner ({holder.installation}, on the host {holder.host}): two must not change the same states"
    else:
        why = "No job of this runner wrote it"
    product = host.engine.product
    how = (
        f"It is tried again by itself, and never broken without proof. If you know that its holder is dead, run `{product} "
        f"force-unlock {_shown(info.id)}` in a folder with this backend, or remove that object"
    )
    return f"{what}. {why}. {how}."


def _who(found: Found) -> str:
    return f"{_shown(found.info.who)} (lock {_shown(found.info.id)})"


def _shown(text: str) -> str:
    """What somebody wrote into the bucket, for a line of ours."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST]) or "unknown"

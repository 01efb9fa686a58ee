"""Who works on a unit, where several hosts share a memory: an object that is made by one of them, beside the file lock of its host.

A lock whose holder died stays, and is broken only by whoever can prove that nothing of the holder lives. Whoever breaks one writes
the unit's record anew before anything else: should the dead rise, it finds that it may not write there any more.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from reconciler import codec
from reconciler.cabinet import Cabinet, ConflictError
from reconciler.durable import FileLock
from reconciler.errors import PassError, UnitError
from reconciler.model import Job, JobId
from reconciler.runner.terraform.begun import boot

BROKEN, KEPT = "unit-lock-broken", "unit-lock-not-broken"
ECS = "ECS_CONTAINER_METADATA_URI_V4"  # only set in a task


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who has a lock, and where it lives: enough to prove one day that nothing of it does.

    `task` is the ARN of its ECS task. Else `boot` names the host's start, of all its containers, `place` the very folder of file locks
    there, and `machine` the host, as far as it has a name that stays. Each may be empty: then nothing is proven by it.
    """

    id: str
    name: str
    at: datetime
    job: JobId
    fence: int
    host: str
    pid: int
    task: str = ""
    machine: str = ""
    boot: str = ""
    place: str = ""


class Liveness(Protocol):
    """A way to know that a holder is dead. Whoever asks holds the file lock of the same name on this host."""

    def __call__(self, holder: LockHolder) -> str | None:
        """Why nothing of it can live any more, in words for the audit log; None: no proof."""


@dataclass(frozen=True, slots=True)
class Here:
    """Where this process lives: in the ECS task with that ARN, or just on this host. `liveness`: what else proves a death."""

    task: str = ""
    liveness: Sequence[Liveness] = ()


class SharedLocks:
    """The locks of one memory. `told` is given what goes into the audit log."""

    def __init__(self, cabinet: Cabinet, folder: Path, here: Here) -> None:
        """`folder`: of file locks on this host."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = folder.stat()
        self._cabinet, self._here = cabinet, here
        self._boot, self._machine, self._place = boot(), machine(), f"{found.st_dev}:{found.st_ino}"
        self._liveness: tuple[Liveness, ...] = (self._died_here, *here.liveness)
        self.job: Job | None = None
        self.told: Callable[..., None] = lambda *_, **__: None

    def lock(self, path: Path, name: str, record: str) -> SharedLock:
        """The lock of that name, not yet taken. `path`: its file; `record`: the document that only its holder writes."""
        return SharedLock(path, self, name, record)

    def take(self, name: str, record: str) -> ExitStack:
        """Become the holder; what ends it. The caller has the file lock.

        Raises:
            UnitError: "UnitBusy": somebody is, and not proven to be dead. PassError: "MemoryUnavailable".
        """
        where, me = f"locks/{name}", self._me(name)
        with ExitStack() as held:
            held.enter_context(self._cabinet.exclusive(name, record))
            if not self._cabinet.create(where, codec.encode(me)):
                self._break(where, me, record)
            held.callback(self._release, where, os.getpid())
            return held.pop_all()

    def _break(self, where: str, me: LockHolder, record: str) -> None:
        """Take the lock of a dead holder over, in one step: there is no moment at which it is nobody's."""
        raw = self._cabinet.read(where)
        if raw is None:  # released in between
            if self._cabinet.create(where, codec.encode(me)):
                return
            raise _busy(me.name, "another job was faster")
        holder = _holder(raw)
        why = next(filter(None, (proof(holder) for proof in self._liveness)), None) if holder else None
        if holder is None or why is None:
            raise _busy(me.name, self._whose(where, holder))
        said = {"lock": holder.id, "place": f"{self._cabinet.place}/{where}", "holder": holder.job, "job": me.job}
        self.told(BROKEN, **said, since=holder.at.isoformat(), proof=why)
        try:
            self._cabinet.write(where, codec.encode(me))
        except ConflictError as error:
            self.told(KEPT, **said, since=holder.at.isoformat(), proof="the lock had changed by then")
            raise _busy(me.name, "another job was faster") from error
        if (known := self._cabinet.read(record)) is not None:
            self._cabinet.write(record, known)
        sys.stderr.write(f"runner: the lock of {me.name} by {holder.job} was broken: {why}.\n")

    def _release(self, where: str, pid: int) -> None:
        if pid != os.getpid():  # a fork of the holder
            return
        try:
            self._cabinet.delete(where)
        except PassError as error:
            sys.stderr.write(f"runner: {where} was not released: {error} The next job takes it over.\n")

    def _me(self, name: str) -> LockHolder:
        job = self.job
        return LockHolder(
            id=secrets.token_hex(16),
            name=name,
            at=datetime.now(UTC),
            job=job.id if job else JobId(""),
            fence=job.fence if job else 0,
            host=socket.gethostname(),
            pid=os.getpid(),
            task=self._here.task,
            machine=self._machine,
            boot=self._boot,
            place=self._place,
        )

    def _died_here(self, holder: LockHolder) -> str | None:
        """A holder of this very host: its every process, the engine's too, held the file lock that this process has now."""
        if holder.boot and (holder.boot, holder.place) == (self._boot, self._place):
            return f"no process of {holder.job or holder.pid} lives on this host"
        if holder.task or not (holder.boot and self._boot) or holder.boot == self._boot:
            return None
        if holder.machine and holder.machine == self._machine:
            return f"the host was started anew since {holder.job or holder.pid} began"
        return None

    def _whose(self, where: str, holder: LockHolder | None) -> str:
        how = f"if you know that it is dead, remove {self._cabinet.place}/{where}"
        if holder is None:
            return f"its lock cannot be read; {how}"
        who = f"task {holder.task}" if holder.task else f"process {holder.pid} on the host {holder.host}"
        return f"{holder.job or 'an admin'} has it since {holder.at:%F %T} UTC ({who}), and nothing proves here that it is dead; {how}"


class SharedLock(FileLock):
    """The file lock of this host, which an engine inherits, and the object that other hosts see."""

    def __init__(self, path: Path, locks: SharedLocks, name: str, record: str) -> None:
        super().__init__(path)
        self._locks, self._name, self._record = locks, name, record
        self._held: ExitStack | None = None

    def take(self) -> bool:
        """See `FileLock`. Raises as `SharedLocks.take`."""
        if self._held is not None:
            return True
        if not super().take():
            return False
        try:
            self._held = self._locks.take(self._name, self._record)
        except BaseException:
            super().release()
            raise
        return True

    def release(self) -> None:
        """See `FileLock`. The object goes first: while it is there, whoever has the file lock here may prove a death by that."""
        held, self._held = self._held, None
        try:
            if held is not None:
                held.close()
        finally:
            super().release()


def machine() -> str:
    """Which host this is; empty where the system does not say. A task has the name that its image was built with."""
    if ECS in os.environ:
        return ""
    with suppress(OSError):
        return Path("/etc/machine-id").read_text().strip()
    return ""


def _holder(raw: bytes) -> LockHolder | None:
    try:
        return codec.decode(LockHolder, raw)
    except ValueError:
        return None


def _busy(name: str, why: str) -> UnitError:
    return UnitError("UnitBusy", f"{name} is being worked on: {why}. It is tried again by itself.", transient=True)

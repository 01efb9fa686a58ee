"""A job in a task of its own: what the service does for jobs on its host, with the spool in S3.

This process takes the job, forks for it, and brings what the job leaves in its folder to the spool as it comes. One job, and where the
host says `serve_until_idle` further ones of the same environment and operation, one after the other.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from reconciler.durable import FileLock
from reconciler.errors import PassError, SupersededError
from reconciler.model import Job, JobId, Outcome, Phase, Result
from reconciler.remote.spool import Answering, Warm, warm_of
from reconciler.runner.carry import tidy
from reconciler.runner.forked import fork
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from reconciler.runner.memory import Memory
from reconciler.runner.request import checked_fence, checked_id, checked_job
from reconciler.runner.spool import JobFolder
from reconciler.runner.terraform import leftover

LOOK = 0.2  # seconds between two looks at what the job has left
BRING = 1.5  # seconds between two parts of its log, and two looks whether it is still wanted
LARGEST_PART = 4 << 20  # bytes of a log in one object
BRING_RESULT = 600.0  # seconds that the end of a job is tried to be told
PATIENCE = 10.0  # seconds that a job which applies nothing has to end by itself when the task is stopped
LOOK_FOR_JOBS = 2.0  # seconds: each look lists, which costs as much as a write
FENCE_TRIES = 20


@dataclass(frozen=True, slots=True)
class SpooledFolder(JobFolder):
    """A job's folder, of which the controller learns through the spool. Used in the job's own process.

    The spool itself is asked as an apply is about to begin. While the engine runs, `Courier` brings here what it has (`told`).
    """

    spool: Answering
    memory: Memory
    job_id: JobId

    def begin(self, phase: Phase, *, secured: bool = False) -> None:
        """As the local one; that an apply begins is in the spool when this returns, and nobody has taken over before.

        Raises:
            SupersededError: the job is not wanted any more, or its controller was replaced.
            PassError: the spool does not answer. Nothing was applied.
        """
        JobFolder.begin(self, phase, secured=secured)
        if phase is not Phase.APPLYING:
            return
        self.spool.put_phases(self.job_id, (self.path / "events.jsonl").read_bytes())
        asked = checked_job((self.path / "job.json").read_text(encoding="utf-8"))
        if self.cancelled() or self.memory.fence() > asked.fence:
            raise SupersededError("The job was cancelled, or its controller replaced, as its apply was about to begin.")

    def cancelled(self) -> bool:
        """Whether it is not wanted any more. Who leads is brought into the memory, so that its fence counts for what is asked next."""
        follow(self.spool, self.memory)
        return JobFolder.cancelled(self) or self.spool.cancelled(self.job_id)


def follow(spool: Answering, memory: Memory) -> None:
    """Raise the memory's fence to the one that the controller leads with; never lower it.

    Raises:
        PassError: the spool does not answer, or other jobs keep the fence busy.
    """
    fence = spool.fence()
    for attempt in range(FENCE_TRIES):
        if fence <= memory.fence():
            return
        try:
            memory.lead(checked_fence(fence))
        except PassError as error:
            if error.reason == "FenceStale":  # another job has just seen a higher one
                return
            if error.reason != "FenceBusy" or attempt == FENCE_TRIES - 1:
                raise
            time.sleep(0.1)


class Task:
    """The process that a container starts.

    `open_spool` makes a client of its own for each process; `arn` names this task for everybody else; `idle`: how long it waits for a
    further job, if at all.
    """

    def __init__(
        self, host: Host, open_spool: Callable[[], Answering], arn: str, idle: timedelta | None = None
    ) -> None:
        self._host, self._open_spool, self._arn, self._idle = host, open_spool, arn, idle
        self._spool = open_spool()
        self._stopping = self._spoilt = False

    def describe(self) -> None:
        """Publish what the host is, and nothing else."""
        self._spool.put_facts(self._host.facts())

    def serve(self, job_id: str) -> None:
        """Carry the job out, and then those that wait for a task like this one.

        Raises:
            PassError: the job is none, or the spool does not answer. What was not begun is not ours.
        """
        self._handle_signals()
        self._host.sweep()
        first = self._asked(JobId(checked_id(job_id)))
        warm = warm_of(first)
        self._carry_out(first, warm)
        while self._idle is not None and not self._spoilt and (following := self._next(warm, self._idle)) is not None:
            self._carry_out(following, warm)

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _asked(self, job_id: JobId) -> Job:
        found = self._spool.asked(job_id)
        if found is None:
            raise PassError(
                "BadRequest",
                f"{self._spool.bucket.place} has no job {job_id}; a controller writes it before a task is started.",
            )
        job = checked_job(found.data.decode(errors="replace"))
        if job.id != job_id:
            raise PassError("BadRequest", f"the job {job_id} calls itself {job.id}.")
        return job

    def _next(self, warm: Warm, idle: timedelta) -> Job | None:
        """The next job of this kind, as soon as there is one; None: for so long there was none, or the task is being stopped."""
        ends = time.monotonic() + idle.total_seconds()
        while time.monotonic() < ends and not self._stopping:
            for job_id in self._spool.announced(warm):
                with suppress(PassError):  # of one that is no job, nothing follows for the others
                    job = self._asked(JobId(checked_id(job_id)))
                    if warm_of(job) == warm and self._spool.claim(job.id) is None:
                        return job
                self._spool.taken_down(warm, job_id)
            time.sleep(LOOK_FOR_JOBS)
        return None

    # --- one job

    def _carry_out(self, job: Job, warm: Warm) -> None:
        """Take the job, if nobody has, and see it to its end."""
        if self._stopping or not self._spool.take(job.id, self._arn):
            return
        if self._idle is not None:
            self._spool.taken_down(warm, job.id)
        if self._spool.cancelled(job.id):
            self._spool.put_result(job.id, _unwanted(job))
            return
        follow(self._spool, self._host.memory)
        folder = self._host.spool.job(job.id)
        life = folder.create(job)
        # This very memory saw it begin, by a task that was lost: what that left is the next job's to find.
        if life is None:
            raise PassError("BadRequest", f"the job {job.id} was begun before; it is never begun twice.")
        try:
            pid = fork(partial(self._in_the_child, job, folder, life))
        finally:
            life.release()  # the child has it now
        self._see_to_its_end(job.id, folder, pid)

    def _in_the_child(self, job: Job, folder: JobFolder, life: FileLock) -> None:
        run_job(self._host, job, SpooledFolder(folder.path, self._open_spool(), self._host.memory, job.id), life)

    def _see_to_its_end(self, job_id: JobId, folder: JobFolder, pid: int) -> None:
        """Bring what the job leaves to the spool until it has ended, and then how it did."""
        courier = Courier(self._spool, job_id, folder)
        asked_to_end: float | None = None
        bring_at = time.monotonic()
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended == pid:
                break
            now = time.monotonic()
            if now >= bring_at:
                courier.bring()
                bring_at = now + BRING
            if self._stopping and asked_to_end is None:
                asked_to_end = now
                folder.cancel()
            if asked_to_end is not None:
                _hurry(folder, pid, now - asked_to_end)
            time.sleep(LOOK)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        self._spoilt = (
            killed is not None
        )  # while this task lives, nobody elsewhere could prove that its locks are a dead job's
        how = "" if killed is None or self._stopping else f"killed by {signal.Signals(killed).name}"
        _persist(lambda: courier.bring_end(how), lambda: self._stopping)
        with suppress(PassError):
            self.describe()
        tidy(self._host.memory, folder)


@dataclass(slots=True)
class Courier:
    """Brings what a job leaves in its folder to the spool."""

    spool: Answering
    job_id: JobId
    folder: JobFolder
    logged: int = 0
    told: bytes = b""

    def bring(self) -> None:
        """What is new of phases and log; and what the controller says of the job. A spool that is away is asked again."""
        try:
            self._bring()
            if self.spool.cancelled(self.job_id):
                self.folder.cancel()
        except PassError as error:
            sys.stderr.write(f"runner: {error}\n")

    def bring_end(self, died: str) -> None:
        """The rest, and how the job ended, the result at last: who sees it need not ask again. Raises PassError."""
        self._bring()
        if died:
            self.folder.note_death(died)
            self.spool.put_died(self.job_id, died)
        state = self.folder.state()
        if isinstance(state, Result):
            self.spool.put_result(self.job_id, state)

    def _bring(self) -> None:
        events = self.folder.path / "events.jsonl"
        lines = events.read_bytes() if events.exists() else b""
        if lines != self.told:
            self.spool.put_phases(self.job_id, lines)
            self.told = lines
        while part := _read(self.folder.log, self.logged):
            self.spool.put_log(self.job_id, self.logged, part)
            self.logged += len(part)


def _read(path: Path, offset: int) -> bytes:
    """The file from a byte on, a part of it; empty at its end, and where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(LARGEST_PART)
    except FileNotFoundError:
        return b""


def _hurry(folder: JobFolder, pid: int, since: float) -> None:
    """The task is being stopped, and soon killed: the engine ends in order if it applies, and nothing else keeps us."""
    leftover.interrupt(folder.note)
    if since > PATIENCE and folder.phase() is not Phase.APPLYING:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _persist(work: Callable[[], None], hurried: Callable[[], bool]) -> None:
    """Try again while the spool is away, though not for ever. Raises PassError."""
    ends, pause = time.monotonic() + BRING_RESULT, 1.0
    while True:
        try:
            return work()
        except PassError as error:
            if time.monotonic() > ends:
                raise
            sys.stderr.write(f"runner: {error} It is tried again.\n")
            time.sleep(1.0 if hurried() else pause)
            pause = min(2 * pause, 30.0)


def _unwanted(job: Job) -> Result:
    now = datetime.now(UTC)
    return Result(job, Outcome.SUPERSEDED, "Superseded", "The job was cancelled before it began.", now, now)

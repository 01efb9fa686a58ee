"""The few narrow interfaces between the controller and the outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from reconciler.actual.ledger import Event
from reconciler.model import Commit, Desired, Job, JobId, Ledger, Load, Phase, Result, RunnerFacts


@dataclass(frozen=True, slots=True)
class Running:
    """The job's process lives. `load` is what it takes, where that is measured; else it counts as one that computes."""

    phase: Phase
    load: Load = field(default=Load(), compare=False)


@dataclass(frozen=True, slots=True)
class Lost:
    """No process of the job lives and there is no result. `applying`: it may have been changing the world.

    `died`: how its process was ended while the runner lived on, as "killed by SIGKILL", or its task without being asked to; empty where that
    is not known, as after a fall of the host or where the runner never heard of the job.
    """

    applying: bool
    died: str = field(default="", compare=False)


class Executor(Protocol):
    """Where jobs run."""

    def start(self, job: Job) -> None:
        """Hand the job over. Idempotent by `job.id`.

        Raises:
            PassError: the runner does not answer; the job is journaled, and found to be lost at the next tick.
        """

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        """Where the job is. Raises PassError when the runner does not answer."""

    def cancel(self, job_id: JobId) -> None:
        """Ask that the job begin no apply. One that has begun is left to end."""

    def lead(self, fence: int) -> None:
        """From now on no job of a lower fence begins, nor begins its apply.

        Only after this is it final that a job which the runner has not heard of is lost: else a controller that was
        stopped before it handed the job over could still do so.

        Raises:
            PassError: the runner does not answer, or a higher fence led already.
        """

    def describe(self) -> RunnerFacts:
        """What the runner publishes of its host. Raises PassError when it does not answer."""

    def log(self, job_id: JobId, offset: int) -> bytes:
        """The job's masked engine output from a byte offset on; empty at its end so far."""


class Store(Protocol):
    """The journal and its projection. Every method is safe to call from any thread."""

    def ledger(self) -> Ledger:
        """The projection as of the last event. Cheap."""

    def accepted(self, commit: Commit) -> bool:
        """Whether the commit is, or was until the branch was rewritten, part of the accepted history."""

    def append(self, *events: Event, actor: str = "controller") -> None:
        """Journal the events in one transaction and project them. On disk when this returns."""

    def next_fence(self, above: int = 0) -> int:
        """A number greater than `above` and than every one handed out before. On disk when this returns."""


@dataclass(frozen=True, slots=True)
class Term:
    """Who leads, as it is written where everybody who may lead looks.

    `holder`: one process, and never another one; empty where it gave the lease back. `fence`: higher than that of every
    term before. `ttl`: seconds that others wait from the last renewal they saw. `beat`: grows with each renewal.
    `proof`: the end of the holder shows by itself (a lock that the system lets go of); then nobody needs to wait.
    """

    holder: str
    fence: int
    ttl: float
    beat: int = 0
    proof: bool = False

    @property
    def free(self) -> bool:
        """Whether it was given back."""
        return not self.holder


class Lease(Protocol):
    """The right to lead: of all processes on one store, one at a time has it. Each step is one conditional write."""

    def acquire(self) -> int | None:
        """The fence of this process's term; None while somebody else leads, or may. Ask again soon: it also watches."""

    def renew(self) -> None:
        """Go on leading. Raises PassError "LeaseLost" when somebody else has taken over, others where nobody can tell."""

    def check(self) -> None:
        """Raises PassError unless nobody else can have taken over yet, by the clock of this process alone."""

    def release(self) -> None:
        """Stop leading, so that another need not wait. Never raises."""

    def term(self) -> Term | None:
        """Who leads; None before the first."""


class Source(Protocol):
    """What the protected branch means now."""

    def latest(self) -> Desired | None:
        """The newest verified commit's meaning, or the last good one's; None before the first."""


class Clock(Protocol):
    """The time."""

    def now(self) -> datetime:
        """Timezone-aware UTC."""


@dataclass(frozen=True, slots=True)
class HistoryEvent:
    """One journaled event as people and programs read it."""

    seq: int
    at: datetime
    actor: str
    action: str
    unit: str | None
    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which events of a scope: those before the one of that number, by that actor, of that kind; empty: all of them."""

    before: int | None = None
    actor: str = ""
    action: str = ""


ALL = Chosen()

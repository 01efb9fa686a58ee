"""A job, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from reconciler.model.plans import Applied, Fingerprint, PlanSummary, StateMark
from reconciler.model.words import Cause, Commit, JobId, Operation, Outcome, UnitId


@dataclass(frozen=True, slots=True)
class Job:
    """All that ever crosses to a runner.

    With `pull` it shows what the open pull request of that number would do: then `commit` is the request's head, and the
    operation a plan.
    """

    id: JobId
    operation: Operation
    unit: UnitId
    commit: Commit
    fence: int
    pull: int | None = None


SERIAL_UNEXPLAINED = "SerialUnexplained"


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A state that no job of ours made what it is: somebody ran Terraform by hand, or pushed a state.

    `recorded` is the last one that the runner's audit log explains.
    """

    found: StateMark
    recorded: StateMark | None = None

    def __str__(self) -> str:
        what = f"serial {self.recorded.serial} was the last that was recorded" if self.recorded else "none was recorded"
        return (
            f"The state has serial {self.found.serial}, and {what}: somebody ran Terraform by hand, or pushed a state. Find "
            "out who; the next plan shows what it changed."
        )


@dataclass(frozen=True, slots=True)
class Used:
    """What a job took of its host: seconds of CPU, and MiB that its processes had at most at a time, as far as that was seen."""

    cpu: float
    memory: int


THROTTLED = "Throttled"  # why a job failed: a cloud wants to be asked less
UNCERTAIN = "Uncertain"
MOST_STRAYS = 50  # of one unit that leave the runner


@dataclass(frozen=True, slots=True)
class Stray:
    """An object that no state knows, or that may be there without one: an apply whose end nobody saw made it.

    `id` is its ARN or name; empty where nobody can say. `found` is how it came to be known, `remedy` what an admin does about it.
    """

    type: str
    address: str = ""
    id: str = ""
    region: str = ""
    found: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a runner says of a job that ended.

    `applied` is set when the unit is now as `fingerprint` says (an empty plan included); `plan` when there was one.
    """

    job: Job
    outcome: Outcome
    reason: str
    message: str
    started_at: datetime
    ended_at: datetime
    commit: Commit | None = None  # where the runner resolved the unit
    fingerprint: Fingerprint | None = None
    cause: Cause | None = None
    plan: PlanSummary | None = None
    applied: Applied | None = None
    transient: bool = True
    moved_from: UnitId | None = None
    unexplained: Unexplained | None = None
    refused: int = 0  # connections that the jail did not let its engine make, up to a bound
    strays: tuple[Stray, ...] | None = None  # None: the job did not come so far as to look
    used: Used | None = None


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A job that was journaled and handed over, and what it was meant to do.

    `reads` are the units that an apply builds on, from the moment it is handed over.
    """

    job: Job
    fingerprint: Fingerprint
    policy: str  # digest of the limits and allowances that the job is judged by; see `gates.policy`
    cause: Cause
    at: datetime
    reads: frozenset[UnitId] = frozenset()


@dataclass(frozen=True, slots=True)
class Load:
    """What a running job takes now, measured: whether it waits instead of computing, and to how much memory it came so far (MiB)."""

    waits: bool = False
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """The last plan of a unit."""

    job: JobId
    fingerprint: Fingerprint
    cause: Cause
    summary: PlanSummary
    at: datetime

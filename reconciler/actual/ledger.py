"""Events, and what each makes of the ledger: pure, so that a restart can trust what it reads back.

An event is journaled before anything acts on it. The ledger is the projection of the events; `after` is the whole
projection for one unit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.actual import breakglass, outofband
from reconciler.model import (
    Applied,
    BreakGlass,
    Cause,
    Commit,
    Desired,
    Dispatched,
    Failure,
    Hold,
    JobId,
    Ledger,
    Operation,
    Outcome,
    OutsideChange,
    Pause,
    Planned,
    PlanSummary,
    Presence,
    Result,
    Skip,
    Unexplained,
    Unit,
    UnitId,
    UnitRecord,
)

QUARANTINED = "Quarantined"
QUARANTINED_AFTER = 3  # deaths in a row
DIED = frozenset({"JobDied", "InternalError"})  # a job that left no word of its own, or only a bug's


@dataclass(frozen=True, slots=True)
class HeadAccepted:
    """A commit of the protected branch was proven and is now what the world shall become.

    `since` is where its chain starts; of the first one, that is where trust starts.
    """

    commit: Commit
    chain: tuple[Commit, ...] = ()
    since: Commit | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    """No apply may start: history was rewritten or rolled back, or the branch is gone. `at`: since when."""

    hold: Hold
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Thawed:
    """What froze everything is over."""


@dataclass(frozen=True, slots=True)
class HistoryAccepted:
    """An admin accepted that the branch has another history now: `new` takes the place of `old`, and trust starts there.

    `chain` are the commits up to `new` that were proven for it, `abandoned` those that `old` had and `new` has not.
    """

    old: Commit
    new: Commit
    chain: tuple[Commit, ...]
    abandoned: tuple[Commit, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class JobDispatched:
    """A job is about to be handed to the executor. Written before it is."""

    dispatched: Dispatched


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job has a result. The controller works out when to retry and when to check again; see `schedule.schedule`.

    `memory`: what it took, in MiB; 0: nobody saw it.
    """

    dispatched: Dispatched
    result: Result
    retry_at: datetime | None
    next_check: datetime | None
    memory: int = 0


@dataclass(frozen=True, slots=True)
class HoldChanged:
    """The reason why a unit is not being changed is another now; None: there is none any more."""

    unit: UnitId
    hold: Hold | None


@dataclass(frozen=True, slots=True)
class CheckScheduled:
    """The next drift check of a unit is due at another time."""

    unit: UnitId
    next_check: datetime


@dataclass(frozen=True, slots=True)
class SkipSeen:
    """An entry's `promotion_skip` is another line now; None: there is none."""

    unit: UnitId
    skip: Skip | None


@dataclass(frozen=True, slots=True)
class Paused:
    """An admin stopped a scope."""

    pause: Pause


@dataclass(frozen=True, slots=True)
class Resumed:
    """A pause ended: by an admin, or because its time was up (`actor` is then "clock")."""

    scope: str
    actor: str


@dataclass(frozen=True, slots=True)
class BreakGlassOpened:
    """An admin works by hand in a scope from now on."""

    session: BreakGlass


@dataclass(frozen=True, slots=True)
class BreakGlassClosed:
    """A session ended at that time: by an admin, or because its time was up (`actor` is then "clock").

    `units` are to be looked at although the ledger may not know of anything there: a restored one has forgotten.
    """

    session: BreakGlass
    at: datetime
    actor: str
    units: tuple[UnitId, ...] = ()


@dataclass(frozen=True, slots=True)
class LossAccepted:
    """An admin lets the next applies of these units put back what was done by hand."""

    scope: str
    reason: str
    actor: str
    units: tuple[UnitId, ...]


@dataclass(frozen=True, slots=True)
class ReconcileRequested:
    """An admin asked for a scope to be checked now."""

    scope: str
    actor: str
    units: tuple[UnitId, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class OutOfBand:
    """Somebody who is none of those that may has written in an environment's account.

    `events` are digests of the ids of all that is folded here, so that one that is told twice counts once.
    """

    change: OutsideChange
    events: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullShown:
    """What an open pull request would do to a unit, or why that cannot be told. Changes nothing in the ledger."""

    pull: int
    head: Commit
    author: str
    unit: UnitId
    job: JobId
    outcome: Outcome
    reason: str
    message: str
    plan: PlanSummary | None


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon came up."""

    version: str
    fence: int


@dataclass(frozen=True, slots=True)
class Restored:
    """The store was put back to a backup of then: what is journaled before this may have been followed by more. `backup` is its SHA-256."""

    backup: str
    taken_at: datetime


UnitEvent = JobDispatched | JobEnded | HoldChanged | CheckScheduled | SkipSeen
Event = (
    UnitEvent
    | HeadAccepted
    | HistoryAccepted
    | Frozen
    | Thawed
    | Paused
    | Resumed
    | BreakGlassOpened
    | BreakGlassClosed
    | LossAccepted
    | ReconcileRequested
    | OutOfBand
    | PullShown
    | Started
    | Restored
)


def unit_of(event: UnitEvent) -> UnitId:
    """The unit that the event is about."""
    if isinstance(event, JobDispatched | JobEnded):
        return event.dispatched.job.unit
    return event.unit


def after(record: UnitRecord, event: UnitEvent) -> UnitRecord:
    """The record as the event leaves it."""
    match event:
        case JobDispatched(dispatched):
            hold = record.hold if dispatched.job.operation is Operation.PLAN else None
            return replace(record, job=dispatched, hold=hold)
        case HoldChanged(_, hold):
            return replace(record, hold=hold)
        case CheckScheduled(_, next_check):
            return replace(record, next_check=next_check)
        case SkipSeen(_, skip):
            return replace(record, skip=skip)
        case _:
            return _after_job(record, event)


def _after_job(record: UnitRecord, event: JobEnded) -> UnitRecord:
    result = event.result
    return replace(
        record,
        job=None,
        applied=result.applied or record.applied,
        planned=_planned(event) or record.planned,
        failure=_failure(record, event),
        drift_since=_drift_since(record, result),
        next_check=event.next_check,
        unfinished=_unfinished(record, event),
        unexplained=_unexplained(record, result),
        steady_since=_steady_since(record, event),
        skip=_skip(record, result),
        strays=record.strays if result.strays is None else result.strays,
        aftermath=record.aftermath and breakglass.left_after(record.aftermath, result),
        outside=record.outside and outofband.left_after(record.outside, result),
        memory=event.memory or record.memory,
    )


def _planned(event: JobEnded) -> Planned | None:
    result = event.result
    if result.plan is None or result.fingerprint is None:
        return None
    cause = result.cause or event.dispatched.cause
    return Planned(result.job.id, result.fingerprint, cause, result.plan, result.ended_at)


def _failure(record: UnitRecord, event: JobEnded) -> Failure | None:
    result, asked = event.result, event.dispatched
    if result.outcome is Outcome.SUCCEEDED and event.retry_at is None:
        return None
    before, died = record.failure, deaths(record, asked, result)
    reason, message = _said(result) if died < QUARANTINED_AFTER else _quarantined(result, died)
    again = before is not None and (before.fingerprint, before.policy) == (asked.fingerprint, asked.policy)
    return Failure(
        job=result.job.id,
        outcome=result.outcome,
        reason=reason,
        message=message,
        fingerprint=asked.fingerprint,
        policy=asked.policy,
        count=before.count + 1 if before and again else 1,
        at=result.ended_at,
        retry_at=event.retry_at,
        commit=result.commit,
        deaths=died,
    )


def deaths(record: UnitRecord, asked: Dispatched | None, result: Result) -> int:
    """How many jobs for the same input have died in a row, this one included: 0 if this one has not."""
    if result.reason not in DIED:
        return 0
    before = record.failure
    if before is None or asked is None or (before.fingerprint, before.policy) != (asked.fingerprint, asked.policy):
        return 1
    return before.deaths + 1


def _quarantined(result: Result, died: int) -> tuple[str, str]:
    what = f"{died} jobs in a row died of this unit at the same input, so no more are started"
    how = f"new input, or `reconciler reconcile {result.job.unit}`, tries again"
    where = f"`reconciler logs {result.job.id}` and the runner's log say of what"
    return QUARANTINED, f"{what}; {how}. {where}. The last: {result.message}"


def _said(result: Result) -> tuple[str, str]:
    """Reason and message of what is to be tried again; a success is when it was one of something else."""
    if result.outcome is not Outcome.SUCCEEDED:
        return result.reason, result.message
    what = "The runner did something else than it was asked to: it knows a newer commit, or its host is another now"
    return "Superseded", f"{what}; the unit is decided afresh."


def _unfinished(record: UnitRecord, event: JobEnded) -> frozenset[UnitId] | None:
    """An apply that may have begun leaves something half done, until the unit is found or made to be in order."""
    result, asked = event.result, event.dispatched
    if result.applied is not None:
        return None
    planned = result.outcome is Outcome.FAILED and result.plan is not None
    began = asked.job.operation is Operation.APPLY and (planned or result.outcome is Outcome.UNCERTAIN)
    return (record.unfinished or frozenset()) | asked.reads if began else record.unfinished


def _unexplained(record: UnitRecord, result: Result) -> Unexplained | None:
    """A state that somebody else made stays one until a job of ours made the next."""
    alarm = result.unexplained or record.unexplained
    state = result.applied.state if result.applied else None
    if alarm is None or state is None:
        return alarm
    return None if state.lineage != alarm.found.lineage or state.serial > alarm.found.serial else alarm


def _drift_since(record: UnitRecord, result: Result) -> datetime | None:
    """Drift opens with a plan that is not empty although nothing was merged, and closes with the next success."""
    if result.applied is not None:
        return None
    if result.cause is Cause.DRIFT and result.plan is not None:
        return None if result.plan.empty else record.drift_since or result.ended_at
    return record.drift_since


def _steady_since(record: UnitRecord, event: JobEnded) -> datetime | None:
    """Other code, a failure, a hold and drift begin it anew; a change of inputs, a look and a job that was overtaken do not."""
    result, since = event.result, record.steady_since
    if result.applied is None:
        drifted = result.cause is Cause.DRIFT and result.plan is not None and not result.plan.empty
        calm = result.outcome in (Outcome.SUCCEEDED, Outcome.SUPERSEDED) and not drifted
        return since if calm else None
    corrected = result.cause is Cause.DRIFT and result.plan is not None and not result.plan.empty
    same = record.applied is not None and record.applied.fingerprint.module == result.applied.fingerprint.module
    return since if same and since is not None and not corrected else result.ended_at


def _skip(record: UnitRecord, result: Result) -> Skip | None:
    """A line ends with the next successful apply, as every allowance does."""
    used = result.applied is not None and result.job.operation is Operation.APPLY
    return replace(record.skip, spent=True) if record.skip is not None and used else record.skip


def take_over(record: UnitRecord, source: UnitRecord, job: JobId) -> UnitRecord:
    """The record of a unit that has another's state now, by that job: what stood for that one stands for this one."""
    if record.applied is not None:
        return record
    half = record.unfinished if source.unfinished is None else source.unfinished | (record.unfinished or frozenset())
    alarm, since = source.unexplained, source.steady_since
    return replace(
        record,
        applied=source.applied,
        drift_since=source.drift_since,
        unfinished=half,
        unexplained=alarm,
        steady_since=since,
        strays=source.strays,
        aftermath=breakglass.moved(source.aftermath, job) or record.aftermath,
        outside=outofband.moved(source.outside, job) or record.outside,
    )


def claimed_by_moves(desired: Desired, ledger: Ledger) -> set[UnitId]:
    """The former names whose states are yet to move."""
    claims = (claim_of(unit, ledger.units.get(unit.id)) for unit in desired.units.values() if unit.entry.moved_from)
    return {name for name in claims if name is not None}


def claim_of(unit: Unit | None, record: UnitRecord | None) -> UnitId | None:
    """The former name whose state is yet to move to the unit. One that exists takes over nothing: it has a state of its own."""
    return unit.entry.moved_from if unit is not None and (record is None or record.applied is None) else None


def is_pausing(pause: Pause, unit: UnitId, now: datetime) -> bool:
    """Whether the pause covers the unit now. A scope is `all`, an environment or a unit."""
    return breakglass.covers(pause.scope, unit) and now < pause.until


def applied_reads(record: UnitRecord) -> frozenset[UnitId]:
    """The units that this one, as it was applied, reads; empty once it is destroyed or let go."""
    applied: Applied | None = record.applied
    if applied is None or applied.presence is not Presence.PRESENT:
        return frozenset()
    return applied.reads


def reads_now(record: UnitRecord) -> frozenset[UnitId]:
    """The units that this one may be built on: as it was applied, as an apply left it half done, as one is making it."""
    applied = applied_reads(record)
    if record.job is None and record.unfinished is None:
        return applied  # nearly every unit, nearly always: it is asked for each at every pass
    making = record.job.reads if record.job is not None else frozenset()
    return applied | (record.unfinished or frozenset()) | making

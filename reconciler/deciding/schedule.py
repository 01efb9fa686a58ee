"""When to look at a unit next, and when to try it again: pure, as `decide` is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reconciler.actual.ledger import QUARANTINED_AFTER, deaths
from reconciler.deciding.gates import World
from reconciler.deciding.waits import Waits, waits
from reconciler.desired import freeze
from reconciler.model import (
    Cause,
    Dispatched,
    Environment,
    Operation,
    Outcome,
    Result,
    Timeouts,
    Unit,
    UnitId,
    UnitRecord,
)

FIRST_RETRY = timedelta(seconds=5)
LAST_RETRY = timedelta(minutes=30)
AFTER_CORRECTION = timedelta(minutes=1)  # an early second look, to tell drift from a perpetual diff
JITTER = 0.1  # of the drift interval, either way; and what a look for drift is away at least
RETRY_JITTER = (
    0.5  # of a retry, sooner: what failed together, because one service was down, does not come back together
)
OVERDUE = frozenset({"EngineTimeout", "JobTimeout"})  # it took a slot for as long as it could
LONGEST_REST = timedelta(hours=1)  # of what was overdue
_BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # of all intervals

# What the runner gives a job, see docs/operations.md "What has a deadline": until its plan, beyond its plans, an engine that ends.
VERIFYING, SLACK, GRACE = timedelta(minutes=20), timedelta(minutes=20), timedelta(hours=1)
PLANS = 2  # the second one is for outputs that turn out to be sensitive


def ends_by(dispatched: Dispatched, timeouts: Timeouts) -> datetime:
    """When the job has ended, whatever happens to it. One that has not by then runs on a host that stands still, or nowhere."""
    applies = timeouts.apply + GRACE if dispatched.job.operation is Operation.APPLY else timedelta()
    return dispatched.at + VERIFYING + PLANS * timeouts.plan + SLACK + applies


def edges_for_all(world: World) -> Iterator[datetime]:
    """The times, past ones too, at which something changes for a scope or an environment."""
    yield from (pause.until for pause in world.ledger.pauses)
    yield from (session.until for session in world.ledger.sessions)
    edges = (_edge(one, world.now) for one in world.desired.environments.values() if one.freeze)
    yield from (edge for edge in edges if edge is not None)


def edges_of(record: UnitRecord) -> Iterator[datetime]:
    """The times, past ones too, at which a unit is to be looked at and tried again."""
    if record.job is None:
        yield from (t for t in (record.next_check, record.failure and record.failure.retry_at) if t)


def _edge(environment: Environment, now: datetime) -> datetime | None:
    """When the environment's freeze windows change next. Where that finds a bug, the gate says so for each unit."""
    try:
        return freeze.outlook(environment.freeze, now).until
    except Exception:  # noqa: BLE001 - see above; one environment stops no other
        return None


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to try a unit again and when to look at it next.

    `retry_at` is None where it is in order, and after a failure that only new input ends.
    """

    retry_at: datetime | None
    next_check: datetime | None


def schedule(unit: Unit | None, record: UnitRecord, result: Result, now: datetime | None = None) -> Schedule:
    """What follows from a job's result for the clock. `record` is as it was while the job ran.

    `now`: by the clock that will be asked whether it is time, since the runner's may be another; the job's end, if not given.
    """
    now = now or result.ended_at
    asked = record.job
    if result.outcome is Outcome.SUCCEEDED and not (asked and _elsewhere(asked, result)):
        return Schedule(None, _next_check(unit, record, result, now))
    if deaths(record, asked, result) >= QUARANTINED_AFTER:
        return Schedule(None, record.next_check)
    match _waits(record, result):
        case Waits.INPUT:
            return Schedule(None, record.next_check)
        case Waits.LOOK if unit is not None:
            return Schedule(now + jittered(unit.environment.drift_interval, unit.id, now), record.next_check)
        case _:
            wait = retry_after(result, _failures(record))
            return Schedule(now + sooner(wait, record.unit, now), record.next_check)


def retry_after(result: Result, failures: int) -> timedelta:
    """The back-off before its jitter: doubling, with an upper bound; a job that was merely overtaken is decided afresh soon.

    What does not end in time rests three times as long as it took: it never has more than a quarter of a slot.
    """
    if result.outcome in (Outcome.SUPERSEDED, Outcome.UNCERTAIN) and failures == 0:
        return timedelta(seconds=1)
    wait = min(FIRST_RETRY * (1 << min(failures, 20)), LAST_RETRY)
    if result.reason not in OVERDUE:
        return wait
    return max(wait, min(3 * (result.ended_at - result.started_at) / (1 - RETRY_JITTER), LONGEST_REST))


def _waits(record: UnitRecord, result: Result) -> Waits:
    """What another try waits for, as far as the result is of the input that was asked for, and contradicts no earlier one."""
    kind, asked, applied = waits(result), record.job, record.applied
    if kind is not Waits.INPUT:
        return kind
    other = asked is None or result.fingerprint not in (None, asked.fingerprint)
    passed = asked is not None and applied is not None and applied.fingerprint == asked.fingerprint
    return Waits.LOOK if other or passed else kind


def sooner(wait: timedelta, unit: UnitId, now: datetime) -> timedelta:
    """The wait, or up to half of it sooner: what failed together does not come back together."""
    return wait if wait < FIRST_RETRY else wait * (1 - RETRY_JITTER * _share(unit, now))


def _elsewhere(asked: Dispatched, result: Result) -> bool:
    """Whether the runner did something else than what it was asked to: it knows a newer head, or another host.

    Asking again at once would give the same answer.
    """
    if result.applied is None and (result.plan is None or asked.job.operation is Operation.APPLY):
        return True
    return result.fingerprint is not None and result.fingerprint != asked.fingerprint


def _failures(record: UnitRecord) -> int:
    """How often what the job was asked to do has failed in a row before it."""
    failure, job = record.failure, record.job
    if failure is None or job is None or (failure.fingerprint, failure.policy) != (job.fingerprint, job.policy):
        return 0
    return failure.count


def _next_check(unit: Unit | None, record: UnitRecord, result: Result, now: datetime) -> datetime | None:
    asked = record.job is not None and record.job.cause.is_look
    looked = asked or result.cause is Cause.DRIFT or record.aftermath is not None
    if unit is None or (not looked and result.applied is None):
        return record.next_check
    corrected = result.cause is Cause.DRIFT and result.plan is not None and not result.plan.empty
    if corrected and result.applied is not None:
        return now + min(AFTER_CORRECTION, unit.environment.drift_interval)
    return next_turn(unit.environment.drift_interval, unit.id, now)


def next_turn(interval: timedelta, unit: UnitId, now: datetime) -> datetime:
    """The unit's own time in the interval, the same in each: the next one that is not almost now.

    So looks are spread over the interval, and stay so: however many units were deployed in one minute, and whatever stood still for
    how long. Between two looks is never more than the interval and a tenth.
    """
    own = _BEGINNING + interval * _share(unit, _BEGINNING)
    soonest = now + interval * JITTER
    return own + -((own - soonest) // interval) * interval


def jittered(interval: timedelta, unit: UnitId, now: datetime) -> timedelta:
    """The interval, up to a tenth shorter or longer; the same for the same unit and time."""
    return interval * (1 - JITTER + 2 * JITTER * _share(unit, now))


def _share(unit: UnitId, now: datetime) -> float:
    """A number from 0 to 1 that is the same for the same unit and time, and another for others."""
    seed = hashlib.sha256(f"{unit} {now.isoformat()}".encode()).digest()
    return int.from_bytes(seed[:4], "big") / 0xFFFFFFFF

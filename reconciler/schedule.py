"""When to look at a unit next, and when to try it again: pure, as `decide` is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler import promotion
from reconciler.desired import freeze
from reconciler.gates import World
from reconciler.model import Cause, Dispatched, Operation, Outcome, Result, Unit, UnitId, UnitRecord

FIRST_RETRY = timedelta(seconds=5)
LAST_RETRY = timedelta(minutes=30)
AFTER_CORRECTION = timedelta(minutes=1)  # an early second look, to tell drift from a perpetual diff
JITTER = 0.1  # of the drift interval, either way


def next_due(world: World) -> datetime | None:
    """When the next decision changes although nothing happens: a check, a retry, the edge of a pause or a freeze."""
    times = [pause.until for pause in world.ledger.pauses]
    edges = (freeze.outlook(one.freeze, world.now).until for one in world.desired.environments.values() if one.freeze)
    times += [edge for edge in edges if edge is not None]
    times += promotion.edges(world.desired, world.ledger)
    for unit_id in world.desired.units:
        record = world.ledger.units.get(unit_id)
        if record is not None and record.job is None:
            times += [t for t in (record.next_check, record.failure and record.failure.retry_at) if t]
    return min((t for t in times if t > world.now), default=None)


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to try a unit again (None: it is in order) and when to look at it next."""

    retry_at: datetime | None
    next_check: datetime | None


def schedule(unit: Unit | None, record: UnitRecord, result: Result) -> Schedule:
    """What follows from a job's result for the clock. `record` is as it was while the job ran."""
    now = result.ended_at
    asked = record.job
    if result.outcome is Outcome.SUCCEEDED and not (asked and _elsewhere(asked, result)):
        return Schedule(None, _next_check(unit, record, result, now))
    count = _failures(record)
    return Schedule(now + retry_after(result, count), record.next_check)


def retry_after(result: Result, failures: int) -> timedelta:
    """The back-off: doubling, with an upper bound; a job that was merely overtaken is decided afresh soon."""
    if result.outcome in (Outcome.SUPERSEDED, Outcome.UNCERTAIN) and failures == 0:
        return timedelta(seconds=1)
    return min(FIRST_RETRY * (1 << min(failures, 20)), LAST_RETRY)


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
    looked = Cause.DRIFT in (result.cause, record.job and record.job.cause)
    if unit is None or (not looked and result.applied is None):
        return record.next_check
    corrected = result.cause is Cause.DRIFT and result.plan is not None and not result.plan.empty
    if corrected and result.applied is not None:
        return now + min(AFTER_CORRECTION, unit.environment.drift_interval)
    return now + jittered(unit.environment.drift_interval, unit.id, now)


def jittered(interval: timedelta, unit: UnitId, now: datetime) -> timedelta:
    """The interval, up to a tenth shorter or longer; the same for the same unit and time."""
    seed = hashlib.sha256(f"{unit} {now.isoformat()}".encode()).digest()
    share = int.from_bytes(seed[:4], "big") / 0xFFFFFFFF
    return interval * (1 - JITTER + 2 * JITTER * share)

"""Break-glass sessions: people work by hand in a scope for a while. What is open, when it ends, what it leaves. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from reconciler.model import (
    Aftermath,
    BreakGlass,
    JobId,
    Operation,
    Outcome,
    Presence,
    Result,
    Unit,
    UnitId,
    UnitRecord,
    has_come,
)

OPEN, AFTER = "BreakGlass", "AfterBreakGlass"  # the reasons of the two holds
SKEW = timedelta(minutes=1)  # by which a clock may be put back without ending a session that has just begun


def covers(scope: str, unit: str) -> bool:
    """Whether the unit is in the scope: `all`, an environment or a unit."""
    return scope in ("all", unit, unit.partition("/")[0])


def names_of(unit: Unit | None, record: UnitRecord) -> tuple[UnitId, ...]:
    """The unit's name, and the one that its state still has where that is yet to move."""
    old = unit.entry.moved_from if unit is not None and record.applied is None else None
    return (record.unit,) if old is None else (record.unit, old)


def session_over(sessions: Iterable[BreakGlass], names: Iterable[UnitId]) -> BreakGlass | None:
    """The session in which somebody works on a unit of these names. What is in the ledger is open, whatever the clock says."""
    known = tuple(names)
    return next((one for one in sessions if any(covers(one.scope, name) for name in known)), None)


def is_over(session: BreakGlass, now: datetime) -> bool:
    """Whether its time is up. So it is where the clock was put back to before its beginning: it would last for longer than it may."""
    return has_come(session.until, now, session.until - session.since + SKEW)


def may_differ(record: UnitRecord) -> bool:
    """Whether anything of the unit is there that somebody may have changed by hand."""
    applied, job = record.applied, record.job
    exists = applied is not None and applied.presence is Presence.PRESENT
    return exists or record.unfinished is not None or (job is not None and job.job.operation is Operation.APPLY)


def marked(record: UnitRecord, session: BreakGlass, at: datetime) -> UnitRecord:
    """The record once the session has ended: it is to be looked at now. What ran meanwhile may have looked before."""
    return replace(record, aftermath=Aftermath(session, at, record.job.job.id if record.job else None))


def left_after(mark: Aftermath, result: Result) -> Aftermath | None:
    """What is left of it once a job of the unit has ended; None: the unit is in order, or gone, or given up and seen."""
    if is_gone(result):
        return None
    if result.job.id == mark.job:
        return mark
    if is_settled(result):
        return None
    if result.plan is None:
        return mark
    return None if mark.accepted else replace(mark, looked=True)


def given_up(mark: Aftermath) -> Aftermath | None:
    """What is left of it once an admin lets it be put back: the unit is still looked at first."""
    return None if mark.looked else replace(mark, accepted=True)


def is_gone(result: Result) -> bool:
    """Whether nothing of the unit is there any more."""
    return result.applied is not None and result.applied.presence is not Presence.PRESENT


def is_settled(result: Result) -> bool:
    """Whether the job found the unit in order, or made it so."""
    return result.applied is not None or _in_sync(result)


def _in_sync(result: Result) -> bool:
    """Whether an engine found that an apply would change no object: outputs follow what was done by hand and merged.

    A plan without a digest was made by no engine.
    """
    plan = result.plan
    if plan is None or result.outcome is not Outcome.SUCCEEDED or not plan.digest:
        return False
    return not plan.more and all(change.actions == ("read",) for change in plan.changes)


def moved(mark: Aftermath | None, job: JobId) -> Aftermath | None:
    """The mark of a state that a job has moved to another unit: it is to be looked at there."""
    return mark and replace(mark, job=job, looked=False)

"""What the API says, as plain data. No values of inputs, outputs or attributes: addresses, actions and words only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from reconciler.actual import breakglass
from reconciler.actual.ledger import is_pausing, reads_now
from reconciler.deciding.schedule import ends_by
from reconciler.model import (
    Applied,
    Dispatched,
    Fingerprint,
    OutsideChange,
    Pause,
    Planned,
    Problem,
    Stray,
    Timeouts,
    Unit,
    UnitId,
    UnitRecord,
)
from reconciler.observe import Place
from reconciler.reviewing import PullStatus, UnitShown
from reconciler.status import Picture, UnitStatus, pending, written_about, written_lately
from reconciler.trust import Standing
from reconciler.web.view import Check

Shape = dict[str, object]

# The parts of a fingerprint, by the words that people know them by.
_PARTS = {"module": "catalog", "inputs": "desired", "settings": "settings", "upstream": "upstream"}


def row(status: UnitStatus) -> Shape:
    """A unit in a list."""
    return {
        "unit": status.unit,
        "environment": status.environment,
        "sync": status.sync,
        "health": status.health,
        "phase": status.phase,
        "reason": status.reason,
        "message": status.message,
        "held": status.held,
    }


def summary(
    picture: Picture,
    waiting: Mapping[UnitId, datetime],
    heartbeat: datetime | None,
    checks: Mapping[str, Check],
    standing: Standing,
) -> Shape:
    """The whole installation in a few lines."""
    counts = picture.overview.count()
    running = [_job(record.job) for record in picture.ledger.units.values() if record.job is not None]
    return {
        "commit": picture.ledger.head,
        "resolved": picture.desired.commit if picture.desired else None,
        "frozen": picture.ledger.frozen,
        "trust": trust(standing),
        "troubled": picture.overview.troubled or standing.frozen is not None or _waits(standing),
        "counts": [{"environment": e, "sync": s, "health": h, "units": n} for (e, s, h), n in sorted(counts.items())],
        "pauses": _active(picture.ledger.pauses, picture.now),
        "break_glass": picture.ledger.sessions,
        "out_of_band": [{**_written(one.change), "unsettled": one.unsettled} for one in written_lately(picture)],
        "problems": [_problem(problem) for problem in (picture.desired.problems if picture.desired else ())],
        "running": running,
        "queued": [{"unit": unit, "since": since} for unit, since in sorted(waiting.items())],
        "heartbeat": heartbeat,
        "checks": checks,
        "runner": picture.facts and {"engine": picture.facts.engine, "version": picture.facts.engine_version},
    }


def trust(standing: Standing) -> Shape:
    """What of the protected branch is accepted, and what is not, and why."""
    frozen, seen = standing.frozen, standing.seen
    return {
        "accepted_head": standing.accepted_head,
        "base": standing.base,
        "frozen": frozen and {"reason": frozen.reason, "message": frozen.message, "since": standing.frozen_at},
        "unproven": seen and seen.unproven,
        "verified_at": seen and seen.at,
    }


def _waits(standing: Standing) -> bool:
    return standing.seen is not None and standing.seen.unproven is not None


def detail(picture: Picture, status: UnitStatus, place: Place | None) -> Shape:
    """All that explains one unit. `place`: what it waits for, if it does."""
    unit = picture.desired.units.get(status.unit) if picture.desired else None
    broken = picture.desired.broken.get(status.unit) if picture.desired else None
    record = picture.ledger.units.get(status.unit) or UnitRecord(status.unit)
    return {
        **row(status),
        "desired": unit and _desired(picture, unit),
        "problem": broken and _problem(broken),
        "applied": record.applied and _applied(record.applied),
        "differs": differs(record.applied, picture.expected.get(status.unit)),
        "job": record.job and _job_in_time(picture, record.job, unit),
        "queued": place and {"since": place.since, "limit": place.limit.value, "message": place.message},
        "plan": record.planned and _plan(record.planned, pending(record) is not None),
        "hold": record.hold,
        "failure": _failure(record),
        "drift_since": record.drift_since,
        "unexplained": record.unexplained,
        "strays": record.strays,
        "next_check": record.next_check,
        "pauses": [pause for pause in picture.ledger.pauses if is_pausing(pause, status.unit, picture.now)],
        "break_glass": breakglass.session_over(picture.ledger.sessions, breakglass.names_of(unit, record)),
        "aftermath": record.aftermath,
        "out_of_band": record.outside
        and {"mark": record.outside, "changes": [_written(one) for one in written_about(picture.ledger, status.unit)]},
        "dependencies": _neighbours(picture, unit.upstream if unit else reads_now(record)),
        "dependents": _neighbours(picture, _followers(picture, status.unit)),
    }


def orphans(picture: Picture, scope: str) -> Shape:
    """What nothing stands for: objects that no state knows, as far as was looked, and units whose entry is gone."""
    desired = picture.desired
    entries = {*desired.units, *desired.broken} if desired else set()
    records = [r for _, r in sorted(picture.ledger.units.items()) if scope in ("all", r.unit, r.unit.partition("/")[0])]
    gone = [picture.status(record.unit) for record in records if desired and record.unit not in entries]
    return {
        "strays": [_stray(record.unit, stray) for record in records for stray in record.strays],
        "units": [row(status) for status in gone if status is not None],
    }


def _stray(unit: UnitId, stray: Stray) -> Shape:
    shape: Shape = {"unit": unit, "type": stray.type, "address": stray.address, "id": stray.id}
    return {**shape, "region": stray.region, "found": stray.found, "remedy": stray.remedy}


def differs(applied: Applied | None, expected: Fingerprint | None) -> list[str]:
    """Which parts of the fingerprint are not as applied, in words; empty where either is unknown."""
    if applied is None or expected is None:
        return []
    return [word for part, word in _PARTS.items() if getattr(applied.fingerprint, part) != getattr(expected, part)]


def _desired(picture: Picture, unit: Unit) -> Shape:
    return {
        "commit": picture.desired.commit if picture.desired else None,
        "file": str(unit.entry.place),
        "module": unit.pin.module,
        "version": unit.pin.version,
        "digest": unit.pin.digest,
        "state": unit.presence,
    }


def _applied(applied: Applied) -> Shape:
    return {
        "commit": applied.commit,
        "at": applied.at,
        "job": applied.job,
        "module": applied.module,
        "version": applied.version,
        "state": applied.presence,
    }


def _job(dispatched: Dispatched) -> Shape:
    job = dispatched.job
    shape: Shape = {"id": job.id, "unit": job.unit, "operation": job.operation, "commit": job.commit}
    return {**shape, "cause": dispatched.cause, "at": dispatched.at}


def _job_in_time(picture: Picture, dispatched: Dispatched, unit: Unit | None) -> Shape:
    """The job, and whether it should have ended by now."""
    ends = ends_by(dispatched, unit.environment.timeouts if unit else Timeouts())
    return {**_job(dispatched), "ends_by": ends, "overdue": picture.now > ends}


def _plan(planned: Planned, is_pending: bool) -> Shape:
    return {
        "job": planned.job,
        "cause": planned.cause,
        "at": planned.at,
        "pending": is_pending,
        "changes": planned.summary.changes,
        "more": planned.summary.more,
        "missing": planned.summary.missing,
        "outputs_changed": planned.summary.outputs_changed,
    }


def pull_shape(status: PullStatus) -> Shape:
    """An open pull request."""
    pull = status.pull
    return {
        "number": pull.number,
        "title": pull.title,
        "author": pull.author,
        "head": pull.head,
        "base": status.base,
        "reason": status.reason,
        "message": status.message,
        "units": [_pull_unit(one) for one in status.units],
    }


def _pull_unit(shown: UnitShown) -> Shape:
    plan = shown.plan
    return {
        "unit": shown.unit,
        "state": shown.state,
        "reason": shown.reason,
        "message": shown.message,
        "job": shown.job,
        "at": shown.at,
        "changes": plan.changes if plan else (),
        "more": plan.more if plan else 0,
        "missing": plan.missing if plan else (),
        "outputs_changed": plan.outputs_changed if plan else False,
    }


def _written(change: OutsideChange) -> Shape:
    """What somebody else wrote."""
    return {
        "environment": change.environment,
        "account": change.account,
        "principal": change.principal,
        "break_glass": change.break_glass,
        "calls": change.calls,
        "objects": change.objects,
        "units": sorted(change.units),
        "count": change.count,
        "since": change.since,
        "until": change.until,
        "seen_at": change.seen_at,
        "event": change.event,
    }


def _failure(record: UnitRecord) -> Shape | None:
    failure = record.failure
    if failure is None:
        return None
    return {
        "job": failure.job,
        "outcome": failure.outcome,
        "reason": failure.reason,
        "message": failure.message,
        "count": failure.count,
        "at": failure.at,
        "retry_at": failure.retry_at,
    }


def _problem(problem: Problem) -> Shape:
    place = problem.place
    shape: Shape = {"file": place.path, "line": place.line, "column": place.column}
    return {**shape, "reason": problem.reason, "message": problem.message, "unit": problem.unit}


def _active(pauses: Iterable[Pause], now: datetime) -> list[Pause]:
    return [pause for pause in pauses if now < pause.until]


def _followers(picture: Picture, unit_id: UnitId) -> set[UnitId]:
    """The units that come after this one: by their entries, or as they were applied."""
    wanted = {
        unit.id for unit in (picture.desired.units.values() if picture.desired else ()) if unit_id in unit.upstream
    }
    return wanted | {record.unit for record in picture.ledger.units.values() if unit_id in reads_now(record)}


def _neighbours(picture: Picture, units: Iterable[UnitId]) -> list[Shape]:
    found = [picture.status(unit) for unit in sorted(units)]
    return [row(status) for status in found if status is not None]

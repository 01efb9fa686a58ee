"""What came of a wake-up: pure, from what can be seen at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from reconciler.deciding.decide import corrects
from reconciler.deciding.gates import policy
from reconciler.model import Commit, Desired, Failure, Health, Ledger, Presence, Sync, Unit, UnitId, UnitRecord
from reconciler.status import WAITING, Picture, UnitStatus
from reconciler.trigger.callers import ALL, within
from reconciler.trust import Standing, in_the_way


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: that a scope be as the newest commit says, and `commit`, if written, be part of its history."""

    scope: str
    commit: Commit | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Passed:
    """What the loop's last whole pass decided on."""

    desired: Desired
    ledger: Ledger
    at: datetime


class Verdict(StrEnum):
    """How far it is."""

    WAITING = "Waiting"
    FINE = "Fine"
    TROUBLED = "Troubled"  # something is held or degraded, and waiting does not help
    UNKNOWN = "Unknown"  # there is nothing of that name


@dataclass(frozen=True, slots=True)
class UnitOutcome:
    """How a unit of the scope is. `settled`: nothing more happens by itself; `good`: it is as it shall be."""

    status: UnitStatus
    settled: bool
    good: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """How far it is. `reason` says what is waited for, or stands in the way, before units are looked at."""

    verdict: Verdict
    head: Commit | None
    reason: str = ""
    message: str = ""
    units: tuple[UnitOutcome, ...] = ()


def outcome(wanted: Wanted, picture: Picture, standing: Standing, passed: Passed | None, *, accepted: bool) -> Outcome:
    """How far it is. `accepted`: whether the wanted commit is part of the accepted history, or none is wanted."""
    head = picture.ledger.head
    early = _not_accepted(wanted, standing) if not accepted else _not_decided(wanted, picture, standing, passed)
    if early is not None:
        verdict, reason, message = early
        return Outcome(verdict, head, reason, message)
    if not _exists(wanted.scope, picture):
        return Outcome(Verdict.UNKNOWN, head, "ScopeUnknown", f"no environment or unit is called {wanted.scope}")
    found = _of_all(picture, wanted.at)
    units = tuple(found[UnitId(name)] for name in within(wanted.scope, found))
    if not all(unit.settled for unit in units):
        return Outcome(Verdict.WAITING, head, units=units)
    return Outcome(Verdict.FINE if all(unit.good for unit in units) else Verdict.TROUBLED, head, units=units)


Early = tuple[Verdict, str, str]


def _not_accepted(wanted: Wanted, standing: Standing) -> Early:
    """Why the wanted commit counts for nothing yet: it may come, or a person has to do something."""
    if (why := in_the_way(standing, wanted.at)) is not None:
        return Verdict.TROUBLED, *why
    return Verdict.WAITING, "CommitAwaited", f"commit {wanted.commit} is no part of the accepted branch yet"


def _not_decided(wanted: Wanted, picture: Picture, standing: Standing, passed: Passed | None) -> Early | None:
    """Why nothing can be said of the units yet: the branch was not looked at, or the loop has not made its pass over it."""
    if wanted.commit is None and standing.frozen is None and (standing.seen is None or standing.seen.at < wanted.at):
        return Verdict.WAITING, "PollAwaited", "the branch is looked at"
    desired = picture.desired
    if desired is None or desired.commit != picture.ledger.head:
        return Verdict.WAITING, "CommitAwaited", "what the newest commit means is worked out"
    if passed is None or passed.desired is not desired:
        return Verdict.WAITING, "PassAwaited", "what to do is decided"
    if passed.at < wanted.at and passed.ledger is not picture.ledger:
        return Verdict.WAITING, "PassAwaited", "what to do is decided"
    return None


def _exists(scope: str, picture: Picture) -> bool:
    desired = picture.desired
    environments = desired.environments if desired else {}
    known = {unit.unit for unit in picture.overview.units} | picture.ledger.units.keys()
    return scope == ALL or scope in environments or bool(within(scope, known))


def _of_all(picture: Picture, at: datetime) -> dict[str, UnitOutcome]:
    """Every unit, upstream first: what waits for one that is not in order waits for as long as that one does."""
    found: dict[str, UnitOutcome] = {}
    for status in _upstream_first(picture):
        unit = picture.desired.units.get(status.unit) if picture.desired else None
        record = picture.ledger.units.get(status.unit) or UnitRecord(status.unit)
        settled = _settled(picture, unit, status, record, at)
        if not settled and unit is not None and status.reason in WAITING and record.job is None:
            settled = any(_stuck(found.get(name)) for name in unit.upstream)
        found[status.unit] = UnitOutcome(status, settled, settled and _good(status))
    return {status.unit: found[status.unit] for status in picture.overview.units}


def _upstream_first(picture: Picture) -> Iterator[UnitStatus]:
    order = {unit: place for place, unit in enumerate(picture.desired.order)} if picture.desired else {}
    return iter(sorted(picture.overview.units, key=lambda status: order.get(status.unit, -1)))


def _stuck(upstream: UnitOutcome | None) -> bool:
    return upstream is not None and upstream.settled and not upstream.good


def _good(status: UnitStatus) -> bool:
    """As it shall be; or it differs, and in its environment that is reported only."""
    if status.sync is Sync.SYNCED:
        return status.health is not Health.DEGRADED
    return status.sync is Sync.OUT_OF_SYNC and status.health is Health.HEALTHY


def _settled(picture: Picture, unit: Unit | None, status: UnitStatus, record: UnitRecord, at: datetime) -> bool:
    """Whether nothing more happens to the unit by itself, by what the last pass decided."""
    if record.job is not None:
        return False
    if unit is not None and record.failure is not None and _tried_again(picture, unit, record, record.failure, at):
        return False
    if status.held:
        return True
    due = unit is not None and unit.presence is Presence.PRESENT and record.next_check is not None
    if due and record.next_check is not None and record.next_check <= at:
        return False
    reported = unit is not None and not corrects(unit)
    return status.sync is Sync.SYNCED or (reported and _good(status))


def _tried_again(picture: Picture, unit: Unit, record: UnitRecord, failure: Failure, at: datetime) -> bool:
    """Whether what failed will be tried again as soon as there is a slot: it was asked for, or the input is another."""
    if record.hold is not None and record.hold.reason != failure.reason:
        return False  # something else stands in the way
    asked = failure.at < at and not failure.waits(at)
    other = failure.fingerprint != picture.expected.get(unit.id) or failure.policy != policy(unit)
    return asked or other

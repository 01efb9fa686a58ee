"""The ledger as the events make it: shared by every store, so that all of them mean the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from reconciler.actual import breakglass, outofband
from reconciler.actual.ledger import (
    BreakGlassClosed,
    BreakGlassOpened,
    CheckScheduled,
    Event,
    Frozen,
    HeadAccepted,
    HistoryAccepted,
    HoldChanged,
    JobDispatched,
    JobEnded,
    LossAccepted,
    OutOfBand,
    Paused,
    PullShown,
    ReconcileRequested,
    Restored,
    Resumed,
    SkipSeen,
    Started,
    Thawed,
    after,
    take_over,
    unit_of,
)
from reconciler.actual.shared import shared
from reconciler.layered import layered
from reconciler.model import BreakGlass, Commit, Hold, Ledger, OutsideChange, Pause, UnitId, UnitRecord

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Delta:
    """What a batch of events changes in a ledger; a record, pause, session or change that is None goes.

    `commits` says of each whether it is part of the accepted history now.
    """

    head: Commit | None
    frozen: Hold | None
    base: Commit | None = None
    frozen_at: datetime | None = None
    commits: dict[Commit, bool] = field(default_factory=dict)
    units: dict[UnitId, UnitRecord | None] = field(default_factory=dict)
    pauses: dict[str, Pause | None] = field(default_factory=dict)
    sessions: dict[str, BreakGlass | None] = field(default_factory=dict)
    outside: dict[str, OutsideChange | None] = field(default_factory=dict)
    told: tuple[str, ...] | None = None  # None: as before


def subject_of(event: Event) -> str | None:
    """The unit or scope that the event is about; None where it is about the whole installation."""
    match event:
        case JobDispatched() | JobEnded() | HoldChanged() | CheckScheduled() | SkipSeen():
            return unit_of(event)
        case PullShown(unit=unit):
            return unit
        case OutOfBand(change):
            return change.environment
        case Paused(pause):
            return pause.scope
        case BreakGlassOpened(session) | BreakGlassClosed(session):
            return session.scope
        case Resumed(scope) | ReconcileRequested(scope) | LossAccepted(scope):
            return scope
        case HeadAccepted() | HistoryAccepted() | Frozen() | Thawed() | Started() | Restored():
            return None


def project(ledger: Ledger, events: Iterable[Event]) -> Delta:
    """What the events make of the ledger. Pure; the ledger is left as it is."""
    delta = Delta(ledger.head, ledger.frozen, ledger.base, ledger.frozen_at)
    for event in events:
        _project(delta, ledger, event)
    return delta


def _project(delta: Delta, ledger: Ledger, event: Event) -> None:
    units = ledger.units
    match event:
        case HeadAccepted() | HistoryAccepted() | Frozen() | Thawed():
            _trust(delta, event)
        case Paused(pause):
            delta.pauses[pause.scope] = pause
        case Resumed(scope):
            delta.pauses[scope] = None
        case BreakGlassOpened() | BreakGlassClosed() | LossAccepted():
            _break_glass(delta, ledger, event)
        case OutOfBand(change, told):
            _outside(delta, ledger, change, told)
        case ReconcileRequested(units=asked, at=at):
            for unit in asked:
                _keep(delta, _asked(_record(delta, units, unit), at))
        case Started() | Restored() | PullShown():
            pass
        case JobEnded(result=result) if result.moved_from is not None:
            source = _record(delta, units, result.moved_from)
            moved = take_over(_record(delta, units, unit_of(event)), source, result.job.id)
            _keep(delta, after(moved, event))
            delta.units[result.moved_from] = None
        case _:
            _keep(delta, after(_record(delta, units, unit_of(event)), event))


def _break_glass(delta: Delta, ledger: Ledger, event: BreakGlassOpened | BreakGlassClosed | LossAccepted) -> None:
    """People begin to work by hand, or end: then whatever they may have changed is to be looked at."""
    match event:
        case BreakGlassOpened(session):
            delta.sessions[session.scope] = session
        case BreakGlassClosed(session, at, units=named):
            _close(delta, ledger, session)
            for unit in {*ledger.units, *delta.units, *named}:
                record = _record(delta, ledger.units, unit)
                covered = breakglass.covers(session.scope, unit) and breakglass.may_differ(record)
                if covered or unit in named:
                    _keep(delta, _asked(breakglass.marked(record, session, at), at))
        case LossAccepted(units=units):
            for unit in units:
                record = _record(delta, ledger.units, unit)
                if record.aftermath is not None:
                    _keep(delta, replace(record, aftermath=breakglass.given_up(record.aftermath)))


def _outside(delta: Delta, ledger: Ledger, change: OutsideChange, told: tuple[str, ...]) -> None:
    """Whatever the change may be about is to be looked at; it stands among those of late, of which the oldest goes."""
    known = {one.key: one for one in ledger.outside} | delta.outside
    delta.outside |= outofband.kept(known, change)
    if told:
        before = ledger.told if delta.told is None else delta.told
        delta.told = (*before, *told)[-outofband.MOST_DIGESTS :]
    for unit in {*ledger.units, *delta.units}:
        if not outofband.concerns(change, unit):
            continue
        record = _record(delta, ledger.units, unit)
        marked = outofband.marked(record, change)
        if marked is not record and breakglass.may_differ(record):
            _keep(delta, marked)


def _close(delta: Delta, ledger: Ledger, session: BreakGlass) -> None:
    """Another session of that scope, which was opened since, goes on."""
    known = {one.scope: one for one in ledger.sessions} | delta.sessions
    if known.get(session.scope) == session:
        delta.sessions[session.scope] = None


def _trust(delta: Delta, event: HeadAccepted | HistoryAccepted | Frozen | Thawed) -> None:
    """What became of the protected branch."""
    match event:
        case HeadAccepted(commit, chain, since):
            delta.head, delta.base = commit, delta.base or since or commit
            delta.commits |= dict.fromkeys((*chain, commit), True)
        case HistoryAccepted(_, new, chain, abandoned):
            delta.head = delta.base = new
            delta.commits |= dict.fromkeys(abandoned, False) | dict.fromkeys((*chain, new), True)
            delta.frozen = delta.frozen_at = None
        case Frozen(hold, at):
            delta.frozen, delta.frozen_at = hold, at
        case Thawed():
            delta.frozen = delta.frozen_at = None


def _record(delta: Delta, units: Mapping[UnitId, UnitRecord], unit: UnitId) -> UnitRecord:
    known = delta.units[unit] if unit in delta.units else units.get(unit)
    return known or UnitRecord(unit)


def _keep(delta: Delta, record: UnitRecord) -> None:
    """A record that says nothing is not kept."""
    delta.units[record.unit] = None if record == UnitRecord(record.unit) else shared(record)


def _asked(record: UnitRecord, at: datetime) -> UnitRecord:
    """An admin wants the unit looked at now: its check is due, and what failed is tried again at once.

    A unit of which nothing is known yet needs no push: it is decided at every tick.
    """
    if record.applied is None and record.failure is None:
        return record
    failure = record.failure and replace(record.failure, retry_at=min(record.failure.retry_at or at, at))
    return replace(record, next_check=at, failure=failure)


class Projection:
    """The ledger in memory. What it hands out never changes."""

    def __init__(self, ledger: Ledger) -> None:
        self._units = layered(ledger.units)
        self._pauses = {pause.scope: pause for pause in ledger.pauses}
        self._sessions = {session.scope: session for session in ledger.sessions}
        self._outside = {change.key: change for change in ledger.outside}
        self._ledger: Ledger | None = None
        self._head, self._frozen = ledger.head, ledger.frozen
        self._base, self._frozen_at = ledger.base, ledger.frozen_at
        self._told = ledger.told

    def ledger(self) -> Ledger:
        """The ledger as of the last `advance`; the same object until the next."""
        if self._ledger is None:
            pauses = tuple(self._pauses[scope] for scope in sorted(self._pauses))
            sessions = tuple(self._sessions[scope] for scope in sorted(self._sessions))
            outside = tuple(self._outside[key] for key in sorted(self._outside))
            trust = (self._frozen, self._base, self._frozen_at)
            self._ledger = Ledger(self._head, self._units, pauses, *trust, sessions, outside, self._told)
        return self._ledger

    def advance(self, delta: Delta) -> None:
        """Carry out what a batch of events changes."""
        self._units = self._units.after(delta.units)
        _merge(self._pauses, delta.pauses)
        _merge(self._sessions, delta.sessions)
        _merge(self._outside, delta.outside)
        self._head, self._frozen = delta.head, delta.frozen
        self._base, self._frozen_at = delta.base, delta.frozen_at
        self._told = self._told if delta.told is None else delta.told
        self._ledger = None


def _merge(into: dict[K, V], changes: Mapping[K, V | None]) -> None:
    for key, value in changes.items():
        if value is None:
            into.pop(key, None)
        else:
            into[key] = value

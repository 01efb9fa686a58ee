"""How each unit fares, in Argo CD's words: pure, from what one commit means and what the ledger knows.

`Outlook` at the end asks for those facts and remembers the answer for as long as they stay the same.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reconciler.actual import breakglass
from reconciler.actual.ledger import claimed_by_moves, is_pausing
from reconciler.deciding.decide import Known
from reconciler.deciding.decide import expected as fingerprints
from reconciler.errors import INTERNAL, bug
from reconciler.model import (
    SERIAL_UNEXPLAINED,
    BreakGlass,
    Desired,
    Failure,
    Fingerprint,
    Health,
    Hold,
    Ledger,
    Outcome,
    OutsideChange,
    Pause,
    Phase,
    Planned,
    Presence,
    RunnerFacts,
    Sync,
    Unit,
    UnitId,
    UnitRecord,
)

# Holds that end by themselves when work elsewhere ends, and holds that somebody chose. All others want a person.
WAITING = frozenset({"DependencyNotReady"})
CHOSEN = frozenset({"Paused", "FreezeWindow", breakglass.OPEN, "PromotionPending"})

TOLD_FOR = timedelta(days=1)  # what others wrote, though every unit that it may have changed was found in order since

# Outcomes that are not the unit's fault: its input changed while the job was on its way.
_OVERTAKEN = frozenset({Outcome.SUCCEEDED, Outcome.SUPERSEDED})


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """How one unit fares. `phase` is that of its running job, else how its last one ended, else empty.

    `held`: it is not being changed, and waiting will not help: somebody chose so, or somebody has to act.
    """

    unit: UnitId
    sync: Sync
    health: Health
    reason: str = ""
    message: str = ""
    phase: str = ""
    held: bool = False

    @property
    def environment(self) -> str:
        """The folder that it is in."""
        return self.unit.partition("/")[0]

    @property
    def in_order(self) -> bool:
        """Whether nobody needs to look at it."""
        return self.sync is Sync.SYNCED and self.health is Health.HEALTHY


@dataclass(frozen=True, slots=True)
class Overview:
    """How everything fares. `units` is in the order of the ids."""

    units: tuple[UnitStatus, ...] = ()

    def count(self) -> Counter[tuple[str, Sync, Health]]:
        """How many units of an environment are in each state."""
        return Counter((unit.environment, unit.sync, unit.health) for unit in self.units)

    @property
    def troubled(self) -> bool:
        """Whether anything is degraded or held."""
        return any(unit.held or unit.health is Health.DEGRADED for unit in self.units)


@dataclass(frozen=True, slots=True)
class _Sight:
    """One unit from both sides."""

    unit: UnitId
    wanted: Presence | None  # None: no entry
    record: UnitRecord
    expected: Fingerprint | None
    pause: Pause | None
    session: BreakGlass | None


def unit_status(
    unit_id: UnitId,
    desired: Desired | None,
    record: UnitRecord | None,
    expected: Fingerprint | None,
    pauses: Iterable[Pause],
    sessions: Iterable[BreakGlass] = (),
    *,
    now: datetime,
    phase: Phase | None = None,
) -> UnitStatus:
    """How the unit fares now. `phase` is where its job is, for a caller that knows."""
    record = record or UnitRecord(unit_id)
    words = _phase(record, phase)
    problem = desired.broken.get(unit_id) if desired else None
    if problem is not None:
        return UnitStatus(unit_id, Sync.UNKNOWN, Health.DEGRADED, problem.reason, str(problem), words, held=True)
    unit = desired.units.get(unit_id) if desired else None
    pause = next((pause for pause in pauses if is_pausing(pause, unit_id, now)), None)
    session = breakglass.session_over(sessions, breakglass.names_of(unit, record))
    sight = _Sight(unit_id, unit.presence if unit else None, record, expected, pause, session)
    sync = Sync.UNKNOWN if desired is None else _sync(sight)
    health, hold = _health(sight, sync)
    held = hold is not None and hold.reason not in WAITING
    reason, message = (hold.reason, hold.message) if hold else _alarm(record, unit)
    return UnitStatus(unit_id, sync, health, reason, message, words, held)


def _alarm(record: UnitRecord, unit: Unit | None) -> tuple[str, str]:
    """What stands beside a status that nothing else is to be said of: it holds nothing."""
    if record.unexplained:
        return SERIAL_UNEXPLAINED, str(record.unexplained)
    if unit is None or unit.pin.yanked is None or not _exists(record):
        return "", ""
    pin = unit.pin
    return "Yanked", f"{pin.module} {pin.version}, in use here, was yanked: {pin.yanked}. Move to another version."


def _phase(record: UnitRecord, phase: Phase | None) -> str:
    if record.job is not None:
        return (phase or Phase.QUEUED).value
    if record.failure is not None:
        return record.failure.outcome.value
    return Outcome.SUCCEEDED.value if record.applied or record.planned else ""


def _sync(sight: _Sight) -> Sync:
    applied = sight.record.applied
    if sight.wanted is None:
        return Sync.OUT_OF_SYNC if _exists(sight.record) else Sync.SYNCED
    if applied is None:
        return Sync.OUT_OF_SYNC
    if sight.expected is None:
        return Sync.UNKNOWN
    same = applied.fingerprint == sight.expected and pending(sight.record) is None
    return Sync.SYNCED if same else Sync.OUT_OF_SYNC


def _exists(record: UnitRecord) -> bool:
    """Whether there is, or may be, anything of the unit in the real world."""
    applied = record.applied
    return (applied is not None and applied.presence is Presence.PRESENT) or record.unfinished is not None


def pending(record: UnitRecord) -> Planned | None:
    """The last plan, while it shows changes that have not been applied."""
    planned, applied = record.planned, record.applied
    if planned is None or planned.summary.empty:
        return None
    if applied is not None and (planned.job == applied.job or planned.at <= applied.at):
        return None
    return planned


def _health(sight: _Sight, sync: Sync) -> tuple[Health, Hold | None]:
    """The unit's health, and what there is to say about it."""
    record, failure = sight.record, _standing(sight.record)
    if record.job is not None and not _routine(record, failure):
        return Health.PROGRESSING, None
    if sight.pause is not None:
        return Health.SUSPENDED, _paused(sight.pause)
    if sight.session is not None:
        return Health.SUSPENDED, _by_hand(sight.session)
    if record.hold is not None and record.hold.reason == breakglass.AFTER:
        return Health.DEGRADED, record.hold  # whatever failed besides: it says what to do first
    if failure is not None:
        return Health.DEGRADED, Hold(failure.reason, failure.message)
    if sight.wanted is None and sync is Sync.OUT_OF_SYNC:
        return Health.DEGRADED, record.hold or Hold(
            "Orphaned", "The entry's file is gone, its objects are still there."
        )
    if record.hold is not None and (record.failure is None or record.hold.reason != record.failure.reason):
        return _held(record, record.hold), record.hold
    return _settled(sight, sync), None


def _standing(record: UnitRecord) -> Failure | None:
    """The failure that stands: a job for other input than what failed may well succeed."""
    failure = record.failure
    if failure is None or failure.outcome in _OVERTAKEN:
        return None
    fresh = record.job is not None and record.job.fingerprint != failure.fingerprint
    return None if fresh else failure


def _routine(record: UnitRecord, failure: Failure | None) -> bool:
    """Whether the running job changes nothing in how the unit fares: a look for drift, or one more try of what failed."""
    looking = record.job is not None and record.job.cause.is_look and record.drift_since is None
    return failure is not None or looking


def _paused(pause: Pause) -> Hold:
    until = pause.until.strftime("%Y-%m-%d %H:%M UTC")
    return Hold("Paused", f"{pause.owner} paused {pause.scope} until {until}: {pause.reason}")


def _by_hand(session: BreakGlass) -> Hold:
    until = session.until.strftime("%Y-%m-%d %H:%M UTC")
    return Hold(breakglass.OPEN, f"{session.owner} works by hand in {session.scope} until {until}: {session.reason}")


def _held(record: UnitRecord, hold: Hold) -> Health:
    if hold.reason in CHOSEN:
        return Health.SUSPENDED
    if hold.reason in WAITING:
        return Health.MISSING if record.applied is None else Health.PROGRESSING
    return Health.DEGRADED


def _settled(sight: _Sight, sync: Sync) -> Health:
    """No job, no failure, no hold: in order, about to be, or left as it is because drift is only reported."""
    if sync is Sync.UNKNOWN:
        return Health.UNKNOWN
    if sight.record.applied is None and sight.wanted is Presence.PRESENT:
        return Health.MISSING
    drifted = sight.record.applied is not None and sight.record.applied.fingerprint == sight.expected
    return Health.HEALTHY if sync is Sync.SYNCED or drifted else Health.PROGRESSING


def overview(
    desired: Desired | None,
    ledger: Ledger,
    expected: Mapping[UnitId, Fingerprint | None],
    now: datetime,
    before: Picture | None = None,
) -> Overview:
    """How everything fares: every entry, and everything that is still there without one.

    `before`: an earlier picture with the same pauses and sessions. It saves time, and changes no answer.
    """
    stands = _standing_since(before, desired, ledger, expected) if before else {}
    return Overview(
        tuple(
            stands.get(unit) or _status_or_fault(unit, desired, ledger, expected.get(unit), now)
            for unit in sorted(_known(desired, ledger))
        )
    )


def _status_or_fault(
    unit: UnitId, desired: Desired | None, ledger: Ledger, expected: Fingerprint | None, now: datetime
) -> UnitStatus:
    """As `unit_status`. A unit in which this program finds a bug of its own says so, and every other is shown."""
    try:
        record, pauses, sessions = ledger.units.get(unit), ledger.pauses, ledger.sessions
        return unit_status(unit, desired, record, expected, pauses, sessions, now=now)
    except Exception as error:  # noqa: BLE001 - said of the unit, on every page and in `status`
        return UnitStatus(unit, Sync.UNKNOWN, Health.DEGRADED, INTERNAL, bug(error), held=True)


def _standing_since(
    before: Picture, desired: Desired | None, ledger: Ledger, expected: Mapping[UnitId, Fingerprint | None]
) -> dict[UnitId, UnitStatus]:
    """The units of which nothing is another, by identity: a fact that is the same object says the same."""
    if desired is None or before.desired is None:
        return {}
    was, wanted, records, prints = before.desired, desired.units, ledger.units, before.expected
    return {
        status.unit: status
        for status in before.overview.units
        if records.get(status.unit) is before.ledger.units.get(status.unit)
        and wanted.get(status.unit) is was.units.get(status.unit)
        and desired.broken.get(status.unit) == was.broken.get(status.unit)
        and expected.get(status.unit) is prints.get(status.unit)
    }


def _known(desired: Desired | None, ledger: Ledger) -> set[UnitId]:
    entries = {*desired.units, *desired.broken} if desired else set()
    return entries | set(_remaining(desired, ledger))


def _remaining(desired: Desired | None, ledger: Ledger) -> Iterator[UnitId]:
    """Units that something is known of although no entry is; one that was carried out to its end is history."""
    claimed = claimed_by_moves(desired, ledger) if desired else set()
    for record in ledger.units.values():
        if record.unit not in claimed and (_exists(record) or record.job is not None):
            yield record.unit


@dataclass(frozen=True, slots=True)
class Picture:
    """All that can be seen at one moment."""

    desired: Desired | None
    ledger: Ledger
    facts: RunnerFacts | None
    now: datetime
    expected: Mapping[UnitId, Fingerprint | None] = field(default_factory=dict)
    overview: Overview = field(default_factory=Overview)

    def status(self, unit: UnitId) -> UnitStatus | None:
        """How the unit fares; None where it is unknown."""
        index = bisect_left(self.overview.units, unit, key=lambda status: status.unit)
        found = self.overview.units[index : index + 1]
        return found[0] if found and found[0].unit == unit else None


@dataclass(frozen=True, slots=True)
class Written:
    """What somebody else wrote in an environment's account. `unsettled`: of how many units nobody knows yet that they are in order."""

    change: OutsideChange
    unsettled: int


def written_lately(picture: Picture) -> list[Written]:
    """What others wrote that may still be there, or was written within a day; the newest first."""
    if not picture.ledger.outside:
        return []
    unsettled = Counter(r.unit.partition("/")[0] for r in picture.ledger.units.values() if r.outside is not None)
    found = [Written(one, unsettled[one.environment]) for one in picture.ledger.outside]
    lately = [one for one in found if one.unsettled or picture.now - _told_at(one.change) < TOLD_FOR]
    return sorted(lately, key=lambda one: _told_at(one.change), reverse=True)


def written_about(ledger: Ledger, unit: UnitId) -> list[OutsideChange]:
    """What others wrote since the unit was last found in order, and what may have changed it; the newest first."""
    record = ledger.units.get(unit)
    if record is None or record.outside is None:
        return []
    since, environment = record.outside.since, unit.partition("/")[0]
    found = [one for one in ledger.outside if one.environment == environment and _told_at(one) >= since]
    return sorted(found, key=_told_at, reverse=True)


def _told_at(change: OutsideChange) -> datetime:
    return change.seen_at or change.until


class Outlook:
    """The newest picture, worked out again only when something in it is another. Safe to call from any thread."""

    def __init__(
        self,
        desired: Callable[[], Desired | None],
        ledger: Callable[[], Ledger],
        facts: Callable[[], RunnerFacts | None],
        now: Callable[[], datetime],
        known: Known | None = None,
    ) -> None:
        """Each argument asks for what is known; all must answer at once. `known`: the loop's, which has most of it already."""
        self._desired, self._ledger, self._facts, self._now = desired, ledger, facts, now
        self._guard = threading.Lock()
        self._last: Picture | None = None
        self._known: Known = {} if known is None else known

    def picture(self) -> Picture:
        """How everything fares now."""
        with self._guard:
            desired, ledger, facts, now = self._desired(), self._ledger(), self._facts(), self._now()
            last = self._last
            if last is None or not _same(last, desired, ledger, facts):
                expected = fingerprints(desired, ledger, facts, self._known) if desired else {}
                same = last if last and _stops(last.ledger, last.now) == _stops(ledger, now) else None
                last = Picture(desired, ledger, facts, now, expected, overview(desired, ledger, expected, now, same))
            elif _stops(last.ledger, last.now) != _stops(ledger, now):
                last = replace(last, now=now, overview=overview(desired, ledger, last.expected, now))
            self._last = replace(last, now=now)
            return self._last


def _same(last: Picture, desired: Desired | None, ledger: Ledger, facts: RunnerFacts | None) -> bool:
    """By identity: comparing ten thousand units costs as much as looking at them. The runner's facts are few."""
    return last.desired is desired and last.ledger is ledger and last.facts == facts


def _stops(ledger: Ledger, now: datetime) -> list[Pause | BreakGlass]:
    return [*(pause for pause in ledger.pauses if now < pause.until), *ledger.sessions]

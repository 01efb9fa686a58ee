"""Pass after pass over all units, of which each looks only at what may be decided otherwise than at the last. Pure.

What a decision hangs on is in `decide`, `gates` and `promotion`: whoever lets one look at something new says here what it is
touched by. A test plays random histories, and holds every pass against one over everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import Final, TypeVar

from reconciler.actual.ledger import claim_of, reads_now
from reconciler.deciding import promotion
from reconciler.deciding.alarms import Alarms
from reconciler.deciding.budgets import CALM, Capacity, Limit, Pressure, Use
from reconciler.deciding.decide import (
    Dispatch,
    Held,
    Known,
    clock_of,
    fingerprint_of,
    look,
    record_of,
    unwanted,
)
from reconciler.deciding.gates import EVERY_UNIT, World
from reconciler.deciding.judge import REVIEW
from reconciler.deciding.schedule import edges_for_all, edges_of
from reconciler.deciding.turns import Line, Served, Wanted, start, wanted
from reconciler.desired import freeze
from reconciler.layered import differing
from reconciler.model import (
    Commit,
    Desired,
    Fingerprint,
    Hold,
    Ledger,
    Promotion,
    RunnerFacts,
    Unit,
    UnitId,
    UnitRecord,
)

K = TypeVar("K")
V = TypeVar("V")

_NOTHING = World(Desired(Commit("")), Ledger(), None, {}, {}, datetime.min.replace(tzinfo=UTC))
_NONE: Final = object()


@dataclass(frozen=True, slots=True)
class Waiting:
    """The units that would start; and what the first of each of their environments waits for."""

    units: Mapping[UnitId, Wanted] = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a pass came to, and when the clock alone will change it."""

    world: World
    decisions: list[Held | Dispatch]
    due: datetime | None
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class _Changed:
    """The units, the records and the broken entries that are others than at the last pass."""

    units: set[UnitId]
    records: set[UnitId]
    broken: set[UnitId]

    def all(self) -> set[UnitId]:
        return self.units | self.records | self.broken


class Passes:
    """What the last pass found out. It counts on every hold of a pass being journaled before the next: if not, begin with a new one."""

    def __init__(self, known: Known | None = None, served: Served | None = None) -> None:
        """`known`: see `decide.expected`. `served`: whose turn it was last, from passes before these."""
        self._known: Known = {} if known is None else known
        self._served = Served() if served is None else served
        self._begin()

    def _begin(self) -> None:
        self._world = _NOTHING
        self._expected: dict[UnitId, Fingerprint | None] = {}
        self._faults: dict[UnitId, Exception] = {}  # in working out what a unit shall be
        self._unread: dict[UnitId, Exception] = {}  # in working out what it is built on
        self._reads: dict[UnitId, frozenset[UnitId]] = {}
        self._readers: dict[UnitId, set[UnitId]] = {}
        self._namers: dict[UnitId, set[UnitId]] = {}  # who reads a unit, follows it, or has its state
        self._claims: dict[UnitId, UnitId] = {}
        self._claimed: Counter[UnitId] = Counter()
        self._orphans: set[UnitId] = set()
        self._holds: dict[UnitId, Hold | None] = {}
        self._told: set[UnitId] = (
            set()
        )  # of which something is journaled now; what became of that is seen at the next pass
        self._line = Line()
        self._needy: set[UnitId] = set()  # what others do may decide otherwise for these
        self._jobs = Jobs()
        self._clock, self._turns = Alarms(), Alarms()
        self._frozen: dict[str, object] = {}
        self._places: dict[UnitId, int] = {}

    def unlike(self, desired: Desired, ledger: Ledger) -> set[UnitId]:
        """The units of which the commit or the ledger says something else than at the last pass."""
        return differing(self._world.desired.units, desired.units) | differing(self._world.ledger.units, ledger.units)

    def turn(
        self,
        desired: Desired,
        ledger: Ledger,
        facts: RunnerFacts | None,
        now: datetime,
        capacity: Capacity,
        *,
        answers: bool = True,
        pressure: Pressure = CALM,
    ) -> Turn:
        """What is to be done about every unit, and when the clock alone changes that; which of the holds comes first is of no meaning."""
        if now < self._world.now or promotion.rules_of(self._world.desired) != promotion.rules_of(desired):
            self._begin()  # what the clock has passed is forgotten, and comes again
        old = self._world
        changed = _Changed(
            differing(old.desired.units, desired.units),
            differing(old.ledger.units, ledger.units),
            differing(old.desired.broken, desired.broken),
        )
        doubtful = {*self._faults, *self._unread, *self._told}
        touched_reads = self._index(desired, ledger, changed)
        moved = self._work_out(desired, ledger, facts, changed, doubtful, every=facts is not old.facts)
        faults = {**self._faults, **self._unread}
        world = World(
            desired, ledger, facts, self._expected, self._readers, now, answers, holds=self._holds, faults=faults
        )
        sweep = _Sweep(world, self._needy, self._namers, self._places)
        if self._all_may_differ(world):
            sweep.touch(desired.units)
        self._touch(sweep, changed, moved | doubtful | faults.keys(), touched_reads)
        if any(desired.units[unit].environment.promotion for unit in sweep.queued):
            sweep.world = world = _with_users(world)
        decisions: list[Held | Dispatch] = list(self._decide(sweep))
        decisions += self._unwanted(world, changed, doubtful)
        use = Use(self._jobs.of(ledger), capacity, facts, pressure, now)
        started, limits = start(self._line, use, self._served, now)
        decisions += started
        self._told = {_unit_of(one) for one in decisions}
        self._world = world
        times = [*(at for at in edges_for_all(world) if at > now), self._clock.next()]
        due = min((at for at in times if at is not None), default=None)
        return Turn(world, decisions, due, Waiting(self._line.units, limits))

    def _all_may_differ(self, world: World) -> bool:
        """Whether something is another that every unit looks at."""
        old = self._world
        one, other = old.ledger, world.ledger
        said = one.frozen == other.frozen and one.pauses == other.pauses and one.sessions == other.sessions
        # A session is open until it is closed.
        passed = any(old.now < pause.until <= world.now for pause in other.pauses)
        return world.facts is not old.facts or world.answers is not old.answers or not said or passed

    # --- what is known of all units, brought up to date ------------------------------------------------------------

    def _index(self, desired: Desired, ledger: Ledger, changed: _Changed) -> set[UnitId]:
        """Note who looks at whom, and when; returns the units of which another set of others is built on them now."""
        old = self._world
        for unit in changed.units:
            _relink(self._namers, unit, _names(old.desired.units.get(unit)), _names(desired.units.get(unit)))
            if unit not in desired.units:
                for known in (self._holds, self._expected, self._faults, self._known):
                    known.pop(unit, None)
                self._needy.discard(unit)
        self._line.change({unit: None for unit in changed.units if unit not in desired.units})
        if old.desired.order is not desired.order:
            self._places = {unit: place for place, unit in enumerate(desired.order)}
            self._line.reorder(self._places)
        rules = promotion.rules_of(desired)
        for unit in changed.units | changed.records:
            wanted, record = desired.units.get(unit), ledger.units.get(unit)
            self._set_alarms(unit, wanted, record, rules)
        return self._read(ledger, changed.records | self._unread.keys())

    def _read(self, ledger: Ledger, records: Iterable[UnitId]) -> set[UnitId]:
        found: set[UnitId] = set()
        for unit in [*records]:
            record, before = ledger.units.get(unit), self._reads.get(unit, frozenset())
            self._unread.pop(unit, None)
            try:
                reads = reads_now(record) if record is not None else frozenset()
            except Exception as error:  # noqa: BLE001 - the unit is held for it; as in `_work_out`
                reads, self._unread[unit] = frozenset({EVERY_UNIT}), error
            if reads != before:
                _relink(self._readers, unit, before, reads)
                found |= before ^ reads
                self._reads[unit] = reads
            if not reads:
                self._reads.pop(unit, None)
        return found

    def _set_alarms(
        self, unit: UnitId, wanted: Unit | None, record: UnitRecord | None, rules: frozenset[Promotion]
    ) -> None:
        looks = () if wanted is None or record is None else edges_of(record)
        soaks = () if record is None else promotion.edges_of(record, rules)
        self._clock.set(unit, (*looks, *soaks))
        self._turns.set(unit, () if wanted is None or record is None else clock_of(wanted, record))

    def _work_out(
        self,
        desired: Desired,
        ledger: Ledger,
        facts: RunnerFacts | None,
        changed: _Changed,
        doubtful: set[UnitId],
        *,
        every: bool,
    ) -> set[UnitId]:
        """Work out again what units shall be, where it may be something else; returns those of which it is."""
        again: set[UnitId] = {*desired.units} if every else changed.units | doubtful
        for unit in changed.records:
            if _outputs(self._world.ledger, unit) != _outputs(ledger, unit):
                again |= self._namers.get(unit, set())
        moved = set()
        for name in again & desired.units.keys():
            before = self._expected.get(name, _NONE)
            self._faults.pop(name, None)
            try:
                self._expected[name] = fingerprint_of(desired.units[name], ledger, facts, self._known)
            except Exception as error:  # noqa: BLE001 - the unit is held for it; see `expected`
                self._expected[name], self._faults[name] = None, error
            if self._expected[name] != before:
                moved.add(name)
        return moved

    # --- what is to be looked at -------------------------------------------------------------------------------------

    def _touch(self, sweep: _Sweep, changed: _Changed, moved: set[UnitId], read: set[UnitId]) -> None:
        world, old = sweep.world, self._world
        sweep.touch(changed.all() | moved)
        for unit in changed.all() | moved:
            sweep.touch_followers(unit)
        for unit in read:
            who = {unit} | self._namers.get(unit, set())
            sweep.touch(self._needy if unit == EVERY_UNIT else self._needy & who)
        for alarms in (self._clock, self._turns):
            sweep.touch(alarms.come(world.now))
        names = {name for name, one in world.desired.environments.items() if one.promotion}
        names |= {name for name in world.desired.environments if self._refrozen(world, name)}
        merged = world.desired.commit != old.desired.commit
        if names or merged:  # else thousands that wait would be asked for nothing
            sweep.touch(
                [one for one in self._needy if one.partition("/")[0] in names or (merged and _shown(world, one))]
            )

    def _refrozen(self, world: World, name: str) -> bool:
        windows = world.desired.environments[name].freeze
        before = self._frozen.pop(name, None)
        if windows:
            try:
                self._frozen[name] = freeze.outlook(windows, world.now)
            except Exception:  # noqa: BLE001 - the gate says so for each unit, and is asked each time
                self._frozen[name] = object()
        return self._frozen.get(name) != before

    # --- the decisions ---------------------------------------------------------------------------------------------

    def _decide(self, sweep: _Sweep) -> Iterator[Held]:
        line: dict[UnitId, Wanted | None] = {}
        for unit in sweep.units():
            record = record_of(sweep.world, unit)
            view = look(sweep.world, sweep.world.desired.units[unit], record)
            before = self._holds.pop(unit, _NONE)
            if record.job is None:
                self._holds[unit] = view.hold
                if view.hold != record.hold:
                    yield Held(unit, view.hold, view.fault)
            if self._holds.get(unit, _NONE) != before:
                sweep.touch_followers(unit)
            line[unit] = wanted(view.dispatch, record, self._places[unit]) if view.dispatch is not None else None
            self._needy.discard(unit)
            if view.needs:
                self._needy.add(unit)
        self._line.change(line)

    def _unwanted(self, world: World, changed: _Changed, doubtful: set[UnitId]) -> Iterator[Held]:
        """Broken entries, and units whose file is gone."""
        again = changed.all() | doubtful
        for unit in changed.units | changed.records:
            again |= self._reclaim(world, unit)
        if world.desired.locked is not self._world.desired.locked:
            again |= self._orphans
        for unit in sorted(again):
            gone = unit in world.ledger.units and unit not in world.desired.units
            (self._orphans.add if gone else self._orphans.discard)(unit)
            yield from unwanted(world, unit, self._claimed)

    def _reclaim(self, world: World, unit: UnitId) -> set[UnitId]:
        """Note whose state is yet to move to the unit; returns the name of which that was so before."""
        before = self._claims.pop(unit, None)
        now = claim_of(world.desired.units.get(unit), world.ledger.units.get(unit))
        if now is not None:
            self._claims[unit] = now
            self._claimed[now] += 1
        if before is not None:
            self._claimed[before] -= 1
            if not self._claimed[before]:
                del self._claimed[before]
        return set() if before is None else {before}


class Jobs:
    """The records of units whose job runs."""

    def __init__(self) -> None:
        self._ledger, self._running = Ledger(), dict[UnitId, UnitRecord]()

    def of(self, ledger: Ledger) -> list[UnitRecord]:
        """Those of this ledger; costs what differs from the one that was asked for last."""
        for unit in differing(self._ledger.units, ledger.units):
            record = ledger.units.get(unit)
            self._running.pop(unit, None)
            if record is not None and record.job is not None:
                self._running[unit] = record
        self._ledger = ledger
        return sorted(self._running.values(), key=lambda record: record.unit)


class _Sweep:
    """The units that one pass looks at, upstream first; looking at one may show that others are to be looked at, too."""

    def __init__(
        self, world: World, needy: set[UnitId], namers: dict[UnitId, set[UnitId]], places: dict[UnitId, int]
    ) -> None:
        self.world = world
        self._needy, self._namers, self._places = needy, namers, places
        self._after: dict[str, list[str]] = {}
        for one in world.desired.environments.values():
            for name in one.depends_on:
                self._after.setdefault(name, []).append(one.name)
        self._swept: set[str] = set()  # environments all of whose needy units are looked at
        self._queue: list[tuple[int, UnitId]] = []
        self.queued: set[UnitId] = set()

    def touch(self, units: Iterable[UnitId]) -> None:
        """Look at these, as far as there are such units."""
        for unit in units:
            if unit in self._places and unit not in self.queued:
                self.queued.add(unit)
                heappush(self._queue, (self._places[unit], unit))

    def touch_followers(self, unit: UnitId) -> None:
        """Look at those that follow the unit and need something."""
        self.touch(self._needy & self._namers.get(unit, set()))
        for name in self._after.get(unit.partition("/")[0], ()):
            if name not in self._swept:
                self._swept.add(name)
                self.touch([one for one in self._needy if one.startswith(f"{name}/")])

    def units(self) -> Iterator[UnitId]:
        """Each once."""
        while self._queue:
            yield heappop(self._queue)[1]


def _with_users(world: World) -> World:
    users = promotion.users_of(world.desired, world.ledger)
    return World(
        world.desired, world.ledger, world.facts, world.expected, world.readers, world.now, world.answers, users,
        world.holds, world.faults,
    )  # fmt: skip


def _shown(world: World, unit: UnitId) -> bool:
    """Whether the unit is held since nobody was shown its plan: a merge may have come with a review."""
    failure = record_of(world, unit).failure
    return failure is not None and failure.reason in REVIEW


def _names(unit: Unit | None) -> set[UnitId]:
    """The units that this one reads, follows by name, or has the state of."""
    if unit is None:
        return set()
    source = unit.entry.moved_from
    return {*unit.reads, *unit.entry.depends_on, *((source,) if source is not None else ())}


def _unit_of(decision: Held | Dispatch) -> UnitId:
    return decision.unit.id if isinstance(decision, Dispatch) else decision.unit


def _outputs(ledger: Ledger, unit: UnitId) -> object:
    record = ledger.units.get(unit)
    return record.applied.outputs if record is not None and record.applied is not None else None


def _relink(index: dict[K, set[V]], value: V, old: Iterable[K], new: Iterable[K]) -> None:
    """Put the value under the new keys, and no longer under the old."""
    before, after = {*old}, {*new}
    for key in before - after:
        index[key].discard(value)
        if not index[key]:
            del index[key]
    for key in after - before:
        index.setdefault(key, set()).add(value)

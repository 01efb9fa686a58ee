"""Whose turn it is: the units that would start, in the order in which they do. Pure, and kept from pass to pass.

First what others named, then merges, then looks for drift, then plans of what waits; of each, the environment that has least of the
host, and of equals the one that was served longest ago. A look that has waited for a whole interval of its environment waits no more
behind merges, but takes turns with them: nothing waits for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import IntEnum
from heapq import heapify, heappop, heappush

from reconciler.deciding.budgets import OF_ALL, Limit, Use
from reconciler.deciding.decide import Dispatch
from reconciler.layered import Layered, layered
from reconciler.model import Cause, Operation, UnitId, UnitRecord

_STALE = 4  # times as many as wait: then what no longer stands is thrown out
_BEGINNING = datetime.min.replace(tzinfo=UTC)


class Kind(IntEnum):
    """What a job is for, in the order in which jobs start.

    `NAMED`: somebody else's write names the unit; `AHEAD` is no job's own kind, but that of a look which goes before merges; `SHOWN`:
    its unit is held.
    """

    NAMED = 0
    AHEAD = 1
    MERGED = 2
    OUTSIDE = 3
    DRIFTED = 4
    SHOWN = 5
    OUTSIDE_PLAN = 6
    DRIFT_PLAN = 7


_APPLIES = {Cause.OUT_OF_BAND: Kind.OUTSIDE, Cause.DRIFT: Kind.DRIFTED}
_PLANS = {Cause.OUT_OF_BAND: Kind.OUTSIDE_PLAN, Cause.DRIFT: Kind.DRIFT_PLAN}
_OUTSIDE = frozenset({Kind.OUTSIDE, Kind.OUTSIDE_PLAN})


@dataclass(frozen=True, slots=True)
class Wanted:
    """A job that would start. `due`: since when, of what the clock asks for; `late`: when it takes turns with merges.

    `memory`: what the last job of the unit took, in MiB; 0: nobody knows.
    """

    dispatch: Dispatch
    kind: Kind
    due: datetime
    place: int
    late: datetime | None
    memory: int

    @property
    def environment(self) -> str:
        """Its unit's."""
        return self.dispatch.unit.environment.name

    @property
    def order(self) -> tuple[datetime, int]:
        """Among those of its kind and environment: what was due first, then upstream first."""
        return self.due, self.place


def wanted(dispatch: Dispatch, record: UnitRecord, place: int) -> Wanted:
    """What a unit's dispatch asks for, by what is known of the unit. `place`: in the order of all units."""
    kind, interval = _kind(dispatch, record), dispatch.unit.environment.drift_interval
    due = record.next_check if dispatch.cause is Cause.DRIFT else None
    return Wanted(dispatch, kind, due or _BEGINNING, place, due and due + interval, record.memory)


def _kind(dispatch: Dispatch, record: UnitRecord) -> Kind:
    if dispatch.cause is Cause.OUT_OF_BAND and record.outside is not None and record.outside.named:
        return Kind.NAMED
    if dispatch.operation is Operation.PLAN:
        return _PLANS.get(dispatch.cause, Kind.SHOWN)
    return _APPLIES.get(dispatch.cause, Kind.MERGED)


@dataclass(slots=True)
class Served:
    """When each environment, and each kind in it, last had its turn, by a count. Begun anew, all are alike for one turn."""

    _count: int = 0
    _last: dict[tuple[str, Kind | None], int] = field(default_factory=dict)

    def note(self, environment: str, kind: Kind) -> None:
        """It is their turn."""
        self._count += 1
        self._last[environment, None] = self._last[environment, kind] = self._count

    def last(self, environment: str, kind: Kind | None = None) -> int:
        """When it was; 0: never."""
        return self._last.get((environment, kind), 0)


def rank(one: Wanted, use: Use, served: Served, now: datetime) -> tuple[int, float, int, str]:
    """The environment's place among others, by the job of its that comes first."""
    name = one.environment
    return level(one, use, now), use.share(name), served.last(name), name


def rank_within(one: Wanted, use: Use, served: Served, now: datetime) -> tuple[int, int, tuple[datetime, int]]:
    """A job's place among those of its environment."""
    return level(one, use, now), served.last(one.environment, one.kind), one.order


def level(one: Wanted, use: Use, now: datetime) -> int:
    """What comes before what. All of an environment is looked at before merges only in half of its places."""
    if one.kind in _OUTSIDE and use.outside[one.environment] < use.capacity.per_environment // 2:
        return Kind.AHEAD
    late = one.late is not None and one.late <= now
    return min(one.kind, Kind.MERGED) if late else one.kind


class Line:
    """Those that wait. What it costs to change it is what changes, and to ask who is first, the number of environments."""

    def __init__(self) -> None:
        self.units: Layered[UnitId, Wanted] = layered({})
        self._heaps: dict[str, dict[Kind, list[tuple[tuple[datetime, int], UnitId]]]] = {}
        self._pushed = 0

    def change(self, changes: Mapping[UnitId, Wanted | None]) -> None:
        """These wait for this now; None: no more."""
        self.units = self.units.after(changes)
        for unit, one in changes.items():
            if one is not None:
                self._push(unit, one)
        if self._pushed > _STALE * (len(self.units) + 16):
            self._rebuild()

    def reorder(self, places: Mapping[UnitId, int]) -> None:
        """All units have other places now."""
        self.units = layered({unit: replace(one, place=places[unit]) for unit, one in self.units.items()})
        self._rebuild()

    def environments(self) -> list[str]:
        """Those in which something waits."""
        return [name for name in list(self._heaps) if self.first_of_each_kind(name)]

    def first_of_each_kind(self, environment: str) -> list[Wanted]:
        """Of those that wait in the environment."""
        kinds = self._heaps.get(environment, {})
        found = [one for kind in list(kinds) if (one := self._first(kinds, kind)) is not None]
        if not found:
            self._heaps.pop(environment, None)
        return found

    def _first(self, kinds: dict[Kind, list[tuple[tuple[datetime, int], UnitId]]], kind: Kind) -> Wanted | None:
        heap = kinds[kind]
        while heap:
            order, unit = heap[0]
            one = self.units.get(unit)
            if one is not None and (one.kind, one.order) == (kind, order):
                return one
            heappop(heap)
            self._pushed -= 1
        del kinds[kind]
        return None

    def _push(self, unit: UnitId, one: Wanted) -> None:
        heappush(self._heaps.setdefault(one.environment, {}).setdefault(one.kind, []), (one.order, unit))
        self._pushed += 1

    def _rebuild(self) -> None:
        self._heaps, self._pushed = {}, len(self.units)
        for unit, one in self.units.items():
            self._heaps.setdefault(one.environment, {}).setdefault(one.kind, []).append((one.order, unit))
        for kinds in self._heaps.values():
            for heap in kinds.values():
                heapify(heap)


def start(line: Line, use: Use, served: Served, now: datetime) -> tuple[list[Dispatch], dict[str, Limit]]:
    """Take from the line what may start now; and for each environment in which something is left, what its first waits for."""
    started: list[Dispatch] = []
    first = {name: one for name in line.environments() if (one := _first(line, name, use, served, now)) is not None}
    limits = {name: use.limit(name, one.memory) for name, one in first.items()}
    shut = {name: limit for name, limit in limits.items() if limit is not None and limit not in OF_ALL}
    while first.keys() - shut.keys():
        one = min((first[name] for name in first if name not in shut), key=lambda one: rank(one, use, served, now))
        name, limit = one.environment, use.limit(one.environment, one.memory)
        if limit is not None:
            shut |= dict.fromkeys(first.keys() - shut.keys() if limit in OF_ALL else [name], limit)
            continue
        started.append(_take(line, one, use, served))
        after = _first(line, name, use, served, now)
        if after is None:
            del first[name]
        else:
            first[name] = after
    return started, shut


def _take(line: Line, one: Wanted, use: Use, served: Served) -> Dispatch:
    line.change({one.dispatch.unit.id: None})
    use.add(one.environment, one.memory, one.dispatch.cause)
    served.note(one.environment, one.kind)
    return one.dispatch


def _first(line: Line, environment: str, use: Use, served: Served, now: datetime) -> Wanted | None:
    found = line.first_of_each_kind(environment)
    return min(found, key=lambda one: rank_within(one, use, served, now), default=None)

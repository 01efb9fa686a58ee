"""When each of many units is to be looked at: what has come, and what comes next, without a look at the others. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import heapify, heappop, heappush

from reconciler.model import UnitId

_STALE = 4  # times as many as there are units: then what no longer stands is thrown out


class Alarms:
    """Some times for each unit. Those that have come are told once, and kept until others are set."""

    def __init__(self) -> None:
        self._times: dict[UnitId, tuple[datetime, ...]] = {}
        self._heap: list[tuple[datetime, UnitId]] = []

    def set(self, unit: UnitId, times: Iterable[datetime]) -> None:
        """These times of the unit, and no others."""
        new, old = tuple(times), self._times.pop(unit, ())
        if new:
            self._times[unit] = new
        for at in new:
            if at not in old:
                heappush(self._heap, (at, unit))
        if len(self._heap) > _STALE * (len(self._times) + 16):
            self._heap = [one for one in self._heap if self._stands(*one)]
            heapify(self._heap)

    def come(self, now: datetime) -> Iterator[UnitId]:
        """The units of which a time has come since the last call."""
        while self._heap and self._heap[0][0] <= now:
            at, unit = heappop(self._heap)
            if self._stands(at, unit):
                yield unit

    def next(self) -> datetime | None:
        """The next time that `come` has not seen pass."""
        while self._heap and not self._stands(*self._heap[0]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _stands(self, at: datetime, unit: UnitId) -> bool:
        return at in self._times.get(unit, ())

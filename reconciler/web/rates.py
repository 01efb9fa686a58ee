"""How often somebody may ask: buckets that fill with time, for each name and in bounded number."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` requests at once, and `per_second` after that."""

    per_second: float
    burst: float


class Rates:
    """One bucket for each name. Safe to call from any thread."""

    def __init__(self, rate: Rate, names: int = 4096, clock: Callable[[], float] = time.monotonic) -> None:
        """`names`: how many are kept; who was not seen for longest goes first, and begins anew."""
        self._rate, self._names, self._clock = rate, names, clock
        self._guard = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is in it, and when that was so

    def take(self, name: str) -> float:
        """Take one from the name's bucket: 0.0, or the seconds until there is one again."""
        with self._guard:
            now = self._clock()
            had, at = self._buckets.pop(name, (self._rate.burst, now))
            has = min(self._rate.burst, had + (now - at) * self._rate.per_second)
            wait = 0.0 if has >= 1 else (1 - has) / self._rate.per_second
            self._buckets[name] = (has if wait else has - 1, now)
            while len(self._buckets) > self._names:
                self._buckets.popitem(last=False)
            return wait


class Places:
    """How many may be in at once, in all and for each name. Safe to call from any thread."""

    def __init__(self, in_all: int, each: int) -> None:
        self._in_all, self._each = in_all, each
        self._guard = threading.Lock()
        self._taken: dict[str, int] = {}

    def take(self, name: str) -> bool:
        """Take a place, if there is one; then `free` it."""
        with self._guard:
            mine = self._taken.get(name, 0)
            if mine >= self._each or sum(self._taken.values()) >= self._in_all:
                return False
            self._taken[name] = mine + 1
            return True

    def free(self, name: str) -> None:
        """Give a place back."""
        with self._guard:
            left = self._taken.pop(name, 0) - 1
            if left > 0:
                self._taken[name] = left

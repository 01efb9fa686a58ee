"""Which worker a job gets, which is made, and which is let go. Knows no process and no clock: both are told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

AGAIN = 600.0  # seconds within which a key must be asked for twice before a worker is made for it: a cold one is slower than a process
SPARE = 5.0  # seconds that a worker has been idle before another key may have its place
FAILURES = 3  # workers in a row that ended before they did anything
PAUSE = 600.0  # seconds without a new one after that
IN_VAIN = 3600.0  # seconds for which a worker is not tried with what none could do
MOST_KEYS = 1000
T = TypeVar("T")


class Stage(Enum):
    """What a worker is about."""

    LENT = "lent"
    CLEANING = "cleaning"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker is replaced, and how many there are. Seconds, and bytes of memory of it and all that it started."""

    workers: int
    jobs: int
    age: float
    idle: float
    memory: int


@dataclass(slots=True)
class Member:
    """One worker. `since`: when its stage began."""

    key: str
    born: float
    since: float
    stage: Stage = Stage.LENT
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class Lend:
    """This one."""

    number: int


@dataclass(frozen=True, slots=True)
class Make:
    """A new one of that number, in the place of `instead`, if any."""

    number: int
    instead: int | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """None now."""

    why: str


@dataclass(slots=True)
class Pool:
    """Every worker of one runner, by number."""

    limits: Limits
    members: dict[int, Member] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _asked: dict[str, float] = field(default_factory=dict)
    _in_vain: dict[tuple[str, str], float] = field(default_factory=dict)
    _lost: dict[tuple[str, str], float] = field(default_factory=dict)
    _numbers: int = 0
    _failures: int = 0
    _paused_until: float = float("-inf")

    def ask(self, key: str, what: str, now: float) -> Lend | Make | Refuse:
        """A worker for a job that plans that. The one that was used last is the warmest."""
        if now - self._in_vain.get((key, what), float("-inf")) < IN_VAIN:
            return self._refuse("in_vain")
        before = self._asked.get(key, float("-inf"))
        _note(self._asked, key, now)
        found = [number for number in self._idle() if self.members[number].key == key]
        if found:
            return self._lend(found[-1], now)
        if now - before > AGAIN:
            return self._refuse("first")
        if now < self._paused_until:
            return self._refuse("failing")
        return self._make(key, now)

    def back(self, number: int, now: float, *, whole: bool, memory: int) -> bool:
        """A job is done with it. Whether it is to be cleaned for the next one; else it is to be ended.

        `whole`: it did what it was asked to; `memory`: what it takes by now.
        """
        member = self.members[number]
        member.jobs += 1
        self._failures = 0 if whole else self._failures
        worn = member.jobs >= self.limits.jobs or now - member.born >= self.limits.age or memory > self.limits.memory
        self.counts["recycled"] += whole and worn
        self._stage(member, Stage.CLEANING, now)
        return whole and not worn

    def fell_back(self, key: str, what: str, now: float, *, lost: bool) -> None:
        """What came of it was of no use: for a while nobody tries that again. `lost`: the worker was, which may happen once."""
        self.counts["fell_back"] += 1
        if lost and now - self._lost.get((key, what), float("-inf")) >= IN_VAIN:
            _note(self._lost, (key, what), now)
        else:
            _note(self._in_vain, (key, what), now)

    def cleaned(self, number: int, now: float) -> None:
        """It is as good as new, or better."""
        self._stage(self.members[number], Stage.IDLE, now)

    def gone(self, number: int, now: float, *, asked: bool) -> None:
        """It has ended; `asked`: because it was to."""
        member = self.members.pop(number, None)
        if member is None or asked:
            return
        self.counts["died"] += 1
        if not member.jobs:
            self._failures += 1
            if self._failures >= FAILURES:
                self._failures, self._paused_until = 0, now + PAUSE

    def due(self, now: float) -> list[int]:
        """Those that nobody has used for long."""
        return [
            number
            for number, one in self.members.items()
            if one.stage is Stage.IDLE and (now - one.since >= self.limits.idle or now - one.born >= self.limits.age)
        ]

    def _idle(self) -> list[int]:
        """Longest idle first."""
        found = [number for number, one in self.members.items() if one.stage is Stage.IDLE]
        return sorted(found, key=lambda number: self.members[number].since)

    def _lend(self, number: int, now: float) -> Lend:
        self.counts["lent"] += 1
        self._stage(self.members[number], Stage.LENT, now)
        return Lend(number)

    def _make(self, key: str, now: float) -> Make | Refuse:
        instead = None
        if len(self.members) >= self.limits.workers:
            spare = [number for number in self._idle() if now - self.members[number].since >= SPARE]
            if not spare:
                return self._refuse("busy")
            instead = spare[0]
            del self.members[instead]
            self.counts["recycled"] += 1
        self._numbers += 1
        self.members[self._numbers] = Member(key, now, now)
        self.counts["made"] += 1
        return Make(self._numbers, instead)

    def _refuse(self, why: str) -> Refuse:
        self.counts[f"refused_{why}"] += 1
        return Refuse(why)

    def _stage(self, member: Member, stage: Stage, now: float) -> None:
        member.stage, member.since = stage, now


def _note(times: dict[T, float], what: T, now: float) -> None:
    """The latest are last; the oldest go."""
    times.pop(what, None)
    times[what] = now
    if len(times) > MOST_KEYS:
        times.pop(next(iter(times)))

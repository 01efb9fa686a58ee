"""The units as they are listed: found, sorted and paged on the server, by an index that lasts as long as the picture does."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler.model import Health, Outcome, Sync, Unit, UnitId, UnitRecord
from reconciler.status import Overview, Picture, UnitStatus

PER_PAGE = 50
_KEPT = 64  # answers of one index
_NEVER = datetime.min.replace(tzinfo=UTC)

# What a person wants to see first.
_TROUBLE = {
    Health.DEGRADED: 0,
    Health.UNKNOWN: 1,
    Health.MISSING: 2,
    Health.SUSPENDED: 3,
    Health.PROGRESSING: 4,
    Health.HEALTHY: 6,
}


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for. `show` is one of `KINDS`, `sort` one of `SORTS`; empty words choose nothing."""

    q: str = ""
    environment: str = ""
    sync: str = ""
    health: str = ""
    reason: str = ""
    show: str = ""
    sort: str = "trouble"
    down: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One unit of the list: how it fares, and what else stands there."""

    status: UnitStatus
    module: str
    version: str
    applied_at: datetime | None
    text: str  # what a search looks at
    kinds: tuple[str, ...]  # of `KINDS`
    of: tuple[UnitRecord | None, Unit | None]  # what else it was made of

    @property
    def unit(self) -> UnitId:
        """Its id."""
        return self.status.unit


Kind = Callable[[UnitStatus, UnitRecord], bool]


def _wants_a_person(status: UnitStatus) -> bool:
    """Whether somebody has to act; what somebody chose to stop is as it shall be."""
    return status.health is Health.DEGRADED or (status.held and status.health is not Health.SUSPENDED)


def _uncertain(record: UnitRecord) -> bool:
    """Whether an apply may have been at work without telling its end."""
    return record.unfinished is not None or (record.failure is not None and record.failure.outcome is Outcome.UNCERTAIN)


# What people look for, by the word in the address.
KINDS: Mapping[str, tuple[str, Kind]] = {
    "attention": ("Needs attention", lambda status, _: _wants_a_person(status)),
    "running": ("Running", lambda _, record: record.job is not None),
    "changes": ("Out of sync", lambda status, _: status.sync is Sync.OUT_OF_SYNC),
    "held": ("Held", lambda status, _: status.held),
    "drift": ("Drifting", lambda _, record: record.drift_since is not None),
    "uncertain": ("Uncertain", lambda _, record: _uncertain(record)),
    "orphaned": ("Orphaned", lambda status, record: status.reason == "Orphaned" or bool(record.strays)),
}

SORTS: Mapping[str, Callable[[Line], object]] = {
    "trouble": lambda line: (_trouble(line.status), line.unit),
    "unit": lambda line: line.unit,
    "health": lambda line: (line.status.health, line.unit),
    "sync": lambda line: (line.status.sync, line.unit),
    "reason": lambda line: (line.status.reason or "~", line.unit),
    "module": lambda line: (line.module, line.version, line.unit),
    "applied": lambda line: (line.applied_at or _NEVER, line.unit),
}


def _trouble(status: UnitStatus) -> tuple[bool, int, bool]:
    return (not _wants_a_person(status), _TROUBLE[status.health], status.sync is Sync.SYNCED)


@dataclass(frozen=True, slots=True)
class Index:
    """One picture's units, ready to be asked. Made once for each picture, whoever looks."""

    overview: Overview
    lines: tuple[Line, ...]
    kinds: Mapping[str, frozenset[UnitId]]
    by_kind: Counter[tuple[str, str]]  # (environment, kind): how many
    counts: Counter[tuple[str, Sync, Health]]
    _answers: dict[Query, tuple[Line, ...]] = field(default_factory=dict)

    def find(self, query: Query) -> tuple[Line, ...]:
        """The units that were asked for, in the order that was asked for."""
        known = self._answers.get(query)
        if known is None:
            key = SORTS.get(query.sort, SORTS["trouble"])
            known = tuple(sorted(self._chosen(query), key=key, reverse=query.down))  # type: ignore[arg-type]  # each key compares with itself
            if len(self._answers) >= _KEPT:
                self._answers.clear()
            self._answers[query] = known
        return known

    def _chosen(self, query: Query) -> Iterator[Line]:
        words = query.q.lower().split()
        kind = self.kinds.get(query.show) if query.show else None
        for line in self.lines:
            status = line.status
            if (
                (not query.environment or status.environment == query.environment)
                and (not query.sync or status.sync == query.sync)
                and (not query.health or status.health == query.health)
                and (not query.reason or status.reason == query.reason)
                and (kind is None or line.unit in kind)
                and all(word in line.text for word in words)
            ):
                yield line

    def number(self, kind: str, environment: str = "") -> int:
        """How many units of a kind there are, in all or in one environment."""
        if environment:
            return self.by_kind[environment, kind]
        return len(self.kinds[kind])


class Listing:
    """The newest picture's index. Safe to call from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._last: Index | None = None

    def of(self, picture: Picture) -> Index:
        """The index of the picture; the same one while the overview in it is the same object."""
        with self._guard:
            if self._last is None or self._last.overview is not picture.overview:
                self._last = _indexed(picture, self._last)
            return self._last


def _indexed(picture: Picture, before: Index | None) -> Index:
    """`before`: the lines of it in which nothing is another are taken over."""
    kinds: dict[str, set[UnitId]] = {name: set() for name in KINDS}
    tally: Counter[tuple[str, str]] = Counter()
    lines, records, wanted = [], picture.ledger.units, picture.desired.units if picture.desired else {}
    stood = {line.unit: line for line in before.lines} if before else {}
    for status in picture.overview.units:
        unit = status.unit
        record, wants = records.get(unit), wanted.get(unit)
        line = stood.get(unit)
        if line is None or line.status is not status or line.of[0] is not record or line.of[1] is not wants:
            line = _line(status, record, wants)
        lines.append(line)
        for name in line.kinds:
            kinds[name].add(unit)
            tally[status.environment, name] += 1
    frozen = {name: frozenset(units) for name, units in kinds.items()}
    return Index(picture.overview, tuple(lines), frozen, tally, picture.overview.count())


def _line(status: UnitStatus, record: UnitRecord | None, unit: Unit | None) -> Line:
    applied = record.applied if record else None
    module = unit.pin.module if unit else applied.module if applied else ""
    version = unit.pin.version if unit else applied.version if applied else ""
    text = f"{status.unit} {module} {version} {status.reason}".lower()
    known = record or UnitRecord(status.unit)
    odd = known.job or known.drift_since or known.failure or known.strays or known.unfinished is not None
    calm = status.in_order and not odd  # nearly every unit, nearly always
    kinds = () if calm else tuple(name for name, (_, holds) in KINDS.items() if holds(status, known))
    return Line(status, module, version, applied.at if applied else None, text, kinds, (record, unit))

"""Everything that is not being changed, why, and until when. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from reconciler.desired import freeze
from reconciler.model import BreakGlass, Hold, Pause, UnitRecord
from reconciler.status import Picture
from reconciler.web.listing import Index, Line

SHOWN = 20  # units of one reason; the list has them all


@dataclass(frozen=True, slots=True)
class Freezing:
    """An environment with freeze windows: whether one is open, and when that changes."""

    environment: str
    open: bool
    until: datetime | None
    words: str


@dataclass(frozen=True, slots=True)
class Group:
    """The units that are held for one reason."""

    reason: str
    lines: tuple[Line, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """All of it."""

    frozen: Hold | None
    frozen_at: datetime | None
    pauses: tuple[Pause, ...]
    sessions: tuple[BreakGlass, ...]
    windows: tuple[Freezing, ...]
    held: tuple[Group, ...]
    uncertain: tuple[tuple[Line, UnitRecord], ...]
    orphaned: tuple[tuple[Line, UnitRecord], ...]
    drifting: tuple[tuple[Line, UnitRecord], ...]


def stopped(picture: Picture, index: Index) -> Stopped:
    """What is stopped in the picture."""
    ledger = picture.ledger

    def of(kind: str) -> list[tuple[Line, UnitRecord]]:
        lines = [line for line in index.lines if line.unit in index.kinds[kind]][:SHOWN]
        return [(line, ledger.units.get(line.unit) or UnitRecord(line.unit)) for line in lines]

    return Stopped(
        ledger.frozen,
        ledger.frozen_at,
        tuple(pause for pause in ledger.pauses if picture.now < pause.until),
        ledger.sessions,
        tuple(_windows(picture)),
        tuple(_groups(index)),
        tuple(of("uncertain")),
        tuple(of("orphaned")),
        tuple(of("drift")),
    )


def _windows(picture: Picture) -> list[Freezing]:
    found = []
    for name, environment in sorted(picture.desired.environments.items()) if picture.desired else ():
        if environment.freeze:
            look = freeze.outlook(environment.freeze, picture.now)
            words = freeze.told(look) if look.window is not None else "Applies are let through."
            found.append(Freezing(name, look.window is not None, look.until, words))
    return found


def _groups(index: Index) -> list[Group]:
    by_reason: dict[str, list[Line]] = defaultdict(list)
    for line in index.lines:
        if line.unit in index.kinds["held"]:
            by_reason[line.status.reason].append(line)
    groups = (Group(reason, tuple(lines[:SHOWN]), len(lines)) for reason, lines in by_reason.items())
    return sorted(groups, key=lambda group: (-group.number, group.reason))

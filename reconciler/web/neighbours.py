"""A unit among its neighbours: what it follows and what follows it, two steps either way, as a picture's coordinates. Pure."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from reconciler.actual.ledger import reads_now
from reconciler.model import Desired, Ledger, UnitId
from reconciler.status import Picture, UnitStatus

STEPS = 2
PER_COLUMN = 8  # units; what is beyond is counted
WIDTH, HEIGHT = 210, 46  # of a unit's box
GAP_X, GAP_Y, EDGE = 56, 12, 8

Names = frozenset[UnitId]
NONE: Names = frozenset()


@dataclass(frozen=True, slots=True)
class Links:
    """Who follows whom: by the entries, and where there is none any more, as it was applied."""

    up: Mapping[UnitId, Names]
    down: Mapping[UnitId, Names]


@dataclass(frozen=True, slots=True)
class Box:
    """A unit in the drawing; `more` > 0: not a unit, but so many that are left out."""

    x: int
    y: int
    unit: UnitId | None
    status: UnitStatus | None
    more: int = 0
    own: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """From what comes first to what follows it: the ends of a curve."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def path(self) -> str:
        """As SVG writes it."""
        middle = (self.x1 + self.x2) // 2
        return f"M{self.x1} {self.y1}C{middle} {self.y1} {middle} {self.y2} {self.x2} {self.y2}"


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of it, and how large it is."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


class Neighbours:
    """The links of the newest picture. Safe to call from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._of: tuple[Desired | None, Ledger] | None = None
        self._links = Links({}, {})

    def links(self, picture: Picture) -> Links:
        """Who follows whom; worked out once for each picture."""
        with self._guard:
            of = (picture.desired, picture.ledger)
            if self._of is None or self._of[0] is not of[0] or self._of[1] is not of[1]:
                self._links, self._of = _linked(*of), of
            return self._links


def _linked(desired: Desired | None, ledger: Ledger) -> Links:
    wanted = desired.units if desired else {}
    # Not `upstream`: an environment that comes before another would be a line from each of its units to each of the other's.
    first = {unit.id: unit.reads | frozenset(unit.entry.depends_on) for unit in wanted.values()}
    up: dict[UnitId, Names] = {unit: names for unit, names in first.items() if names}
    for record in ledger.units.values():
        if record.unit not in wanted and (reads := reads_now(record)):
            up[record.unit] = frozenset(reads)
    down: dict[UnitId, set[UnitId]] = {}
    for unit, names in up.items():
        for name in names:
            down.setdefault(name, set()).add(unit)
    return Links(up, {unit: frozenset(names) for unit, names in down.items()})


def draw(unit: UnitId, links: Links, picture: Picture) -> Drawing | None:
    """The unit's surroundings; None where it stands alone."""
    before = _steps(unit, links.up)
    after = _steps(unit, links.down)
    if not before and not after:
        return None
    columns = [*reversed(before), [unit], *after]
    height = max(min(len(column), PER_COLUMN + 1) for column in columns) * (HEIGHT + GAP_Y) - GAP_Y
    boxes = [
        _column(index, column, height, picture, own=column == [unit] and index == len(before))
        for index, column in enumerate(columns)
    ]
    edges = [edge for left, right in pairwise(boxes) for edge in _edges(left, right, links.up)]
    width = len(columns) * (WIDTH + GAP_X) - GAP_X + 2 * EDGE
    return Drawing(width, height + 2 * EDGE, tuple(box for column in boxes for box in column), tuple(edges))


def _steps(unit: UnitId, links: Mapping[UnitId, Names]) -> list[list[UnitId]]:
    """The units one step away, two steps away and so on; each stands where it is met first."""
    found: list[list[UnitId]] = []
    seen, last = {unit}, [unit]
    for _ in range(STEPS):
        # Beyond what is drawn nobody follows a line: a unit that thousands follow is no reason to look at theirs.
        last = sorted(_beyond(last[:PER_COLUMN], links) - seen)
        if not last:
            break
        seen.update(last)
        found.append(last)
    return found


def _beyond(units: Iterable[UnitId], links: Mapping[UnitId, Names]) -> set[UnitId]:
    return {other for unit in units for other in links.get(unit, NONE)}


def _column(index: int, units: list[UnitId], height: int, picture: Picture, *, own: bool) -> list[Box]:
    shown = units[:PER_COLUMN]
    more = len(units) - len(shown)
    x = EDGE + index * (WIDTH + GAP_X)
    rows = len(shown) + bool(more)
    top = EDGE + (height - rows * (HEIGHT + GAP_Y) + GAP_Y) // 2
    boxes = [
        Box(x, top + row * (HEIGHT + GAP_Y), unit, picture.status(unit), own=own) for row, unit in enumerate(shown)
    ]
    return [*boxes, Box(x, top + len(shown) * (HEIGHT + GAP_Y), None, None, more)] if more else boxes


def _edges(left: list[Box], right: list[Box], up: Mapping[UnitId, Names]) -> list[Edge]:
    return [
        Edge(one.x + WIDTH, one.y + HEIGHT // 2, other.x, other.y + HEIGHT // 2)
        for other in right
        for one in left
        if one.unit is not None and other.unit is not None and one.unit in up.get(other.unit, NONE)
    ]

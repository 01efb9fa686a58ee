"""One line of the table: what was aimed at, what was measured, and beside what."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """`value` and `beside` are medians in `unit`; `ratio` is value / beside, or value / limit where nothing is beside.

    `goal` is as docs/performance.md says it, and `met` whether this run reached it; None: it is only for information. `share`: how
    much of what the goal allows it takes.
    """

    name: str
    goal: str
    value: float
    unit: str
    beside: float | None
    ratio: float | None
    met: bool | None
    spread: tuple[float, float]
    share: float | None = None


def compared(
    name: str,
    goal: str,
    pairs: Sequence[tuple[float, float]],
    unit: str,
    *,
    least: float | None = None,
    most: float | None = None,
) -> Row:
    """A row of pairs measured in turns: (ours, theirs) of each round. The ratio is the median of the rounds' ratios."""
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    ratio = statistics.median(ratios)
    met = (
        None
        if least is None and most is None
        else (least is None or ratio >= least) and (most is None or ratio <= most)
    )
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    share = ratio / most if most is not None else least / ratio if least is not None else None
    return Row(name, goal, ours, unit, theirs, ratio, met, (ratios[0], ratios[-1]), share)


def limited(name: str, goal: str, values: Sequence[float], unit: str, most: float) -> Row:
    """A row with an upper limit."""
    value = statistics.median(values)
    return Row(name, goal, value, unit, None, value / most, value <= most, (min(values), max(values)), value / most)


def known(name: str, values: Sequence[float], unit: str) -> Row:
    """A row without a goal."""
    return Row(name, "", statistics.median(values), unit, None, None, None, (min(values), max(values)))


def wall(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu(work: Callable[[], object], times: int = 1) -> float:
    """Seconds of this process's CPU for one of so many calls: other programs on the machine do not count."""
    start = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - start) / times


def show(rows: Sequence[Row]) -> None:
    """The table."""
    table = Table(title=None, show_edge=False, pad_edge=False)
    for heading in ("what", "goal", "measured", "beside", "ratio", "min-max", ""):
        table.add_column(heading, justify="right" if heading in ("measured", "beside", "ratio", "min-max") else "left")
    for row in rows:
        low, high = row.spread
        beside = "" if row.beside is None else f"{row.beside:.3g} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        met = {True: "reached", False: "MISSED", None: ""}[row.met]
        table.add_row(row.name, row.goal, f"{row.value:.3g} {row.unit}", beside, ratio, f"{low:.3g}-{high:.3g}", met)
    Console(width=180).print(table)


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for a program."""
    return [asdict(row) for row in rows]

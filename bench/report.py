"""The page of what was measured: `python -m bench.report ROWS.json ...` writes docs/bench.md and docs/bench.svg from what `python -m bench --json` wrote.

Of several files the later ones count where both have a row: a part that was measured again need not bring all others with it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
LEFT, WIDTH, LINE = 560, 1040, 22  # pixels: where bars begin, of the picture, of a line
LEAST, MOST = 0.001, 10.0  # of what a goal allows: the ends of the axis
REACHED, MISSED = "#2f7d4f", "#b3402f"

Row = dict[str, Any]


def main(files: Sequence[str]) -> None:
    """Write both."""
    rows: dict[str, Row] = {}
    machines = []
    for file in files:
        told = json.loads(Path(file).read_text(encoding="utf-8"))
        machines.append(told["machine"])
        above = ""
        for row in told["rows"]:
            above = above if row["name"].startswith(" ") else row["name"]
            rows[f"{above} {row['name']}"] = row
    (DOCS / "bench.md").write_text("\n".join([*page(machines[-1], [*rows.values()]), ""]), encoding="utf-8")
    (DOCS / "bench.svg").write_text("\n".join([*picture([*rows.values()]), ""]), encoding="utf-8")


def page(machine: Row, rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the page."""
    yield "# Benchmarks\n"
    yield "*Made by `python -m bench.report` from one run of `make bench`.* What each row means, and what was learnt, is in [performance.md](performance.md).\n"
    load = ", ".join(f"{one:.0f}" for one in machine.get("load", ()))
    under = f", load {load} (1, 5, 15 minutes) at the end" if load else ""
    yield f"{machine['cores']} cores, {machine['system']}, Python {machine['python']}{under}. Medians; a ratio is the median of the rounds' ratios, in turns.\n"
    yield "How much of what its goal allows each row takes; left of the line is within it:\n"
    yield "![Bars: each row's share of its goal](bench.svg)\n"
    yield "| what | goal | measured | beside | ratio | least and most | |"
    yield "|---|---|---:|---:|---:|---|---|"
    for row in rows:
        low, high = row["spread"]
        beside = "" if row["beside"] is None else _number(row["beside"], row["unit"])
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3g}"
        met = {True: "reached", False: "**missed**", None: ""}[row["met"]]
        name = row["name"].replace("|", "\\|")
        cells = (name, row["goal"], _number(row["value"], row["unit"]), beside, ratio, f"{low:.3g}-{high:.3g}", met)
        yield f"| {' | '.join(cells)} |"


def picture(rows: Sequence[Row]) -> Iterator[str]:
    """A bar for each row that has a goal, on an axis of powers of ten."""
    aimed = [row for row in rows if row.get("share") is not None]
    height = LINE * (len(aimed) + 2)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">'
    yield f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    for power in range(round(math.log10(LEAST)), round(math.log10(MOST)) + 1):
        at, goal = _at(10.0**power), power == 0
        shade = "#222" if goal else "#ddd"
        yield f'<line x1="{at:.0f}" x2="{at:.0f}" y1="{LINE}" y2="{height - 4}" stroke="{shade}"/>'
        yield f'<text x="{at:.0f}" y="14" text-anchor="middle">{"the goal" if goal else f"{10.0**power:g}"}</text>'
    for number, row in enumerate(aimed):
        yield from _bar(row, LINE * (number + 1) + 6)
    yield "</svg>"


def _bar(row: Row, top: int) -> Iterator[str]:
    share, colour = row["share"], REACHED if row["met"] else MISSED
    end = _at(share)
    yield f'<text x="{LEFT - 6}" y="{top + 11}" text-anchor="end">{escape(_short(row["name"].strip()))}</text>'
    yield f'<rect x="{LEFT}" y="{top}" width="{max(end - LEFT, 1):.0f}" height="{LINE - 8}" fill="{colour}"/>'
    inside = end > WIDTH - 60
    anchor, shade = ("end", "#fff") if inside else ("start", "#222")
    yield f'<text x="{end + (-4 if inside else 4):.0f}" y="{top + 11}" text-anchor="{anchor}" fill="{shade}">{share:.2g}</text>'


def _at(share: float) -> float:
    """Where on the axis."""
    part = math.log10(min(max(share, LEAST), MOST) / LEAST) / math.log10(MOST / LEAST)
    return LEFT + part * (WIDTH - LEFT - 12)


def _short(name: str) -> str:
    return name if len(name) <= 84 else f"{name[:83]}…"


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


if __name__ == "__main__":
    main(sys.argv[1:])

"""`make bench`: what is measured, and beside what. A few minutes; `BENCH=full` takes its time.

Both sides of a comparison run in turns in one go, and the medians of the rounds' ratios are what counts: the
milliseconds are this machine's, on this day.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import aws, deploy, jail, job, load, loop, memory, merge, page, poll, warm
from bench.row import Row, plain, show
from reconciler.runner.terraform.binary import find_engine
from tests.kit.graph import Graph


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    units: tuple[int, ...]  # for passes, loads and scrapes
    graph: Graph  # for deploys
    deploys: int
    jobs: int


SIZES = {
    "": Size(5, (1_000, 10_000), Graph(chains=5, length=5, leaves=75), 3, 10),
    "full": Size(15, (1_000, 10_000, 100_000), Graph(chains=10, length=5, leaves=150), 7, 30),
}


def main() -> int:
    """Measure, print, and write the file that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, too")
    parser.add_argument(
        "only", nargs="*", help="aws, deploy, jail, job, load, loop, memory, merge, page, poll, warm; all unless named"
    )
    options = parser.parse_args()
    size = SIZES[os.environ.get("BENCH", "")]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        for name, measure in _parts(Path(folder), size).items():
            if not options.only or name in options.only:
                sys.stderr.write(f"{name} ...\n")
                rows += measure()
    show(rows)
    if options.json:
        machine: dict[str, object] = {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        }
        machine["load"] = os.getloadavg()
        options.json.write_text(
            json.dumps({"machine": machine, "rows": plain(rows)}, indent=1) + "\n", encoding="utf-8"
        )
    return 0


def _parts(folder: Path, size: Size) -> dict[str, Callable[[], Iterator[Row]]]:
    return {
        # First: it forks this very process, and what the others leave in memory would be forked along.
        "jail": lambda: jail.rows(folder, find_engine("auto", None, None, folder), 3 * size.rounds),
        "loop": lambda: loop.rows(folder, size.units, size.rounds),
        "merge": lambda: merge.rows(folder, size.units, size.rounds),
        "load": lambda: load.rows(folder, size.rounds),
        "memory": lambda: memory.rows(folder, size.units[1:]),
        "page": lambda: page.rows(folder, size.units, size.rounds),
        "poll": lambda: poll.rows(folder, 4 * size.rounds),
        "job": lambda: job.rows(folder, 10_000, size.jobs),
        "aws": lambda: aws.rows(folder, find_engine("auto", None, None, folder), size.rounds),
        "warm": lambda: warm.rows(folder, find_engine("auto", None, None, folder), size.graph, size.rounds),
        "deploy": lambda: deploy.rows(folder, find_engine("auto", None, None, folder), size.graph, size.deploys),
    }


sys.exit(main())

"""`make crash`: every point with every seed, a house a seed. Goes on where it stopped: what is in the results is not played again.

The matrix takes hours. `played.jsonl` beside this file keeps what was played, a house a line, with the tree of the product's
code that it was played on: `--results` writes it, and with `--earlier` the houses of other trees count as played, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import reconciler
from reconciler.demo import playground
from tests.crash.harness import Fallen, falling_house
from tests.crash.points import FAULTS, POINTS
from tests.kit.forks import fork_server
from tests.kit.quick import quick_python

SEEDS = 200
RESULTS = Path(tempfile.gettempdir(), "reconciler-crash.jsonl")
Json = dict[str, Any]


def play(seed: int, most: int, *, faults: bool = False) -> Json:
    """One house; what fell, what does not hold at its end, and why it did not get there. `most`: so many of the points."""
    began = time.monotonic()
    fallen: list[Fallen] = []
    wrong: list[str] = []
    failed = None
    os.nice(5)  # whoever works on this machine comes first
    with (
        tempfile.TemporaryDirectory(prefix="crash-", ignore_cleanup_errors=True) as folder,
        quick_python() as python,
        patch.object(playground, "INTERPRETER", str(python)),
        fork_server() as server,
        falling_house(Path(folder) / "house", server, random.Random(seed)) as house,  # noqa: S311 - a story
    ):
        try:
            house.begin()
            if faults:
                fallen.extend(house.fault(*one) for one in house.rng.sample(FAULTS, len(FAULTS)))
            else:
                points = random.Random(0).sample(POINTS, min(most, len(POINTS)))  # noqa: S311 - the same in each house
                fallen.extend(map(house.fall, house.rng.sample(points, len(points))))
            wrong = house.check()
        except (pytest.fail.Exception, AssertionError) as error:
            failed = str(error)
    return {
        "seed": seed,
        "tree": tree(),
        "falls": len(fallen),
        "points": len({one.point for one in fallen}),
        "again": sum(one.tries > 0 for one in fallen),
        "wrong": wrong,
        "failed": failed,
        "seconds": round(time.monotonic() - began, 1),
    }


def tree() -> str:
    """Which code this is: what Git calls the product's folder, with a mark where the work tree differs from it."""
    folder = Path(reconciler.__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout

    found = git("rev-parse", "HEAD:./").strip()[:12]
    return f"{found}+" if git("status", "--porcelain", ".") else found


def summary(results: Iterable[Json], jobs: int) -> str:
    """What can be quoted."""
    done = list(results)
    falls = sum(one["falls"] for one in done)
    trees = Counter(one["tree"] for one in done)
    wrong = Counter(_kind(line) for one in done for line in one["wrong"])
    stuck = [one["seed"] for one in done if one["failed"]]
    seconds = sum(one["seconds"] for one in done)
    lines = [
        f"{falls} falls in {len(done)} houses, {min((one['points'] for one in done), default=0)} points in each; not converged: {len(stuck)} {stuck or ''}",
        f"houses by tree of the code: {dict(trees)}",
        f"at the end: {dict(wrong) or 'nothing lost, doubled, orphaned, left behind or locked'}",
        f"{seconds / jobs / max(falls, 1):.2f} s a fall ({jobs} houses at a time), {sum(one['again'] for one in done)} took more than one change",
    ]
    return "\n".join(lines)


def _kind(line: str) -> str:
    return line.partition(":")[0] if line.startswith(("created", "left", "still", "audit", "journal")) else "a unit"


def main() -> None:
    parser = argparse.ArgumentParser(prog="make crash ARGS=...")
    parser.add_argument("--seeds", default=f"0-{SEEDS - 1}", help="a range of them (50-99), or one")
    parser.add_argument("--points", type=int, default=len(POINTS), help="so many of them, the same in each house")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="houses at a time: they wait a lot")
    parser.add_argument("--results", type=Path, help="a line of JSON for each house that was played")
    parser.add_argument("--faults", action="store_true", help="calls fail, instead of processes that die")
    parser.add_argument(
        "--earlier", action="store_true", help="what was played on another tree of the code counts, too"
    )
    told = parser.parse_args()
    results: Path = told.results or RESULTS.with_suffix(".faults.jsonl" if told.faults else ".jsonl")
    first, _, last = told.seeds.partition("-")
    wanted = range(int(first), int(last or first) + 1)
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    here = tree()
    done = {
        one["seed"]: one
        for one in map(json.loads, lines)
        if not one["failed"] and not one["wrong"] and (told.earlier or one["tree"] == here)
    }
    missing = [seed for seed in wanted if seed not in done]
    # Spawned: a house must not inherit what this process holds.
    with ProcessPoolExecutor(told.jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for future in as_completed([pool.submit(play, seed, told.points, faults=told.faults) for seed in missing]):
            one = future.result()
            done[one["seed"]] = one
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(one) + "\n")
            bad = one["failed"] or one["wrong"]
            print(f"seed {one['seed']}: {one['falls']} falls in {one['seconds']:.0f} s {bad or ''}", flush=True)  # noqa: T201
    found = [done[seed] for seed in wanted]
    print(summary(found, told.jobs))  # noqa: T201 - a program
    sys.exit(any(one["failed"] or one["wrong"] for one in found))


if __name__ == "__main__":
    main()

"""A first deploy by the whole daemon, beside `xargs -P` with plain init, plan and apply on the same modules and inputs.

xargs gets every upstream output substituted, so it need not keep the order; it verifies, judges and journals nothing.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.row import Row, compared, wall
from reconciler.demo.playground import Playground
from reconciler.runner.terraform.binary import Engine
from tests.kit.graph import CATALOG, SOURCE, Graph
from tests.kit.house import House

WORKERS = 2
PATIENCE = 1800.0  # seconds for one deploy
ONE_ROOT = (
    'cd "$1" && "$0" init -input=false >init.log && "$0" plan -input=false -out=tfplan >plan.log'
    ' && "$0" apply -input=false tfplan >apply.log'
)


def rows(folder: Path, engine: Engine, graph: Graph, rounds: int) -> Iterator[Row]:
    """In turns, each round with a fresh world."""
    rates, costs = [], []
    units = len(list(graph.links()))
    for number in range(rounds):
        here = folder / f"deploy-{number}"
        here.mkdir()
        theirs, their_cpu = by_xargs(here, engine, graph)
        ours, our_cpu = _by_daemon(here / "house", graph)
        rates.append((units / ours, units / theirs))
        costs.append((1000 * our_cpu / units, 1000 * their_cpu / units))
        shutil.rmtree(here / "roots")
    what = f"{units} units, builtin provider, {WORKERS} at a time: the daemon / xargs -P{WORKERS}"
    yield compared(what, ">= 0.95", rates, "units/s", least=0.95)
    yield compared("  CPU of that for one unit, git and Python included", "", costs, "ms")


def _children() -> float:
    """CPU seconds of every process that has been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_xargs(folder: Path, engine: Engine, graph: Graph) -> tuple[float, float]:
    """Seconds, and CPU seconds."""
    roots = write_roots(folder / "roots", graph)
    argv = ["xargs", "-P", str(WORKERS), "-n1", "sh", "-c", ONE_ROOT, str(engine.binary)]
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "CHECKPOINT_DISABLE": "1"}
    names = "\n".join(map(str, roots)).encode()
    before = _children()
    seconds = wall(lambda: subprocess.run(argv, input=names, env=env, check=True))
    return seconds, _children() - before


def write_roots(folder: Path, graph: Graph) -> list[Path]:
    """A root for each unit, with what it reads of another one written out."""
    module = folder / "module"
    module.mkdir(parents=True)
    (module / "main.tf").write_text(SOURCE, encoding="utf-8")
    values: dict[str, str] = {}
    roots = []
    for link in graph.links():
        previous = values[link.reads] if link.reads else ""
        values[link.name] = link.label if link.cut else f"{previous}/{link.label}"
        root = folder / link.name
        root.mkdir()
        inputs = {"label": link.label, "previous": previous, "note": link.note, "cut": link.cut}
        text = {
            "module": {"unit": {"source": "../module", **inputs}},
            "output": {"value": {"value": "${module.unit.value}"}},
        }
        (root / "main.tf.json").write_text(json.dumps(text), encoding="utf-8")
        roots.append(root)
    return roots


def _by_daemon(folder: Path, graph: Graph) -> tuple[float, float]:
    """Seconds from the accepted commit to the last unit's end, and CPU seconds of both planes from their start on."""
    local = {"workers": WORKERS, "per_environment": WORKERS}
    ground = Playground.create(folder, graph.files(), CATALOG, controller={"executor": {"local": local}})
    house = House(ground)
    before = _children()
    try:
        house.start()
        _wait(house, len(list(graph.links())))
        seconds = _seconds(house)
    finally:
        house.stop()
        ground.destroy()
    return seconds, _children() - before


def _wait(house: House, units: int) -> None:
    """Until every unit was applied. Seldom asked, and not over HTTP: whoever watches is measured, too."""
    ends = time.monotonic() + PATIENCE
    succeeded = "SELECT count(DISTINCT unit) FROM events WHERE action = 'job-ended' AND body LIKE '%\"Succeeded\"%'"
    while _asked(house, succeeded) < units:
        if time.monotonic() > ends:
            raise TimeoutError(f"not every unit was deployed in {PATIENCE} s\n{house.tails()}")
        time.sleep(0.5)


def _seconds(house: House) -> float:
    accepted = datetime.fromisoformat(_asked(house, "SELECT min(at) FROM events WHERE action = 'head-accepted'"))
    ended = datetime.fromisoformat(_asked(house, "SELECT max(at) FROM events WHERE action = 'job-ended'"))
    return (ended - accepted).total_seconds()


def _asked(house: House, query: str) -> Any:
    """What the journal's file says."""
    path = house.ground.folder / "controller" / "reconciler.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(query).fetchone()[0]

"""What the strict jail adds to a job: the same conversation with the same engine, inside and outside in turns."""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.row import Row, compared, known, limited
from reconciler.runner.jail.egress import Egress
from reconciler.runner.jail.tier import STRICT, make_sandbox
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.engine import Conversation, deadline_in

SECONDS = 120.0
ROOT = {"resource": {"terraform_data": {"this": {"input": "x"}}}}


def rows(folder: Path, engine: Engine, rounds: int) -> Iterator[Row]:
    """`init` and `plan`, as of a job that finds nothing to do. No row where there are no jails, or no static engine."""
    if sys.platform != "linux" or engine.kind == "embedded":
        sys.stderr.write("jail: not measured: it takes Linux and a static engine\n")
        return
    numbers = itertools.count()
    _spent(folder / "warm", engine, jailed=True)
    pairs = []
    for _ in range(rounds):
        bare = _spent(folder / f"jail-{next(numbers)}", engine, jailed=False)
        pairs.append((_spent(folder / f"jail-{next(numbers)}", engine, jailed=True), bare))
    added, cpu = ([1000 * (inside[n] - outside[n]) for inside, outside in pairs] for n in (0, 1))
    yield limited("strict jail, for a job that finds nothing to do: added", "<= 80 ms", added, "ms", 80)
    yield known("  CPU of that", cpu, "ms")
    yield compared("  init and plan inside, beside outside", "", [(1000 * i[0], 1000 * o[0]) for i, o in pairs], "ms")


def _spent(work: Path, engine: Engine, *, jailed: bool) -> tuple[float, float]:
    """Seconds, and seconds of CPU: this process's and of all that it waited for."""
    work.mkdir(mode=0o700)
    (work / "main.tf.json").write_text(json.dumps(ROOT))
    (work / "values.tfvars.json").write_text("{}")
    sandbox = make_sandbox(STRICT, work.parent)
    began, used = time.perf_counter(), sum(os.times()[:4])
    jail = sandbox.jailer(work, (engine.binary,), Egress(), work.with_suffix(".refused")) if jailed else None
    talk = Conversation(engine, work, {}, work.with_suffix(".log"), jail=jail)
    talk.init(deadline_in(SECONDS))
    talk.plan(deadline_in(SECONDS), refresh_only=True)
    return time.perf_counter() - began, sum(os.times()[:4]) - used

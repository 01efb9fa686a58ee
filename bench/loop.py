"""The controller alone: what a pass and a scrape cost with many units."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.row import Row, cpu, known, limited
from bench.sample import FACTS, Instant, Still, WallClock, desired, files
from reconciler import __version__
from reconciler.actual.ledger import CheckScheduled
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.logs import open_log
from reconciler.model import Desired, UnitId
from reconciler.observe import Observer
from reconciler.status import Outlook
from reconciler.store.sqlite import SqliteStore
from reconciler.web.series import SERIES_FOR_ALL, Metrics
from tests.kit.synced import record_synced

CAPACITY = Capacity(workers=2, per_environment=2)
LEAF = UnitId("prod/leaf-7")


def rows(folder: Path, sizes: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """Everything that needs no process."""
    for units in sizes:
        here = folder / f"units-{units}"
        here.mkdir()
        yield from _passes(here, desired(files(here, units)), rounds)


def _passes(folder: Path, meaning: Desired, rounds: int) -> Iterator[Row]:
    units = len(meaning.units)
    clock = WallClock()
    quiet = Observer(__version__, open_log(io.StringIO(), as_json=True, level="error"), clock.now)
    with closing(SqliteStore(folder / "store.db", clock)) as store:
        record_synced(store, meaning, FACTS, clock.now())
        rt = Runtime(Still(meaning), store, Instant(), clock, quiet, CAPACITY, 1)
        tick(rt)
        still = [1000 * cpu(lambda: tick(rt), 20) for _ in range(rounds)]
        yield limited(f"a pass, {units:,} units in order, nothing new", "<= 10 ms CPU at 10,000", still, "ms", 10)
        name = f"a pass, {units:,} units in order, one record is new"
        yield limited(name, "<= 10 ms CPU at 10,000", _moved(rt, rounds), "ms", 10)
        outlook = Outlook(lambda: meaning, store.ledger, lambda: FACTS, clock.now)
        metrics = Metrics(quiet, outlook.picture, __version__)
        metrics()
        scrapes = [1000 * cpu(metrics, 5) for _ in range(rounds)]
        each = "" if units > SERIES_FOR_ALL else ", each with series of its own"
        yield limited(f"/metrics, {units:,} units in order{each}", "<= 5 ms at 10,000", scrapes, "ms", 5)
        yield known("  one record is new", _scraped_anew(rt, metrics, rounds), "ms")
    assert not rt.executor.started, "somebody found something to do"  # type: ignore[attr-defined]  # it is ours


def _scraped_anew(rt: Runtime, metrics: Metrics, rounds: int) -> list[float]:
    times = []
    for number in range(rounds):
        rt.store.append(CheckScheduled(LEAF, datetime.now(UTC) + timedelta(days=3, seconds=number)))
        times.append(1000 * cpu(metrics))
    return times


def _moved(rt: Runtime, rounds: int) -> list[float]:
    times = []
    for number in range(rounds):
        rt.store.append(CheckScheduled(LEAF, datetime.now(UTC) + timedelta(days=2, seconds=number)))
        times.append(1000 * cpu(lambda: tick(rt)))
    return times

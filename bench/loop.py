"""The controller alone: what a pass, a load and a scrape cost with many units."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.row import Row, compared, cpu, known, limited
from bench.sample import FACTS, AcceptedInMemory, Instant, Still, WallClock, desired, files
from reconciler import __version__
from reconciler.branch import Catalogs, ProtectedBranch
from reconciler.controller import Runtime, tick
from reconciler.decide import Capacity, Known, decide, survey
from reconciler.demo.forge import Forge
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.ledger import CheckScheduled
from reconciler.logs import open_log
from reconciler.model import Desired, UnitId
from reconciler.observe import Observer
from reconciler.status import Outlook
from reconciler.store.sqlite import SqliteStore
from reconciler.web.series import SERIES_FOR_ALL, Metrics
from tests.kit.synced import record_synced
from tests.kit.world import MemoryStore

CAPACITY = Capacity(workers=2, per_environment=2)
LEAF = UnitId("prod/leaf-7")


def rows(folder: Path, sizes: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """Everything that needs no process but git."""
    for units in sizes:
        here = folder / f"units-{units}"
        here.mkdir()
        tree = files(here, units)
        yield from _passes(here, desired(tree), rounds)
        yield _merge(here, tree, units, rounds)


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
        yield known(f"a pass, {units:,} units in order, one record is new", _moved(rt, rounds), "ms")
        outlook = Outlook(lambda: meaning, store.ledger, lambda: FACTS, clock.now)
        metrics = Metrics(quiet, outlook.picture, __version__)
        metrics()
        scrapes = [1000 * cpu(metrics, 5) for _ in range(rounds)]
        name = f"/metrics, {units:,} units in order"
        yield (
            limited(name, "<= 5 ms at 10,000", scrapes, "ms", 5)
            if units > SERIES_FOR_ALL
            else known(name, scrapes, "ms")
        )
    assert not rt.executor.started, "somebody found something to do"  # type: ignore[attr-defined]  # it is ours


def _moved(rt: Runtime, rounds: int) -> list[float]:
    times = []
    for number in range(rounds):
        rt.store.append(CheckScheduled(LEAF, datetime.now(UTC) + timedelta(days=2, seconds=number)))
        times.append(1000 * cpu(lambda: tick(rt)))
    return times


def _merge(folder: Path, tree: dict[str, str], units: int, rounds: int) -> Row:
    """After the fetch, to decisions: all of a commit, and the next one that touches one entry."""
    forge = Forge.create(folder / "environments.git")
    forge.commit(tree, "All")
    source = EnvironmentsSource(
        Remote(forge.url),
        "main",
        folder / "mirror",
        AcceptedInMemory(),
        genesis=None,
        genesis_required=False,
        allow_file=True,
    )
    now, path, ledger = datetime.now(UTC), f"environments/{LEAF}.yaml", MemoryStore()
    record_synced(ledger, desired(tree), FACTS, now)
    pairs = []
    for number in range(rounds):
        branch, memo = ProtectedBranch(source, Catalogs({}, folder / "trees")), Known()

        def decided(branch: ProtectedBranch = branch, memo: Known = memo) -> None:
            meaning = branch.load(forge.head)
            list(decide(survey(meaning, ledger.ledger(), FACTS, now, known=memo), CAPACITY))

        source.poll()
        whole = cpu(decided)
        forge.commit({path: tree[path] + f"  note: change {number}\n"}, "One")
        source.poll()
        pairs.append((1000 * cpu(decided), 1000 * whole))
    return compared(f"a merge of 1 entry in {units:,}, to decisions", "<= 1 % of a full load", pairs, "ms", most=0.01)

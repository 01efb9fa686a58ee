"""What a job costs besides git and the engine, with many units in its repository: both planes' own work, added up."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.loop import CAPACITY, LEAF
from bench.row import Row, known, limited
from bench.sample import Instant, Still, WallClock, graph
from reconciler import __version__, codec
from reconciler.actual.ledger import CheckScheduled
from reconciler.config import load_runner
from reconciler.controller.tick import Runtime, tick
from reconciler.demo.playground import Playground
from reconciler.git.command import Git
from reconciler.logs import open_log
from reconciler.model import Cause, Desired, Job, JobId, Operation, Outcome, Result, RunnerFacts, UnitId
from reconciler.observe import Observer
from reconciler.runner.forked import fork
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from reconciler.runner.service import READ_BY_JOBS
from reconciler.runner.terraform import engine
from reconciler.runner.terraform.process import Command
from reconciler.store.sqlite import SqliteStore
from tests.kit.graph import CATALOG
from tests.kit.synced import NOTHING, record_synced

outside = 0.0  # seconds that this process has waited for git and for the engine


Spent = tuple[float, float]  # seconds, and seconds of CPU


@dataclass(frozen=True, slots=True)
class World:
    """A runner's host that has been at work, and jobs that are still to be done."""

    host: Host
    meaning: Desired
    leaves: tuple[Job, ...]


@contextmanager
def world(folder: Path, units: int, jobs: int) -> Iterator[World]:
    """In which first deploys of leaves are next: their hub is there."""
    ground = Playground.create(folder / "jobs", graph(units).files(), CATALOG)
    try:
        host = Host(load_runner(ground.runner_config))
        head = ground.environments.head
        host.facts()  # which a controller asks for before anything else
        codec.prepare(*READ_BY_JOBS)
        _run(host, Job(JobId("hub"), Operation.APPLY, UnitId("prod/hub"), head, 1))
        meaning = host.history.known()
        assert meaning is not None
        leaves = (Job(JobId(f"leaf-{n}"), Operation.APPLY, UnitId(f"prod/leaf-{n}"), head, 1) for n in range(jobs))
        yield World(host, meaning, tuple(leaves))
    finally:
        ground.destroy()


def rows(folder: Path, units: int, jobs: int) -> Iterator[Row]:
    """First deploys of leaves, as the service forks them, and the two passes that start and collect each."""
    with world(folder, units, jobs) as place:
        runner = [_run(place.host, leaf) for leaf in place.leaves]
        controller = _passes(folder / "jobs.db", place.meaning, place.host.facts(), jobs)
    both = [
        [1000 * sum(pair) for pair in zip(ours, its, strict=True)]
        for ours, its in zip(zip(*runner, strict=True), zip(*controller, strict=True), strict=True)
    ]
    yield limited(f"a job, {units:,} units: all but git and the engine", "<= 150 ms", both[0], "ms", 150)
    yield known("  CPU of that", both[1], "ms")


def _run(host: Host, job: Job) -> Spent:
    """What the runner spends itself, from the request to the job's word that its result is there, and its CPU to its very end."""
    ours, theirs = os.pipe()
    began, used = time.perf_counter(), time.process_time()
    folder = host.spool.job(job.id)
    lock = folder.create(job)
    assert lock is not None
    host.warm(job.unit)

    def tell(number: float) -> None:
        os.write(theirs, f"{number}\n".encode())

    def carry_out() -> None:
        _watch()
        run_job(host, job, folder, lock, lambda: tell(outside))
        tell(time.process_time())

    pid = fork(carry_out)
    lock.release()
    os.close(theirs)
    with os.fdopen(ours, "rb") as said:
        waited = float(said.readline())
        seconds = time.perf_counter() - began - waited
        its = float(said.readline())
    os.waitpid(pid, 0)
    used = time.process_time() - used
    found = folder.state()
    assert isinstance(found, Result)
    assert found.reason == "Applied", found
    return seconds, used + its


class _Timed(Command):
    """A command of the engine, from its start to its end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._began = time.perf_counter()
        super().__init__(*arguments, **options)

    def wait(self, *arguments: Any) -> Any:
        """See `Command`."""
        global outside  # noqa: PLW0603 - a stopwatch
        try:
            return super().wait(*arguments)
        finally:
            outside += time.perf_counter() - self._began


def _watch() -> None:
    """Count what is not ours, from now on, in this process."""
    ask = Git.ask

    def timed(git: Git, *arguments: Any, **options: Any) -> Any:
        global outside  # noqa: PLW0603 - a stopwatch
        began = time.perf_counter()
        try:
            return ask(git, *arguments, **options)
        finally:
            outside += time.perf_counter() - began

    engine.Command = _Timed  # type: ignore[attr-defined]  # only a stopwatch may do this
    Git.ask = timed  # type: ignore[assignment]


def _passes(path: Path, meaning: Desired, facts: RunnerFacts, jobs: int) -> list[Spent]:
    """What the two passes of each job cost: journal it and hand it over, journal its end."""
    clock, executor = WallClock(), Instant(facts)
    quiet = Observer(__version__, open_log(io.StringIO(), as_json=True), clock.now)
    found = []
    with closing(SqliteStore(path, clock)) as store:
        record_synced(store, meaning, facts, clock.now())
        rt = Runtime(Still(meaning), store, executor, clock, quiet, CAPACITY, 1)
        tick(rt)
        for _ in range(jobs):
            store.append(CheckScheduled(LEAF, clock.now()))
            began, used = time.perf_counter(), time.process_time()
            tick(rt)
            job = executor.started[-1]
            executor.results[job.id] = _looked(job, rt)
            tick(rt)
            found.append((time.perf_counter() - began, time.process_time() - used))
    assert len(executor.started) == jobs
    return found


def _looked(job: Job, rt: Runtime) -> Result:
    """The result of a job that found everything in order."""
    now, record = datetime.now(UTC), rt.store.ledger().units[job.unit]
    assert record.job is not None
    return Result(
        job, Outcome.SUCCEEDED, "InSync", "The real world is as desired.", now, now,
        fingerprint=record.job.fingerprint, cause=Cause.DRIFT, plan=NOTHING, applied=record.applied,
    )  # fmt: skip

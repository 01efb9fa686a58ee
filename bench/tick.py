"""A flame graph of the controller: `python -m bench.tick FOLDER` writes one of merges to their decisions, and one of passes over what is in order."""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing
from pathlib import Path

from bench.flame import Sampler, write_svg
from bench.merge import Site
from bench.sample import FACTS, Instant, Still, WallClock
from reconciler import __version__
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.logs import open_log
from reconciler.model import Applied, Job, JobId, Outcome, Result, StateMark
from reconciler.observe import Observer
from reconciler.ports import Running
from reconciler.store.sqlite import SqliteStore
from tests.kit.synced import NOTHING, record_synced

UNITS, MERGES, PASSES = 10_000, 150, 60_000


class Ending(Instant):
    """Jobs that have ended well at the first look. `Runtime` is told after it is made."""

    rt: Runtime

    def poll(self, job_id: JobId) -> Running | Result:
        """See `Executor`."""
        job = next(job for job in self.started if job.id == job_id)
        return self._ended(job)

    def _ended(self, job: Job) -> Result:
        unit, now = self.rt.source.latest().units[job.unit], self.rt.clock.now()  # type: ignore[union-attr]  # there is one
        asked = self.rt.store.ledger().units[job.unit].job
        assert asked is not None
        applied = Applied(
            job.id, job.commit, now, asked.fingerprint, unit.pin.module, unit.pin.version, unit.presence, unit.reads,
            {"value": f"hmac:{unit.id}"}, StateMark("lineage", 2),
        )  # fmt: skip
        return Result(
            job, Outcome.SUCCEEDED, "InSync", "The real world is as desired.", now, now,
            commit=job.commit, fingerprint=asked.fingerprint, cause=asked.cause, plan=NOTHING, applied=applied,
        )  # fmt: skip


def main(folder: Path) -> None:
    """Write both."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        work = Path(name)
        site, clock = Site(work / "site", UNITS), WallClock()
        with (
            (work / "log").open("w", encoding="utf-8") as file,
            closing(SqliteStore(work / "store.db", clock)) as store,
        ):
            meaning = site.meaning()
            record_synced(store, meaning, FACTS, clock.now())
            observer = Observer(__version__, open_log(file, as_json=True), clock.now)
            source, executor = Still(meaning), Ending()
            executor.rt = rt = Runtime(source, store, executor, clock, observer, Capacity(2, 2), 1)
            tick(rt)
            merges, quiet = Sampler(), Sampler()
            for _ in range(MERGES):
                site.commit(1)
                with merges:
                    source.meaning = site.meaning()
                    for _ in range(3):  # a job is handed over, its end is seen, and what follows from that
                        tick(rt)
            assert len(executor.started) == MERGES, len(executor.started)
            with quiet:
                for _ in range(PASSES):
                    tick(rt)
    what = f"controller, {UNITS:,} units"
    spent = f"{1000 * sum(merges.stacks.values()) / MERGES:.1f} ms of CPU each, git's own not counted"
    write_svg(
        folder / "flame-merge.svg",
        f"{what}: {MERGES} merges of one entry, to the end of their jobs; {spent}",
        merges.stacks,
        "s",
    )
    spent = f"{1e6 * sum(quiet.stacks.values()) / PASSES:.0f} µs of CPU each"
    write_svg(folder / "flame-idle.svg", f"{what}: {PASSES:,} passes with nothing new; {spent}", quiet.stacks, "s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

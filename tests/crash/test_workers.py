"""Workers that are killed and stopped at random, and their broker, while jobs ask for them: no job says anything but what is so."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Self

import pytest

from reconciler.model import JobId, Result
from reconciler.runner.forked import fork
from reconciler.runner.job import run_job
from reconciler.runner.warm.beside import Beside
from reconciler.runner.warm.broker import memory_of
from tests.e2e.test_warm import Site
from tests.kit import plane, warm
from tests.kit.terraform import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(sys.platform != "linux", reason="warm workers take Linux"),
]

JOBS = int(os.environ.get("RECONCILER_TEST_WARM_JOBS", "60"))  # `make workers` plays 2,000
AT_ONCE = 3
UNITS = "abcdef"
DRIFTS = 0.1  # of the jobs find something to do
TROUBLES = 0.35  # for each job
WITHIN = 0.3  # seconds after it began
GROWS = 1.2  # times the memory that the broker may have at the end; it keeps what it was asked for, and no more than a thousand of that


class Troubles:
    """Somebody who ends, or stops for good, what is not a job: now and then, soon after one began."""

    def __init__(self, site: Site, beside: Beside, rng: random.Random) -> None:
        self._site, self._beside, self._rng = site, beside, rng
        self._due: Queue[bool] = Queue()
        self._thread = threading.Thread(target=self._make)
        self.made: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._due.put(False)
        self._thread.join()

    def begun(self) -> None:
        """A job was begun."""
        if self._rng.random() < TROUBLES:
            self._due.put(True)

    def _make(self) -> None:
        while self._due.get():
            time.sleep(self._rng.uniform(0, WITHIN))  # not a wait: when it happens is what is drawn
            kind = self._rng.choices(["killed", "stopped", "interrupted", "broker"], [10, 4, 2, 1])[0]
            found = [self._beside.pid] if kind == "broker" else warm.programs(self._site.host)
            victim = self._rng.choice(found) if found else None
            if victim is None:
                continue
            with suppress(ProcessLookupError):
                os.kill(victim, {"stopped": signal.SIGSTOP, "interrupted": signal.SIGINT}.get(kind, signal.SIGKILL))
                self.made[kind] += 1


class Crew:
    """Runs jobs, each in a process of its own, as a service does."""

    def __init__(self, site: Site, beside: Beside, rng: random.Random, begun: Callable[[], None]) -> None:
        self._site, self._beside, self._rng, self._begun = site, beside, rng, begun
        self._running: dict[int, tuple[JobId, str, str]] = {}
        self.wrong: list[str] = []
        self.broker: list[int] = []  # bytes of memory, job by job

    def run(self, jobs: int) -> None:
        for number in range(jobs):
            free = sorted(set(UNITS) - {name for _, name, _ in self._running.values()})
            self._begin(number, self._rng.choice(free))
            while len(self._running) >= AT_ONCE:
                self._collect()
        while self._running:
            self._collect()

    def _begin(self, number: int, name: str) -> None:
        drifts = self._rng.random() < DRIFTS
        if drifts:
            file = self._site.state(name)
            file.write_text(file.read_text().replace(f'"{name}"', f'"drift {number}"'))
        self._beside.reap(lambda: None)
        self._site.host.door = self._beside.door
        asked = plane.job(f"prod/{name}", self._site.ground.environments.head, 100 + number)
        folder = self._site.host.spool.job(asked.id)
        life = folder.create(asked)
        assert life is not None
        pid = fork(lambda: run_job(self._site.host, asked, folder, life))
        life.release()
        self._begun()
        self._running[pid] = (asked.id, name, "Applied" if drifts else "InSync")

    def _collect(self) -> None:
        pid = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid  # type: ignore[union-attr]
        if pid not in self._running:  # the broker
            self._beside.reap(lambda: None)
            self._site.host.door = self._beside.door
            return
        os.waitpid(pid, 0)
        job, name, expected = self._running.pop(pid)
        state = self._site.host.spool.job(job).state()
        if not isinstance(state, Result) or state.reason != expected:
            self.wrong.append(f"{job} of {name}: {expected} was to be, and it is {state}")
        if "drift" in self._site.state(name).read_text():
            self.wrong.append(f"{job} of {name}: its state still has what has drifted")
        with suppress(OSError):
            self.broker.append(memory_of(self._beside.pid or 0))


@contextmanager
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is given up for long, so that workers are tried again and again."""
    monkeypatch.setattr("reconciler.runner.warm.pool.IN_VAIN", 0.05)
    monkeypatch.setattr("reconciler.runner.warm.pool.PAUSE", 0.2)
    monkeypatch.setattr("reconciler.runner.warm.loan.COLD", 2.0)
    monkeypatch.setattr("reconciler.runner.warm.beside.AGAIN", 0.05)
    yield


def test_whatever_happens_to_workers_jobs_say_what_is_so(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(JOBS)  # noqa: S311 - a story
    site = Site(tmp_path, engine, warm=warm.config(workers=3, jobs=25), names=UNITS)
    with impatient(monkeypatch), warm.brokered(site.host) as beside:
        for name in UNITS:
            assert site.run(name).reason == "Applied"
        before = len(site.engine.commands())
        with Troubles(site, beside, rng) as troubles:
            crew = Crew(site, beside, rng, troubles.begun)
            crew.run(JOBS)
        plans = sum(word == "plan" for _, word in site.engine.commands()[before:])
        print(f"{JOBS} jobs, {plans} of them planned by the engine; {dict(troubles.made)}")  # noqa: T201 - what is quoted
        assert crew.wrong == []
        assert troubles.made["killed"] > JOBS / 20
        assert plans < JOBS * (1 - DRIFTS), "some of them are a worker's"
        assert crew.broker[-1] < GROWS * max(crew.broker[: len(crew.broker) // 4])
    until(lambda: not warm.programs(site.host), "every worker has ended with its broker")

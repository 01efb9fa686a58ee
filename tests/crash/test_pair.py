"""Two daemons on one store and one runner, as real processes that are stopped, continued and killed while changes are merged.

`make schedules` plays two hundred; a test run plays a handful.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import httpx
import pytest
import yaml

from reconciler.demo.playground import Playground, free_port, laid_over
from reconciler.model import Phase
from reconciler.runner.spool import Spool
from reconciler.store.lease import LEASE_LOST
from reconciler.store.sqlite import SqliteStore
from tests.crash.harness import CONTROLLER, SETTINGS, Cast, FallingHouse
from tests.kit.forks import ForkServer, Plane
from tests.kit.house import ASKING
from tests.kit.modules import excused
from tests.kit.wishes import CATALOG, files_of
from tests.kit.world import FakeClock

SCHEDULES = int(os.environ.get("RECONCILER_TEST_PAIRS", "6"))
HOUSES = 2
LEASE = 2  # seconds
TAKEN_OVER = math.inf  # as the time at which a stopped daemon goes on: after another one has taken over
CONVERGES = 240.0  # seconds
DAEMONS = ("controller", "standby")
KINDS = ("change", "upstream", "object", "create", "destroy", "rename")

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.crash, pytest.mark.timeout(36000)]


class PairHouse(FallingHouse):
    """A house with a second daemon on the store of the first."""

    processes: dict[str, Plane]
    ended_by_us: set[int]
    falls: int
    led: str | None  # who led at the last look

    def furnish(self) -> None:
        """Give the second daemon its own listener and socket."""
        config = yaml.safe_load(self.ground.controller_config.read_text(encoding="utf-8"))
        own = {
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "admin": {"socket": str(self.ground.runtime / "standby.sock")},
        }
        self.config("standby").write_text(yaml.safe_dump(laid_over(config, own)), encoding="utf-8")
        self.processes, self.ended_by_us, self.falls, self.led = {}, set(), 0, None

    def config(self, name: str) -> Path:
        return self.ground.controller_config if name == "controller" else self.ground.folder / "standby.yaml"

    def listening(self, name: str) -> str:
        return f"http://{yaml.safe_load(self.config(name).read_text(encoding='utf-8'))['http']['listen']}"

    @property
    def leader(self) -> str | None:
        """Which daemon says that it leads; neither, while nobody does, or whoever does is stopped."""
        for name in DAEMONS:
            with suppress(httpx.HTTPError, KeyError, json.JSONDecodeError):
                answer = ASKING.get(f"{self.listening(name)}/readyz", timeout=0.5).json()
                if answer["checks"]["leader"]["ok"]:
                    return name
        return None

    def keep_up(self) -> None:
        """Start what has ended; a daemon that we did not kill has said that another one took over from it."""
        self.start_runner()
        for name in DAEMONS:
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                continue
            if process is not None and process.pid not in self.ended_by_us and not self.said_so(name):
                pytest.fail(f"{name} ended by itself\n{self.tails()}")
            self.processes[name] = self._spawn(name, "run", "--config", str(self.config(name)))

    def said_so(self, name: str) -> bool:
        return LEASE_LOST in (self.ground.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def begin(self) -> None:
        """The first deploy, in which nothing happens to anybody."""
        commit = self.ground.environments.head

        def in_order() -> bool:
            self.keep_up()
            self.note_leader()
            return self.in_order(commit)

        self.until(in_order, "the first deploy is there", CONVERGES)

    # --- a schedule

    def schedule(self) -> None:
        """A change is merged, and the leader falls; what else happens to whom, and when, is drawn. Then all is well again."""
        commit = self.ground.merge(self.cast.make(self.rng.choice(KINDS)))
        goes_on: dict[str, float] = {}
        troubles = self.rng.randrange(1, 5)
        falls = False
        next_one = time.monotonic() + self.rng.uniform(0, LEASE)
        deadline = time.monotonic() + CONVERGES
        while time.monotonic() < deadline:
            now = time.monotonic()
            self.note_leader()
            for name in [one for one, at in goes_on.items() if at == TAKEN_OVER and self.led not in (None, one)]:
                goes_on[name] = now + self.rng.uniform(0, 2 * LEASE)
            for name in [one for one, at in goes_on.items() if at <= now]:
                self.processes[name].send_signal(signal.SIGCONT)
                del goes_on[name]
            if troubles and now >= next_one:
                happened = self.trouble(goes_on, first=not falls)
                falls, troubles = falls or happened, troubles - happened
                next_one = now + self.rng.uniform(0, 2 * LEASE) * happened
            if not goes_on or TAKEN_OVER in goes_on.values():
                self.keep_up()
            if not troubles and not goes_on and self.led is not None and self.in_order(commit):
                return
            time.sleep(0.1)  # a poll, not a wait: the deadline is the wait
        pytest.fail(f"nothing is in the way, and yet it is not in order\n{self.tails()}")

    def note_leader(self) -> None:
        self.led = self.leader
        if self.led is not None:
            self.listens = self.listening(self.led)

    def trouble(self, goes_on: dict[str, float], *, first: bool) -> bool:
        """Stop or kill a daemon; the first time the leader, until the other has taken over. Whether it happened."""
        name = self.led if first or self.rng.random() < 0.7 else self.rng.choice(DAEMONS)
        process = self.processes.get(name) if name not in (None, *goes_on) else None  # type: ignore[arg-type]
        if name is None or process is None or process.poll() is not None:
            return False
        if self.rng.random() < 0.6:
            process.send_signal(signal.SIGSTOP)
            goes_on[name] = TAKEN_OVER if first else time.monotonic() + LEASE * self.rng.uniform(0.1, 4)
        else:
            self.ended_by_us.add(process.pid)
            process.kill()
        return True

    # --- what must hold

    def end(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(CONVERGES)

    def old_writes(self) -> list[str]:
        """No job in the journal is of an older term than the last that began before it; and each schedule had a new one.

        It may be of a higher fence: who begins and hears of its own from the runner cannot know that it is its own, and takes another.
        """
        store = SqliteStore(self.ground.folder / "controller" / "reconciler.db", FakeClock(None), lead=False)  # type: ignore[arg-type]
        try:
            wrong, fence = [], 0
            for event in reversed(store.history("all", 1_000_000)):
                if event.action == "started":
                    fence = int(str(event.body["fence"]))
                elif event.action == "job-dispatched":
                    of = cast("dict[str, dict[str, int]]", event.body["dispatched"])["job"]["fence"]
                    wrong += [f"record {event.seq} has fence {of}, and {fence} led"] if of < fence else []
                    fence = max(fence, of)
            assert fence > self.falls, f"{fence} terms, and {self.falls} falls"
            return wrong
        finally:
            store.close()

    def overlaps(self) -> list[str]:
        """Applies of one unit that were going on at one time, by the runner's own record of each job."""
        times: dict[str, list[tuple[float, float]]] = {}
        for folder in Spool(self.ground.folder / "runner" / "spool").jobs():
            began = [at.timestamp() for phase, at in folder.phases() if phase is Phase.APPLYING]
            result = folder.path / "result.json"
            if began and result.exists():
                ended = json.loads(result.read_bytes())
                times.setdefault(ended["job"]["unit"], []).append((began[0], result.stat().st_mtime))
        wrong = []
        for unit, spans in times.items():
            ordered = sorted(spans)
            wrong += [f"{unit} {a} {b}" for a, b in itertools.pairwise(ordered) if b[0] < a[1]]
        return wrong


@contextmanager
def pair_house(folder: Path, server: ForkServer, rng: random.Random) -> Iterator[PairHouse]:
    people = Cast(rng)
    controller = laid_over(CONTROLLER, {"store": {"lease": f"{LEASE}s"}, "environments_repo": {"poll_interval": "2s"}})
    entries = {**SETTINGS, **files_of(people.wishes)}
    ground = Playground.create(folder, entries, CATALOG, controller=controller, runner=excused("note"))
    house = PairHouse(ground)
    house.server, house.cast, house.rng, house.number = server, people, rng, 0
    house.furnish()
    try:
        yield house
    finally:
        for process in house.processes.values():
            process.kill()
        house.kill("runner")
        ground.close()


@pytest.mark.parametrize("part", range(HOUSES))
def test_two_daemons_do_what_one_would(
    part: int, quick_planes: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("randomly_seed", 0)) + part
    with pair_house(tmp_path / "house", quick_planes, random.Random(seed)) as house:  # noqa: S311 - a story, not a secret
        house.begin()
        for _ in range(part, SCHEDULES, HOUSES):
            house.schedule()
            house.verify_soon()
            house.falls += 1
        house.end()
        assert house.old_writes() == []
        assert house.overlaps() == []
        assert house.check() == []

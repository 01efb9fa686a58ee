"""Two or three daemons on one store, whatever happens to them: no two applies of a unit at a time, nothing by an old fence.

A schedule is a seed: stops in the middle of anything, deaths, partitions from the runner and from git, clocks that jump or
do not go alike, a host that sleeps. `RECONCILER_TEST_SCHEDULES=10000` plays so many; a test run some hundred.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit.pair import STANDS_BY, TTL, Daemon, Home
from tests.kit.pairtable import TableHome

SCHEDULES = int(os.environ.get("RECONCILER_TEST_SCHEDULES", "240"))
PARTS = 4  # so that workers share them
STEPS = 160
PATIENCE = 1000  # turns of everybody until all is in order
MOMENTS = (
    "is about to ask for start",
    "is about to ask for start",
    "is about to ask for cancel",
    "is about to ask for lead",
    "has asked for poll",
    "has written",
)
SHARED_MEMORY = Path("/dev/shm")


@contextmanager
def home(kind: type[Home]) -> Iterator[Home]:
    memory = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        made = kind(Path(folder))
        try:
            yield made
        finally:
            made.close()


class Schedule:
    """What happens, and when: drawn from a seed."""

    def __init__(self, house: Home, seed: int) -> None:
        self.home, self.chance = house, random.Random(seed)  # noqa: S311 - to be repeated
        house.luck = random.Random(seed)  # noqa: S311 - as above
        self.home.merge([1, 1, 1, 1])
        for _ in range(self.chance.choice([2, 2, 3])):
            self.start()
        self.troubles: dict[Callable[[], None], int] = {
            self.run_one: 60,
            self.work: 18,
            self.time_passes: 12,
            self.stops_or_goes_on: 8,
            self.long_time_passes: 2,
            self.stops_at_the_worst_moment: 3,
            self.dies: 2,
            self.cut_off: 2,
            self.fence_is_looked_at: 2,
            self.goes_blind: 2,
            self.clock_jumps: 2,
            self.host_sleeps: 1,
            self.merges: 2,
            self.drifts: 1,
            self.job_dies: 1,
            self.network_is_bad: 2,
            self.something_arrives_late: 6,
        }

    def play(self) -> None:
        acts, weights = list(self.troubles), list(self.troubles.values())
        for act in self.chance.choices(acts, weights, k=STEPS):
            act()
            self.home.check_time()
            self.replace_the_dead()

    def start(self) -> None:
        self.home.daemons.append(Daemon(self.home, len(self.home.daemons), self.chance.uniform(0.96, 1.04)))

    def replace_the_dead(self) -> None:
        for place, daemon in enumerate(self.home.daemons):
            if daemon.ended and self.chance.random() < 0.2:
                self.home.daemons[place] = Daemon(self.home, daemon.name, self.chance.uniform(0.96, 1.04))

    def one(self) -> Daemon:
        return self.chance.choice(self.home.daemons)

    def run_one(self) -> None:
        self.runs(self.one(), self.chance.choice([1, 2, 5, 30]))

    def runs(self, daemon: Daemon, moments: int) -> None:
        """Let it go on for so many moments. While nothing else happens, who stands by would see the same each time."""
        for _ in range(moments):
            if daemon.stopped:
                return
            daemon.run()
            if daemon.moment == STANDS_BY:
                return

    def work(self) -> None:
        live = self.home.runner.live()
        if live:
            self.home.runner.step(self.chance.choice(live))

    def time_passes(self) -> None:
        self.home.pass_time(self.chance.uniform(0, TTL / 4))

    def long_time_passes(self) -> None:
        self.home.pass_time(self.chance.uniform(TTL / 2, 3 * TTL))

    def host_sleeps(self) -> None:
        self.home.pass_time(self.chance.uniform(1, 100 * TTL), asleep=True)

    def stops_or_goes_on(self) -> None:
        daemon = self.one()
        daemon.stopped = not daemon.stopped

    def stops_at_the_worst_moment(self) -> None:
        """Right before a word to the runner or a write; goes on when others have taken over, and done this and that."""
        self.merges()
        daemon, moment = self.one(), self.chance.choice((*MOMENTS, *self.home.moments))
        for _ in range(60):
            if daemon.moment == moment or daemon.stopped:
                break
            daemon.run()
        daemon.stopped = True
        for _ in range(self.chance.randrange(12)):
            self.home.pass_time(TTL / 4)
            for other in self.home.daemons:
                self.runs(other, self.chance.randrange(20) if not other.stopped else 0)
            self.home.check_time()
        daemon.stopped = False
        for _ in range(self.chance.randrange(8)):
            daemon.run()
            self.work()

    def dies(self) -> None:
        self.one().kill()

    def cut_off(self) -> None:
        daemon = self.one()
        daemon.cut_off = not daemon.cut_off

    def fence_is_looked_at(self) -> None:
        self.home.busy = not self.home.busy

    def goes_blind(self) -> None:
        daemon = self.one()
        daemon.blind = not daemon.blind

    def clock_jumps(self) -> None:
        self.one().clock.offset = self.chance.choice([-3600.0, -60.0, 0.0, 60.0, 3600.0])

    def merges(self) -> None:
        self.home.merge([self.chance.randrange(1, 4) for _ in range(4)])

    def drifts(self) -> None:
        if self.home.runner.things:
            self.home.runner.drift(self.chance.choice(sorted(self.home.runner.things)))

    def job_dies(self) -> None:
        live = self.home.runner.live()
        if live:
            self.home.runner.kill(self.chance.choice(live))

    def network_is_bad(self) -> None:
        self.home.bad = self.chance.choice([0.0, 0.0, 0.1, 0.5])

    def something_arrives_late(self) -> None:
        self.home.arrive_late()

    # --- the end

    def settle(self) -> None:
        """No more troubles: everything comes to be as it shall."""
        for daemon in self.home.daemons:
            daemon.stopped = daemon.cut_off = daemon.blind = False
            daemon.clock.offset = 0
        self.home.busy = False
        self.home.bad = 0.0
        self.home.merge([9, 9, 9, 9])  # unlike any before, so that each is looked at
        for _ in range(PATIENCE):
            for daemon in self.home.daemons:
                self.runs(daemon, 40)
            for live in self.home.runner.live():
                self.home.runner.step(live)
            self.home.pass_time(4)
            self.home.check_time()
            self.replace_the_dead()
            if self.home.in_order():
                return
        moments = {daemon.name: daemon.moment for daemon in self.home.daemons}
        records = {name: (one.job, one.hold, one.failure) for name, one in self.home.ledger().units.items()}
        raise AssertionError(f"not in order, and nothing is in the way: {moments} {records}")


def play(seed: int, seen: Counter[str], kind: type[Home]) -> None:
    with home(kind) as house:
        schedule = Schedule(house, seed)
        schedule.play()
        schedule.settle()
        assert house.verify() > 0
        created = Counter(house.runner.created)
        assert set(created.values()) == {1}, "created twice"
        seen.update(applies=house.applies, terms=house.terms, schedules=1)


@pytest.mark.slow
@pytest.mark.timeout(36000)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_one_of_them_applies_at_a_time(part: int) -> None:
    play_all(range(part, SCHEDULES, PARTS), Home)


@pytest.mark.slow
@pytest.mark.timeout(36000)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_on_a_table_too(part: int) -> None:
    """Besides, the network loses requests and answers, and some of them arrive late."""
    play_all(range(part, SCHEDULES // 5, PARTS), TableHome)


def play_all(seeds: Sequence[int], kind: type[Home]) -> None:
    seen = Counter[str]()
    for seed in seeds:
        try:
            play(seed, seen, kind)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert seen["applies"] > 4 * seen["schedules"], "they hardly did anything"
    assert seen["terms"] > 2 * seen["schedules"], "nobody ever took over"

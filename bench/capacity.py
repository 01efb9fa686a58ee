"""What jobs in tasks of ECS Fargate take: `python -m bench.capacity`, a simulation with measured costs per job.

An estate of units that are looked at every so often, some merges an hour, and tasks that start slowly and are paid by the second. What
comes out: how many tasks run and are started, how long a job waits, how often each of AWS's interfaces is asked and how much of what it
allows that is, and what a month costs. docs/capacity.md is this program's output, with where its numbers are from.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import random
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median, quantiles

HOUR, MONTH = 3600.0, 730.0  # seconds; hours
Key = tuple[int, bool]  # an environment, and whether the task is for what was merged


@dataclass(frozen=True, slots=True)
class Costs:
    """Per job and task. Measured here unless it says so; docs/capacity.md names where.

    Seconds are of one vCPU with the AWS provider, its cloud's answers included; requests are counted by tests.
    """

    look: float = 4.4  # seconds: verify, init, plan, nothing to do
    apply: float = 45.0  # seconds: init, plan, show, apply; mostly the cloud's own (assumed)
    start: float = 40.0  # seconds from RunTask to the program (assumed: image of 1 GB, no lazy loading)
    least_paid: float = 60.0  # seconds of a task that are paid at least (AWS)
    # S3 requests of the runner's memory by a task on a new disk: a look, an apply
    memory_reads: tuple[int, int] = (24, 63)
    memory_writes: tuple[int, int] = (2, 12)
    # S3 requests of the spool: asked, claimed, phases, log, result; of an apply by how much its engine prints (35 assumed)
    spool_reads: int = 6  # besides those that come with time
    spool_writes: tuple[int, int] = (8, 35)
    reads_at_work: float = 1.7  # S3 requests of the spool a second while a job runs: by the task, by the controller
    reads_at_start: float = 1.0  # while its task starts: by the controller
    lists_idle: float = 0.5  # while a task waits for a further job: a list costs as much as a write
    store_units: int = 16  # DynamoDB write units of a job
    describe: float = 3.0  # seconds between two looks at a running task, a hundred in one request


@dataclass(frozen=True, slots=True)
class Prices:
    """Dollars, on demand, us-east-1, 2026. Look them up for your region."""

    vcpu_hour: float = 0.04048
    gb_hour: float = 0.004445
    address_hour: float = 0.005  # a public IPv4 address, where a task has one
    s3_write: float = 0.005 / 1000
    s3_read: float = 0.0004 / 1000
    store_write: float = 0.625 / 1e6


@dataclass(frozen=True, slots=True)
class Quota:
    """What AWS lets one account do in a region, a second: at once, and for long."""

    burst: float
    sustained: float


LAUNCHES = Quota(100, 20)  # tasks on demand, and calls of RunTask, of which each starts one


@dataclass(frozen=True, slots=True)
class Estate:
    """What there is to look after. `interval`: hours between two looks at a unit; `merges`: an hour, of `touched` units each."""

    units: int
    environments: int
    interval: float
    merges: float = 20.0
    touched: int = 5
    vcpus: float = 1.0
    gb: float = 2.0
    most: int = 500  # tasks at a time
    idle: float = 60.0  # seconds that a task waits for another job of its environment; 0: a job a task


@dataclass(slots=True)
class Seen:
    """What happened in the measured hours."""

    jobs: int = 0
    applies: int = 0
    paid: float = 0.0  # seconds of tasks that are paid
    ran: float = 0.0  # seconds of tasks, from when they were asked for
    most_running: int = 0
    waits: list[float] = field(default_factory=list)  # of what was merged: seconds until its job began
    late: list[float] = field(default_factory=list)  # of looks, the same
    launched: list[float] = field(default_factory=list)  # when each task was asked for


@dataclass(eq=False, slots=True)
class _Task:
    """A task of one environment, for looks or for what was merged. `turn` grows with each job that it takes."""

    key: Key
    began: float
    turn: int = 0


@dataclass(slots=True)
class _Queue:
    jobs: deque[float] = field(default_factory=deque)  # due since when
    idle: list[_Task] = field(default_factory=list)
    coming: int = 0  # tasks that were asked for and have not begun


class Simulation:
    """The hours of an estate, event by event. The first `warm` ones are played and not counted."""

    def __init__(self, estate: Estate, costs: Costs, rng: random.Random, hours: float, warm: float) -> None:
        self.estate, self.costs, self.rng = estate, costs, rng
        self.end, self.warm = (hours + warm) * HOUR, warm * HOUR
        self.seen, self.running = Seen(), 0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()
        self._queues: defaultdict[Key, _Queue] = defaultdict(_Queue)
        self._wanted: deque[Key] = deque()  # tasks that are to be started, as soon as it is allowed
        self._tokens, self._filled, self._launching = float(LAUNCHES.burst), 0.0, False

    def run(self) -> Seen:
        """Play it."""
        for unit in range(self.estate.units):
            first = self.rng.uniform(0, self.estate.interval * HOUR)
            self._at(first, partial(self._look, (unit % self.estate.environments, False)))
        self._at(self.rng.expovariate(self.estate.merges / HOUR), self._merge)
        while self._events and self._events[0][0] < self.end:
            now, _, event = heapq.heappop(self._events)
            event(now)
        return self.seen

    def _at(self, when: float, event: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    # --- what comes

    def _look(self, key: Key, now: float) -> None:
        """A unit is due; when it is next is spread by a tenth."""
        pace = self.estate.interval * HOUR * self.rng.uniform(0.95, 1.05)
        self._at(now + pace, partial(self._look, key))
        self._due(key, now)

    def _merge(self, now: float) -> None:
        self._at(now + self.rng.expovariate(self.estate.merges / HOUR), self._merge)
        environment = self.rng.randrange(self.estate.environments)
        for _ in range(self.estate.touched):
            self._due((environment, True), now)

    def _due(self, key: Key, now: float) -> None:
        queue = self._queues[key]
        queue.jobs.append(now)
        if queue.idle:
            self._serve(queue.idle.pop(), now)
        elif queue.coming < len(queue.jobs):
            queue.coming += 1
            self._wanted.append(key)
            self._launch(now)

    def _lasts(self, key: Key) -> float:
        return self.costs.apply if key[1] else self.costs.look

    # --- tasks

    def _launch(self, now: float) -> None:
        """Start what is wanted, as fast as is allowed."""
        self._tokens = min(LAUNCHES.burst, self._tokens + (now - self._filled) * LAUNCHES.sustained)
        self._filled = now
        while self._wanted and self._tokens >= 1 and self.running < self.estate.most:
            self._tokens -= 1
            self.running += 1
            task = _Task(self._wanted.popleft(), now)
            if now >= self.warm:
                self.seen.launched.append(now)
                self.seen.most_running = max(self.seen.most_running, self.running)
            self._at(now + self.costs.start * self.rng.uniform(0.7, 1.5), partial(self._begin, task))
        if self._wanted and self.running < self.estate.most and not self._launching:
            self._launching = True
            self._at(now + 1 / LAUNCHES.sustained, self._launch_on)

    def _launch_on(self, now: float) -> None:
        self._launching = False
        self._launch(now)

    def _begin(self, task: _Task, now: float) -> None:
        self._queues[task.key].coming -= 1
        self._serve(task, now)

    def _serve(self, task: _Task, now: float) -> None:
        """The task takes what waits longest; else it waits for what comes, or ends."""
        queue = self._queues[task.key]
        task.turn += 1
        if queue.jobs:
            self._take(task, queue.jobs.popleft(), now)
        elif self.estate.idle:
            queue.idle.append(task)
            self._at(now + self.estate.idle, partial(self._give_up, task, task.turn))
        else:
            self._stop(task, now)

    def _take(self, task: _Task, since: float, now: float) -> None:
        merged = task.key[1]
        if now >= self.warm:
            self.seen.jobs += 1
            self.seen.applies += merged
            (self.seen.waits if merged else self.seen.late).append(now - since)
        lasts = self._lasts(task.key) * self.rng.lognormvariate(-0.125, 0.5)
        self._at(now + lasts, partial(self._serve if self.estate.idle else self._stop, task))

    def _give_up(self, task: _Task, turn: int, now: float) -> None:
        """The task ends, unless it has taken a job since."""
        if task.turn == turn:
            self._queues[task.key].idle.remove(task)
            self._stop(task, now)

    def _stop(self, task: _Task, now: float) -> None:
        self.running -= 1
        if now > self.warm:
            lasted = now - max(task.began, self.warm)
            self.seen.ran += lasted
            self.seen.paid += max(lasted, self.costs.least_paid)
        self._launch(now)


def report(estate: Estate, costs: Costs, prices: Prices, seen: Seen, hours: float) -> dict[str, float]:
    """What it comes to: rates a second, seconds, and dollars a month."""
    seconds, looks = hours * HOUR, seen.jobs - seen.applies
    at_work = looks * costs.look + seen.applies * costs.apply
    at_start = len(seen.launched) * costs.start
    idle = max(0.0, seen.ran - at_work - at_start)
    writes = looks * (costs.memory_writes[0] + costs.spool_writes[0]) + idle * costs.lists_idle
    writes += seen.applies * (costs.memory_writes[1] + costs.spool_writes[1])
    reads: float = looks * costs.memory_reads[0] + seen.applies * costs.memory_reads[1] + seen.jobs * costs.spool_reads
    reads += at_work * costs.reads_at_work + at_start * costs.reads_at_start
    a_task = estate.vcpus * prices.vcpu_hour + estate.gb * prices.gb_hour + prices.address_hour
    month = MONTH / hours
    tasks = len(seen.launched)
    dollars = {
        "tasks": seen.paid / HOUR * a_task * month,
        "S3": (writes * prices.s3_write + reads * prices.s3_read) * month,
        "DynamoDB": seen.jobs * costs.store_units * prices.store_write * month,
    }
    launched = Counter(int(at) for at in seen.launched)
    return {
        "jobs a second": seen.jobs / seconds,
        "tasks at a time, on average": seen.ran / seconds,
        "tasks at a time, at most": seen.most_running,
        "tasks started a second": tasks / seconds,
        "tasks started a second, at most": max(launched.values(), default=0),
        "merged: seconds to begin, half of them": median(seen.waits),
        "merged: seconds to begin, 95 %": _most(seen.waits),
        "looks: seconds late, 95 %": _most(seen.late),
        "of what RunTask allows (%)": 100 * tasks / seconds / LAUNCHES.sustained,
        "DescribeTasks a second": seen.ran / seconds / 100 / costs.describe,
        "S3 requests a second": (writes + reads) / seconds,
        "DynamoDB write units a second": seen.jobs * costs.store_units / seconds,
        **{f"$ a month: {name}": value for name, value in dollars.items()},
        "$ a month": sum(dollars.values()),
        "$ a month and unit": sum(dollars.values()) / estate.units,
    }


def _most(waits: Sequence[float]) -> float:
    return quantiles(waits, n=20)[-1] if len(waits) > 1 else 0.0


ESTATES = {
    "10,000 units, looked at every hour, a task for each job": Estate(10_000, 20, 1, idle=0),
    "10,000 units, looked at every hour, tasks that go on": Estate(10_000, 20, 1),
    "10,000 units, looked at once a day, tasks that go on": Estate(10_000, 20, 24),
    "100,000 units, looked at once a day, a task for each job": Estate(100_000, 100, 24, merges=100, idle=0),
    "100,000 units, looked at once a day, tasks that go on": Estate(100_000, 100, 24, merges=100),
    "100,000 units, looked at every hour, tasks that go on": Estate(100_000, 100, 1, merges=100),
}


def table(found: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """The lines of a table in Markdown: a column for each estate."""
    yield "| | " + " | ".join(found) + " |"
    yield "|---|" + "---:|" * len(found)
    for row in next(iter(found.values())):
        yield f"| {row} | " + " | ".join(f"{one[row]:,.{_digits(one[row])}f}" for one in found.values()) + " |"


def _digits(value: float) -> int:
    return 0 if value >= 100 or value == 0 else 1 if value >= 1 else 3


def main() -> None:
    """Print the table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0, help="hours that are counted, after one that is not")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    found = {}
    for name, estate in ESTATES.items():
        rng = random.Random(told.seed)  # noqa: S311 - a simulation
        seen = Simulation(estate, Costs(), rng, told.hours, warm=1.0).run()
        found[name] = report(estate, Costs(), Prices(), seen, told.hours)
    text = json.dumps({"costs": asdict(Costs()), "estates": found}, indent=1) if told.json else "\n".join(table(found))
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()

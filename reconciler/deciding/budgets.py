"""What may run at once: cores and memory apart, fairly shared, and less in an account that asks for less. Pure.

A job takes memory for as long as it exists, and a core for as long as it computes: one that waits for a cloud gives its core back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from reconciler.model import Cause, JobId, Load, RunnerFacts, UnitRecord

HOST_SHARE = 0.75  # of the host's memory that is for jobs, where nobody says how much; the rest is for both planes, and what shows pull requests
QUIET = timedelta(minutes=1)  # without throttling, after which one more job may be in an account
PLENTY = 64  # jobs in an account: so many that nobody needs to remember that they were fewer once


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many jobs may compute at once, in all and per environment; and how much memory all that exist may take, in MiB.

    `memory` is None where nothing is bounded; `of_host`: it is a share of what the runner says that its host has. `per_job` is what
    a job is thought to take until one of its unit has ended. `per_account`: jobs that exist in one account of a cloud.
    """

    workers: int
    per_environment: int
    memory: int | None = None
    per_job: int = 1024
    per_account: int | None = None
    of_host: bool = False

    def on(self, facts: RunnerFacts | None) -> Capacity:
        """The same, with the memory of the runner's host."""
        if not self.of_host or self.memory is not None or facts is None or not facts.memory:
            return self
        return replace(self, memory=int(facts.memory * HOST_SHARE))


class Limit(StrEnum):
    """What a unit waits for that would start: cores of all or of its environment, memory, its environment's share of it, its account."""

    WORKERS = "workers"
    ENVIRONMENT = "environment"
    MEMORY = "memory"
    SHARE = "share"
    ACCOUNT = "account"
    THROTTLED = "throttled"


def told(limit: Limit, environment: str, capacity: Capacity, most: int) -> str:
    """What a unit waits for, in a sentence. `most`: jobs that may be in its account, where that is why."""
    match limit:
        case Limit.WORKERS:
            return f"{capacity.workers} jobs compute, which is what `workers` in reconciler.yaml allows"
        case Limit.ENVIRONMENT:
            return f"{capacity.per_environment} jobs of {environment} compute, which is what `per_environment` in reconciler.yaml allows"
        case Limit.MEMORY:
            return f"the jobs that exist leave no room for it in the {capacity.memory} MiB that all may take (`executor.local.memory`)"
        case Limit.SHARE:
            return f"jobs of {environment} take as much of the memory as they leave to others; one of them has to end"
        case Limit.ACCOUNT:
            return (
                f"{capacity.per_account} jobs are in its account, which is what `per_account` in reconciler.yaml allows"
            )
        case _:
            return f"its account said that it is asked too often: {most} jobs at a time for now, and one more after each quiet minute"


OF_ALL = frozenset({Limit.WORKERS, Limit.MEMORY})  # whoever is first in turn waits for it, and nobody overtakes


@dataclass(frozen=True, slots=True)
class Cut:
    """An account was asked too often: at that time so many jobs were let into it; one more is with each quiet minute since."""

    jobs: int
    at: datetime

    def limit(self, now: datetime) -> int:
        """How many jobs may be in the account now. A clock that was put back gives none away."""
        return self.jobs + max((now - self.at) // QUIET, 0)

    def next(self, now: datetime) -> datetime:
        """When it is one more."""
        return self.at + (max((now - self.at) // QUIET, 0) + 1) * QUIET


Cuts = Mapping[str, Cut]


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is measured, and of no ledger: it begins anew with each controller, and then every job computes and no account complains."""

    loads: Mapping[JobId, Load] = field(default_factory=dict)
    cuts: Cuts = field(default_factory=dict)


CALM = Pressure()


def accounts_of(environment: str, facts: RunnerFacts | None) -> tuple[str, ...]:
    """The accounts of the environment, opaque; the environment stands for its own where the host names none."""
    host = facts.environments.get(environment) if facts is not None else None
    return host.accounts if host is not None and host.accounts else (environment,)


def cut(cuts: Cuts, accounts: Iterable[str], jobs: Mapping[str, int], began: datetime, now: datetime) -> Cuts:
    """An account throttled a job that began then: half as many may be there from now on as are there or may be, by `jobs` and `cuts`.

    What began before the last cut says nothing new but that it goes on: of all that fail together the first one counts.
    """
    found = {name: one for name, one in cuts.items() if one.limit(now) < PLENTY}
    for name in accounts:
        known = found.get(name)
        if known is not None and began <= known.at:
            found[name] = Cut(known.jobs, max(known.at, now))
            continue
        there = max(jobs.get(name, 0), 1)
        found[name] = Cut(max(min(there, known.limit(now) if known else there) // 2, 1), now)
    return found


class Use:
    """What the jobs that exist take of each budget. It grows by what is started."""

    def __init__(
        self,
        running: Collection[UnitRecord],
        capacity: Capacity,
        facts: RunnerFacts | None,
        pressure: Pressure,
        now: datetime,
    ) -> None:
        self.capacity, self._facts, self._now, self._cuts = capacity.on(facts), facts, now, pressure.cuts
        self.outside: Counter[str] = Counter()  # looks after what others wrote, by environment
        self._computing: Counter[str] = Counter()
        self._jobs: Counter[str] = Counter()
        self._memory: Counter[str] = Counter()
        self._accounts: Counter[str] = Counter()
        for record in running:
            load = pressure.loads.get(record.job.job.id) if record.job is not None else None
            cause = record.job.cause if record.job is not None else Cause.DESIRED
            self.add(record.unit.partition("/")[0], record.memory, cause, load or Load())

    def add(self, environment: str, memory: int, cause: Cause, load: Load = Load()) -> None:  # noqa: B008 - frozen
        """A job of the environment; `memory` is what the last one of its unit took, 0 where that is unknown."""
        self._computing[environment] += not load.waits
        self._jobs[environment] += 1
        self._memory[environment] += max(self._need(memory), load.memory)
        self.outside[environment] += cause is Cause.OUT_OF_BAND
        for name in accounts_of(environment, self._facts):
            self._accounts[name] += 1

    def limit(self, environment: str, memory: int) -> Limit | None:
        """What keeps a job of the environment from starting; None: nothing does."""
        capacity = self.capacity
        for name in accounts_of(environment, self._facts):
            if (why := self._full(name)) is not None:
                return why
        if self._computing[environment] >= capacity.per_environment:
            return Limit.ENVIRONMENT
        if self._computing.total() >= capacity.workers:
            return Limit.WORKERS
        return self._short(environment, self._need(memory))

    def share(self, environment: str) -> float:
        """The part of the cores or of the memory that the environment has, whichever is more (its dominant share)."""
        capacity = self.capacity
        cores = self._computing[environment] / max(capacity.workers, 1)
        return cores if not capacity.memory else max(cores, self._memory[environment] / capacity.memory)

    def _need(self, memory: int) -> int:
        return memory or self.capacity.per_job

    def _full(self, account: str) -> Limit | None:
        there, cut_down = self._accounts[account], self._cuts.get(account)
        if cut_down is not None and there >= cut_down.limit(self._now):
            return Limit.THROTTLED
        most = self.capacity.per_account
        return Limit.ACCOUNT if most is not None and there >= most else None

    def _short(self, environment: str, need: int) -> Limit | None:
        """Whether memory is short. The first job of all is always begun: what needs more than there is would never be."""
        total, used = self.capacity.memory, self._memory.total()
        if total is None or not used:
            return None
        left = total - used - need
        if left < 0:
            return Limit.MEMORY
        # Beyond its plain places an environment takes no more than it leaves: however many of its jobs wait, others find room.
        beyond = self._jobs[environment] >= self.capacity.per_environment
        return Limit.SHARE if beyond and self._memory[environment] + need > left else None

"""Several daemons on one real store, in one thread of control: each runs only when the schedule says so.

A daemon is a thread that waits at every moment at which a process may be stopped: around whatever it asks of the runner,
in the middle of a transaction, between two passes. So a schedule, which is a seed, is played the same each time. Every
daemon has clocks of its own. The runner is the simulated one, without its locks: what keeps two applies of a unit apart
here is the lease, the fence and the journal alone.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from reconciler.actual.ledger import Event, HeadAccepted, Started
from reconciler.controller.leading import PASSING
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.errors import PassError
from reconciler.model import Commit, Desired, Job, JobId, Ledger, Phase, Result, RunnerFacts, UnitId
from reconciler.ports import Lost, Running, Term
from reconciler.store.dynamodb.store import DynamoStore
from reconciler.store.lease import LEASE_LOST, Steady, read
from reconciler.store.sqlite import SqliteStore
from tests.kit import facts as make
from tests.kit.world import Bystander, FakeClock, LiveJob, Repository, Runner

TTL = 15.0  # seconds
CAPACITY = Capacity(workers=3, per_environment=3)
STANDS_BY = "stands by"  # the moment between two tries to lead


class KilledError(BaseException):
    """kill -9."""


@dataclass
class Time:
    """True time in seconds, and how much of it the host has slept."""

    now: float = 0.0
    asleep: float = 0.0


@dataclass
class OwnClock(Steady):
    """A process's clocks: `rate` is how fast they go, `offset` how wrong the date is, in seconds."""

    time: Time
    rate: float
    offset: float = 0.0

    def holding(self) -> float:
        return self.time.now * self.rate

    def waiting(self) -> float:
        return (self.time.now - self.time.asleep) * self.rate

    def now(self) -> Any:
        return make.NOW + timedelta(seconds=self.time.now + self.offset)


class Daemon:
    """One process. `wait` is where it may be stopped, be killed, or go on after a long time."""

    def __init__(self, home: Home, name: int, rate: float) -> None:
        self.home, self.name = home, name
        self.clock = OwnClock(home.time, rate)
        self.stopped = self.cut_off = self.blind = self.killed = self.ended = self.lost = self.writing = False
        self.store = home.open(self)
        self.moment = "begins"
        self.failure: BaseException | None = None
        self.renewed = 0.0
        self._go, self._came = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        self._came.acquire()

    # --- for the schedule

    def run(self) -> None:
        """Go on until the next moment at which a process may be stopped."""
        if not self.ended:
            self._go.release()
            self._came.acquire()
        if self.failure is not None:
            raise self.failure

    def kill(self) -> None:
        """kill -9: whatever it is in the middle of, the system lets go of its files and locks."""
        self.killed = True
        self.run()
        self._thread.join()

    @property
    def in_time(self) -> bool:
        """Whether it may act, by all that it knows itself."""
        return not self.ended and self.store._fence > 0 and self.clock.holding() < self.store._until

    # --- for the process

    def wait(self, moment: str) -> None:
        if self.killed:
            raise KilledError
        self.moment = moment
        self._came.release()
        self._go.acquire()
        if self.killed:
            raise KilledError

    def _live(self) -> None:
        try:
            self.wait("begins")
            fence = self._stand_by()
            self._lead(fence)
        except KilledError:
            pass
        except PassError as error:
            if error.reason != LEASE_LOST:
                self.failure = error
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the schedule's
            self.failure = error
        finally:
            self.home.let_go(self.store)  # as the system does it: nothing is given back
            self.ended = True
            self._came.release()

    def _stand_by(self) -> int:
        while True:
            try:
                fence = self.store.acquire()
            except PassError as error:
                if error.reason not in PASSING:  # as where somebody was stopped in the middle of a transaction
                    raise
                fence = None
            if fence is not None:
                self.renewed = self.clock.holding()
                return fence
            self.wait(STANDS_BY)

    def _lead(self, fence: int) -> None:
        seen = Seen(self)
        rt = Runtime(
            seen, seen, Way(self), self.clock, Bystander(), CAPACITY, fence, self.home.new_id, self.store.check
        )
        self._try(lambda: seen.append(Started("1", fence)))
        while not self.lost:
            self.wait("is between two passes")
            self.renew()
            self._try(seen.poll)
            self._try(lambda: tick(rt))

    def _try(self, what: Callable[[], object]) -> None:
        """A pass that fails is made again; who has lost the lease ends."""
        try:
            what()
        except PassError as error:
            self.lost = self.lost or error.reason == LEASE_LOST

    def renew(self) -> None:
        """What the lease's own thread does, whatever the loop is at."""
        if self.clock.holding() - self.renewed < TTL / 3 or self.lost or self.writing:
            return
        self.renewed = self.clock.holding()
        self._try(self.store.renew)


class Seen:
    """The branch and the store as one daemon sees them: `ports.Source` and `ports.Store`."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon, self.polled = daemon, 0

    def latest(self) -> Desired | None:
        return self.daemon.home.repository.commits[self.polled - 1] if self.polled else None

    def poll(self) -> None:
        home = self.daemon.home
        if self.daemon.blind:
            return
        newest = len(home.repository.commits)
        head = home.repository.head.commit
        if self.ledger().head != head:
            self.append(HeadAccepted(head, (head,)), actor="poller")
        self.polled = newest

    def ledger(self) -> Ledger:
        return self.daemon.store.ledger()

    def accepted(self, commit: Commit) -> bool:
        return self.daemon.store.accepted(commit)

    def append(self, *events: Event, actor: str = "controller") -> None:
        self.daemon.store.append(*events, actor=actor)
        self.daemon.home.has_written(self.daemon)
        self.daemon.wait("has written")

    def next_fence(self, above: int = 0) -> int:
        fence = self.daemon.store.next_fence(above)
        self.daemon.home.has_written(self.daemon)
        return fence


class Way:
    """The runner as one daemon reaches it: `ports.Executor`, with a moment before and after each word."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def _ask(self, verb: str, ask: Callable[[], Any]) -> Any:
        self.daemon.wait(f"is about to ask for {verb}")
        self.daemon.renew()
        if self.daemon.cut_off:
            raise PassError("RunnerUnavailable", "It is out of reach.")
        answer = ask()
        self.daemon.wait(f"has asked for {verb}")
        if self.daemon.cut_off:
            raise PassError("RunnerUnavailable", "Its answer did not arrive.")
        return answer

    def start(self, job: Job) -> None:
        self._ask("start", lambda: self.daemon.home.runner.start(job))

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        found: Running | Result | Lost = self._ask("poll", lambda: self.daemon.home.runner.poll(job_id))
        return found

    def cancel(self, job_id: JobId) -> None:
        self._ask("cancel", lambda: self.daemon.home.runner.cancel(job_id))

    def lead(self, fence: int) -> None:
        if self.daemon.home.busy:
            raise PassError("FenceBusy", "A job is looking.")
        self._ask("lead", lambda: self.daemon.home.runner.lead(fence))

    def describe(self) -> RunnerFacts:
        found: RunnerFacts = self._ask("describe", self.daemon.home.runner.describe)
        return found

    def log(self, job_id: JobId, offset: int) -> bytes:
        return b""


class WatchedRunner(Runner):
    """The runner; each apply is checked as it begins. It has no locks of its own."""

    home: Home

    def step(self, live: LiveJob) -> None:
        before = live.phase
        super().step(live)
        if live.ended is None and live.phase is Phase.APPLYING and before is not Phase.APPLYING:
            self.home.check_apply(live)


@dataclass
class Home:
    """The host: its time, its store, its runner, and the daemons on it."""

    folder: Path
    moments: ClassVar[Sequence[str]] = ("is in a transaction", "is about to commit")  # of its store
    luck: random.Random = field(default_factory=random.Random)
    bad: float = 0.0  # how many of the requests over the network go wrong
    time: Time = field(default_factory=Time)
    repository: Repository = field(default_factory=Repository)
    daemons: list[Daemon] = field(default_factory=list)
    busy: bool = False  # a job looks at the fence, so that nobody can raise it
    applies: int = 0
    terms: int = 0
    jobs: int = 0

    def __post_init__(self) -> None:
        self.true_clock = FakeClock(make.NOW)
        self.runner = WatchedRunner(self.true_clock, self.repository, make.facts())
        self.runner.home = self
        self.begin()

    # --- the store that they share

    def begin(self) -> None:
        """Make it."""
        self.watching = SqliteStore(self.path, self.true_clock, lead=False)

    def open(self, daemon: Daemon) -> SqliteStore | DynamoStore:
        """It, as this daemon has it: with a moment in each transaction."""
        store = SqliteStore(self.path, daemon.clock, patience=0, ttl=TTL, lead=False, steady=daemon.clock)
        write = store._write

        def slowly(*args: Any) -> None:
            daemon.writing = True
            try:
                daemon.wait("is in a transaction")
                write(*args)
                daemon.wait("is about to commit")
            finally:
                daemon.writing = False

        store._write = slowly  # type: ignore[method-assign, assignment]
        return store

    def arrive_late(self) -> None:
        """A request over the network that was held up, if there is one: here there is no network."""

    def let_go(self, store: Any) -> None:
        """What the system does when a process ends."""
        store._db.close()
        store._lock.release()

    def term(self) -> Term:
        """Who leads, read afresh."""
        return read(self.watching._db)

    def has_written(self, daemon: Daemon) -> None:
        """A daemon's write has ended, and no other one has run meanwhile."""
        self.check_written(daemon)

    @property
    def path(self) -> Path:
        return self.folder / "reconciler.db"

    def new_id(self, _now: object) -> JobId:
        self.jobs += 1
        return JobId(f"job-{self.jobs}")

    def pass_time(self, seconds: float, *, asleep: bool = False) -> None:
        self.time.now += seconds
        self.time.asleep += seconds if asleep else 0
        self.true_clock.time = make.NOW + timedelta(seconds=self.time.now)

    def merge(self, sizes: Sequence[int]) -> None:
        """Each unit reads the one before it."""
        names = [UnitId(f"prod/{letter}") for letter in "abcd"]
        entries = [
            make.entry(name, reads=names[:n][-1:], size=size)
            for n, (name, size) in enumerate(zip(names, sizes, strict=True))
        ]
        commit = Commit(f"{len(self.repository.commits) + 1:040x}")
        environment = make.environment("prod", interval=timedelta(days=30))
        self.repository.commits.append(make.desired(*entries, environments=[environment], commit=commit))

    def ledger(self) -> Ledger:
        """What the journal says, read afresh."""
        self.watching._load()
        return self.watching._projection.ledger()

    def close(self) -> None:
        for daemon in self.daemons:
            if not daemon.ended:
                daemon.kill()
        self.end()

    def end(self) -> None:
        """Let go of the store."""
        self.watching.close()

    def verify(self) -> int:
        """How many records its journal has, once they fit."""
        return self.watching.verify()

    # --- what must hold

    def check_written(self, daemon: Daemon) -> None:
        """Nobody writes with an old fence."""
        term = self.term()
        assert daemon.store._fence == term.fence, f"{daemon.name} wrote with {daemon.store._fence}; {term} leads"
        self.terms = max(self.terms, term.fence)

    def check_apply(self, live: LiveJob) -> None:
        """The journal knows of it, its fence is not older than what the runner was told, and nobody else applies there."""
        self.applies += 1
        others = [one for one in self.runner.live() if one is not live and one.job.unit == live.job.unit]
        assert not [one for one in others if one.phase is Phase.APPLYING], f"two applies of {live.job.unit} at a time"
        assert live.job.fence >= self.runner.fence, f"{live.job} begins its apply, and {self.runner.fence} leads"
        record = self.ledger().units.get(live.job.unit)
        assert record is not None, f"{live.job} applies, and the journal never heard of it"
        assert record.job is not None, f"{live.job} applies, and the journal says that it has ended"
        assert record.job.job == live.job, f"{live.job} applies, and the journal has {record.job.job}"

    def check_time(self) -> None:
        """No two daemons may act, each by its own clock."""
        acting = [daemon.name for daemon in self.daemons if daemon.in_time]
        assert len(acting) <= 1, f"{acting} may act at once"

    def in_order(self) -> bool:
        ledger, head = self.ledger(), self.repository.head
        for unit in head.units:
            record, thing = ledger.units.get(unit), self.runner.things.get(unit)
            wanted = self.runner.expected(head, unit)
            if record is None or record.job or record.applied is None or thing is None or thing.made_from != wanted:
                return False
            if record.applied.fingerprint != wanted:
                return False
        return True

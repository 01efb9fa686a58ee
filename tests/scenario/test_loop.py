"""The loop against a simulated world: whatever happens, in whatever order, these things hold.

Rules are what may happen: merges, a job's steps and failures, deaths at any point, drift, pauses, time. Invariants are
checked as each job is handed over and after each tick. When an example ends, all troubles are lifted, and then every unit
must come to be as its entry says, by itself and soon; what no entry asks for must be left alone.

`RECONCILER_TEST_LOOP=ci` repeats the same examples each time, `=long` looks much longer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from reconciler.actual.ledger import Event, Frozen, Paused, ReconcileRequested, Resumed, Thawed, is_pausing
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.desired.freeze import outlook
from reconciler.desired.policy import judged_with, policy_of
from reconciler.model import (
    Cause,
    Commit,
    DriftMode,
    Entry,
    Environment,
    Expression,
    Fingerprint,
    Hold,
    Job,
    JobId,
    Ledger,
    Operation,
    Pause,
    Phase,
    Presence,
    Reference,
    Result,
    RunnerFacts,
    Unit,
    UnitId,
    Window,
)
from reconciler.ports import Lost, Running, Store
from reconciler.store.sqlite import SqliteStore
from tests.kit import facts as make
from tests.kit.whole import readers_of
from tests.kit.world import Bystander, FakeClock, LiveJob, MemoryStore, Remembered, Repository, Runner

NAMES = tuple(UnitId(f"{env}/{name}") for env in ("dev", "prod") for name in "abcd")
CAPACITY = Capacity(workers=3, per_environment=2)
INTERVAL = timedelta(hours=6)  # longer than any back-off, so that a look for drift hides nothing that got stuck
PATIENCE = timedelta(hours=2)
FROZEN = timedelta(hours=4)  # the windows of before and since, of both environments, one after the other

names = st.sampled_from(NAMES)
choices = st.integers(0, 31)
scopes = st.sampled_from(("all", "dev", "prod", *NAMES))


def renamed(value: Expression, old: UnitId, new: UnitId) -> Expression:
    """The input, reading the unit under its new name."""
    return replace(value, unit=new) if isinstance(value, Reference) and value.unit == old else value


class CrashError(Exception):
    """The controller dies here."""


@dataclass
class Fate:
    """When the controller dies: before or after the nth time that it touches the outside in this tick."""

    countdown: int | None = None

    def strike(self) -> None:
        if self.countdown is None:
            return
        self.countdown -= 1
        if self.countdown < 0:
            self.countdown = None
            raise CrashError


@dataclass
class BrittleStore:
    """The store, with every write counted and every moment around it a moment to die."""

    inner: Store
    fate: Fate
    written: int = 0

    def ledger(self) -> Ledger:
        return self.inner.ledger()

    def accepted(self, commit: Commit) -> bool:
        return self.inner.accepted(commit)

    def append(self, *events: Event, actor: str = "controller") -> None:
        self.fate.strike()
        self.inner.append(*events, actor=actor)
        self.written += len(events)
        self.fate.strike()

    def next_fence(self, above: int = 0) -> int:
        return self.inner.next_fence(above)


@dataclass
class WatchedRunner:
    """The runner as the controller sees it: every job is checked as it is handed over."""

    machine: Loop
    fate: Fate
    started: list[Job] = field(default_factory=list)

    def start(self, job: Job) -> None:
        self.fate.strike()
        self.machine.check_start(job)
        self.started.append(job)
        self.machine.runner.start(job)
        self.fate.strike()

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        return self.machine.runner.poll(job_id)

    def cancel(self, job_id: JobId) -> None:
        self.machine.runner.cancel(job_id)
        self.fate.strike()

    def lead(self, fence: int) -> None:
        self.fate.strike()
        self.machine.runner.lead(fence)
        self.fate.strike()

    def describe(self) -> RunnerFacts:
        return self.machine.runner.describe()

    def log(self, job_id: JobId, offset: int) -> bytes:
        return self.machine.runner.log(job_id, offset)


class Loop(RuleBasedStateMachine):
    """The controller's tick and everything around it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(make.NOW)
        self.repository = Repository()
        self.runner = Runner(self.clock, self.repository, make.facts())
        self.fate = Fate()
        self.entries: dict[UnitId, Entry] = {}
        self.ever_absent: set[UnitId] = set()
        self.windows: dict[str, tuple[Window, ...]] = {}
        self.still: dict[UnitId, tuple[int, Fingerprint | None] | None] = {}  # what may not change in the next step
        self.written: dict[str, Environment] = {}  # the environments as the last merge wrote them
        self.chained = self.reports = False
        self.asked: Counter[tuple[object, ...]] = Counter()
        self.epoch = 0  # grows with whatever is a reason to do the same thing again
        self.jobs = 0

    @initialize(chained=st.booleans(), reports=st.booleans(), reads=choices, deployed=st.integers(0, 20))
    def begin(self, chained: bool, reports: bool, reads: int, deployed: int) -> None:
        self.chained = chained  # whether all of prod follows all of dev
        self.reports = reports  # whether drift in dev is only reported
        self.boot()
        self.add_many(reads, 0)
        if deployed:
            self.work(deployed)

    def open_store(self) -> Store:
        return MemoryStore()

    def reopen_store(self) -> Store:
        return self.store.inner

    def boot(self, store: Store | None = None) -> None:
        self.store = BrittleStore(store or self.open_store(), self.fate)
        self.watched = WatchedRunner(self, self.fate)
        fence = self.store.next_fence()
        self.rt = Runtime(
            self.repository, self.store, self.watched, self.clock, Bystander(), CAPACITY, fence, lambda _: self.new_id()
        )

    def new_id(self) -> JobId:
        self.jobs += 1
        return JobId(f"job-{self.jobs}")

    # --- merges

    def merge(self) -> None:
        commit = Commit(f"{len(self.repository.commits) + 1:040x}")
        mode = DriftMode.REPORT if self.reports else DriftMode.CORRECT
        dev = self.judged(make.environment("dev", interval=INTERVAL, drift=mode))
        prod = self.judged(make.environment("prod", interval=INTERVAL, depends_on=["dev"] if self.chained else []))
        absent = {name for name, one in self.entries.items() if one.presence is Presence.ABSENT}
        self.ever_absent |= absent
        self.repository.commits.append(make.desired(*self.entries.values(), environments=[dev, prod], commit=commit))

    def judged(self, environment: Environment) -> Environment:
        """With its windows, and with those that the merge before had."""
        now = replace(environment, freeze=self.windows.get(environment.name, ()))
        before = self.written.get(environment.name, now)
        self.written[environment.name] = now
        return judged_with(now, policy_of(before))

    @rule(name=st.sampled_from(("dev", "prod")), begins=st.integers(-30, 90), minutes=st.sampled_from([0, 5, 30, 60]))
    def freezes(self, name: str, begins: int, minutes: int) -> None:
        """Every day at a time that is near now; or no more."""
        self.freeze(name, begins, minutes)

    def freeze(self, name: str, begins: int, minutes: int) -> None:
        at, length = self.clock.time + timedelta(minutes=begins), timedelta(minutes=minutes)
        self.windows[name] = (Window(f"{at.minute} {at.hour} * * *", length, "UTC", "r"),) if minutes else ()
        self.merge()

    def entry(self, name: UnitId, reads: int, size: int) -> Entry:
        """An entry that reads those of the units before it that `reads` has a bit for."""
        before = NAMES[: NAMES.index(name)]
        present = [o for o in before if o in self.entries and self.entries[o].presence is Presence.PRESENT]
        chosen = [other for n, other in enumerate(present[-5:]) if reads >> n & 1]
        return make.entry(name, reads=chosen, size=size % 3)

    @rule(name=names, reads=choices, size=choices)
    def add_or_change(self, name: UnitId, reads: int, size: int) -> None:
        self.entries[name] = self.entry(name, reads, size)
        self.merge()

    @rule(reads=choices, size=choices)
    def add_many(self, reads: int, size: int) -> None:
        for n, name in enumerate(NAMES):
            self.entries[name] = self.entry(name, reads >> (n % 3), size)
        self.merge()

    @rule(name=names, how=st.sampled_from([Presence.ABSENT, Presence.ABSENT, Presence.FORGOTTEN]), loose=st.booleans())
    def let_go(self, name: UnitId, how: Presence, loose: bool) -> None:
        if name in self.entries:
            self.entries[name] = replace(self.entries[name], presence=how)
            if loose:
                self.cut(name)
            self.merge()

    @rule(name=names)
    def let_go_with_readers(self, name: UnitId) -> None:
        if name not in self.entries:
            return
        self.entries[name] = replace(self.entries[name], presence=Presence.ABSENT)
        for other, one in self.entries.items():
            if any(getattr(value, "unit", None) == name for value in one.inputs.values()):
                self.entries[other] = replace(one, presence=Presence.ABSENT)
        self.merge()

    def cut(self, name: UnitId) -> None:
        """Take every reference to the unit out."""
        for other, one in self.entries.items():
            kept = {key: value for key, value in one.inputs.items() if getattr(value, "unit", None) != name}
            self.entries[other] = replace(one, inputs=kept)

    @rule(name=names, loose=st.booleans())
    def remove_file(self, name: UnitId, loose: bool) -> None:
        if self.entries.pop(name, None):
            if loose:
                self.cut(name)
            self.merge()

    @rule(name=names, new=names)
    def rename(self, name: UnitId, new: UnitId) -> None:
        same = name.partition("/")[0] == new.partition("/")[0]
        if name not in self.entries or new in self.entries or not same:
            return
        one = self.entries.pop(name)
        moved = make.entry(new, moved_from=name)
        self.entries[new] = replace(moved, inputs=one.inputs, presence=one.presence)
        for other, reader in self.entries.items():
            named = {key: renamed(value, name, new) for key, value in reader.inputs.items()}
            self.entries[other] = replace(reader, inputs=named)
        self.merge()

    @rule(name=names)
    def break_entry(self, name: UnitId) -> None:
        if name in self.entries:
            self.entries[name] = replace(self.entries[name], version="9.9.9")
            self.merge()

    @precondition(lambda self: len(self.repository.commits) > 1)
    @rule()
    def revert(self) -> None:
        before = self.repository.commits[-2]
        self.entries = {one.id: one.entry for one in before.units.values()}
        self.merge()

    # --- the loop

    @rule(polls=st.booleans())
    def tick(self, polls: bool) -> None:
        if polls:
            self.repository.poll()
        tick(self.rt)
        self.check_after_tick()

    @rule(steps=st.integers(1, 12))
    def work(self, steps: int) -> None:
        """A quiet while: everything goes on."""
        for _ in range(steps):
            self.tick(polls=True)
            for live in self.runner.live():
                self.runner.step(live)

    @rule(after=st.integers(0, 16))
    def tick_and_crash(self, after: int) -> None:
        self.repository.poll()
        self.fate.countdown = after
        with contextlib.suppress(CrashError):
            tick(self.rt)
        self.fate.countdown = None
        self.boot(self.reopen_store())

    @rule()
    def ticks_come_to_rest(self) -> None:
        """With nothing happening outside, the third tick in a row has nothing left to say."""
        tick(self.rt)
        tick(self.rt)
        written = self.store.written
        tick(self.rt)
        assert self.store.written == written
        self.check_after_tick()

    @rule(name=names, then=st.sampled_from(["goes on", "fails", "dies"]))
    def unit_gets_to_apply(self, name: UnitId, then: str) -> None:
        """A quiet while, until the unit is in the middle of an apply."""
        for _ in range(12):
            self.tick(polls=True)
            for live in self.runner.live():
                if live.job.unit != name or live.phase is not Phase.APPLYING:
                    self.runner.step(live)
                elif then != "goes on":
                    (self.runner.kill if then == "dies" else self.runner.fail)(live)
                    return
                else:
                    return

    # --- the runner

    @precondition(lambda self: self.runner.live())
    @rule(which=choices)
    def job_goes_on(self, which: int) -> None:
        self.runner.step(self.pick(which))

    @precondition(lambda self: self.runner.live())
    @rule(which=choices)
    def job_fails(self, which: int) -> None:
        self.runner.fail(self.pick(which))

    @precondition(lambda self: self.runner.live())
    @rule(which=choices)
    def job_dies(self, which: int) -> None:
        self.runner.kill(self.pick(which))

    @precondition(lambda self: self.runner.live())
    @rule(which=choices, steps=st.integers(1, 3))
    def a_window_opens_over_a_job(self, which: int, steps: int) -> None:
        live = self.pick(which)
        self.freeze(live.job.unit.partition("/")[0], -1, 60)
        self.frozen_means_unchanged()
        for _ in range(steps):
            if live.ended is None:
                self.runner.step(live)

    def pick(self, which: int) -> LiveJob:
        live = self.runner.live()
        return live[which % len(live)]

    @rule(name=names)
    def unit_falls_sick(self, name: UnitId) -> None:
        self.runner.sick.add(name)

    @rule()
    def all_recover(self) -> None:
        self.runner.sick.clear()

    @rule(answers=st.booleans())
    def runner_comes_and_goes(self, answers: bool) -> None:
        self.runner.answers = answers

    @rule(word=st.sampled_from("ab"))
    def host_changes(self, word: str) -> None:
        self.runner.facts = make.facts(host=word)
        self.epoch += 1

    @precondition(lambda self: self.runner.things)
    @rule(which=choices)
    def world_drifts(self, which: int) -> None:
        things = sorted(self.runner.things)
        self.runner.drift(things[which % len(things)])
        self.epoch += 1

    # --- admins and time

    @rule(scope=scopes, hours=st.integers(1, 9))
    def pause(self, scope: str, hours: int) -> None:
        until = self.clock.time + timedelta(hours=hours)
        self.store.append(Paused(Pause(scope, "ann", "a reason", self.clock.time, until)), actor="ann")

    @rule()
    def resume(self) -> None:
        for pause in self.store.ledger().pauses:
            self.store.append(Resumed(pause.scope, "ann"), actor="ann")
        self.epoch += 1

    @rule(frozen=st.booleans())
    def history(self, frozen: bool) -> None:
        self.store.append(Frozen(Hold("HistoryRewritten", "It was.", plans=True)) if frozen else Thawed())
        self.epoch += 1

    @rule()
    def reconcile(self) -> None:
        self.store.append(ReconcileRequested("all", "ann", NAMES, self.clock.time), actor="ann")
        self.epoch += 1

    @rule(seconds=st.sampled_from([1, 5, 20, 300, 3600, 8 * 3600]))
    def time_passes(self, seconds: int) -> None:
        self.clock.time += timedelta(seconds=seconds)

    # --- what must hold

    def stopped(self, unit: UnitId) -> bool:
        ledger = self.store.ledger()
        return bool(ledger.frozen) or any(is_pausing(p, unit, self.clock.time) for p in ledger.pauses)

    def frozen(self, environment: Environment) -> bool:
        return outlook(environment.freeze, self.clock.time).window is not None

    @invariant()
    def frozen_means_unchanged(self) -> None:
        """What was inside a window, and not being applied already, is as it was; but for somebody else's hands."""
        things = {unit: (thing.identity, thing.made_from) for unit, thing in self.runner.things.items()}
        for unit, before in self.still.items():
            drifted = (before[0], None) if before else None
            assert things.get(unit) in (before, drifted), f"{unit} was changed while it was frozen"
        environments = self.repository.head.environments
        closed = {name for name, one in environments.items() if self.frozen(one)}
        applying = {live.job.unit for live in self.runner.live() if live.phase is Phase.APPLYING}
        self.still = {
            unit: things.get(unit) for unit in NAMES if unit.partition("/")[0] in closed and unit not in applying
        }

    def check_start(self, job: Job) -> None:
        """At the moment when a job is handed over."""
        record = self.store.ledger().units[job.unit]
        assert record.job is not None
        assert record.job.job == job, "it was not journaled"
        assert job.id not in self.runner.jobs, "it was handed over before"
        assert all(live.job.unit != job.unit for live in self.runner.live()), "two jobs of one unit"
        question = (job.unit, job.operation, record.job.fingerprint, job.commit, self.clock.time, self.epoch)
        self.asked[question] += 1
        assert self.asked[question] <= 2, "the same again, and no time has passed"
        if job.operation is Operation.PLAN:
            return
        assert not self.stopped(job.unit), "an apply of what is paused"
        seen = self.repository.latest()
        assert seen is not None
        assert seen.commit == job.commit
        unit = seen.units[job.unit]
        assert not self.frozen(unit.environment), "an apply of what is frozen"
        if unit.presence is not Presence.PRESENT:
            self.check_unread(unit)
        elif record.job.cause is not Cause.DRIFT:
            self.check_upstream(unit)

    def check_upstream(self, unit: Unit) -> None:
        """What the unit reads or follows is, by the runner's own memory, as the commit says."""
        seen, ledger = self.repository.latest(), self.store.ledger()
        assert seen is not None
        for name in unit.upstream:
            upstream = seen.units.get(name)
            assert upstream is not None, f"{unit.id} before the broken {name}"
            record = ledger.units.get(name)
            if upstream.presence is not Presence.PRESENT:
                continue
            if record and record.job:
                self.check_same_intent(record.job.job, upstream)
                continue
            known = self.runner.memory.get(name, Remembered())
            assert known.applied is not None, f"{unit.id} before {name}"
            assert known.applying is None, f"{unit.id} on the half done {name}"
            stale = self.runner.facts != self.rt.facts
            assert stale or known.applied.fingerprint == self.runner.expected(seen, name), f"{unit.id} before {name}"

    def check_same_intent(self, job: Job, upstream: Unit) -> None:
        """The upstream's running job makes of it nothing else than it shall be."""
        then = next(one for one in self.repository.commits if one.commit == job.commit).units[upstream.id]
        assert job.operation is Operation.PLAN or then.intent == upstream.intent, f"while {job.unit} turns"

    def check_unread(self, unit: Unit) -> None:
        """Nothing that the runner built, or is building as the controller asked it to, reads what is let go."""
        for live in self.runner.live():
            builds = live.phase is Phase.APPLYING and live.unit and live.unit.presence is Presence.PRESENT
            if builds and live.unit and live.commit == live.job.commit:
                assert unit.id not in live.unit.reads, f"{unit.id} goes while {live.job.unit} is being built on it"
        for other, known in self.runner.memory.items():
            applied = known.applied
            uncollected = (r := self.store.ledger().units.get(other)) is not None and r.job is not None
            if applied and applied.presence is Presence.PRESENT and not known.moved_to and not uncollected:
                assert unit.id not in applied.reads, f"{unit.id} goes while {other} reads it"
            if other != unit.id and not known.moved_to and not uncollected:
                assert unit.id not in (known.applying or ()), f"{unit.id} goes while {other} is half built on it"

    def check_after_tick(self) -> None:
        ledger = self.store.ledger()
        running = [record for record in ledger.units.values() if record.job]
        by_environment = Counter(record.unit.partition("/")[0] for record in running)
        assert len(running) <= CAPACITY.workers
        assert all(count <= CAPACITY.per_environment for count in by_environment.values())
        known = {record.job.job.id for record in running if record.job}
        assert {live.job.id for live in self.runner.live()} <= known, "a job that nobody remembers"
        if self.runner.answers:
            for live in self.runner.live():
                if live.job.operation is Operation.APPLY and live.phase is not Phase.APPLYING:
                    assert live.cancelled or not self.stopped(live.job.unit), "a job of what is paused goes on"
        assert set(self.runner.destroyed) <= self.ever_absent, "destroyed, and no entry said so"

    # --- the end: no more troubles, and everything comes to be as it shall

    def teardown(self) -> None:
        if self.repository.commits:
            self.lift_troubles()
            untouched = {unit: replace(thing) for unit, thing in self.runner.things.items() if self.orphaned(unit)}
            started = len(self.watched.started)
            self.settle(PATIENCE + (FROZEN if any(self.windows.values()) else timedelta()))
            self.check_settled(drift=False)
            self.clock.time += 2 * INTERVAL
            self.settle(PATIENCE + (FROZEN if any(self.windows.values()) else timedelta()))
            self.check_settled(drift=True)
            assert len(self.watched.started) - started < 25 * len(NAMES), "far too many jobs"
            assert {u: self.runner.things.get(u) for u in untouched} == untouched, "an orphan was touched"

    def lift_troubles(self) -> None:
        self.runner.sick.clear()
        self.runner.answers = True
        self.resume()
        self.store.append(Thawed())
        while live := self.runner.live():
            self.runner.step(live[0])
        self.repository.poll()
        self.clock.time += timedelta(seconds=20)  # the runner's facts are asked for again

    def orphaned(self, unit: UnitId) -> bool:
        head = self.repository.head
        claimed = {one.entry.moved_from for one in head.units.values()}
        return unit not in head.units and unit not in head.broken and unit not in claimed

    def settle(self, patience: timedelta) -> None:
        """Let time pass as the ticks ask for it, and no further, until every unit that can be in order is."""
        deadline = self.clock.time + patience
        while True:
            due = self.run_to_rest()
            head = self.repository.head
            wrong = [unit for unit in head.units.values() if self.wrong(unit) or self.frozen(unit.environment)]
            if not wrong:
                return
            story = {unit.id: self.store.ledger().units.get(unit.id) for unit in wrong}
            assert due is not None, f"nothing is due, and yet: {story}"
            assert due <= deadline, f"not in order for {patience}: {story}"
            self.clock.time = max(due, self.clock.time)

    def run_to_rest(self) -> datetime | None:
        for _ in range(200):
            due = tick(self.rt)
            self.check_after_tick()
            if not any(record.job for record in self.store.ledger().units.values()):
                return due
            while live := self.runner.live():
                self.runner.step(live[0])
        raise AssertionError("jobs without end, and no time passes")

    def wrong(self, unit: Unit) -> bool:
        """Whether the unit could be in order, and is not."""
        record = self.store.ledger().units.get(unit.id)
        if not self.able(unit):
            return False
        if record is None or record.applied is None or record.unfinished is not None:
            return True
        return record.applied.fingerprint != self.runner.expected(self.repository.head, unit.id)

    def able(self, unit: Unit) -> bool:
        """Whether nothing that only a person can mend stands in the unit's way."""
        head, ledger = self.repository.head, self.store.ledger()
        if self.move_blocked(unit):
            return False
        if unit.presence is Presence.PRESENT:
            upstream = (head.units.get(name) for name in unit.upstream)
            return all(one is not None and (one.presence is not Presence.PRESENT or self.able(one)) for one in upstream)
        former = {unit.id, unit.entry.moved_from}
        readers = {r for name in former if name for r in readers_of(ledger).get(name, ())} - former
        return all(reader in head.units and self.able(head.units[reader]) for reader in readers)

    def move_blocked(self, unit: Unit) -> bool:
        """Whether the unit shall take over a state that is not there, or has one of its own."""
        old, memory = unit.entry.moved_from, self.runner.memory
        if old is None or self.runner.remembered(unit.id).applied is not None:
            return False
        source = memory.get(old, Remembered())
        exists = source.applied is not None and source.applied.presence is Presence.PRESENT
        return not exists or source.moved_to not in (None, unit.id)

    def check_settled(self, *, drift: bool) -> None:
        written = self.store.written
        tick(self.rt)
        assert self.store.written == written, "at rest, and yet something is decided"
        ledger = self.store.ledger()
        for unit in self.repository.head.units.values():
            thing = self.runner.things.get(unit.id)
            if self.able(unit) and unit.presence is Presence.PRESENT:
                assert thing is not None
                right = thing.made_from == self.runner.expected(self.repository.head, unit.id)
                assert right or not drift or (self.reports and unit.environment.name == "dev")
            elif self.able(unit):
                assert thing is None, f"{unit.id} is still there"
        for name in self.runner.things:
            record = ledger.units.get(name)
            if self.orphaned(name):
                hold = record.hold if record else None
                assert hold, f"{name} is an orphan, and nobody says so"
                assert hold.reason == "Orphaned"


class SqliteLoop(Loop):
    """The same on the real store, closed and opened again at every crash."""

    def open_store(self) -> Store:
        self.folder = Path(tempfile.mkdtemp())
        return SqliteStore(self.folder / "reconciler.db", self.clock)

    def reopen_store(self) -> Store:
        inner = self.store.inner
        assert isinstance(inner, SqliteStore)
        inner.close()
        return SqliteStore(self.folder / "reconciler.db", self.clock)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            inner = self.store.inner
            assert isinstance(inner, SqliteStore)
            inner.close()
            shutil.rmtree(self.folder)


MODE = os.environ.get("RECONCILER_TEST_LOOP", "")
EXAMPLES = {"long": (5000, 500), "ci": (200, 40)}.get(MODE, (250, 20))


def profile(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=100 if MODE == "long" else 40,
        derandomize=MODE == "ci",
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(36000 if MODE == "long" else 300)
@pytest.mark.parametrize(("machine", "examples"), [(Loop, EXAMPLES[0]), (SqliteLoop, EXAMPLES[1])])
def test_whatever_happens(machine: type[Loop], examples: int) -> None:
    run_state_machine_as_test(machine, settings=profile(examples))

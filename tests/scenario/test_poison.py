"""Entries that are poison among a thousand: the others come to be as they shall, and what the poison costs has a bound.

The loop, the resolution and the decisions are the real ones; the runner is the simulated one, and what dies or hangs there does
so because a test says so. tests/e2e/test_poison.py has fewer units and real processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from reconciler.actual.ledger import ReconcileRequested
from reconciler.controller import tick as controller
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding import decide as deciding
from reconciler.deciding import gates
from reconciler.deciding.budgets import Capacity
from reconciler.deciding.decide import Held
from reconciler.deciding.gates import Need, World
from reconciler.deciding.schedule import schedule as scheduled
from reconciler.desired import resolve as resolving
from reconciler.desired.fingerprint import fingerprint as printed
from reconciler.model import (
    Desired,
    Entry,
    Fingerprint,
    Health,
    Hold,
    JobId,
    Outcome,
    Result,
    Sync,
    Unit,
    UnitId,
    UnitRecord,
    Window,
)
from reconciler.ports import Lost
from reconciler.status import overview
from tests.kit import facts as make
from tests.kit.whole import next_due
from tests.kit.world import FakeClock, LiveJob, MemoryStore, Repository, Runner
from tests.unit.controller.test_tick import Watcher

MANY = 1000
NAMES = [UnitId(f"prod/u{n:03}") for n in range(MANY)]
IN_RESOLVE, IN_FINGERPRINT, IN_GATE, IN_NEED, DIES, HANGS, BUGGY, REFUSED, FLAPS, HUGE = NAMES[5:1000:97][:10]
BY_DECIDING = {IN_FINGERPRINT, IN_GATE, IN_NEED}
POISON = {IN_RESOLVE, *BY_DECIDING, DIES, HANGS, BUGGY, REFUSED}  # the other two come right
PLAN_TIMEOUT = timedelta(minutes=15)


class HostileError(Exception):
    """Raised where nobody foresaw anything."""


class Plane(Watcher):
    """Tells of faults as the log would, too."""

    def unit_held(self, held: Held) -> None:
        if held.fault is not None:
            self.told.append(f"fault {held.unit} {held.fault!r}")
        super().unit_held(held)


class House:
    """A controller and a simulated runner over a commit."""

    def __init__(self, want: Desired) -> None:
        self.clock = FakeClock(make.NOW)
        self.repository = Repository([want], 1)
        self.runner = Runner(self.clock, self.repository, make.facts())
        self.store, self.watcher = MemoryStore(), Plane()
        numbers: Iterator[int] = iter(range(10**9))
        self.rt = Runtime(
            self.repository, self.store, self.runner, self.clock, self.watcher, Capacity(100, 100), 1,
            lambda _now: JobId(f"job-{next(numbers)}"),
        )  # fmt: skip
        self.started: Counter[UnitId] = Counter()
        self.due: datetime | None = None

    def turn(self) -> None:
        """One tick; then every job goes one step on, or does what its poison does."""
        before = set(self.runner.jobs)
        self.due = tick(self.rt)
        self.started.update(self.runner.jobs[job].job.unit for job in self.runner.jobs.keys() - before)
        for live in self.runner.live():
            self.act(live)

    def act(self, live: LiveJob) -> None:
        unit, now = live.job.unit, self.clock.now()
        match unit:
            case _ if unit == DIES:
                live.ended = Lost(applying=False, died="killed by SIGKILL")
            case _ if unit == HANGS:
                if now - live.started_at >= PLAN_TIMEOUT:
                    live.ended = self.end(live, "EngineTimeout", transient=True)
            case _ if unit == BUGGY:
                live.ended = self.end(live, "InternalError", transient=True)
            case _ if unit == REFUSED:
                live.ended = self.end(live, "InputInvalid", transient=False)
            case _ if unit == FLAPS and self.started[unit] < 8:
                live.ended = self.end(live, "PlanFailed", transient=True)
            case _ if unit == HUGE and self.started[unit] == 1:
                live.ended = replace(self.end(live, "ApplyFailed", transient=True), message="x" * (1 << 20))
            case _:
                self.runner.step(live)

    def end(self, live: LiveJob, reason: str, *, transient: bool) -> Result:
        result = self.runner._result(live, Outcome.FAILED, reason, "It is poison.")
        return replace(result, transient=transient)

    def run(self, span: timedelta) -> int:
        """Let time pass as it would; how often the loop ran."""
        until, turns = self.clock.time + span, 0
        while self.clock.time < until:
            self.turn()
            turns += 1
            busy = any(record.job for record in self.store.ledger().units.values())
            soon = timedelta(seconds=1) if busy else timedelta(hours=1)
            step = min(soon, self.due - self.clock.time) if self.due else soon
            patient = {live.job.unit for live in self.runner.live()} == {HANGS}
            self.clock.time += max(step, timedelta(seconds=30 if patient else 1))
        return turns

    def record(self, unit: UnitId) -> UnitRecord:
        return self.store.ledger().units[unit]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that stumbles over one entry each, in each place that looks at every entry."""
    real_add, real_print, real_need = resolving._Work.add, printed, deciding.need_of

    def add(work: resolving._Work, entry: Entry) -> None:
        if entry.unit == IN_RESOLVE:
            raise RecursionError("too deep")
        real_add(work, entry)

    def fingerprint(unit: Unit, *rest: object) -> Fingerprint:
        if unit.id == IN_FINGERPRINT:
            raise HostileError("no digest")
        return real_print(unit, *rest)  # type: ignore[arg-type]

    def gate(_world: World, unit: Unit, _record: UnitRecord, _need: Need) -> Hold | None:
        if unit.id == IN_GATE:
            raise HostileError("no gate")
        return None

    def need_of(world: World, unit: Unit, record: UnitRecord) -> Need | None:
        if unit.id == IN_NEED:
            raise HostileError("no need")
        return real_need(world, unit, record)

    monkeypatch.setattr(resolving._Work, "add", add)
    monkeypatch.setattr(deciding, "fingerprint", fingerprint)
    monkeypatch.setattr(deciding, "GATES", (gate, *gates.GATES))
    monkeypatch.setattr(deciding, "need_of", need_of)


def test_the_others_of_a_thousand_come_to_be_as_they_shall(hostile: None) -> None:
    calm = make.environment("prod", interval=timedelta(days=1))
    house = House(make.desired(*map(make.entry, NAMES), environments=[calm]))
    house.run(timedelta(minutes=2))
    sound = set(NAMES) - POISON - {FLAPS, HUGE}
    assert {unit for unit in NAMES if unit in house.runner.things} >= sound
    house.run(timedelta(hours=3))
    desired, ledger = house.repository.head, house.store.ledger()
    wanted = deciding.expected(desired, ledger, house.rt.facts)
    statuses = {one.unit: one for one in overview(desired, ledger, wanted, house.clock.now()).units}
    wrong = {unit for unit, one in statuses.items() if one.sync is not Sync.SYNCED or one.health is not Health.HEALTHY}
    assert wrong == POISON
    assert Counter(house.runner.created) == Counter(set(NAMES) - POISON)  # each once

    # what each kind is called, and what it cost
    reasons = {unit: statuses[unit].reason for unit in POISON}
    assert reasons == {
        IN_RESOLVE: "InternalError", IN_FINGERPRINT: "InternalError", IN_GATE: "InternalError", IN_NEED: "InternalError",
        DIES: "Quarantined", BUGGY: "Quarantined", HANGS: "EngineTimeout", REFUSED: "InputInvalid",
    }  # fmt: skip
    assert all(house.started[unit] == 0 for unit in (IN_RESOLVE, *BY_DECIDING))
    assert {unit: house.started[unit] for unit in (DIES, BUGGY, REFUSED)} == {DIES: 3, BUGGY: 3, REFUSED: 1}
    assert 2 <= house.started[HANGS] <= 4  # a quarter of a slot, for three hours
    faults = [told for told in house.watcher.told if told.startswith("fault")]
    assert sorted(faults) == sorted(set(faults))  # each is logged once, whole
    assert len(faults) == len(BY_DECIDING)


def test_quarantine_ends_with_new_input_or_when_an_admin_asks() -> None:
    house = House(make.desired(make.entry(DIES), make.entry(NAMES[0])))
    house.run(timedelta(hours=3))
    assert house.started[DIES] == 3
    assert house.record(DIES).failure.reason == "Quarantined"  # type: ignore[union-attr]

    house.store.append(ReconcileRequested(DIES, "ann", (DIES,), house.clock.now()), actor="ann")
    house.run(timedelta(hours=3))
    assert house.started[DIES] == 4  # one more try, and no more

    newer = make.desired(make.entry(DIES, size=2), make.entry(NAMES[0]), commit=make.HEAD[:-1] + "f")  # type: ignore[arg-type]
    house.repository.commits.append(newer)
    house.repository.poll()
    house.run(timedelta(hours=3))
    assert house.started[DIES] == 7


def test_what_is_in_quarantine_stays_there_when_the_controller_starts_again() -> None:
    house = House(make.desired(make.entry(DIES)))
    house.run(timedelta(hours=1))
    house.rt = replace(house.rt, facts=None, facts_at=None, decided=None, known={}, passes=None)
    house.run(timedelta(hours=6))
    assert house.started[DIES] == 3


def test_the_loop_does_not_spin_over_what_waits() -> None:
    house = House(make.desired(make.entry(REFUSED), make.entry(DIES)))
    house.run(timedelta(minutes=5))
    assert house.run(timedelta(hours=24)) <= 26  # once an hour, since nothing asks for more


def test_a_freeze_window_that_nobody_can_work_out_stops_no_other_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = Window("0 9 * * TUE", timedelta(hours=2), "UTC", "a launch")
    bad = replace(make.environment("stage"), freeze=(launch,))
    want = make.desired(make.entry("prod/a"), make.entry("stage/b"), environments=[bad])
    house = House(want)

    def outlook(*_: object) -> object:
        raise OverflowError("no such date")

    monkeypatch.setattr("reconciler.desired.freeze.outlook", outlook)
    monkeypatch.setattr("tests.kit.world.outlook", lambda *_: type("Look", (), {"window": None})())
    house.run(timedelta(minutes=1))
    assert house.record(UnitId("prod/a")).applied is not None
    hold = house.record(UnitId("stage/b")).hold
    assert hold is not None
    assert hold.reason == "InternalError"
    assert house.rt.decided is not None
    assert next_due(house.rt.decided.world) is not None


def test_a_result_that_nobody_can_make_sense_of_ends_its_job_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House(make.desired(make.entry("prod/a"), make.entry("prod/b")))

    def schedule(unit: Unit | None, record: UnitRecord, *rest: object) -> object:
        if unit is not None and unit.id == "prod/a":
            raise OverflowError("date value out of range")
        return scheduled(unit, record, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(controller, "schedule", schedule)
    house.run(timedelta(minutes=1))
    assert house.record(UnitId("prod/b")).applied is not None
    failure = house.record(UnitId("prod/a")).failure
    assert failure is not None
    assert failure.reason == "ResultUnreadable"
    assert "OverflowError" in failure.message

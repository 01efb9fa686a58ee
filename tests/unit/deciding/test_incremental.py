"""A pass that looks only at what is touched decides as one that looks at everything: in histories drawn at random, at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from reconciler.actual.ledger import reads_now
from reconciler.deciding import decide as decide_module
from reconciler.deciding import passes
from reconciler.deciding.alarms import Alarms
from reconciler.deciding.budgets import Capacity, Cut, Pressure
from reconciler.deciding.decide import Dispatch, Held, expected
from reconciler.deciding.gates import policy
from reconciler.deciding.passes import Jobs, Passes, Turn
from reconciler.desired import freeze
from reconciler.desired.resolve import resolve
from reconciler.desired.touched import NOTHING, Resolved
from reconciler.layered import layered
from reconciler.model import (
    Commit,
    Desired,
    EnvironmentClass,
    Hold,
    HostPart,
    Ledger,
    Load,
    Operation,
    Outside,
    Planned,
    Presence,
    Problem,
    Promotion,
    Reference,
    RunnerFacts,
    Skip,
    UnitId,
    UnitRecord,
    Window,
)
from tests.kit import facts as make
from tests.kit import whole
from tests.kit.whole import Queued, decide, next_due, survey

NAMES = [UnitId(f"{environment}/{name}") for environment in ("dev", "stage", "prod") for name in "abcde"]
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
FREEZE = Window("0 */4 * * *", timedelta(hours=2), "UTC", "lunch")
LONGER = Window("30 12 * * *", timedelta(hours=3), "UTC", "a long one")


@dataclass
class House:
    """What there is to decide on, changed step by step."""

    draw: Random
    entries: dict[UnitId, Any] = field(default_factory=dict)
    environments: dict[str, Any] = field(default_factory=dict)
    problems: dict[UnitId, Problem] = field(default_factory=dict)
    locked: Any = field(default_factory=make.lock)
    resolved: Resolved = NOTHING
    ledger: Ledger = field(default_factory=lambda: Ledger(units=layered({})))
    facts: RunnerFacts | None = field(default_factory=make.facts)
    now: Any = make.NOW
    answers: bool = True
    commits: int = 0
    pressure: Pressure = field(default_factory=Pressure)

    @property
    def desired(self) -> Desired:
        return self.resolved.desired

    def merge(self) -> None:
        self.commits += 1
        read = {unit: entry for unit, entry in self.entries.items() if unit not in self.problems}
        self.resolved = resolve(
            Commit(f"{self.commits:040x}"), dict(self.environments), read, self.locked,
            [*self.problems.values()], before=self.resolved,
        )  # fmt: skip

    def record(self, unit: UnitId, **changes: object) -> None:
        known = self.ledger.units.get(unit) or UnitRecord(unit)
        self.ledger = replace(
            self.ledger,
            units=layered(self.ledger.units).after({unit: replace(known, **changes)}),  # type: ignore[arg-type]
        )

    def some(self) -> UnitId:
        return self.draw.choice(NAMES)

    # --- what may happen -------------------------------------------------------------------------------------------

    def an_entry(self) -> None:
        """Of what there is, most of the time: what is named and is not there, and a circle, are broken."""
        draw, unit = self.draw, self.some()
        others = [one for one in NAMES if one != unit]
        sound = [one for one in NAMES[: NAMES.index(unit)] if one in self.desired.units]
        if len(sound) > 1 and draw.random() < 0.9:
            others = sound
        self.problems.pop(unit, None)
        self.entries[unit] = make.entry(
            unit,
            reads=draw.sample(others, draw.choice([0, 0, 1, 2])),
            after=draw.sample(others, draw.choice([0, 0, 0, 1])),
            size=draw.randint(1, 3),
            version=draw.choice(make.VERSIONS),
            presence=draw.choice([*[Presence.PRESENT] * 6, Presence.ABSENT, Presence.FORGOTTEN]),
            moved_from=draw.choice([None] * 6 + [unit.partition("/")[0] + "/gone"]),
            secret=draw.choice([None] * 6 + ["key"]),
        )
        if draw.random() < 0.2:
            self.entries[unit] = replace(self.entries[unit], promotion_skip=draw.choice(["urgent", "very urgent"]))
        self.merge()

    def a_file_goes(self) -> None:
        if self.entries:
            self.entries.pop(self.draw.choice(sorted(self.entries)))
        self.merge()

    def a_file_breaks(self) -> None:
        unit = self.some()
        self.problems[unit] = Problem(make.entry(unit).place, "YamlInvalid", f"no {self.commits}", unit)
        self.merge()

    def an_environment(self) -> None:
        draw, name = self.draw, self.draw.choice(["dev", "stage", "prod"])
        after = {"stage": ["dev"], "prod": ["stage"]}.get(name, [])
        made = make.environment(
            name,
            depends_on=draw.choice([[], after]),
            destroy=draw.randint(0, 1),
            interval=draw.choice([make.HOUR, DAY]),
        )
        soak = draw.choice([10 * MINUTE, 2 * make.HOUR])
        rules = (Promotion("dev", soak),) if name != "dev" and draw.random() < 0.6 else ()
        windows = draw.choice([(), (), (FREEZE,), (FREEZE, LONGER)])
        self.environments[name] = replace(made, promotion=rules, freeze=windows)
        self.merge()

    def another_lock(self) -> None:
        pins = [make.pin(version, yanked=self.draw.choice([None, None, "bad"])) for version in make.VERSIONS]
        self.locked = make.lock(*self.draw.sample(pins, self.draw.choice([3, 3, 2])))
        self.merge()

    def an_empty_merge(self) -> None:
        self.merge()

    def an_apply(self) -> None:
        """As desired, or as another commit said; what it gives may be another value, or gone."""
        unit = self.desired.units.get(self.some())
        if unit is not None:
            wanted = expected(self.desired, self.ledger, self.facts)[unit.id]
            fingerprint = wanted if wanted is not None and self.draw.random() < 0.8 else make.fingerprint()
            done = make.applied(unit, fingerprint, at=self.now, outputs=self.draw.choice([("id",)] * 6 + [()]))
            if self.draw.random() < 0.1:
                done = replace(done, outputs=dict.fromkeys(done.outputs, f"{self.now}"))
            since, check = (
                self.draw.choice([None, self.now]),
                self.now + self.draw.choice([MINUTE, make.HOUR, 900 * DAY]),
            )
            self.record(
                unit.id, job=None, applied=done, failure=None, unfinished=None, steady_since=since, next_check=check
            )

    def jobs_end(self) -> None:
        """Most of them well."""
        for unit, record in [*self.ledger.units.items()]:
            wanted, job = self.desired.units.get(unit), record.job
            if job is None or self.draw.random() < 0.2:
                continue
            if wanted is None or self.draw.random() < 0.1:
                self.record(unit, job=None)
            elif job.job.operation is Operation.PLAN:
                plan = Planned(job.job.id, job.fingerprint, job.cause, make.plan(), self.now)
                self.record(unit, job=None, planned=plan, next_check=self.now + make.HOUR)
            else:
                done, since = make.applied(wanted, job.fingerprint, at=self.now), self.draw.choice([None, self.now])
                self.record(
                    unit, job=None, applied=done, failure=None, unfinished=None, aftermath=None, drift_since=None,
                    steady_since=since, next_check=self.now + make.HOUR,
                )  # fmt: skip

    def a_failure(self) -> None:
        unit = self.desired.units.get(self.some())
        if unit is not None:
            wanted = expected(self.desired, self.ledger, self.facts)[unit.id] or make.fingerprint()
            wait = self.draw.choice([None, MINUTE, make.HOUR, 500 * DAY])
            failed = make.failure(wanted, unit, retry_at=None if wait is None else self.now + wait)
            reason = self.draw.choice(["ApplyFailed", "ReviewMissing"])
            failed = replace(failed, reason=reason, commit=self.draw.choice([None, self.desired.commit]))
            self.record(unit.id, job=None, failure=failed, steady_since=None)

    def a_review_failure(self) -> None:
        """Of something that is wanted as it stands, and that no clock ends: another commit does."""
        unit = self.desired.units.get(self.some())
        wanted = expected(self.desired, self.ledger, self.facts)[unit.id] if unit is not None else None
        if unit is not None and wanted is not None:
            failed = replace(make.failure(wanted, unit, retry_at=None), reason="ReviewMissing")
            failed = replace(failed, commit=self.desired.commit)
            self.record(unit.id, job=None, aftermath=None, failure=failed, steady_since=None)

    def an_end(self) -> None:
        """Of a unit that others are built on; they are to go on without it."""
        built_on = sorted(unit for unit in whole.readers_of(self.ledger) if unit in self.entries)
        if built_on:
            unit = self.draw.choice(built_on)
            for name, one in [*self.entries.items()]:
                if unit in (
                    *one.depends_on,
                    *(value.unit for value in one.inputs.values() if isinstance(value, Reference)),
                ):
                    self.entries[name] = make.entry(name, version=one.version)
            self.entries[unit] = replace(self.entries[unit], presence=Presence.ABSENT)
        self.merge()

    def a_job(self) -> None:
        unit = self.some()
        operation = self.draw.choice([*Operation])
        self.record(unit, job=make.dispatched(unit, operation=operation, reads=self.draw.sample(NAMES, 1)))

    def a_mark(self) -> None:
        sources = [one.moved_from for one in self.entries.values() if one.moved_from is not None]
        draw, unit = self.draw, self.some()
        if sources and draw.random() < 0.3:
            unit = draw.choice(sources)
        marks: list[dict[str, object]] = [
            {"drift_since": self.now}, {"unfinished": frozenset(draw.sample(NAMES, 1))}, {"unfinished": None},
            {"aftermath": make.aftermath(looked=draw.random() < 0.5, accepted=draw.random() < 0.3)}, {"aftermath": None},
            {"outside": Outside(self.now, named=draw.random() < 0.5)}, {"outside": None}, {"drift_since": None},
            {"skip": Skip("urgent", self.now)}, {"next_check": self.now}, {"job": None}, {"steady_since": self.now - DAY},
            {"job": make.dispatched(unit)},
        ]  # fmt: skip
        self.record(unit, **draw.choice(marks))

    def a_record_goes(self) -> None:
        self.ledger = replace(self.ledger, units=layered(self.ledger.units).after({self.some(): None}))

    def an_admin(self) -> None:
        scope, until = self.draw.choice(["all", "prod", self.some()]), self.now + self.draw.choice([MINUTE, make.HOUR])
        pauses = self.draw.choice([(), (make.pause(scope, until),)])
        sessions = self.draw.choice([(), (), (make.session(scope, until),)])
        frozen = self.draw.choice([None] * 6 + [Hold("HistoryRewritten", "for a test")])
        self.ledger = replace(self.ledger, pauses=pauses, sessions=sessions, frozen=frozen)

    def a_silence(self) -> None:
        self.answers = not self.answers

    def a_move(self) -> None:
        """An entry gets another name in its environment, and says so."""
        if self.entries:
            old = self.draw.choice(sorted(self.entries))
            new = self.draw.choice(
                [one for one in NAMES if one.partition("/")[0] == old.partition("/")[0] and one != old]
            )
            if self.draw.random() < 0.7:
                self.ledger = replace(self.ledger, units=layered(self.ledger.units).after({new: None}))
            self.entries[new] = replace(make.entry(new, moved_from=old), version=self.entries.pop(old).version)
        self.merge()

    def a_host(self) -> None:
        other = HostPart(EnvironmentClass.SANDBOX, "h1", {})
        one = HostPart(EnvironmentClass.PROTECTED, "h1", {}, ("one",))
        shared = replace(make.facts(), environments={**make.facts().environments, "stage": one, "prod": one})
        hosts = [
            *[make.facts()] * 4, make.facts(host="h2"), make.facts("prod"), make.facts(secrets={"key": "x"}), None,
            replace(make.facts(), environments={**make.facts().environments, "dev": other}), shared, replace(shared, memory=2048),
        ]  # fmt: skip
        self.facts = self.draw.choice(hosts)

    def a_measurement(self) -> None:
        """Jobs wait for a cloud or compute, take memory, and accounts are asked too often."""
        draw, running = self.draw, [one.job for one in self.ledger.units.values() if one.job is not None]
        loads = {
            one.job.id: Load(draw.random() < 0.6, draw.choice([0, 64, 640])) for one in running if draw.random() < 0.7
        }
        cuts = {name: Cut(draw.randint(1, 3), self.now) for name in ("one", "dev", "prod") if draw.random() < 0.3}
        self.pressure = Pressure(loads, cuts)

    def a_size(self) -> None:
        self.record(self.some(), memory=self.draw.choice([0, 100, 900, 3000]))

    def time(self) -> None:
        self.now += self.draw.choice([timedelta(0), MINUTE, 20 * MINUTE, make.HOUR, 2 * make.HOUR, DAY])

    def the_clock_goes_back(self) -> None:
        self.now -= self.draw.choice([MINUTE, 450 * DAY])

    def all_in_order(self) -> None:
        self.ledger = make.in_order(self.desired, self.facts or make.facts(), next_check=self.now + make.HOUR)
        self.ledger = replace(self.ledger, units=layered(self.ledger.units))


STEPS: list[tuple[int, Callable[[House], None]]] = [
    (4, House.an_entry), (1, House.a_file_goes), (1, House.a_file_breaks), (2, House.an_environment), (2, House.another_lock),
    (3, House.an_empty_merge), (4, House.an_apply), (2, House.a_failure), (2, House.a_review_failure), (1, House.a_job),
    (12, House.jobs_end), (4, House.a_mark), (1, House.a_record_goes), (2, House.an_admin), (2, House.a_host),
    (1, House.a_silence), (2, House.a_move), (2, House.an_end), (8, House.time), (1, House.all_in_order),
    (6, House.a_measurement), (2, House.a_size),
]  # fmt: skip


def journal(house: House, decisions: list[Held | Dispatch]) -> None:
    """As the controller does: every hold, and the jobs, which may be at work for a while."""
    for one in decisions:
        if isinstance(one, Held):
            house.record(one.unit, hold=one.hold)
        elif isinstance(one, Dispatch):
            asked = make.dispatched(
                one.unit.id, one.fingerprint, operation=one.operation, cause=one.cause, job=f"job-of-{one.unit.id}"
            )
            house.record(one.unit.id, job=replace(asked, policy=policy(one.unit)))


def sorted_apart(decisions: list[Held | Dispatch | Queued]) -> tuple[list[object], list[object]]:
    held = sorted((one for one in decisions if isinstance(one, Held)), key=lambda one: one.unit)
    return [*held], [one for one in decisions if not isinstance(one, Held)]


def both(house: House, tick: Passes, slots: Capacity, which: object) -> Turn:
    """A pass over what was touched, held against one over everything."""
    served, pressure = deepcopy(tick._served), house.pressure
    turn = tick.turn(
        house.desired, house.ledger, house.facts, house.now, slots, answers=house.answers, pressure=pressure
    )
    everything = survey(house.desired, house.ledger, house.facts, house.now, answers=house.answers)
    assert all_of(turn) == sorted_apart(list(decide(everything, slots, pressure, served))), which
    assert turn.due == next_due(everything), which
    return turn


def all_of(turn: Turn) -> tuple[list[object], list[object]]:
    waiting, limits = turn.waiting.units, turn.waiting.limits
    assert {one.environment for one in waiting.values()} == limits.keys()
    names = {unit: waiting[unit].environment for unit in sorted(waiting)}
    return sorted_apart([*turn.decisions, *(Queued(unit, name, limits[name]) for unit, name in names.items())])


def play(seed: int, steps: int) -> None:
    house, tick, jobs = House(Random(seed)), Passes(), Jobs()  # noqa: S311 - a test's
    for name in ("dev", "stage", "prod"):
        house.environments[name] = make.environment(name)
    for _ in range(24):
        house.an_entry()
    for _ in range(4):
        house.an_environment()
    if house.draw.random() < 0.7:
        house.all_in_order()
    weights = [weight for weight, _ in STEPS]
    for number in range(steps):
        for step in house.draw.choices([step for _, step in STEPS], weights, k=house.draw.randint(0, 2)):
            step(house)
        if house.draw.random() < 0.02:
            house.the_clock_goes_back()
        memory, most = house.draw.choice([None, 1500, 4000]), house.draw.choice([None, 2])
        slots = Capacity(house.draw.choice([0, 2, 5]), 2, memory, per_account=most, of_host=True)
        turn = both(house, tick, slots, (seed, number))
        running = [record for record in house.ledger.units.values() if record.job is not None]
        assert jobs.of(house.ledger) == sorted(running, key=lambda record: record.unit)
        journal(house, turn.decisions)


@pytest.mark.parametrize("seed", range(30))
def test_each_pass_decides_as_one_over_everything(seed: int) -> None:
    play(seed, 60)


# --- what a history seldom comes to: each yields what the next pass shall say, of every unit that it says anything of ---

Story = Iterator[dict[str, str | None]]
A, B = UnitId("dev/a"), UnitId("dev/b")
FAR = 20 * make.HOUR


def in_order(house: House, *entries: Any) -> None:
    house.entries = {one.unit: one for one in entries}
    house.merge()
    house.ledger = make.in_order(house.desired, make.facts(), next_check=house.now + FAR)


def code_has_soaked(house: House) -> Story:
    house.environments["stage"] = replace(house.environments["stage"], promotion=(Promotion("dev", 2 * make.HOUR),))
    in_order(house, make.entry(A, version="1.1.0"), make.entry("stage/a"))
    house.record(A, steady_since=house.now)
    house.entries[UnitId("stage/a")] = make.entry("stage/a", version="1.1.0")
    house.merge()
    yield {"stage/a": "PromotionPending", "stage/a ": "queued"}
    house.now += 2 * make.HOUR
    yield {"stage/a": None, "stage/a ": "queued"}


def a_rule_comes(house: House) -> Story:
    in_order(house, make.entry(A))
    house.record(A, steady_since=house.now)
    yield {}
    house.environments["stage"] = replace(house.environments["stage"], promotion=(Promotion("dev", MINUTE),))
    house.merge()
    yield {}


def a_freeze_ends_upstream(house: House) -> Story:
    house.environments["dev"] = replace(house.environments["dev"], freeze=(FREEZE,))
    in_order(house, make.entry(A))
    house.now += 2 * make.HOUR
    house.entries = {A: make.entry(A, size=2), UnitId("prod/b"): make.entry("prod/b", reads=[A])}
    house.merge()
    yield {A: "FreezeWindow", f"{A} ": "queued", "prod/b": "DependencyNotReady", "prod/b ": "queued"}
    house.now += 2 * make.HOUR
    yield {A: None, f"{A} ": "queued", "prod/b": "DependencyNotReady"}


def the_lock_loses_what_an_orphan_needs(house: House) -> Story:
    in_order(house, make.entry(A), make.entry(B, version="2.0.0"))
    del house.entries[A]
    house.merge()
    yield {A: "Orphaned"}
    house.locked = make.lock(make.pin("2.0.0"))
    house.merge()
    yield {A: "CatalogPinMissing"}


def a_state_is_free_to_move(house: House) -> Story:
    in_order(house, make.entry(A))
    house.record(A, job=make.dispatched(A))
    house.entries = {B: make.entry(B, moved_from=A)}
    house.merge()
    yield {B: "DependencyNotReady"}
    house.record(A, job=None)
    yield {B: None, f"{B} ": "apply"}


def one_follows_another_by_name(house: House) -> Story:
    in_order(house, make.entry(A), make.entry(B, after=[A]))
    house.entries = {A: make.entry(A, size=2), B: make.entry(B, after=[A], size=2)}
    house.merge()
    yield {f"{A} ": "apply", B: "DependencyNotReady"}
    fingerprint = expected(house.desired, house.ledger, house.facts)[A] or make.fingerprint()
    house.record(A, job=None, applied=make.applied(house.desired.units[A], fingerprint))
    yield {B: None, f"{B} ": "apply"}


def a_move_comes_and_another_name_is_left(house: House) -> Story:
    in_order(house, make.entry(A))
    del house.entries[A]
    house.merge()
    yield {A: "Orphaned"}
    house.entries[B] = make.entry(B, moved_from=A)
    house.merge()
    yield {f"{B} ": "apply"}
    del house.entries[B]
    house.merge()
    yield {}


def a_reader_comes(house: House) -> Story:
    in_order(house, make.entry(A), make.entry(B))
    house.entries[A] = make.entry(A, presence=Presence.ABSENT)
    house.merge()
    yield {f"{A} ": "queued"}
    house.record(B, unfinished=frozenset({A}))
    yield {A: "StillReferenced", f"{B} ": "queued"}


def the_last_reader_of_a_former_name_lets_go(house: House) -> Story:
    in_order(house, make.entry(A), make.entry("dev/c", reads=[A]))
    house.entries = {B: make.entry(B, presence=Presence.ABSENT, moved_from=A)}
    house.merge()
    yield {B: "StillReferenced", "dev/c": "Orphaned"}
    house.record(UnitId("dev/c"), applied=None)
    yield {B: None, f"{B} ": "apply", "dev/c": None}


def what_is_two_steps_upstream_gives_another_value(house: House) -> Story:
    one, two, three = make.entry(A), make.entry(B, reads=[A]), make.entry("dev/c", reads=[B])
    in_order(house, one, two, three)
    wanted = expected(house.desired, house.ledger, house.facts)[B] or make.fingerprint()
    house.record(B, applied=make.applied(house.desired.units[B], wanted), next_check=house.now + FAR)
    house.record(UnitId("dev/c"), applied=None)
    yield {"dev/c ": "queued"}
    before = house.ledger.units[A].applied
    assert before is not None
    house.record(A, applied=replace(before, outputs={"id": "another"}))
    yield {f"{B} ": "queued", "dev/c": "DependencyNotReady"}


def the_last_reader_lets_go(house: House) -> Story:
    in_order(house, make.entry(A), make.entry(B, reads=[A]))
    house.entries = {A: make.entry(A, presence=Presence.ABSENT), B: make.entry(B)}
    house.merge()
    yield {A: "StillReferenced", f"{B} ": "apply"}
    unit = house.desired.units[B]
    fingerprint = expected(house.desired, house.ledger, house.facts)[B] or make.fingerprint()
    house.record(B, job=None, applied=make.applied(unit, fingerprint))
    yield {A: None, f"{A} ": "apply"}


def a_merge_may_have_shown_it(house: House) -> Story:
    in_order(house, make.entry(A))
    fingerprint = expected(house.desired, house.ledger, house.facts)[A] or make.fingerprint()
    failed = make.failure(fingerprint, house.desired.units[A], retry_at=None)
    house.record(A, failure=replace(failed, reason="ReviewMissing", commit=house.desired.commit))
    yield {A: "ReviewMissing"}
    house.merge()
    yield {A: None, f"{A} ": "apply"}


def a_check_is_no_longer_too_far_away(house: House) -> Story:
    in_order(house, make.entry(A))
    house.record(A, next_check=house.now + DAY + 3 * make.HOUR)
    yield {f"{A} ": "queued"}
    house.now += make.HOUR
    yield {}


def a_pause_ends(house: House) -> Story:
    in_order(house, make.entry(A))
    house.record(A, drift_since=house.now)
    house.ledger = replace(house.ledger, pauses=(make.pause("dev", house.now + MINUTE),))
    yield {A: "Paused", f"{A} ": "queued"}
    house.now += MINUTE
    yield {A: None, f"{A} ": "queued"}


def the_host_is_of_another_class(house: House) -> Story:
    in_order(house, make.entry(A))
    house.record(A, drift_since=house.now)
    house.answers = False
    yield {A: "RunnerUnavailable"}
    house.answers = True
    other = HostPart(EnvironmentClass.SANDBOX, "h1", {})
    house.facts = replace(make.facts(), environments={"dev": other})
    yield {A: "PolicyMismatch"}
    house.facts = make.facts()
    yield {A: None, f"{A} ": "apply"}


STORIES = [
    (code_has_soaked, 0), (a_rule_comes, 5), (a_freeze_ends_upstream, 0), (the_lock_loses_what_an_orphan_needs, 5),
    (a_state_is_free_to_move, 5), (the_last_reader_lets_go, 5), (one_follows_another_by_name, 5), (a_move_comes_and_another_name_is_left, 5), (a_reader_comes, 0), (the_last_reader_of_a_former_name_lets_go, 5), (what_is_two_steps_upstream_gives_another_value, 0), (a_merge_may_have_shown_it, 5),
    (a_check_is_no_longer_too_far_away, 0), (a_pause_ends, 0), (the_host_is_of_another_class, 5),
]  # fmt: skip


@pytest.mark.parametrize(("story", "workers"), STORIES, ids=[story.__name__ for story, _ in STORIES])
def test_what_seldom_happens_is_looked_at_too(story: Callable[[House], Story], workers: int) -> None:
    house, tick = House(Random(0)), Passes()  # noqa: S311 - a test's
    house.environments = {name: make.environment(name) for name in ("dev", "stage", "prod")}
    for number, wanted in enumerate(story(house)):
        turn = both(house, tick, Capacity(workers, workers), number)
        said: dict[str, str | None] = {}
        for one in turn.decisions:
            if isinstance(one, Held):
                said[one.unit] = one.hold.reason if one.hold is not None else None
            else:
                said[f"{one.unit.id} "] = one.operation.value
        said |= {f"{unit} ": "queued" for unit in turn.waiting.units}
        assert said == wanted, number
        journal(house, turn.decisions)
        both(
            house, tick, Capacity(workers, workers), number
        )  # what was journaled is seen: from here on it is no change


def test_a_pass_looks_at_what_changed_and_at_nothing_else() -> None:
    house = House(Random(0))  # noqa: S311 - a test's
    for name in ("dev", "stage", "prod"):
        house.environments[name] = make.environment(name)
    house.entries = {name: make.entry(name, reads=["dev/a"] if name == "dev/b" else []) for name in NAMES}
    house.merge()
    house.all_in_order()
    tick = Passes()
    first = tick.turn(house.desired, house.ledger, house.facts, house.now, Capacity(2, 2))
    assert (first.decisions, first.due) == ([], make.NOW + make.HOUR)
    house.entries[UnitId("dev/a")] = make.entry("dev/a", size=2)
    house.merge()
    assert tick.unlike(house.desired, house.ledger) == {"dev/a"}
    house.record(UnitId("prod/d"), steady_since=house.now)
    assert tick.unlike(house.desired, house.ledger) == {"dev/a", "prod/d"}
    turn = tick.turn(house.desired, house.ledger, house.facts, house.now, Capacity(2, 2))
    assert [one.unit.id for one in turn.decisions if isinstance(one, Dispatch)] == ["dev/a"]


def test_alarms_are_told_once_and_what_was_set_anew_stands_alone() -> None:
    alarms, unit = Alarms(), UnitId("prod/a")
    alarms.set(unit, [make.NOW, make.NOW + DAY])
    assert list(alarms.come(make.NOW)) == [unit]
    assert list(alarms.come(make.NOW)) == []
    assert alarms.next() == make.NOW + DAY
    alarms.set(unit, [make.NOW + MINUTE])
    assert list(alarms.come(make.NOW + DAY)) == [unit]
    for minute in range(1000):
        alarms.set(unit, [make.NOW + DAY + minute * MINUTE])
    assert alarms.next() == make.NOW + DAY + 999 * MINUTE
    alarms.set(unit, [])
    assert alarms.next() is None


def test_a_bug_in_working_something_out_holds_its_unit_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pass over everything: a fingerprint, what a record reads, a freeze window."""
    house = House(Random(0))  # noqa: S311 - a test's
    house.environments = {"prod": replace(make.environment(), freeze=(FREEZE,))}
    house.entries = {UnitId(f"prod/{name}"): make.entry(f"prod/{name}") for name in "ab"}
    house.entries[UnitId("prod/c")] = make.entry("prod/c", presence=Presence.ABSENT)
    house.merge()
    house.record(UnitId("prod/b"), next_check=house.now)
    house.record(UnitId("prod/c"), unfinished=frozenset({UnitId("prod/b")}))
    slots = Capacity(0, 0)

    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    bugs = (("fingerprint_of", (passes, decide_module)), ("reads_now", (passes, whole)), ("outlook", (freeze,)))
    for name, modules in bugs:
        tick = Passes()
        for number, wrong in enumerate((True, True, False, False)):
            with monkeypatch.context() as patch:
                if wrong:
                    for module in modules:
                        patch.setattr(module, name, broken)
                for unit in house.desired.units if number == 0 else ():
                    house.record(unit, drift_since=house.now)
                turn = tick.turn(house.desired, house.ledger, house.facts, house.now, slots)
                everything = list(decide(survey(house.desired, house.ledger, house.facts, house.now), slots))
                assert all_of(turn) == sorted_apart(everything), (name, wrong)
            journal(house, turn.decisions)
            house.now += MINUTE


def test_nothing_is_kept_of_what_is_gone() -> None:
    house, tick = House(Random(0)), Passes()  # noqa: S311 - a test's
    house.environments["dev"] = make.environment("dev")
    in_order(house, make.entry(A), make.entry(B, moved_from="dev/gone"))
    house.record(B, applied=None)
    house.entries[UnitId("dev/c")] = make.entry("dev/c", reads=[A])
    house.merge()
    house.record(UnitId("dev/c"), job=make.dispatched("dev/c", reads=[A]))
    for entries in (dict(house.entries), {}):
        house.entries = entries
        house.merge()
        both(house, tick, Capacity(0, 0), len(entries))
    house.ledger = Ledger(units=layered({}))
    for _ in range(2):
        both(house, tick, Capacity(0, 0), "gone")
    kept = {name: value for name, value in vars(tick).items() if name not in ("_world", "_jobs", "_clock", "_turns")}
    assert {name: value for name, value in kept.items() if "dev/" in repr(value)} == {}


def test_a_bug_in_what_one_reads_holds_others_and_goes_with_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is unreadable has no file any more, so that it is held as an orphan once it can be read again."""
    house, tick = House(Random(0)), Passes()  # noqa: S311 - a test's
    house.environments["dev"] = make.environment("dev")
    in_order(house, make.entry(A), make.entry(B))
    house.entries = {A: make.entry(A, presence=Presence.ABSENT)}
    house.merge()
    read = reads_now

    def broken(record: UnitRecord) -> frozenset[UnitId]:
        if record.unit == B:
            raise ZeroDivisionError
        return read(record)

    def holds() -> dict[UnitId, str | None]:
        turn = both(house, tick, Capacity(0, 0), "")
        journal(house, turn.decisions)
        return {one.unit: one.hold.reason if one.hold else None for one in turn.decisions if isinstance(one, Held)}

    assert holds() == {B: "Orphaned"}
    assert holds() == {}
    with monkeypatch.context() as patch:
        patch.setattr(whole, "reads_now", broken)
        patch.setattr(passes, "reads_now", broken)
        house.record(B, steady_since=house.now)
        assert holds() == {A: "StillReferenced", B: "InternalError"}
        assert holds() == {}
    assert holds() == {A: None, B: "Orphaned"}


def test_a_bug_in_what_a_unit_shall_be_goes_with_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    house, tick = House(Random(0)), Passes()  # noqa: S311 - a test's
    house.environments["dev"] = make.environment("dev")
    in_order(house, make.entry(A))

    def broken(*_: object) -> Any:
        raise ZeroDivisionError

    for module in (passes, decide_module):
        monkeypatch.setattr(module, "fingerprint_of", broken)
    for entries, wanted in ((dict(house.entries), "InternalError"), ({}, "Orphaned")):
        house.entries = entries
        house.merge()
        turn = both(house, tick, Capacity(0, 0), wanted)
        assert [one.hold.reason for one in turn.decisions if isinstance(one, Held) and one.hold] == [wanted]
        journal(house, turn.decisions)


def test_alarms_come_in_order_whatever_was_thrown_out() -> None:
    alarms, draw = Alarms(), Random(0)  # noqa: S311 - a test's
    times = {}
    for _ in range(2000):
        unit = UnitId(f"dev/{draw.randrange(40)}")
        times[unit] = make.NOW + draw.randrange(1, 1000) * MINUTE
        alarms.set(unit, [times[unit]])
        assert alarms.next() == min(times.values())
    found = [*alarms.come(make.NOW + DAY)]
    assert [times[unit] for unit in found] == sorted(times.values())

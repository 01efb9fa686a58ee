from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.deciding.budgets import (
    CALM,
    PLENTY,
    QUIET,
    Capacity,
    Cut,
    Limit,
    Pressure,
    Use,
    accounts_of,
    cut,
    told,
)
from reconciler.deciding.decide import Dispatch
from reconciler.deciding.passes import Passes
from reconciler.deciding.turns import Served
from reconciler.layered import layered
from reconciler.model import (
    Cause,
    EnvironmentClass,
    HostPart,
    JobId,
    Ledger,
    Load,
    RunnerFacts,
    UnitId,
    UnitRecord,
)
from tests.kit import facts as make

MINUTE = timedelta(minutes=1)
FACTS = make.facts("dev", "stage", "prod")


def sharing(*names: str, account: str = "one") -> RunnerFacts:
    part = HostPart(EnvironmentClass.PROTECTED, "h1", {}, (account,))
    return replace(FACTS, environments={**FACTS.environments, **dict.fromkeys(names, part)})


def running(*units: str, memory: int = 0, cause: Cause = Cause.DESIRED) -> list[UnitRecord]:
    return [
        UnitRecord(UnitId(unit), job=make.dispatched(unit, cause=cause, job=f"job-{unit}"), memory=memory)
        for unit in units
    ]


def waits(*units: str, memory: int = 0) -> Pressure:
    """The jobs of these wait for a cloud."""
    return Pressure({JobId(f"job-{unit}"): Load(True, memory) for unit in units})


def limit(
    capacity: Capacity,
    jobs: list[UnitRecord],
    environment: str = "prod",
    *,
    memory: int = 0,
    pressure: Pressure = CALM,
    facts: RunnerFacts | None = FACTS,
) -> Limit | None:
    return Use(jobs, capacity, facts, pressure, make.NOW).limit(environment, memory)


# --- cores


def test_a_job_that_waits_gives_its_core_back() -> None:
    two = Capacity(workers=2, per_environment=2)
    jobs = running("prod/a", "prod/b")
    assert limit(two, jobs) is Limit.ENVIRONMENT
    assert limit(two, jobs, "dev") is Limit.WORKERS
    assert limit(two, jobs, "dev", pressure=waits("prod/a")) is None
    assert limit(two, jobs, pressure=waits("prod/a")) is None


def test_what_nobody_measured_counts_as_one_that_computes() -> None:
    assert limit(Capacity(1, 1), running("prod/a"), pressure=waits("prod/b")) is Limit.ENVIRONMENT


# --- memory


def test_a_job_that_waits_keeps_its_memory() -> None:
    small = Capacity(workers=9, per_environment=9, memory=1000, per_job=400)
    jobs = running("prod/a", "prod/b")
    assert limit(small, jobs, "dev", pressure=waits("prod/a", "prod/b")) is Limit.MEMORY
    assert limit(small, jobs[:1], "dev") is None
    assert limit(small, jobs[:1], "dev", memory=601) is Limit.MEMORY


def test_memory_is_what_the_unit_took_last_or_what_its_job_takes_now() -> None:
    small = Capacity(9, 9, memory=1000, per_job=400)
    assert limit(small, running("prod/a", memory=50), "dev", memory=900) is None
    grown = Pressure({JobId("job-prod/a"): Load(False, 200)})
    assert limit(small, running("prod/a", memory=50), "dev", memory=900, pressure=grown) is Limit.MEMORY


def test_what_needs_more_than_there_is_runs_alone() -> None:
    small = Capacity(9, 9, memory=1000)
    assert limit(small, [], memory=5000) is None
    assert limit(small, running("dev/a", memory=10), memory=5000) is Limit.MEMORY


def test_an_environment_whose_jobs_wait_leaves_as_much_as_it_takes() -> None:
    roomy = Capacity(workers=2, per_environment=1, memory=1000, per_job=100)
    units = [f"prod/{n}" for n in range(9)]
    for number in range(1, 9):
        found = limit(roomy, running(*units[:number]), pressure=waits(*units))
        assert found is (None if number < 5 else Limit.SHARE), number
    five = running(*units[:5])
    assert limit(roomy, five, "dev", pressure=waits(*units)) is None
    assert limit(roomy, [*five, *running("dev/a")], "dev", pressure=waits(*units, "dev/a")) is None
    assert (
        limit(roomy, [*five, *running("dev/a", "dev/b")], "dev", pressure=waits(*units, "dev/a", "dev/b"))
        is Limit.SHARE
    )


def test_memory_is_a_share_of_what_the_runner_s_host_has() -> None:
    local = Capacity(9, 9, of_host=True)
    assert local.on(replace(FACTS, memory=4000)).memory == 3000
    assert local.on(FACTS).memory is None
    assert local.on(None).memory is None
    assert replace(local, memory=7).on(replace(FACTS, memory=4000)).memory == 7
    assert Capacity(9, 9).on(replace(FACTS, memory=4000)).memory is None


# --- accounts


def test_environments_of_one_account_share_what_may_be_in_it() -> None:
    two = Capacity(9, 9, per_account=2)
    jobs = running("prod/a", "stage/a")
    assert limit(two, jobs, facts=sharing("prod", "stage")) is Limit.ACCOUNT
    assert limit(two, jobs, "dev", facts=sharing("prod", "stage")) is None
    assert limit(two, jobs, facts=FACTS) is None  # each an account of its own, as far as anybody says


def test_an_account_that_throttles_takes_half_and_one_more_with_each_quiet_minute() -> None:
    cuts = cut({}, ["one"], Counter(one=8), make.NOW - MINUTE, make.NOW)
    assert [cuts["one"].limit(make.NOW + n * QUIET) for n in range(3)] == [4, 5, 6]
    jobs = running(*(f"prod/{n}" for n in range(4)))
    plenty, shared = Capacity(99, 99), sharing("prod", "stage")
    assert limit(plenty, jobs, "stage", facts=shared, pressure=Pressure(cuts=cuts)) is Limit.THROTTLED
    assert limit(plenty, jobs[:3], "stage", facts=shared, pressure=Pressure(cuts=cuts)) is None
    assert cuts["one"].next(make.NOW + QUIET / 2) == make.NOW + QUIET
    assert cuts["one"].next(make.NOW + QUIET) == make.NOW + 2 * QUIET


def test_of_jobs_that_fail_together_one_counts_and_the_rest_says_that_it_goes_on() -> None:
    began, later = make.NOW - MINUTE, make.NOW + 10 * MINUTE
    first = cut({}, ["one"], Counter(one=8), began, make.NOW)
    again = cut(first, ["one"], Counter(one=7), began, make.NOW + MINUTE)
    assert again == {"one": Cut(4, make.NOW + MINUTE)}
    assert cut(again, ["one"], Counter(one=4), make.NOW + 2 * MINUTE, later) == {"one": Cut(2, later)}
    assert cut({"one": Cut(1, make.NOW)}, ["one"], {}, later, later + MINUTE)["one"].jobs == 1  # never none


def test_a_clock_that_was_put_back_gives_nothing_away() -> None:
    assert Cut(2, make.NOW).limit(make.NOW - 9 * MINUTE) == 2
    assert Cut(2, make.NOW).next(make.NOW - 9 * MINUTE) == make.NOW + QUIET
    assert cut({"one": Cut(2, make.NOW)}, ["one"], {}, make.NOW - MINUTE, make.NOW - MINUTE) == {
        "one": Cut(2, make.NOW)
    }


def test_what_was_cut_long_ago_is_forgotten() -> None:
    late = make.NOW + PLENTY * QUIET
    assert cut({"one": Cut(1, make.NOW)}, ["two"], Counter(two=2), make.NOW, late) == {"two": Cut(1, late)}


def test_whose_accounts_are_whose() -> None:
    assert accounts_of("prod", sharing("prod")) == ("one",)
    assert (
        accounts_of("prod", FACTS) == accounts_of("prod", None) == accounts_of("prod", make.facts("dev")) == ("prod",)
    )


@pytest.mark.parametrize("limit", Limit)
def test_each_limit_says_where_it_is_from(limit: Limit) -> None:
    said = told(limit, "prod", Capacity(4, 2, 3000, per_account=5), 1)
    assert any(word in said for word in ("workers", "per_environment", "memory", "per_account", "asked too often"))


# --- whose turn it is, played


class House:
    """Units that are decided, run and end, without anything but the decision core."""

    def __init__(self, entries: Iterable[str], capacity: Capacity, served: Served | None = None) -> None:
        self.capacity, self.served, self.now = capacity, served or Served(), make.NOW
        self.sizes = dict.fromkeys(entries, 1)
        self.ledger = Ledger(units=layered({}))
        self.started: list[tuple[str, Cause]] = []
        self.pressure = CALM
        self.limits: Mapping[str, Limit] = {}
        self.merge()

    def merge(self) -> None:
        self.desired = make.desired(*(make.entry(name, size=size) for name, size in self.sizes.items()))
        self.passes = Passes(served=self.served)

    def record(self, unit: UnitId, **changes: object) -> None:
        known = self.ledger.units.get(unit) or UnitRecord(unit)
        after = layered(self.ledger.units).after({unit: replace(known, **changes)})  # type: ignore[arg-type]
        self.ledger = replace(self.ledger, units=after)

    def all_in_order(self, next_check: datetime) -> None:
        known = make.in_order(self.desired, FACTS)
        units = {name: replace(one, next_check=next_check) for name, one in known.units.items()}
        self.ledger = Ledger(units=layered(units))

    def turn(self) -> list[UnitId]:
        found = self.passes.turn(self.desired, self.ledger, FACTS, self.now, self.capacity, pressure=self.pressure)
        self.limits = found.waiting.limits
        names: list[UnitId] = []
        for one in found.decisions:
            if isinstance(one, Dispatch):
                self.record(
                    one.unit.id,
                    job=make.dispatched(
                        one.unit.id, one.fingerprint, operation=one.operation, cause=one.cause, job=f"job-{one.unit.id}"
                    ),
                )
                self.started.append((one.unit.id, one.cause))
                names.append(one.unit.id)
        return names

    def running(self) -> list[UnitId]:
        return [unit for unit, record in self.ledger.units.items() if record.job is not None]

    def end(self, unit: UnitId) -> None:
        asked, wanted = self.ledger.units[unit].job, self.desired.units[unit]
        assert asked is not None
        interval = wanted.environment.drift_interval
        self.record(unit, job=None, applied=make.applied(wanted, asked.fingerprint), next_check=self.now + interval)


def environments(*sizes: int) -> list[str]:
    return [f"{name}/u{n:03}" for name, size in zip(("dev", "prod", "stage"), sizes, strict=False) for n in range(size)]


@given(st.tuples(*[st.integers(1, 12)] * 3), st.integers(1, 5), st.integers(1, 3), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_no_environment_starves(sizes: tuple[int, int, int], workers: int, each: int, draw: object) -> None:
    """One that waits and has no job is overtaken once by each other at the most, whatever jobs end and however long others take."""
    house = House(environments(*sizes), Capacity(workers, each))
    left = Counter(unit.partition("/")[0] for unit in house.desired.units)
    runs, overtaken = Counter[str](), Counter[str]()
    while True:
        for name in (unit.partition("/")[0] for unit in house.turn()):
            left[name], runs[name], overtaken[name] = left[name] - 1, runs[name] + 1, 0
            overtaken.update(other for other in left if other != name and left[other] and not runs[other])
            assert max(overtaken.values()) <= 2, (name, overtaken)
        if not house.running():
            break
        unit = draw.choice(sorted(house.running()))  # type: ignore[attr-defined]
        house.end(unit)
        name = unit.partition("/")[0]
        runs[name] -= 1
        overtaken[name] = 0
    assert left.total() == 0


def test_with_one_place_environments_take_turns() -> None:
    house, order = House(environments(3, 3, 3), Capacity(1, 1)), []
    while house.turn():
        (unit,) = house.running()
        order.append(unit.partition("/")[0])
        house.end(unit)
    assert order == ["dev", "prod", "stage"] * 3


def test_whose_turn_it_was_outlives_a_pass_over_everything() -> None:
    house, order = House(environments(3, 3), Capacity(1, 1)), []
    while house.turn():
        (unit,) = house.running()
        order.append(unit.partition("/")[0])
        house.end(unit)
        house.passes = Passes(served=house.served)
    assert order == ["dev", "prod"] * 3


def test_merges_go_before_drift_of_any_environment() -> None:
    house = House(environments(4, 4), Capacity(1, 1))
    house.all_in_order(make.NOW - MINUTE)  # due, and not late
    house.sizes |= {name: 2 for name in house.sizes if name.startswith("prod/")}
    house.merge()
    for _ in range(4):
        house.turn()
        (unit,) = house.running()
        house.end(unit)
    assert [cause for _, cause in house.started] == [Cause.DESIRED] * 4
    house.turn()
    assert house.started[-1] == ("dev/u000", Cause.DRIFT)


def test_a_look_that_waited_for_a_whole_interval_takes_turns_with_merges() -> None:
    house = House(environments(8), Capacity(1, 1))
    house.all_in_order(make.NOW - 3 * make.HOUR)
    house.sizes |= dict.fromkeys(list(house.sizes)[:4], 2)
    house.merge()
    for _ in range(8):
        house.turn()
        (unit,) = house.running()
        house.end(unit)
    assert [cause for _, cause in house.started] == [Cause.DESIRED, Cause.DRIFT] * 4


def test_of_looks_the_one_that_is_due_longest_comes_first() -> None:
    house = House(environments(3), Capacity(1, 1))
    house.all_in_order(make.NOW)
    for minutes, name in enumerate(("dev/u001", "dev/u002", "dev/u000")):
        house.record(UnitId(name), next_check=make.NOW - (30 - minutes) * MINUTE)
    for _ in range(3):
        house.turn()
        (unit,) = house.running()
        house.end(unit)
    assert [unit for unit, _ in house.started] == ["dev/u001", "dev/u002", "dev/u000"]


def test_more_looks_than_there_is_room_for_reach_every_unit() -> None:
    """Forty looks an hour in room for thirty: none waits for ever behind those that come before it in order."""
    house = House(environments(40), Capacity(1, 1))
    house.all_in_order(make.NOW)
    for _ in range(120):
        house.turn()
        (unit,) = house.running()
        house.now += 2 * MINUTE
        house.end(unit)
    times = Counter(unit for unit, _ in house.started)
    assert len(times) == 40
    assert max(times.values()) - min(times.values()) <= 1


def test_a_slow_cloud_of_one_environment_delays_no_other() -> None:
    house = House([*environments(30, 6)], Capacity(2, 2, memory=8000, per_job=500))
    for _ in range(30):  # every job of dev waits for its cloud as soon as it is seen, and none ends
        house.turn()
        stuck = {JobId(f"job-{unit}"): Load(True, 500) for unit in house.running() if unit.startswith("dev/")}
        house.pressure = Pressure(stuck)
        for unit in house.running():
            if unit.startswith("prod/"):
                house.end(unit)
    assert {unit for unit, _ in house.started if unit.startswith("prod/")} == set(environments(0, 6))
    taken = sum(unit.startswith("dev/") for unit in house.running())
    assert 2 < taken <= 8000 // 500 // 2
    assert house.limits == {"dev": Limit.SHARE}


def test_who_is_first_and_too_large_is_not_overtaken() -> None:
    house = House(["dev/a", "prod/a", "prod/b"], Capacity(9, 9, memory=1000, per_job=400))
    house.record(UnitId("dev/a"), memory=900)
    house.record(UnitId("dev/x"), job=make.dispatched("dev/x", job="job-dev/x"), memory=200)
    house.record(UnitId("prod/x"), job=make.dispatched("prod/x", job="job-prod/x"), memory=300)
    assert house.turn() == []
    assert house.limits == {"dev": Limit.MEMORY, "prod": Limit.MEMORY}


def test_what_an_account_lets_in_grows_by_the_minute() -> None:
    house = House(environments(6), Capacity(9, 9))
    house.pressure = Pressure(cuts={"dev": Cut(1, make.NOW)})
    assert len(house.turn()) == 1
    assert house.limits == {"dev": Limit.THROTTLED}
    house.now += 2 * QUIET
    assert len(house.turn()) == 2


def test_a_line_that_changes_often_keeps_nothing_of_what_was() -> None:
    house = House(environments(8), Capacity(0, 0))
    for number in range(400):
        house.record(UnitId("dev/u001"), steady_since=make.NOW + number * MINUTE)
        house.turn()
    assert house.passes._line._pushed <= 4 * (8 + 16) + 8
    assert house.limits == {"dev": Limit.ENVIRONMENT}


def test_units_that_move_in_the_order_of_all_wait_on() -> None:
    house = House(environments(2), Capacity(0, 0))
    house.turn()
    entries = [make.entry("dev/u000", reads=["dev/u002"]), *map(make.entry, ("dev/u001", "dev/u002"))]
    house.desired = make.desired(*entries)
    house.turn()
    house.capacity = Capacity(9, 9)
    assert sorted(house.turn()) == ["dev/u001", "dev/u002"]

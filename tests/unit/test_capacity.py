"""The simulation behind docs/capacity.md: it loses no job, starts no more than is allowed, and costs what it says."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from bench.capacity import LAUNCHES, Costs, Estate, Prices, Simulation, report, table

SMALL = Estate(units=600, environments=3, interval=1.0, merges=30)


def played(estate: Estate, hours: float = 2.0, seed: int = 1) -> Simulation:
    simulation = Simulation(estate, Costs(), random.Random(seed), hours, warm=1.0)  # noqa: S311 - a simulation
    simulation.run()
    return simulation


@pytest.mark.parametrize("idle", [0.0, 60.0])
def test_every_unit_is_looked_at_as_often_as_was_said(idle: float) -> None:
    seen = played(replace(SMALL, idle=idle)).seen
    looks = seen.jobs - seen.applies
    assert looks == pytest.approx(2 * 600, rel=0.05)
    assert seen.applies == len(seen.waits)
    assert seen.applies == pytest.approx(2 * 30 * SMALL.touched, rel=0.4)
    assert len(seen.late) == looks


def test_a_task_for_each_job_or_one_for_many() -> None:
    each, many = played(replace(SMALL, idle=0)).seen, played(SMALL).seen
    assert len(each.launched) == pytest.approx(each.jobs, rel=0.05)
    assert len(many.launched) < each.jobs / 3
    assert min(each.waits) >= 0.7 * Costs().start  # nobody begins before a task has started
    assert min(many.waits) == 0


def test_no_more_tasks_run_and_start_than_may() -> None:
    crowd = replace(SMALL, units=20_000, interval=0.25, most=70, idle=0)
    simulation = played(crowd, hours=0.2)
    assert simulation.seen.most_running == 70
    assert simulation.running <= 70
    launched = simulation.seen.launched
    for first, at in enumerate(launched):
        within = sum(one < at + 1 for one in launched[first:])
        assert within <= LAUNCHES.burst + LAUNCHES.sustained


def test_the_sums_are_those_of_their_parts() -> None:
    seen = played(SMALL).seen
    found = report(SMALL, Costs(), Prices(), seen, 2.0)
    assert found["$ a month"] == pytest.approx(sum(found[f"$ a month: {name}"] for name in ("tasks", "S3", "DynamoDB")))
    assert found["jobs a second"] * 7200 == pytest.approx(seen.jobs)
    assert seen.paid >= seen.ran
    lines = [*table({"one": found, "other": found})]
    assert len(lines) == len(found) + 2
    assert all(line.count("|") == 4 for line in lines)

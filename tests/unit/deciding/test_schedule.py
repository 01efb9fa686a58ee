"""When a job has ended, whatever happens to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.deciding import schedule
from reconciler.deciding.schedule import ends_by
from reconciler.model import Operation, Timeouts
from reconciler.runner import overdue
from reconciler.runner.terraform.engine import APPLY_GRACE
from tests.kit.sample import APP, dispatched

TIMES = Timeouts(plan=timedelta(minutes=30), apply=timedelta(hours=2))


def test_the_controller_counts_as_the_runner_does() -> None:
    assert (schedule.VERIFYING, schedule.SLACK, schedule.PLANS) == (overdue.VERIFYING, overdue.SLACK, overdue.PLANS)
    assert schedule.GRACE.total_seconds() == APPLY_GRACE


def test_an_apply_has_its_own_time_and_a_plan_none_of_it() -> None:
    asked = dispatched(APP)
    job = replace(asked.job, operation=Operation.APPLY)
    assert ends_by(replace(asked, job=job), TIMES) == asked.at + timedelta(hours=1, minutes=40) + timedelta(hours=3)
    plans = replace(job, operation=Operation.PLAN)
    assert ends_by(replace(asked, job=plans), TIMES) == asked.at + timedelta(hours=1, minutes=40)

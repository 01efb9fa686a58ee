"""A job that should have ended is pointed out by whoever still can: the controller."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from reconciler.deciding import schedule
from reconciler.deciding.schedule import ends_by
from reconciler.model import Ledger, Operation, Timeouts, UnitRecord
from reconciler.runner import overdue
from reconciler.runner.terraform.engine import APPLY_GRACE
from reconciler.status import Picture, UnitStatus, overview
from reconciler.web.sentences import next_step
from reconciler.web.shape import Shape, detail
from tests.kit.sample import APP, NOW, desired, dispatched, unit

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


def test_what_somebody_has_to_look_at() -> None:
    asked, want = dispatched(APP), desired(unit(APP))
    ledger = Ledger(units={APP: UnitRecord(APP, job=asked)})

    def seen(later: timedelta) -> Shape:
        found: UnitStatus = overview(want, ledger, {}, NOW).units[0]
        return detail(Picture(want, ledger, None, asked.at + later), found)

    assert next_step(seen(timedelta(minutes=1))).startswith("the job ends;")
    told = next_step(seen(timedelta(days=1)))
    assert told.startswith("somebody has to look: the job should have ended by ")
    assert asked.job.id in told

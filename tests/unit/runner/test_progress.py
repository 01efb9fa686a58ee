"""What is told of a job however it ends."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.model import MOST_TOLD, Change, Commit, Outcome, PlanSummary
from reconciler.runner.case import Progress
from tests.kit.plane import job


def test_a_plan_of_thousands_is_told_in_part_and_judged_whole() -> None:
    changes = tuple(Change(f"thing.a[{n}]", "thing", ("create",)) for n in range(MOST_TOLD + 5))
    plan = PlanSummary(changes, tuple(c.address for c in changes), outputs_changed=True, digest="d")
    progress = Progress(job("prod/app", Commit("c" * 40)), datetime.now(UTC), plan=plan)
    told = progress.result(Outcome.SUCCEEDED, "Planned", "m").plan
    assert told == PlanSummary(changes[:MOST_TOLD], plan.missing[:MOST_TOLD], outputs_changed=True, digest="d", more=5)
    assert progress.plan is plan


def test_a_plan_that_is_short_is_told_as_it_is() -> None:
    plan = PlanSummary((Change("thing.a", "thing", ("create",)),), (), outputs_changed=False, digest="d")
    progress = Progress(job("prod/app", Commit("c" * 40)), datetime.now(UTC))
    assert progress.result(Outcome.FAILED, "R", "m").plan is None
    progress.plan = plan
    assert progress.result(Outcome.SUCCEEDED, "Planned", "m").plan == plan

"""What is told of a job however it ends."""

from __future__ import annotations

from datetime import UTC, datetime

from reconciler.model import MOST_TOLD, Change, Commit, Outcome, PlanSummary
from reconciler.runner.progress import Progress
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


def test_what_is_told_hides_what_the_job_came_to_know() -> None:
    """A module can make a secret the key of an object, and an error can quote one."""
    change = Change('module.unit.thing.a["s3cret-word"]', "thing", ("delete",))
    plan = PlanSummary((change,), (change.address, "thing.b"), outputs_changed=False, digest="d")
    progress = Progress(job("prod/app", Commit("c" * 40)), datetime.now(UTC), plan=plan)
    progress.veil.learn(["s3cret-word"])
    told = progress.result(Outcome.HELD, "DestroyLimit", f"It would destroy {change.address}.")
    assert told.plan is not None
    address = 'module.unit.thing.a["(sensitive)"]'
    assert (told.plan.changes[0].address, told.plan.missing) == (address, (address, "thing.b"))
    assert told.message == f"It would destroy {address}."
    assert progress.plan is plan

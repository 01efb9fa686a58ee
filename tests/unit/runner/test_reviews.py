from __future__ import annotations

from datetime import timedelta

from reconciler.deciding.judge import Shown, judge_review
from reconciler.model import Cause, Change, Commit, Digest, PlanSummary, ReviewMode, UnitId
from reconciler.runner.reviews import Review, shown
from tests.kit import facts as make

A, B, C = (Change(f"module.unit.file.{letter}", "file", ("update",)) for letter in "abc")
HEAD = Commit("a" * 40)
ALL = frozenset((HEAD,)).__contains__
TOGETHER = Digest("digest of what both merges made")


def review(pull: int, *changes: Change, intent: str = "", at: int = 0, upstream: str = "up") -> Review:
    intent = intent or f"intent of {pull}"
    moment = make.NOW + timedelta(minutes=at)
    return Review(UnitId("prod/app"), pull, HEAD, make.HEAD, Digest(intent), moment, changes, upstream=upstream)


def test_what_several_merged_requests_showed_counts_together_where_nobody_saw_them_together() -> None:
    found = shown([review(7, A), review(9, B)], (9, 7), TOGETHER, "up", ALL)
    assert found == Shown(9, (B, A), moved_on=True, also=(7,))
    both, more = PlanSummary((A, B), (), False, "d"), PlanSummary((A, B, C), (), False, "d")
    asked = ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, "environments/prod/app.yaml"
    assert judge_review(both, found, *asked) is None
    hold = judge_review(more, found, *asked)
    assert hold is not None
    assert hold.message == (
        "The plan does what the reviews of pull requests #9, #7, which were merged without a plan of them together, did not "
        "show: module.unit.file.c (update). Open a pull request that touches environments/prod/app.yaml (a comment will do), "
        "and merge it once its plan is shown."
    )


def test_where_review_is_required_somebody_has_to_have_seen_them_together() -> None:
    found = shown([review(7, A), review(9, B)], (9, 7), TOGETHER, "up", ALL)
    hold = judge_review(PlanSummary((A, B), (), False, "d"), found, ReviewMode.REQUIRED, Cause.DESIRED, "x.yaml")
    assert hold is not None
    assert hold.reason == "ReviewMissing"


def test_the_review_of_exactly_this_counts_alone() -> None:
    known = [review(7, A), review(9, B), review(9, A, B, intent=TOGETHER, at=1)]
    assert shown(known, (9, 7), TOGETHER, "up", ALL) == Shown(9, (A, B))
    assert shown([review(7, A, intent=TOGETHER), review(9, B)], (9, 7), TOGETHER, "up", ALL) == Shown(7, (A,))


def test_of_each_request_what_it_showed_last_counts_and_of_no_other() -> None:
    known = [review(7, A, C, intent="first"), review(7, A, at=1), review(8, C), review(9, B, upstream="old")]
    found = shown(known, (9, 7), TOGETHER, "up", ALL)
    assert found == Shown(9, (B, A), follows=True, moved_on=True, also=(7,))
    assert shown(known, (9, 7), TOGETHER, "up") == Shown(
        9, (B,), follows=True, moved_on=True
    )  # another head was merged
    assert shown(known, (7,), TOGETHER, "up") == Shown(7, (A,), moved_on=True)
    assert shown(known, (), TOGETHER, "up") is None

"""What a plan may do after its review."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.deciding.judge import Shown, exceeding, judge_letting_go, judge_review
from reconciler.model import Cause, Change, PlanSummary, ReviewMode
from tests.kit.facts import change, plan

PATH = "environments/prod/net.yaml"
CREATE = change("module.unit.file.a", "create")
UPDATE = change("module.unit.file.a", "update")
DELETE = change("module.unit.file.a", "delete")
REPLACE = change("module.unit.file.a", "delete", "create")
REPLACE_FIRST = change("module.unit.file.a", "create", "delete")
TAINTED = change("module.unit.file.a", "delete", "create", reason="replace_because_tainted")
FORGET = change("module.unit.file.a", "forget")
IMPORT = change("module.unit.file.a", "no-op", reason="import")
OTHER = change("module.unit.file.b", "delete")
A, NONE = frozenset({UPDATE.address}), frozenset[str]()

TABLE = {
    "the same": (plan(UPDATE), Shown(1, (UPDATE,)), NONE, NONE, True),
    "less": (plan(UPDATE), Shown(1, (UPDATE, OTHER)), NONE, NONE, True),
    "one more": (plan(UPDATE, OTHER), Shown(1, (UPDATE,)), NONE, NONE, False),
    "an update for a creation": (plan(UPDATE), Shown(1, (CREATE,)), NONE, NONE, False),
    "a destruction for an update": (plan(DELETE), Shown(1, (UPDATE,)), NONE, NONE, False),
    "a replacement for an update": (plan(REPLACE), Shown(1, (UPDATE,)), NONE, NONE, False),
    "a destruction for a replacement": (plan(DELETE), Shown(1, (REPLACE,)), NONE, NONE, False),
    "the second half of a replacement": (plan(CREATE), Shown(1, (REPLACE,)), NONE, NONE, True),
    "a replacement in the other order": (plan(REPLACE_FIRST), Shown(1, (REPLACE,)), NONE, NONE, True),
    "letting go for a destruction": (plan(FORGET), Shown(1, (DELETE,)), NONE, NONE, False),
    "an import as shown": (plan(IMPORT), Shown(1, (IMPORT,)), NONE, NONE, True),
    "an import that nobody saw": (plan(IMPORT), Shown(1, (), follows=True), NONE, NONE, False),
    "its own tainted object": (plan(TAINTED), Shown(1, (CREATE,)), NONE, A, True),
    "somebody's tainted object": (plan(TAINTED), Shown(1, (CREATE,)), NONE, NONE, False),
    "its own tainted object that was to be updated": (plan(TAINTED), Shown(1, (UPDATE,)), NONE, A, False),
    "drift put back": (plan(UPDATE), Shown(1, ()), A, NONE, True),
    "drift put back by a replacement": (plan(REPLACE), Shown(1, ()), A, NONE, False),
    "drift put back by a destruction": (plan(DELETE), Shown(1, ()), A, NONE, False),
    "what is gone is made again": (plan(CREATE, missing=A), Shown(1, ()), NONE, NONE, True),
    "what is gone is not updated": (plan(UPDATE, missing=A), Shown(1, ()), NONE, NONE, False),
    "a follower creates": (plan(CREATE), Shown(1, (), follows=True), NONE, NONE, True),
    "a follower updates": (plan(UPDATE), Shown(1, (), follows=True), NONE, NONE, True),
    "a follower destroys": (plan(DELETE), Shown(1, (), follows=True), NONE, NONE, False),
    "a follower replaces": (plan(REPLACE), Shown(1, (), follows=True), NONE, NONE, False),
    "a follower lets go": (plan(FORGET), Shown(1, (), follows=True), NONE, NONE, False),
    "a follower destroys what it was shown to": (plan(DELETE), Shown(1, (DELETE,), follows=True), NONE, NONE, True),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_exceeds_a_review(name: str) -> None:
    summary, shown, drifted, tainted, within = TABLE[name]
    assert (exceeding(summary, shown, drifted, tainted) == ()) is within
    for mode in (ReviewMode.WHEN_AVAILABLE, ReviewMode.REQUIRED):
        hold = judge_review(summary, shown, mode, Cause.DESIRED, PATH, drifted=drifted, tainted=tainted)
        assert (hold is None) is within
        assert hold is None or hold.reason == "PlanExceedsReview"


@pytest.mark.parametrize(
    ("mode", "cause", "shown", "reason"),
    [
        (ReviewMode.REQUIRED, Cause.DESIRED, None, "ReviewMissing"),
        (ReviewMode.REQUIRED, Cause.CATALOG, None, "ReviewMissing"),
        (ReviewMode.REQUIRED, Cause.CATALOG, Shown(1, ()), "PlanExceedsReview"),
        (ReviewMode.REQUIRED, Cause.DESIRED, Shown(1, (DELETE,), moved_on=True), "ReviewMissing"),
        (ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, None, None),
        (ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, Shown(1, (), moved_on=True), "PlanExceedsReview"),
        (ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, Shown(1, (DELETE,), moved_on=True), None),
        (ReviewMode.OFF, Cause.DESIRED, Shown(1, ()), None),
        *((ReviewMode.REQUIRED, cause, None, None) for cause in (Cause.DRIFT, Cause.UPSTREAM, Cause.SETTINGS)),
    ],
)
def test_when_a_review_binds(mode: ReviewMode, cause: Cause, shown: Shown | None, reason: str | None) -> None:
    hold = judge_review(plan(DELETE), shown, mode, cause, PATH)
    assert (hold.reason if hold else None) == reason


@pytest.mark.parametrize("mode", ReviewMode)
def test_outputs_alone_need_no_review(mode: ReviewMode) -> None:
    assert judge_review(plan(outputs_changed=True), None, mode, Cause.DESIRED, PATH) is None


def test_the_hold_names_what_exceeds_and_what_to_do() -> None:
    many = [change(f"module.unit.file.n{n}", "delete") for n in range(7)]
    hold = judge_review(plan(*many), Shown(12, ()), ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, PATH)
    assert hold is not None
    assert "pull request #12" in hold.message
    assert "module.unit.file.n4 (delete) and 2 more" in hold.message
    assert f"Open a pull request that touches {PATH}" in hold.message


def test_the_hold_names_every_pull_request_that_was_merged_at_once() -> None:
    hold = judge_review(plan(DELETE), Shown(12, (), also=(14,)), ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, PATH)
    assert hold is not None
    assert "pull requests #12, #14, which were merged without a plan of them together," in hold.message


def test_two_objects_of_one_address_are_both_looked_at() -> None:
    """What create_before_destroy left behind has its successor's address."""
    assert exceeding(plan(UPDATE, DELETE), Shown(1, (DELETE, UPDATE)), NONE, NONE) == ()
    assert exceeding(plan(UPDATE, DELETE), Shown(1, (UPDATE,)), NONE, NONE) == (DELETE,)


ACTIONS = st.sampled_from(
    [("create",), ("update",), ("delete",), ("delete", "create"), ("create", "delete"), ("forget",)]
)
ADDRESSES = st.sampled_from([f"module.unit.file.{letter}" for letter in "abcd"])
CHANGES = st.builds(
    Change, ADDRESSES, st.just("file"), ACTIONS, st.sampled_from(["", "replace_because_tainted", "import"])
)
PLANS = st.builds(
    PlanSummary,
    st.lists(CHANGES, max_size=5).map(tuple),
    st.lists(ADDRESSES, max_size=2).map(tuple),
    st.booleans(),
    st.just("d"),
)
SETS = st.frozensets(ADDRESSES, max_size=2)


@given(PLANS, st.lists(CHANGES, max_size=5).map(tuple), st.booleans(), SETS, SETS)
def test_nothing_is_let_through_that_was_neither_shown_nor_explained(
    summary: PlanSummary, seen: tuple[Change, ...], follows: bool, drifted: frozenset[str], tainted: frozenset[str]
) -> None:
    shown = Shown(1, seen, follows=follows)
    hold = judge_review(
        summary, shown, ReviewMode.WHEN_AVAILABLE, Cause.DESIRED, PATH, drifted=drifted, tainted=tainted
    )
    if hold is not None:
        return
    pairs = {(one.address, action) for one in seen for action in one.actions}
    for one in summary.changes:
        for action in one.actions:
            explained = (
                (follows and action in ("create", "update"))
                or (action == "update" and one.address in drifted)
                or (action == "create" and one.address in summary.missing)
                or (one.address in tainted and (one.address, "create") in pairs)
            )
            assert (one.address, action) in pairs or explained


@given(PLANS, SETS)
def test_what_was_shown_goes_through(summary: PlanSummary, drifted: frozenset[str]) -> None:
    shown = Shown(1, summary.changes)
    assert judge_review(summary, shown, ReviewMode.REQUIRED, Cause.DESIRED, PATH, drifted=drifted) is None


@pytest.mark.parametrize(
    ("shown", "mode", "reason"),
    [
        (Shown(1, ()), ReviewMode.REQUIRED, None),
        (Shown(1, (), moved_on=True), ReviewMode.REQUIRED, "PlanExceedsReview"),
        (Shown(1, (), moved_on=True), ReviewMode.WHEN_AVAILABLE, "PlanExceedsReview"),
        (Shown(1, (), moved_on=True), ReviewMode.OFF, None),
        (None, ReviewMode.REQUIRED, "ReviewMissing"),
        (None, ReviewMode.WHEN_AVAILABLE, None),
    ],
)
def test_what_lets_a_units_objects_go(shown: Shown | None, mode: ReviewMode, reason: str | None) -> None:
    hold = judge_letting_go(shown, mode, Cause.DESIRED, PATH)
    assert (hold.reason if hold else None) == reason
    assert judge_letting_go(shown, mode, Cause.DRIFT, PATH) is None

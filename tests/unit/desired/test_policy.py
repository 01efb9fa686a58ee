from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.deciding.decide import corrects
from reconciler.deciding.judge import Bounds, judge
from reconciler.desired.entries import parse_environment
from reconciler.desired.freeze import outlook
from reconciler.desired.policy import (
    before_the_first,
    class_of,
    from_the_next_merge_on,
    judged_with,
    policy_of,
    stricter,
    stricter_limits,
    waiting,
)
from reconciler.model import (
    Allowances,
    Cause,
    Change,
    DriftMode,
    Environment,
    EnvironmentClass,
    Limits,
    Over,
    PlanSummary,
    Policy,
    Presence,
    Promotion,
    ReviewMode,
    Rule,
    Window,
)
from tests.kit import facts as make

PROTECTED, SANDBOX = EnvironmentClass.PROTECTED, EnvironmentClass.SANDBOX
HOUR = timedelta(hours=1)
NIGHT = Window("0 20 * * *", 12 * HOUR, "UTC", "night")
NOON = Window("0 12 * * *", HOUR, "Europe/Berlin", "noon")


def test_the_stricter_of_two_limits_lets_through_what_both_do() -> None:
    old = Limits(destroy=1, recreate=9, free_replace=frozenset({"a", "b"}))
    new = Limits(destroy=5, recreate=3, free_replace=frozenset({"b", "c"}))
    assert stricter_limits(old, new) == stricter_limits(new, old) == Limits(1, 3, frozenset({"b"}))


def test_what_is_not_looser_counts_at_once() -> None:
    environment = replace(make.environment(), freeze=(NIGHT, NOON), review=ReviewMode.REQUIRED)
    looser = replace(policy_of(environment), freeze=(NOON,), review=ReviewMode.OFF, limits=Limits(9, 9))
    assert judged_with(environment, looser) is environment
    assert list(waiting(environment)) == []
    assert from_the_next_merge_on(environment, "freeze") == ""


def test_what_is_looser_waits_and_says_so() -> None:
    environment = replace(
        make.environment(klass=SANDBOX, destroy=5), review=ReviewMode.OFF, freeze=(NOON,), drift=DriftMode.CORRECT
    )
    before = Policy(PROTECTED, DriftMode.REPORT, ReviewMode.REQUIRED, Limits(0, 1), (NIGHT,))
    judged = judged_with(environment, before)
    assert policy_of(judged) == Policy(PROTECTED, DriftMode.REPORT, ReviewMode.REQUIRED, Limits(0, 1), (NOON, NIGHT))
    assert (judged.klass, class_of(judged), judged.says) == (SANDBOX, PROTECTED, policy_of(environment))
    assert list(waiting(judged)) == ["class", "drift", "review", "freeze", "limits.destroy", "limits.recreate"]
    assert from_the_next_merge_on(judged, "freeze", "limits.destroy", "limits.free_replace") == (
        " What environments/prod/environment.yaml says of freeze and limits.destroy since this merge counts from the "
        "next one on."
    )
    assert from_the_next_merge_on(judged, "limits.free_replace") == ""


def test_a_rule_that_was_taken_out_counts_until_the_next_merge() -> None:
    small, private = Rule("small", Over.PLAN, "true", "m"), Rule("private", Over.RESOURCE, "true", "m")
    environment = replace(make.environment(), rules=(small,))
    judged = judged_with(environment, replace(policy_of(environment), rules=(private, small)))
    assert (judged.rules, list(waiting(judged))) == ((small, private), ["rules"])
    assert judged_with(judged, policy_of(environment)) is judged  # more rules than before count at once


def test_a_new_environment_begins_with_what_is_not_written() -> None:
    new = replace(make.environment(klass=SANDBOX, destroy=5), review=ReviewMode.OFF)
    judged = judged_with(new, before_the_first(new))
    assert policy_of(judged) == Policy(SANDBOX)
    plain = make.environment()
    assert judged_with(plain, before_the_first(plain)) is plain


# --- whatever two files say, nothing passes that either forbids

COUNTS = st.integers(0, 4)
TYPES = ("file", "net", "db")
WINDOWS = (NIGHT, NOON, Window("0 16 * * FRI", 64 * HOUR, "America/New_York", "weekend"))


@st.composite
def files(draw: st.DrawFn) -> Environment:
    """An environment.yaml, as text and read back."""
    limits = {"destroy": draw(COUNTS), "recreate": draw(COUNTS), "free_replace": draw(st.lists(st.sampled_from(TYPES)))}
    freeze = [
        f'{{cron: "{w.cron}", duration: {int(w.duration / HOUR)}h, timezone: {w.timezone}, reason: {w.reason}}}'
        for w in draw(st.lists(st.sampled_from(WINDOWS), unique=True))
    ]
    lines = {
        "class": draw(st.sampled_from(EnvironmentClass)).value,
        "drift": draw(st.sampled_from(DriftMode)).value,
        "review": draw(st.sampled_from(["when_available", "off"])),
        "limits": str(limits).replace("'", '"'),
        "freeze": f"[{', '.join(freeze)}]",
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items())
    found = parse_environment("environments/prod/environment.yaml", text.encode())
    assert isinstance(found, Environment), found
    return found


CHANGES = st.builds(
    lambda n, kind, actions: Change(f"module.unit.{kind}.n{n}", kind, actions),
    st.integers(0, 9), st.sampled_from(TYPES), st.sampled_from([("delete",), ("delete", "create"), ("update",)]),
)  # fmt: skip
PLANS = st.builds(
    lambda changes, missing: PlanSummary(tuple(changes), tuple(missing), outputs_changed=False, digest="d"),
    st.lists(CHANGES, max_size=6), st.lists(st.just("module.unit.file.gone"), max_size=5),
)  # fmt: skip


def passes(environment: Environment, plan: PlanSummary, open_: Allowances) -> bool:
    bounds = Bounds(environment.limits, open_, Presence.PRESENT)
    return judge(plan, bounds, Cause.DESIRED, "environments/prod/app.yaml") is None


@settings(max_examples=200, deadline=None)
@given(files(), files(), PLANS, st.integers(0, 3), st.integers(0, 14 * 24))
def test_nothing_passes_that_either_forbids(
    old: Environment, new: Environment, plan: PlanSummary, allowed: int, hours: int
) -> None:
    judged = judged_with(new, policy_of(old))
    now, open_ = datetime(2026, 11, 24, tzinfo=UTC) + hours * HOUR, Allowances(destroy=allowed)
    both = (old, new)
    assert not passes(judged, plan, open_) or all(passes(one, plan, open_) for one in both)
    if outlook(judged.freeze, now).window is None:
        assert all(outlook(one.freeze, now).window is None for one in both)
    unit = make.unit()
    if corrects(replace(unit, environment=judged)):
        assert all(one.drift is DriftMode.CORRECT for one in both)
    assert class_of(judged) is SANDBOX or PROTECTED in (old.klass, new.klass)
    assert (class_of(judged) is SANDBOX) == (old.klass is new.klass is SANDBOX)
    assert judged.review is not ReviewMode.OFF or {old.review, new.review} == {ReviewMode.OFF}
    # It is no stricter than it must be, and the order of the two says nothing about what passes.
    assert judged.limits == judged_with(old, policy_of(new)).limits
    assert set(judged.freeze) == {*old.freeze, *new.freeze}
    assert stricter(policy_of(judged), policy_of(new)) == policy_of(judged)
    assert judged.says is None or judged.says == policy_of(new)


def test_promotions_of_before_and_since_both_count() -> None:
    before, since = Promotion("stage", timedelta(hours=24)), Promotion("stage", timedelta(hours=1))
    judged = judged_with(replace(make.environment(), promotion=(since,)), Policy(PROTECTED, promotion=(before,)))
    assert judged.promotion == (since, before)
    assert list(waiting(judged)) == ["promotion"]
    assert judged.says is not None
    assert judged.says.promotion == (since,)
    same = replace(make.environment(), promotion=(since,))
    assert judged_with(same, Policy(PROTECTED, promotion=(since,))) is same

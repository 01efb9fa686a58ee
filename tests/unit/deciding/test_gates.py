"""Each gate for itself, and the order in which they are asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from reconciler.deciding import gates
from reconciler.deciding.gates import GATES, Need, World, policy
from reconciler.desired.policy import judged_with, policy_of
from reconciler.errors import Place
from reconciler.model import (
    Allowances,
    Cause,
    Commit,
    Desired,
    DriftMode,
    EnvironmentClass,
    Hold,
    HostPart,
    Ledger,
    Limits,
    Operation,
    Over,
    Policy,
    Presence,
    Problem,
    ReviewMode,
    Rule,
    RunnerFacts,
    Unit,
    UnitId,
    UnitRecord,
    Window,
)
from tests.kit import facts as make
from tests.kit.whole import readers_of, survey

FACTS = make.facts()
WANTED = Need(Operation.APPLY, make.fingerprint(), Cause.DESIRED)
UNKNOWN = Need(Operation.APPLY, None, Cause.DESIRED)
NET, APP = UnitId("prod/net"), UnitId("prod/app")

# prod/app reads prod/net.
TWO = make.desired(make.entry("prod/net"), make.entry("prod/app", reads=["prod/net"]))


def world(
    want: Desired = TWO, ledger: Ledger | None = None, host: RunnerFacts | None = FACTS, *, answers: bool = True
) -> World:
    known = make.in_order(want, FACTS) if ledger is None else ledger
    return survey(want, known, host, make.NOW, answers=answers)


def record(one: World, name: str) -> UnitRecord:
    return one.ledger.units.get(UnitId(name)) or UnitRecord(UnitId(name))


def ask(gate: gates.Gate, one: World, name: str = "prod/app", need: Need = WANTED) -> Hold | None:
    return gate(one, one.desired.units[UnitId(name)], record(one, name), need)


def reason(gate: gates.Gate, one: World, name: str = "prod/app", need: Need = WANTED) -> str | None:
    hold = ask(gate, one, name, need)
    return hold.reason if hold else None


def test_the_order_of_the_gates() -> None:
    names = [gate.__name__ for gate in GATES]
    assert names == [
        "history",
        "paused",
        "break_glass",
        "after_break_glass",
        "frozen",
        "hosted",
        "yanked",
        "moving",
        "dependency",
        "still_referenced",
        "promotion",
        "back_off",
    ]


def test_a_unit_in_order_passes_every_gate() -> None:
    assert [reason(gate, world()) for gate in GATES] == [None] * len(GATES)


# --- history and pauses


def test_a_rewritten_history_holds_everything() -> None:
    frozen = Hold("HistoryRewritten", "m", plans=True)
    assert ask(gates.history, world(ledger=Ledger(frozen=frozen))) == frozen


@pytest.mark.parametrize(
    ("scope", "until", "expected"),
    [("all", 1, "Paused"), ("prod", 1, "Paused"), ("prod/app", 1, "Paused"), ("dev", 1, None), ("prod", 0, None)],
)
def test_a_pause(scope: str, until: int, expected: str | None) -> None:
    pause = make.pause(scope, make.NOW + until * timedelta(hours=1))
    assert reason(gates.paused, world(ledger=Ledger(pauses=(pause,)))) == expected


def test_a_pause_says_who_why_until_when_and_how_to_end_it() -> None:
    hold = ask(gates.paused, world(ledger=Ledger(pauses=(make.pause("dev"), make.pause("prod")))))
    assert hold == Hold(
        "Paused",
        "ann paused prod until 2026-11-24 11:00 UTC: migration. `reconciler resume prod` ends it sooner.",
        plans=True,
    )


# --- freeze windows


WEEKEND = Window("0 16 * * FRI", timedelta(hours=64), "Europe/Berlin", "weekend")  # NOW is a Tuesday
TODAY = Window("0 9 * * TUE", timedelta(hours=2), "UTC", "a launch")


def closed(*windows: Window, before: tuple[Window, ...] = ()) -> Desired:
    prod = replace(make.environment(), freeze=windows)
    prod = judged_with(prod, replace(policy_of(prod), freeze=before))
    return make.desired(make.entry("prod/app"), environments=[prod])


@pytest.mark.parametrize(
    ("windows", "operation", "expected"),
    [
        ((), Operation.APPLY, None),
        ((WEEKEND,), Operation.APPLY, None),
        ((WEEKEND, TODAY), Operation.APPLY, "FreezeWindow"),
        ((WEEKEND, TODAY), Operation.PLAN, None),
    ],
)
def test_a_freeze_window(windows: tuple[Window, ...], operation: Operation, expected: str | None) -> None:
    need = replace(WANTED, operation=operation)
    assert reason(gates.frozen, world(closed(*windows), Ledger()), need=need) == expected


def test_a_freeze_says_until_when_and_why_and_that_taking_it_out_comes_too_late() -> None:
    said = "Frozen until 2026-11-24 11:00 UTC: a launch (0 9 * * TUE, UTC)."
    assert ask(gates.frozen, world(closed(TODAY), Ledger())) == Hold("FreezeWindow", said, plans=True)
    waits = " What environments/prod/environment.yaml says of freeze since this merge counts from the next one on."
    hold = ask(gates.frozen, world(closed(WEEKEND, before=(TODAY,)), Ledger()))
    assert hold == Hold("FreezeWindow", said + waits, plans=True)


# --- the runner's host


SANDBOX = RunnerFacts("tofu", "1", {"prod": HostPart(EnvironmentClass.SANDBOX, "h", {})})


@pytest.mark.parametrize(
    ("host", "answers", "expected"),
    [
        (FACTS, True, None),
        (None, True, "RunnerUnavailable"),
        (FACTS, False, "RunnerUnavailable"),
        (make.facts("dev"), True, "EnvironmentNotHosted"),
        (SANDBOX, True, "PolicyMismatch"),
    ],
)
def test_the_host(host: RunnerFacts | None, answers: bool, expected: str | None) -> None:
    assert reason(gates.hosted, world(host=host, answers=answers)) == expected


def test_a_class_that_was_loosened_is_what_it_was_until_the_next_merge() -> None:
    prod = make.environment(klass=EnvironmentClass.SANDBOX)
    prod = judged_with(prod, Policy(EnvironmentClass.PROTECTED))
    want = make.desired(make.entry("prod/app"), environments=[prod])
    assert (
        reason(gates.hosted, world(want, Ledger())) == "PolicyMismatch"
    )  # the host agrees with before, not with since
    hold = ask(gates.hosted, world(want, Ledger(), SANDBOX))
    assert hold == Hold(
        "PolicyMismatch",
        "environment.yaml says class protected, the runner's host says sandbox; the host wins. What "
        "environments/prod/environment.yaml says of class since this merge counts from the next one on.",
    )


# --- yanked versions


YANKED = make.pin("1.0.0", yanked="it leaks")


@pytest.mark.parametrize(
    ("module", "version", "presence", "expected"),
    [
        (make.MODULE, "1.0.0", Presence.PRESENT, None),
        (make.MODULE, "1.1.0", Presence.PRESENT, "Yanked"),
        ("acme/other", "1.0.0", Presence.PRESENT, "Yanked"),
        (None, "", Presence.PRESENT, "Yanked"),
        (None, "", Presence.ABSENT, None),
    ],
)
def test_a_yanked_version_is_not_put_to_new_use(
    module: str | None, version: str, presence: Presence, expected: str | None
) -> None:
    want = make.desired(make.entry("prod/net", presence=presence), locked=make.lock(YANKED))
    ledger = Ledger()
    if module is not None:
        done = replace(make.applied(want.units[NET], make.fingerprint()), module=module, version=version)
        ledger = make.with_record(ledger, "prod/net", applied=done)
    assert reason(gates.yanked, world(want, ledger), "prod/net") == expected


def test_what_was_destroyed_is_made_anew_by_another_version() -> None:
    want = make.desired(make.entry("prod/net"), locked=make.lock(YANKED))
    gone = replace(make.applied(want.units[NET], make.fingerprint()), version="1.0.0", presence=Presence.ABSENT)
    ledger = make.with_record(Ledger(), "prod/net", applied=gone)
    assert reason(gates.yanked, world(want, ledger), "prod/net") == "Yanked"


def test_a_new_name_is_no_new_use() -> None:
    want = make.desired(make.entry("prod/new", moved_from="prod/net"), locked=make.lock(YANKED))
    done = replace(make.applied(want.units[UnitId("prod/new")], make.fingerprint()), version="1.0.0")
    assert reason(gates.yanked, world(want, Ledger()), "prod/new") == "Yanked"
    ledger = make.with_record(Ledger(), "prod/net", applied=done)
    assert reason(gates.yanked, world(want, ledger), "prod/new") is None


def test_a_version_that_is_not_yanked_passes() -> None:
    assert reason(gates.yanked, world(ledger=Ledger()), "prod/net") is None


# --- moves


MOVED = make.desired(make.entry("prod/new", moved_from="prod/old"))
OLD = make.applied(make.unit("prod/old"), make.fingerprint())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"applied": OLD}, {}, None),
        ({"applied": OLD, "job": make.dispatched("prod/old")}, {}, "DependencyNotReady"),
        ({"applied": OLD, "job": make.dispatched("prod/old")}, {"applied": OLD}, None),
        (None, {}, None),
    ],
)
def test_a_move_waits_for_the_old_units_job(
    old: dict[str, object] | None, new: dict[str, object], expected: str | None
) -> None:
    ledger = make.with_record(Ledger(), "prod/new", **new)
    if old is not None:
        ledger = make.with_record(ledger, "prod/old", **old)
    assert reason(gates.moving, world(MOVED, ledger), "prod/new") == expected


def test_who_does_not_move_waits_for_nobody() -> None:
    assert reason(gates.moving, world(ledger=Ledger())) is None


# --- dependencies


def on_net(**changes: object) -> World:
    """All in order, but for what is known of prod/net."""
    return world(ledger=make.with_record(make.in_order(TWO, FACTS), "prod/net", **changes))


FAILED = make.failure(make.fingerprint())
ELSE = make.applied(TWO.units[NET], make.fingerprint("old"))
TURNING = make.dispatched("prod/net", make.fingerprint("absent"))
LOOKING = make.dispatched("prod/net", make.fingerprint("absent"), operation=Operation.PLAN)
SAME = make.dispatched("prod/net", make.in_order(TWO, FACTS).units[NET].applied.fingerprint)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"applied": None}, "prod/net has not been applied yet"),
        ({"applied": None, "failure": FAILED}, "prod/net failed (ApplyFailed: It broke.)"),
        ({"applied": ELSE}, "prod/net has a change of its own to apply first"),
        ({"applied": ELSE, "failure": FAILED}, "prod/net failed (ApplyFailed: It broke.)"),
        ({"job": TURNING}, "prod/net is being changed to what another commit said"),
        ({"job": LOOKING}, None),
        ({"job": SAME}, None),
        ({"unfinished": frozenset()}, "prod/net is half done"),
        ({"unfinished": frozenset(), "failure": FAILED}, "prod/net failed (ApplyFailed: It broke.)"),
        ({"failure": FAILED}, None),
    ],
)
def test_an_upstream_must_be_in_order(changes: dict[str, object], expected: str | None) -> None:
    hold = ask(gates.dependency, on_net(**changes))
    plans = "failure" in changes  # what is on its way needs no plan of what follows it
    assert hold == (Hold("DependencyNotReady", f"{expected}; this unit follows it.", plans=plans) if expected else None)


@pytest.mark.parametrize(("reason", "plans"), [("Paused", True), ("DestroyLimit", True), ("DependencyNotReady", False)])
def test_what_follows_a_unit_that_waits_for_a_person_is_planned(reason: str, plans: bool) -> None:
    hold = ask(gates.dependency, on_net(applied=ELSE, hold=Hold(reason, "m")))
    message = "prod/net has a change of its own to apply first; this unit follows it."
    assert hold == Hold("DependencyNotReady", message, plans=plans)


def test_an_upstream_of_which_nothing_is_known() -> None:
    hold = ask(gates.dependency, world(ledger=Ledger()), need=UNKNOWN)
    assert hold == Hold("DependencyNotReady", "prod/net has not been applied yet; this unit follows it.")


def test_a_broken_upstream() -> None:
    problem = Problem(Place("environments/prod/net.yaml", 3, 1), "LockInvalid", "no such version", NET)
    want = replace(TWO, broken={NET: problem}, units={APP: TWO.units[APP]})
    hold = ask(gates.dependency, world(want, Ledger()))
    assert hold is not None
    assert hold.message.startswith("prod/net is broken (environments/prod/net.yaml:3:1: no such version)")


def test_correcting_drift_waits_for_nobody() -> None:
    drift = Need(Operation.APPLY, make.fingerprint(), Cause.DRIFT)
    assert reason(gates.dependency, on_net(applied=None), need=drift) is None


def test_who_goes_waits_for_nobody_upstream() -> None:
    want = make.desired(make.entry("prod/net"), make.entry("prod/app", reads=["prod/net"], presence=Presence.ABSENT))
    assert reason(gates.dependency, world(want, Ledger())) is None


def test_another_environments_unit_that_goes_is_not_awaited() -> None:
    stage = make.environment("stage", depends_on=["prod"])
    want = make.desired(make.entry("prod/net", presence=Presence.ABSENT), make.entry("stage/app"), environments=[stage])
    assert want.units[UnitId("stage/app")].upstream == {NET}
    assert reason(gates.dependency, world(want, Ledger()), "stage/app") is None


@pytest.mark.parametrize(("outputs", "listed"), [((), "none"), (("b", "a"), "a, b")])
def test_an_output_that_does_not_exist(outputs: tuple[str, ...], listed: str) -> None:
    done = replace(make.in_order(TWO, FACTS).units[NET].applied, outputs=dict.fromkeys(outputs, "s"))  # type: ignore[type-var]
    hold = ask(gates.dependency, on_net(applied=done), need=UNKNOWN)
    assert hold == Hold(
        "OutputMissing", f"environments/prod/app.yaml: prod/net has no output 'id'; its outputs are: {listed}."
    )


def test_secrets_that_the_host_does_not_list() -> None:
    want = make.desired(
        make.entry("prod/net"),
        make.entry("prod/app", reads=["prod/net"], secret="db_password"),
    )
    host = make.facts(secrets={"other": "s"})
    hold = ask(gates.dependency, survey(want, make.in_order(want, host), host, make.NOW), need=UNKNOWN)
    assert hold is not None
    assert hold.reason == "SecretMissing"
    assert "db_password;" in hold.message


# --- what is still read


GOING = make.desired(make.entry("prod/net", presence=Presence.ABSENT))
BUILT = make.applied(make.unit("prod/app", reads=["prod/net"]), make.fingerprint())
GONE = replace(BUILT, presence=Presence.ABSENT)


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ({"applied": BUILT}, "StillReferenced"),
        ({"applied": GONE}, None),
        ({"unfinished": frozenset({NET})}, "StillReferenced"),
        ({"job": make.dispatched("prod/app", reads=["prod/net"])}, "StillReferenced"),
        ({}, None),
    ],
)
def test_nothing_goes_while_something_is_built_on_it(reader: dict[str, object], expected: str | None) -> None:
    one = world(GOING, make.with_record(Ledger(), "prod/app", **reader))
    assert reason(gates.still_referenced, one, "prod/net") == expected


def test_who_stays_may_be_read() -> None:
    assert reason(gates.still_referenced, world(), "prod/net") is None


def test_what_is_read_under_its_former_name_is_read_still() -> None:
    want = make.desired(make.entry("prod/new", presence=Presence.ABSENT, moved_from="prod/net"))
    one = world(want, make.with_record(Ledger(), "prod/app", applied=BUILT))
    assert reason(gates.still_referenced, one, "prod/new") == "StillReferenced"


def test_a_unit_is_no_reader_of_itself() -> None:
    want = make.desired(make.entry("prod/new", presence=Presence.ABSENT, moved_from="prod/net"))
    own = make.with_record(Ledger(), "prod/new", applied=replace(BUILT, reads=frozenset({NET, UnitId("prod/new")})))
    assert reason(gates.still_referenced, world(want, own), "prod/new") is None


def test_readers_are_named_in_order() -> None:
    ledger = make.with_record(Ledger(), "prod/b", applied=BUILT)
    ledger = make.with_record(ledger, "prod/a", applied=BUILT)
    assert readers_of(ledger) == {NET: ("prod/a", "prod/b")}
    hold = ask(gates.still_referenced, world(GOING, ledger), "prod/net")
    assert hold is not None
    assert hold.message.startswith("prod/a, prod/b still reads")


# --- back-off


def after_failure(retry_at: datetime | None, **changes: object) -> World:
    one = TWO.units[APP]
    failure = replace(make.failure(make.fingerprint(), one, retry_at=retry_at), **changes)  # type: ignore[arg-type]
    return world(ledger=make.with_record(Ledger(), "prod/app", failure=failure))


SOON = make.NOW + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("retry_at", "changes", "expected"),
    [
        (SOON, {}, "ApplyFailed"),
        (make.NOW, {}, None),
        (SOON, {"fingerprint": make.fingerprint("new")}, None),
        (SOON, {"policy": "new"}, None),
    ],
)
def test_the_same_thing_is_not_tried_at_once(
    retry_at: datetime, changes: dict[str, object], expected: str | None
) -> None:
    assert reason(gates.back_off, after_failure(retry_at, **changes)) == expected


def test_what_no_clock_ends_says_what_it_waits_for() -> None:
    hold = ask(gates.back_off, after_failure(None))
    assert hold is not None
    assert "waits for a change of the entry" in hold.message
    assert hold.message.endswith("`reconciler reconcile prod/app` tries it now)")


@pytest.mark.parametrize("why", ["PlanExceedsReview", "ReviewMissing"])
def test_what_a_review_holds_is_tried_again_with_the_next_merge(why: str) -> None:
    assert reason(gates.back_off, after_failure(SOON, reason=why, commit=TWO.commit)) == why
    assert reason(gates.back_off, after_failure(SOON, reason=why, commit=Commit("e" * 40))) is None
    assert reason(gates.back_off, after_failure(SOON, commit=Commit("e" * 40))) == "ApplyFailed"


def test_who_has_not_failed_is_not_held_back() -> None:
    assert reason(gates.back_off, world(ledger=Ledger())) is None


def test_the_hold_says_what_failed_and_when_it_is_tried_again() -> None:
    hold = ask(gates.back_off, after_failure(SOON, count=3))
    assert hold == Hold("ApplyFailed", "It broke. (attempt 3; next at 10:00:05 UTC)")


# --- policy


def with_limits(**limits: object) -> Unit:
    unit = make.unit()
    return replace(unit, environment=replace(unit.environment, limits=replace(unit.environment.limits, **limits)))  # type: ignore[arg-type]


def in_environment(**changes: object) -> Unit:
    unit = make.unit()
    return replace(unit, environment=replace(unit.environment, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        with_limits(destroy=1),
        with_limits(recreate=1),
        with_limits(free_replace=frozenset({"a"})),
        make.unit(allow=Allowances(destroy=1)),
        make.unit(allow=Allowances(downgrade=True)),
        in_environment(drift=DriftMode.REPORT),
        in_environment(review=ReviewMode.OFF),
        in_environment(strict_class=EnvironmentClass.SANDBOX),
        in_environment(rules=(Rule("small", Over.PLAN, "true", "no"),)),
    ],
)
def test_another_limit_or_allowance_is_another_policy(other: Unit) -> None:
    assert policy(other) != policy(make.unit())


def test_the_same_limits_are_the_same_policy() -> None:
    assert policy(with_limits(free_replace=frozenset("ab"))) == policy(with_limits(free_replace=frozenset("ba")))
    assert policy(make.unit(size=2)) == policy(make.unit(size=3))
    assert Limits() == make.unit().environment.limits


def test_a_looser_limit_is_another_policy_only_from_the_next_merge_on() -> None:
    loose = with_limits(destroy=5)
    unit = replace(loose, environment=judged_with(loose.environment, policy_of(make.unit().environment)))
    assert policy(unit) == policy(make.unit())
    assert policy(loose) != policy(unit)

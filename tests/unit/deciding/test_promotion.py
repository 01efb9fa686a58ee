"""Code enters an environment once it was in order elsewhere for long enough: what counts as proof, what breaks it, what skips it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from reconciler.actual.ledger import JobEnded, SkipSeen, after, take_over
from reconciler.deciding.budgets import Capacity
from reconciler.deciding.decide import Dispatch
from reconciler.deciding.gates import Need, promotion
from reconciler.deciding.promotion import SKIP_LIFE, is_open, unseen
from reconciler.model import (
    Cause,
    Desired,
    Entry,
    Environment,
    Hold,
    JobId,
    Ledger,
    Operation,
    Outcome,
    Presence,
    Promotion,
    Skip,
    UnitId,
    UnitRecord,
)
from tests.kit import facts as make
from tests.kit.whole import decide, edges, next_due, survey

NOW, HOUR = make.NOW, make.HOUR
DAY = timedelta(days=1)
HOST = make.facts()
RULE = Promotion("stage", DAY)
NEW, OLD = "1.1.0", "1.0.0"
PROD, STAGE = UnitId("prod/net"), UnitId("stage/net")


def prod(*rules: Promotion) -> Environment:
    return replace(make.environment("prod"), promotion=rules or (RULE,))


def want(*others: Entry, version: str = NEW, environment: Environment | None = None, **words: object) -> Desired:
    """prod/net wants the new version, and stage/net runs it."""
    skip = words.pop("promotion_skip", None)
    mine = replace(make.entry("prod/net", version=version, **words), promotion_skip=skip)  # type: ignore[arg-type]
    return make.desired(
        mine, *(others or (make.entry("stage/net", version=NEW),)), environments=[environment or prod()]
    )


def known(desired: Desired, since: datetime | None = NOW - DAY, *, runs: str | None = OLD) -> Ledger:
    """Everything in stage is in order since then; prod runs another version."""
    ledger = make.in_order(desired, HOST, but=["prod/net"])
    for name in [name for name in ledger.units if name.startswith("stage/")]:
        ledger = make.with_record(ledger, name, steady_since=since)
    if runs is not None:
        before = want(version=runs)
        ledger = make.with_record(ledger, "prod/net", applied=make.in_order(before, HOST).units[PROD].applied)
    return ledger


def hold(desired: Desired, ledger: Ledger, now: datetime = NOW, operation: Operation = Operation.APPLY) -> Hold | None:
    world = survey(desired, ledger, HOST, now)
    unit = desired.units[PROD]
    need = Need(operation, world.expected[PROD], Cause.CATALOG)
    return promotion(world, unit, ledger.units.get(PROD) or UnitRecord(PROD), need)


def test_what_was_in_order_long_enough_enters() -> None:
    assert hold(want(), known(want())) is None


@pytest.mark.parametrize("runs", [OLD, None])
def test_code_that_is_too_young_waits_and_says_until_when(runs: str | None) -> None:
    found = hold(want(), known(want(), NOW - HOUR, runs=runs))
    assert found is not None
    assert (found.reason, found.plans) == ("PromotionPending", True)
    assert "acme/vpc 1.1.0 enters prod once everything in stage that uses it has been in order for 1d" in found.message
    assert f"stage/net until {NOW + timedelta(hours=23):%Y-%m-%d %H:%M} UTC" in found.message
    assert "promotion_skip" in found.message


def test_a_look_is_no_entry() -> None:
    assert hold(want(), known(want(), None), operation=Operation.PLAN) is None


def test_nothing_there_uses_it() -> None:
    desired = want(make.entry("stage/net", version=OLD))
    found = hold(desired, known(desired))
    assert found is not None
    assert "nothing there uses this code yet" in found.message


def test_other_inputs_of_the_same_code_are_not_held() -> None:
    desired = want(make.entry("stage/net", version=NEW), version=OLD, size=7)
    assert hold(desired, known(desired, None)) is None


def test_the_same_code_under_a_new_name_is_not_held() -> None:
    desired = want(make.entry("stage/net", version=NEW), version=OLD, moved_from="prod/was")
    ledger = known(desired, None)
    was = replace(ledger.units[PROD], unit=UnitId("prod/was"))
    ledger = replace(ledger, units={**{k: v for k, v in ledger.units.items() if k != PROD}, was.unit: was})
    assert hold(desired, ledger) is None


def test_what_goes_is_not_held() -> None:
    desired = want(presence=Presence.ABSENT)
    assert hold(desired, known(desired, None)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steady_since": None}, "stage/net is not in order"),
        ({"applied": None}, "stage/net does not run it yet"),
    ],
)
def test_what_breaks_the_proof(changes: dict[str, object], said: str) -> None:
    ledger = make.with_record(known(want()), "stage/net", **changes)
    found = hold(want(), ledger)
    assert found is not None
    assert said in found.message


def test_a_change_that_is_on_its_way_there_breaks_it_for_as_long() -> None:
    desired = want(make.entry("stage/net", version=NEW, size=2))
    ledger = known(want())
    found = hold(desired, ledger)
    assert found is not None
    assert "stage/net is not in order" in found.message


def test_each_unit_counts_and_not_all_are_named() -> None:
    others = [make.entry(f"stage/u{number}", version=NEW) for number in range(9)]
    desired = want(*others)
    found = hold(desired, known(desired, NOW))
    assert found is not None
    assert "and 4 more" in found.message


def test_every_rule_counts() -> None:
    environment = prod(RULE, Promotion("dev", HOUR))
    desired = want(make.entry("stage/net", version=NEW), make.entry("dev/net", version=OLD), environment=environment)
    found = hold(desired, known(desired))
    assert found is not None
    assert "in dev" in found.message


def test_units_that_leave_the_code_there_still_count() -> None:
    """What runs there now proves, whatever the entry wants next."""
    desired = want(make.entry("stage/net", version=OLD))
    ledger = known(want())
    found = hold(desired, ledger)
    assert found is not None
    assert "stage/net is not in order" in found.message


def test_the_loop_plans_what_waits_and_applies_it_in_time() -> None:
    desired = want()
    ledger = known(desired, NOW - HOUR)
    now = list(decide(survey(desired, ledger, HOST, NOW), Capacity(4, 4)))
    assert [one.operation for one in now if isinstance(one, Dispatch)] == [Operation.PLAN]
    due = next_due(survey(desired, ledger, HOST, NOW))
    assert due is not None
    later = list(decide(survey(desired, ledger, HOST, NOW + timedelta(hours=23)), Capacity(4, 4)))
    assert [one.unit.id for one in later if isinstance(one, Dispatch) and one.operation is Operation.APPLY] >= [PROD]
    assert NOW + timedelta(hours=23) in list(edges(desired, ledger))


# --- since when a unit is in order


def ended(record: UnitRecord, fp: str = "a", outcome: Outcome = Outcome.SUCCEEDED, **words: object) -> UnitRecord:
    asked = make.dispatched("stage/net", make.fingerprint(fp))
    unit = make.unit("stage/net")
    if words.pop("applies", outcome is Outcome.SUCCEEDED):
        words["applied"] = make.applied(unit, make.fingerprint(fp))
    return after(record, JobEnded(asked, make.result(asked, outcome, **words), None, None))


def test_the_clock_of_a_unit() -> None:
    since = NOW - DAY
    begun = ended(UnitRecord(STAGE))
    assert begun.steady_since == NOW + timedelta(minutes=1)
    steady = replace(begun, steady_since=since)
    assert ended(steady).steady_since == since
    same_code = replace(make.fingerprint("a"), inputs="other")
    moved_on = replace(steady, applied=replace(steady.applied, fingerprint=same_code))  # type: ignore[type-var]
    assert ended(moved_on).steady_since == since
    assert ended(steady, "b").steady_since == NOW + timedelta(minutes=1)
    assert ended(steady, outcome=Outcome.FAILED).steady_since is None
    assert ended(steady, outcome=Outcome.HELD).steady_since is None
    assert ended(steady, outcome=Outcome.UNCERTAIN).steady_since is None
    assert ended(steady, outcome=Outcome.SUPERSEDED).steady_since == since


def test_drift_begins_it_anew() -> None:
    steady, found = replace(ended(UnitRecord(STAGE)), steady_since=NOW - DAY), make.plan(make.change("file.a"))
    assert ended(steady, applies=False, cause=Cause.DRIFT, plan=found).steady_since is None
    assert ended(steady, applies=False, cause=Cause.DRIFT, plan=make.plan()).steady_since == NOW - DAY
    assert ended(steady, cause=Cause.DRIFT, plan=found).steady_since == NOW + timedelta(minutes=1)
    assert ended(steady, cause=Cause.DRIFT, plan=make.plan()).steady_since == NOW - DAY


def test_a_new_name_keeps_it() -> None:
    source = replace(ended(UnitRecord(STAGE)), steady_since=NOW - DAY)
    assert take_over(UnitRecord(UnitId("stage/new")), source, JobId("job-1")).steady_since == NOW - DAY


# --- the line that skips it


def test_a_line_lets_it_in_once() -> None:
    desired = want(promotion_skip="the flood")
    ledger = known(desired, None)
    assert hold(desired, ledger) is not None
    ((unit, skip),) = unseen(desired, ledger, NOW)
    assert (unit, skip) == (PROD, Skip("the flood", NOW))
    ledger = make.with_record(ledger, "prod/net", skip=after(ledger.units[PROD], SkipSeen(unit, skip)).skip)
    assert list(unseen(desired, ledger, NOW)) == []
    assert hold(desired, ledger) is None
    assert hold(desired, ledger, NOW + SKIP_LIFE) is not None
    assert NOW + SKIP_LIFE in list(edges(desired, ledger))
    asked = make.dispatched("prod/net")
    spent = after(
        ledger.units[PROD],
        JobEnded(asked, make.result(asked, applied=make.applied(desired.units[PROD], make.fingerprint())), None, None),
    )
    assert spent.skip == Skip("the flood", NOW, spent=True)
    assert not is_open("the flood", spent.skip, NOW)


def test_a_failure_and_a_plan_leave_the_line_open() -> None:
    record = UnitRecord(PROD, skip=Skip("why", NOW))
    for operation, outcome in ((Operation.APPLY, Outcome.FAILED), (Operation.PLAN, Outcome.SUCCEEDED)):
        asked = make.dispatched("prod/net", operation=operation)
        assert after(record, JobEnded(asked, make.result(asked, outcome), None, None)).skip == record.skip


def test_another_line_opens_anew_and_none_closes() -> None:
    desired, ledger = want(promotion_skip="two"), known(want())
    spent = make.with_record(ledger, "prod/net", skip=Skip("one", NOW - HOUR, spent=True))
    assert list(unseen(desired, spent, NOW)) == [(PROD, Skip("two", NOW))]
    assert list(unseen(want(), spent, NOW)) == [(PROD, None)]
    assert not is_open("two", Skip("one", NOW), NOW)
    assert not is_open(None, Skip("one", NOW), NOW)
    assert not is_open("one", None, NOW)


def test_where_nothing_is_known_a_line_opens_nothing() -> None:
    ((_, skip),) = unseen(want(promotion_skip="old"), Ledger(), NOW)
    assert skip == Skip("old", NOW, spent=True)

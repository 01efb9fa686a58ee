"""What is decided of every unit, in which order, and when to look again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from reconciler.actual.ledger import JobEnded, after, reads_now
from reconciler.deciding import decide as deciding
from reconciler.deciding.budgets import Capacity
from reconciler.deciding.decide import (
    Dispatch,
    Held,
    Known,
    corrects,
    expected,
    need_of,
    waits_for,
)
from reconciler.deciding.gates import Need
from reconciler.deciding.schedule import (
    AFTER_CORRECTION,
    FIRST_RETRY,
    JITTER,
    LAST_RETRY,
    Schedule,
    jittered,
    next_turn,
    retry_after,
    schedule,
    sooner,
)
from reconciler.desired.fingerprint import fingerprint as printed
from reconciler.model import (
    Cause,
    Desired,
    Dispatched,
    DriftMode,
    EnvironmentClass,
    Hold,
    Ledger,
    Operation,
    Outcome,
    Outside,
    Presence,
    RunnerFacts,
    UnitId,
    UnitRecord,
    Window,
)
from tests.kit import facts as make
from tests.kit import whole
from tests.kit.whole import Decision, Queued, decide, next_due, survey

FACTS = make.facts()
PLENTY = Capacity(workers=99, per_environment=99)
NET, APP = UnitId("prod/net"), UnitId("prod/app")
TWO = make.desired(make.entry("prod/net"), make.entry("prod/app", reads=["prod/net"]))
ORDERLY = make.in_order(TWO, FACTS)
PAUSED = (make.pause("prod"),)
REPORTING = make.environment("prod", drift=DriftMode.REPORT)


def decided(
    want: Desired,
    ledger: Ledger,
    *,
    host: RunnerFacts | None = FACTS,
    now: datetime = make.NOW,
    capacity: Capacity = PLENTY,
) -> list[Decision]:
    return list(decide(survey(want, ledger, host, now), capacity))


def dispatches(decisions: list[Decision]) -> list[tuple[str, Operation, Cause]]:
    return [(d.unit.id, d.operation, d.cause) for d in decisions if isinstance(d, Dispatch)]


def holds(decisions: list[Decision]) -> dict[str, str | None]:
    return {d.unit: d.hold.reason if d.hold else None for d in decisions if isinstance(d, Held)}


def one(ledger: Ledger, want: Desired = TWO) -> tuple[list[tuple[str, Operation, Cause]], dict[str, str | None]]:
    found = decided(want, ledger)
    return dispatches(found), holds(found)


# --- from what is desired and known to a job


def test_nothing_to_do_when_all_is_in_order() -> None:
    assert decided(TWO, ORDERLY) == []


def test_a_first_deploy_begins_upstream() -> None:
    assert one(Ledger()) == ([(NET, Operation.APPLY, Cause.DESIRED)], {APP: "DependencyNotReady"})


def test_a_unit_follows_once_its_upstream_is_in_order() -> None:
    ledger = make.in_order(TWO, FACTS, but=[APP])
    assert one(ledger) == ([(APP, Operation.APPLY, Cause.DESIRED)], {})


def test_a_hold_that_no_longer_holds_is_lifted() -> None:
    ledger = make.with_record(ORDERLY, APP, hold=Hold("Paused", "m"))
    assert one(ledger) == ([], {APP: None})


def test_a_hold_that_is_the_same_is_not_said_again() -> None:
    first = decided(TWO, Ledger())
    hold = next(d.hold for d in first if isinstance(d, Held))
    assert holds(decided(TWO, make.with_record(Ledger(), APP, hold=hold))) == {}


def test_a_running_job_is_left_alone() -> None:
    ledger = make.with_record(Ledger(), NET, job=make.dispatched(), hold=Hold("Old", "m"))
    assert one(ledger) == ([], {APP: "DependencyNotReady"})


def test_a_changed_upstream_output_is_a_cause() -> None:
    done = replace(ORDERLY.units[NET].applied, outputs={"id": "new"})  # type: ignore[type-var]
    assert one(make.with_record(ORDERLY, NET, applied=done))[0] == [(APP, Operation.APPLY, Cause.UPSTREAM)]


def test_without_the_runner_nobody_is_dispatched() -> None:
    found = decided(TWO, ORDERLY, host=None)
    assert (dispatches(found), holds(found)) == ([], {NET: "RunnerUnavailable", APP: "RunnerUnavailable"})


def test_a_runner_that_fell_silent_holds_only_who_needs_it() -> None:
    ledger = make.in_order(TWO, FACTS, but=[APP])
    found = list(decide(survey(TWO, ledger, FACTS, make.NOW, answers=False), PLENTY))
    assert (dispatches(found), holds(found)) == ([], {APP: "RunnerUnavailable"})


def test_a_secret_that_the_host_does_not_list_is_waited_for() -> None:
    want = make.desired(make.entry(NET, secret="key"))
    assert one(Ledger(), want) == ([], {NET: "SecretMissing"})
    listed = decided(want, Ledger(), host=make.facts(secrets={"key": "hmac"}))
    assert dispatches(listed) == [(NET, Operation.APPLY, Cause.DESIRED)]


# --- what waits is planned, once


def changed(ledger: Ledger, name: UnitId, **changes: object) -> Ledger:
    """The unit was applied as something else before."""
    done = replace(ledger.units[name].applied, fingerprint=make.fingerprint("old"))  # type: ignore[type-var]
    return make.with_record(ledger, name, applied=done, **changes)


WANTED = ORDERLY.units[NET].applied.fingerprint  # type: ignore[union-attr]
SEEN = make.dispatched(NET, WANTED)


def planned(fp: str | None = None) -> object:
    result = make.result(SEEN, fingerprint=make.fingerprint(fp) if fp else WANTED, plan=make.plan())
    return after(UnitRecord(NET), JobEnded(SEEN, result, None, None)).planned


@pytest.mark.parametrize(
    ("changes", "expected_jobs"),
    [
        ({}, [(NET, Operation.PLAN, Cause.DESIRED)]),
        ({"planned": planned("older")}, [(NET, Operation.PLAN, Cause.DESIRED)]),
        ({"planned": planned()}, []),
        ({"failure": make.failure(WANTED)}, []),
        ({"failure": make.failure(WANTED, retry_at=make.NOW)}, [(NET, Operation.PLAN, Cause.DESIRED)]),
        ({"failure": make.failure(make.fingerprint("old"))}, [(NET, Operation.PLAN, Cause.DESIRED)]),
    ],
)
def test_what_is_paused_is_planned_once(changes: dict[str, object], expected_jobs: list[object]) -> None:
    ledger = replace(changed(ORDERLY, NET, **changes), pauses=PAUSED)
    jobs, held = one(ledger)
    assert [job for job in jobs if job[0] == NET] == expected_jobs
    assert held[NET] == "Paused"


def test_what_is_paused_is_looked_at_for_drift_when_due() -> None:
    due = replace(make.with_record(ORDERLY, NET, next_check=make.NOW, planned=planned()), pauses=PAUSED)
    assert one(due) == ([(NET, Operation.PLAN, Cause.DRIFT)], {NET: "Paused"})
    never = replace(make.with_record(ORDERLY, NET, next_check=None, planned=planned()), pauses=PAUSED)
    assert one(never)[0] == [(NET, Operation.PLAN, Cause.DRIFT)]


def test_a_hold_without_plans_plans_nothing() -> None:
    ledger = changed(ORDERLY, NET, failure=make.failure(WANTED, TWO.units[NET]))
    assert one(ledger)[0] == []


# --- needs


def need(want: Desired, ledger: Ledger, name: UnitId = NET, host: RunnerFacts | None = FACTS) -> Need | None:
    unit = want.units[name]
    record = ledger.units.get(name) or UnitRecord(name)
    return need_of(survey(want, ledger, host, make.NOW), unit, record)


def state(presence: Presence = Presence.PRESENT, drift: DriftMode = DriftMode.CORRECT) -> tuple[Desired, Ledger]:
    want = make.desired(make.entry(NET, presence=presence), environments=[make.environment("prod", drift=drift)])
    return want, make.in_order(want, FACTS)


PRESENT, ABSENT, FORGOTTEN = Presence
CORRECT, REPORT = DriftMode.CORRECT, DriftMode.REPORT
APPLY, PLAN = Operation.APPLY, Operation.PLAN
ELSEWHERE = make.failure(make.fingerprint("other"))


@pytest.mark.parametrize(
    ("presence", "drift", "changes", "expected_operation"),
    [
        (PRESENT, CORRECT, {}, None),
        (PRESENT, CORRECT, {"next_check": make.NOW}, APPLY),
        (PRESENT, CORRECT, {"next_check": None}, APPLY),
        (PRESENT, CORRECT, {"next_check": make.NOW + timedelta(days=400)}, APPLY),  # the clock was put back since
        (PRESENT, REPORT, {"next_check": make.NOW}, PLAN),
        (PRESENT, CORRECT, {"failure": ELSEWHERE}, APPLY),
        (PRESENT, REPORT, {"failure": ELSEWHERE}, PLAN),
        (PRESENT, CORRECT, {"unfinished": frozenset()}, APPLY),
        (PRESENT, REPORT, {"unfinished": frozenset()}, APPLY),
        (PRESENT, CORRECT, {"drift_since": make.NOW}, APPLY),
        (PRESENT, REPORT, {"drift_since": make.NOW}, None),
        (ABSENT, CORRECT, {"next_check": make.NOW}, None),
        (ABSENT, CORRECT, {"failure": ELSEWHERE}, APPLY),
        (ABSENT, REPORT, {"unfinished": frozenset()}, APPLY),
        (FORGOTTEN, CORRECT, {"next_check": None}, None),
    ],
)
def test_what_a_unit_needs_that_is_as_its_entry_says(
    presence: Presence, drift: DriftMode, changes: dict[str, object], expected_operation: Operation | None
) -> None:
    want, ledger = state(presence, drift)
    found = need(want, make.with_record(ledger, NET, **changes))
    assert (found and (found.operation, found.cause)) == (expected_operation and (expected_operation, Cause.DRIFT))


@pytest.mark.parametrize(
    ("presence", "before", "host", "expected_need"),
    [
        (PRESENT, None, FACTS, True),
        (ABSENT, None, FACTS, True),
        (ABSENT, PRESENT, FACTS, True),
        (PRESENT, PRESENT, None, True),
        (ABSENT, PRESENT, None, True),
        (ABSENT, ABSENT, None, False),
        (FORGOTTEN, FORGOTTEN, make.facts("dev"), False),
    ],
)
def test_who_is_gone_needs_no_runner(
    presence: Presence, before: Presence | None, host: RunnerFacts | None, expected_need: bool
) -> None:
    want, _ = state(presence)
    ledger = state(before)[1] if before else Ledger()
    assert (need(want, ledger, host=host) is not None) is expected_need


def test_who_goes_needs_no_secret_and_no_output() -> None:
    entry = make.entry(APP, reads=[NET], secret="key", presence=ABSENT)
    want = make.desired(make.entry(NET), entry)
    assert expected(want, Ledger(), FACTS)[APP] is not None


@pytest.mark.parametrize(
    ("klass", "drift", "yes"),
    [
        (EnvironmentClass.PROTECTED, CORRECT, True),
        (EnvironmentClass.PROTECTED, REPORT, False),
        (EnvironmentClass.SANDBOX, CORRECT, False),
    ],
)
def test_where_drift_is_put_back(klass: EnvironmentClass, drift: DriftMode, yes: bool) -> None:
    environment = make.environment("prod", klass=klass, drift=drift)
    assert corrects(make.unit(environments=[environment])) is yes


# --- fingerprints that are known already


def test_a_fingerprint_is_not_worked_out_again_and_is_always_the_same_as_if_it_were() -> None:
    known: Known = {}
    for want in (TWO, make.desired(make.entry(NET, size=2), make.entry(APP, reads=[NET]))):
        for host in (FACTS, make.facts(host="h2"), FACTS):
            for ledger in (ORDERLY, Ledger(), ORDERLY):
                assert expected(want, ledger, host, known) == expected(want, ledger, host)
    before = dict(known)
    expected(want, ORDERLY, FACTS, known)
    assert {name: id(one) for name, one in known.items()} == {name: id(one) for name, one in before.items()}


def test_fingerprints_of_units_that_went_do_not_pile_up() -> None:
    known: Known = {}
    expected(TWO, ORDERLY, FACTS, known)
    expected(make.desired(make.entry("prod/other")), ORDERLY, FACTS, known)
    assert set(known) == {"prod/other"}


# --- entries that are broken or gone


def test_a_broken_entry_is_held_and_says_why() -> None:
    want = make.desired(make.entry(NET, version="9.9.9"))
    found = decided(want, Ledger())
    assert holds(found) == {NET: "CatalogPinMissing"}
    hold = next(d.hold for d in found if isinstance(d, Held))
    assert decided(want, make.with_record(Ledger(), NET, hold=hold)) == []


@pytest.mark.parametrize(
    ("changes", "expected_holds"),
    [
        ({"applied": make.applied(TWO.units[NET], make.fingerprint())}, {NET: "Orphaned"}),
        ({"unfinished": frozenset()}, {NET: "Orphaned"}),
        ({"applied": make.applied(state(ABSENT)[0].units[NET], make.fingerprint())}, {}),
        ({"failure": ELSEWHERE}, {}),
        ({"hold": Hold("CatalogPinMissing", "m")}, {NET: None}),
    ],
)
def test_a_unit_whose_file_is_gone(changes: dict[str, object], expected_holds: dict[str, str | None]) -> None:
    assert one(make.with_record(Ledger(), NET, **changes), make.desired()) == ([], expected_holds)


@pytest.mark.parametrize(
    ("version", "locked", "expected"),
    [("1.0.0", "1.0.0", "Orphaned"), ("1.0.0", "1.1.0", "CatalogPinMissing"), ("my-branch", "1.1.0", "Orphaned")],
)
def test_a_version_that_an_orphan_uses_stays_in_the_lock(version: str, locked: str, expected: str) -> None:
    """Else nothing could destroy its objects any more."""
    exists = replace(make.applied(TWO.units[NET], make.fingerprint()), version=version)
    ledger = make.with_record(Ledger(), NET, applied=exists)
    assert one(ledger, make.desired(locked=make.lock(make.pin(locked)))) == ([], {NET: expected})


def test_a_unit_that_another_takes_over_is_no_orphan() -> None:
    want = make.desired(make.entry("prod/new", moved_from=NET))
    assert one(ORDERLY, want)[1] == {APP: "Orphaned"}


# --- who gets a slot


def test_merges_come_before_drift_and_both_before_plans() -> None:
    names = [UnitId(f"prod/{name}") for name in "abc"]
    want = make.desired(*map(make.entry, names))
    ledger = make.with_record(make.in_order(want, FACTS), "prod/b", next_check=make.NOW)
    ledger = changed(changed(ledger, names[0]), names[2])
    ledger = replace(ledger, pauses=(make.pause("prod/a"),))
    order = [job[:2] for job in dispatches(decided(want, ledger))]
    assert order == [("prod/c", APPLY), ("prod/b", APPLY), ("prod/a", PLAN)]


@pytest.mark.parametrize(
    ("capacity", "running", "started", "queued"),
    [
        (Capacity(9, 9), [], ["dev/a", "prod/a", "dev/b", "prod/b"], []),
        (Capacity(9, 1), [], ["dev/a", "prod/a"], ["dev/b", "prod/b"]),
        (Capacity(3, 9), [], ["dev/a", "prod/a", "dev/b"], ["prod/b"]),
        (Capacity(3, 9), ["dev/x", "old/x"], ["prod/a"], ["dev/a", "dev/b", "prod/b"]),
        (Capacity(9, 2), ["dev/x"], ["prod/a", "dev/a", "prod/b"], ["dev/b"]),
        (Capacity(0, 9), [], [], ["dev/a", "dev/b", "prod/a", "prod/b"]),
    ],
)
def test_slots(capacity: Capacity, running: list[str], started: list[str], queued: list[str]) -> None:
    want = make.desired(*map(make.entry, ["dev/a", "dev/b", "prod/a", "prod/b"]))
    ledger = Ledger()
    for name in running:
        ledger = make.with_record(ledger, name, job=make.dispatched(name))
    found = decided(want, ledger, capacity=capacity)
    assert [d.unit.id for d in found if isinstance(d, Dispatch)] == started
    assert [d.unit for d in found if isinstance(d, Queued)] == queued


# --- when to look again


def hours(count: int) -> datetime:
    return make.NOW + count * timedelta(hours=1)


def test_the_next_due_time_is_the_nearest_in_the_future() -> None:
    ledger = make.with_record(ORDERLY, NET, next_check=hours(3), failure=make.failure(WANTED, retry_at=hours(2)))
    ledger = make.with_record(ledger, APP, next_check=make.NOW)
    assert next_due(survey(TWO, ledger, FACTS, make.NOW)) == hours(2)
    paused = replace(ledger, pauses=(make.pause(until=hours(1)),))
    assert next_due(survey(TWO, paused, FACTS, make.NOW)) == hours(1)
    assert next_due(survey(TWO, ledger, FACTS, hours(3))) is None


def test_the_edges_of_freeze_windows_are_due_times() -> None:
    windows = tuple(Window(f"30 {hour} * * *", timedelta(hours=1), "UTC", "r") for hour in (11, 12))
    frozen = replace(make.environment(), freeze=windows)
    want = make.desired(make.entry("prod/net"), environments=[frozen, make.environment("dev")])
    known = make.in_order(want, FACTS, next_check=hours(9))
    half = timedelta(minutes=30)
    assert next_due(survey(want, known, FACTS, make.NOW)) == hours(1) + half  # it begins
    assert next_due(survey(want, known, FACTS, hours(2))) == hours(3) + half  # both end


def test_what_follows_is_decided_by_what_this_pass_says_of_its_upstream() -> None:
    """Not by what the last one did: nobody would ask for another pass."""
    stage = replace(make.environment("stage"), freeze=(Window("0 9 * * *", timedelta(hours=2), "UTC", "a launch"),))
    entries = [make.entry("stage/net"), make.entry("prod/app", reads=["stage/net"])]
    ledger = make.in_order(make.desired(*entries, environments=[stage]), FACTS)
    want = make.desired(*(replace(one, version="1.1.0") for one in entries), environments=[stage])
    first = list(decide(survey(want, ledger, FACTS, make.NOW), Capacity(2, 2)))
    held = {d.unit: d.hold for d in first if isinstance(d, Held)}
    assert {unit: hold.reason for unit, hold in held.items() if hold} == {
        "stage/net": "FreezeWindow",
        "prod/app": "DependencyNotReady",
    }
    planned = {d.unit.id: d.operation for d in first if isinstance(d, Dispatch)}
    assert planned == {"stage/net": Operation.PLAN, "prod/app": Operation.PLAN}
    for unit, hold in held.items():
        ledger = make.with_record(ledger, unit, hold=hold)
    assert not [d for d in decide(survey(want, ledger, FACTS, make.NOW), Capacity(2, 2)) if isinstance(d, Held)]


def test_what_is_frozen_is_planned_and_goes_on_at_the_end() -> None:
    closed = replace(make.environment(), freeze=(Window("0 9 * * *", timedelta(hours=2), "UTC", "a launch"),))
    want = make.desired(make.entry("prod/net"), environments=[closed])
    held, plan = decide(survey(want, Ledger(), FACTS, make.NOW), Capacity(2, 2))
    assert isinstance(held, Held)
    assert held.hold is not None
    assert held.hold.reason == "FreezeWindow"
    assert isinstance(plan, Dispatch)
    assert plan.operation is Operation.PLAN
    (go,) = decide(survey(want, Ledger(), FACTS, hours(1)), Capacity(2, 2))
    assert isinstance(go, Dispatch)
    assert go.operation is Operation.APPLY


def test_who_has_a_job_or_no_entry_is_not_waited_for() -> None:
    ledger = make.with_record(Ledger(), NET, next_check=hours(1), job=SEEN)
    ledger = make.with_record(ledger, "prod/orphan", next_check=hours(1))
    assert next_due(survey(TWO, ledger, FACTS, make.NOW)) is None


ENDED = make.NOW + timedelta(minutes=1)
UNIT = TWO.units[NET]
DONE = make.applied(UNIT, WANTED)
SOME = make.plan(make.change("a"))


def scheduled(asked: Dispatched, outcome: Outcome = Outcome.SUCCEEDED, **told: object) -> Schedule:
    record = UnitRecord(NET, job=asked, next_check=hours(9))
    return schedule(UNIT, record, make.result(asked, outcome, **told))


def test_after_an_apply_the_next_look_is_at_the_unit_s_own_time() -> None:
    found = scheduled(SEEN, fingerprint=WANTED, applied=DONE, plan=SOME)
    assert found == Schedule(None, next_turn(make.HOUR, NET, ENDED))


def test_after_a_correction_the_next_look_is_early() -> None:
    found = scheduled(SEEN, fingerprint=WANTED, applied=DONE, plan=SOME, cause=Cause.DRIFT)
    assert found == Schedule(None, ENDED + AFTER_CORRECTION)


@pytest.mark.parametrize(("asked", "seen"), [(Cause.DRIFT, Cause.DRIFT), (Cause.DRIFT, Cause.DESIRED)])
def test_a_look_for_drift_was_taken_whatever_the_runner_calls_it(asked: Cause, seen: Cause) -> None:
    look = make.dispatched(NET, WANTED, operation=PLAN, cause=asked)
    found = scheduled(look, fingerprint=WANTED, plan=SOME, cause=seen)
    assert found == Schedule(None, next_turn(make.HOUR, NET, ENDED))


def test_the_next_look_is_by_the_clock_that_is_asked_for_it() -> None:
    record, now = UnitRecord(NET, job=SEEN), hours(-700)
    found = schedule(UNIT, record, make.result(SEEN, fingerprint=WANTED, applied=DONE), now)
    assert found == Schedule(None, next_turn(make.HOUR, NET, now))


def test_a_plan_of_what_waits_is_no_look_for_drift() -> None:
    asked = make.dispatched(NET, WANTED, operation=PLAN)
    assert scheduled(asked, fingerprint=WANTED, plan=SOME, cause=Cause.DESIRED) == Schedule(None, hours(9))


def test_a_unit_whose_entry_is_gone_keeps_its_time() -> None:
    record = UnitRecord(NET, job=SEEN, next_check=hours(9))
    assert schedule(None, record, make.result(SEEN, fingerprint=WANTED, applied=DONE)) == Schedule(None, hours(9))


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (
            APPLY,
            {"fingerprint": make.fingerprint("newer"), "applied": replace(DONE, fingerprint=make.fingerprint("newer"))},
        ),
        (PLAN, {"fingerprint": make.fingerprint("newer"), "plan": SOME}),
        (APPLY, {"fingerprint": WANTED, "plan": SOME}),
        (PLAN, {"fingerprint": WANTED}),
    ],
    ids=["another apply", "another plan", "only a plan", "no plan"],
)
def test_a_success_that_is_not_what_was_asked_for_backs_off(operation: Operation, told: dict[str, object]) -> None:
    assert scheduled(make.dispatched(NET, WANTED, operation=operation), Outcome.SUCCEEDED, **told) == Schedule(
        ENDED + sooner(FIRST_RETRY, NET, ENDED), hours(9)
    )


def test_a_result_of_a_job_that_nobody_asked_for_is_taken_as_it_is() -> None:
    result = make.result(SEEN, fingerprint=WANTED, applied=DONE)
    assert schedule(UNIT, UnitRecord(NET), result).retry_at is None
    assert schedule(UNIT, UnitRecord(NET), make.result(SEEN, Outcome.FAILED)).retry_at == ENDED + sooner(
        FIRST_RETRY, NET, ENDED
    )


@pytest.mark.parametrize(
    ("outcome", "failures", "wait"),
    [
        (Outcome.FAILED, 0, FIRST_RETRY),
        (Outcome.FAILED, 1, 2 * FIRST_RETRY),
        (Outcome.FAILED, 8, 256 * FIRST_RETRY),
        (Outcome.FAILED, 9, LAST_RETRY),
        (Outcome.FAILED, 10**6, LAST_RETRY),
        (Outcome.HELD, 0, FIRST_RETRY),
        (Outcome.SUPERSEDED, 0, timedelta(seconds=1)),
        (Outcome.UNCERTAIN, 0, timedelta(seconds=1)),
        (Outcome.SUPERSEDED, 1, 2 * FIRST_RETRY),
    ],
)
def test_back_off_doubles_up_to_a_bound(outcome: Outcome, failures: int, wait: timedelta) -> None:
    assert retry_after(make.result(SEEN, outcome), failures) == wait


@pytest.mark.parametrize(
    ("fp", "judged_by", "wait"),
    [(WANTED, "policy", 8), (make.fingerprint("old"), "policy", 1), (WANTED, "looser", 1)],
)
def test_only_failures_of_the_same_thing_count(fp: object, judged_by: str, wait: int) -> None:
    asked = make.dispatched(NET, WANTED, judged_by=judged_by)
    before = replace(make.failure(WANTED, count=3), fingerprint=fp)  # type: ignore[arg-type]
    record = UnitRecord(NET, job=asked, failure=before)
    found = schedule(UNIT, record, make.result(asked, Outcome.FAILED))
    assert found.retry_at == ENDED + sooner(wait * FIRST_RETRY, NET, ENDED)


def test_jitter_spreads_units_and_repeats_itself() -> None:
    waits = [jittered(make.HOUR, UnitId(f"prod/u{n}"), make.NOW) for n in range(200)]
    assert waits == [jittered(make.HOUR, UnitId(f"prod/u{n}"), make.NOW) for n in range(200)]
    assert min(waits) >= make.HOUR * (1 - JITTER)
    assert max(waits) <= make.HOUR * (1 + JITTER)
    assert len(set(waits)) == 200


def test_looks_are_spread_over_the_interval_however_many_units_were_deployed_in_one_minute() -> None:
    day, units = 24 * make.HOUR, [UnitId(f"prod/u{n}") for n in range(2400)]
    first = {unit: next_turn(day, unit, make.NOW) for unit in units}
    for at in [first, {unit: next_turn(day, unit, time) for unit, time in first.items()}]:
        by_hour = Counter((time - min(at.values())) // make.HOUR for time in at.values())
        assert len(by_hour) >= 24
        assert max(by_hour.values()) < 2 * len(units) / 24
    assert {unit: at + day for unit, at in first.items()} == {
        unit: next_turn(day, unit, at) for unit, at in first.items()
    }


def test_a_look_is_neither_almost_now_nor_more_than_an_interval_and_a_tenth_away() -> None:
    for n in range(500):
        wait = next_turn(make.HOUR, UnitId(f"prod/u{n}"), make.NOW + n * timedelta(seconds=37)) - (
            make.NOW + n * timedelta(seconds=37)
        )
        assert make.HOUR * JITTER <= wait <= make.HOUR * (1 + JITTER)


def test_a_standstill_of_days_leaves_each_unit_its_own_time() -> None:
    """However many are overdue at once: each next time is where it would have been."""
    own = next_turn(make.HOUR, NET, make.NOW)
    assert (next_turn(make.HOUR, NET, make.NOW + timedelta(days=9)) - own) % make.HOUR == timedelta(0)


def test_who_is_not_yet_as_the_commit_says() -> None:
    wanted = expected(TWO, ORDERLY, FACTS)
    assert waits_for(TWO, wanted, ORDERLY) == []
    assert waits_for(TWO, wanted, Ledger()) == [NET, APP]
    assert waits_for(TWO, wanted, changed(ORDERLY, NET)) == [NET]
    assert waits_for(TWO, wanted, make.with_record(ORDERLY, APP, applied=None)) == [APP]
    assert waits_for(TWO, {**wanted, APP: None}, ORDERLY) == [APP]


# --- what nobody foresaw


def test_a_unit_in_which_a_bug_is_found_is_held_for_it_and_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    real = printed

    def broken(unit: Any, *rest: object) -> object:
        if unit.id == NET:
            raise ValueError("no digest")
        return real(unit, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(deciding, "fingerprint", broken)
    two = make.desired(make.entry(NET), make.entry("prod/z"))
    held, started = decide(survey(two, Ledger(), FACTS, make.NOW), Capacity(9, 9))
    assert isinstance(held, Held)
    assert held.unit == NET
    assert held.hold is not None
    assert held.hold.reason == "InternalError"
    assert "ValueError at test_decide.py" in held.hold.message
    assert str(held.fault) == "no digest"
    assert isinstance(started, Dispatch)
    assert started.unit.id == "prod/z"


def test_a_bug_in_a_gate_holds_the_unit_that_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "GATES", (lambda *_: 1 / 0,))
    (held,) = decide(survey(make.desired(make.entry(NET)), Ledger(), FACTS, make.NOW), Capacity(9, 9))
    assert isinstance(held, Held)
    assert isinstance(held.fault, ZeroDivisionError)


def test_a_bug_in_an_orphan_or_a_broken_entry_holds_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    orphan, other = UnitId("prod/gone"), UnitId("prod/away")
    ledger = Ledger()
    for name in (orphan, other):
        ledger = make.with_record(ledger, name, applied=make.applied(make.unit(name), make.fingerprint()))
    real = deciding._orphaned

    def broken(record: UnitRecord, *rest: Any) -> Hold | None:
        return 1 / 0 if record.unit == orphan else real(record, *rest)  # type: ignore[return-value]

    monkeypatch.setattr(deciding, "_orphaned", broken)
    found = list(decide(survey(make.desired(make.entry(NET)), ledger, FACTS, make.NOW), Capacity(9, 9)))
    holds = {one.unit: one.hold.reason for one in found if isinstance(one, Held) and one.hold}
    assert holds == {orphan: "InternalError", other: "Orphaned"}
    assert [one.unit.id for one in found if isinstance(one, Dispatch)] == [NET]


def test_what_an_unreadable_record_reads_is_not_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(record: UnitRecord) -> frozenset[UnitId]:
        return 1 / 0 if record.unit == "prod/z" else reads_now(record)  # type: ignore[return-value]

    monkeypatch.setattr(whole, "reads_now", broken)
    gone = make.desired(make.entry(NET, presence=Presence.ABSENT), make.entry("prod/z"), make.entry("prod/y"))
    ledger = ORDERLY
    for name in ("prod/y", "prod/z"):
        ledger = make.with_record(ledger, UnitId(name))
    found = list(decide(survey(gone, ledger, FACTS, make.NOW), Capacity(9, 9)))
    holds = {one.unit: one.hold.reason for one in found if isinstance(one, Held) and one.hold}
    assert (holds[UnitId("prod/z")], holds[NET]) == ("InternalError", "StillReferenced")
    assert "prod/y" in [one.unit.id for one in found if isinstance(one, Dispatch)]


# --- what somebody else wrote

SUSPECT = Outside(make.NOW)
NAMED = Outside(make.NOW, named=True)


def suspected(want: Desired = TWO, mark: Outside = SUSPECT, **more: object) -> Ledger:
    """Every unit may have been changed by somebody else."""
    ledger = make.in_order(want, FACTS)
    for unit in want.order:
        ledger = make.with_record(ledger, unit, outside=mark, **more)
    return ledger


def test_what_somebody_else_may_have_changed_is_looked_at_now() -> None:
    assert one(suspected()) == (
        [(NET, Operation.APPLY, Cause.OUT_OF_BAND), (APP, Operation.APPLY, Cause.OUT_OF_BAND)],
        {},
    )
    reporting = make.desired(make.entry("prod/net"), environments=[REPORTING])
    assert one(suspected(reporting), reporting) == ([(NET, Operation.PLAN, Cause.OUT_OF_BAND)], {})


def test_once_looked_at_it_is_looked_at_when_it_is_due() -> None:
    ledger = suspected(mark=replace(SUSPECT, looked=True))
    assert decided(TWO, ledger) == []
    assert dispatches(decided(TWO, ledger, now=make.NOW + 2 * make.HOUR))[0] == (NET, Operation.APPLY, Cause.DRIFT)


def test_a_merge_is_applied_and_shows_as_much() -> None:
    want = make.desired(make.entry("prod/net", size=2), make.entry("prod/app", reads=["prod/net"]))
    assert one(make.with_record(ORDERLY, NET, outside=SUSPECT), want)[0] == [(NET, Operation.APPLY, Cause.DESIRED)]


def test_one_that_waits_may_be_planned_to_see() -> None:
    planned = replace(ORDERLY, pauses=PAUSED)
    held = make.with_record(planned, NET, outside=SUSPECT)
    assert holds(decided(TWO, held)) == {NET: "Paused"}


def test_one_that_failed_waits_as_any_does() -> None:
    unit = TWO.units[NET]
    fp = make.in_order(TWO, FACTS).units[NET].applied
    assert fp is not None
    ledger = make.with_record(ORDERLY, NET, outside=SUSPECT, failure=make.failure(fp.fingerprint, unit))
    assert one(ledger) == ([], {NET: "ApplyFailed"})


MANY = make.desired(*(make.entry(f"prod/{name}") for name in "abcdef"), make.entry("stage/x"))
MERGED = make.desired(
    *(make.entry(f"prod/{name}", size=2 if name == "f" else 1) for name in "abcdef"), make.entry("stage/x")
)


def first(ledger: Ledger, per_environment: int, want: Desired = MERGED) -> list[tuple[str, Cause]]:
    capacity = Capacity(workers=9, per_environment=per_environment)
    return [(unit, cause) for unit, _, cause in dispatches(decided(want, ledger, capacity=capacity))]


def test_a_look_at_all_of_an_environment_takes_half_of_its_slots_before_merges() -> None:
    ledger = suspected(MANY)
    look = Cause.OUT_OF_BAND
    assert first(ledger, 2) == [("prod/a", look), ("stage/x", look), ("prod/f", Cause.DESIRED)]
    assert first(ledger, 1) == [("prod/f", Cause.DESIRED), ("stage/x", look)]
    assert first(ledger, 4) == [
        ("prod/a", look), ("stage/x", look), ("prod/b", look), ("prod/f", Cause.DESIRED), ("prod/c", look),
    ]  # fmt: skip


def test_what_is_looked_at_already_counts() -> None:
    running = make.dispatched("prod/a", cause=Cause.OUT_OF_BAND)
    ledger = make.with_record(suspected(MANY), "prod/a", job=running)
    assert first(ledger, 2) == [("stage/x", Cause.OUT_OF_BAND), ("prod/f", Cause.DESIRED)]


def test_what_is_named_goes_before_everything() -> None:
    ledger = make.with_record(suspected(MANY), "prod/e", outside=NAMED)
    assert first(ledger, 1) == [("prod/e", Cause.OUT_OF_BAND), ("stage/x", Cause.OUT_OF_BAND)]
    reporting = make.desired(*(make.entry(f"prod/{name}") for name in "ab"), environments=[REPORTING])
    ledger = make.with_record(make.in_order(reporting, FACTS, but=["prod/a"]), "prod/b", outside=NAMED)
    assert first(ledger, 1, reporting) == [("prod/b", Cause.OUT_OF_BAND)]  # although it is but a plan


def test_it_goes_before_drift() -> None:
    due = {"next_check": make.NOW - make.HOUR / 2}
    ledger = make.with_record(suspected(MANY), "prod/a", outside=None, **due)
    assert first(ledger, 1, MANY)[0] == ("prod/b", Cause.OUT_OF_BAND)

"""Sessions of work by hand: what they hold, when they end, and what has to be seen before applies go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.actual import breakglass
from reconciler.actual.ledger import BreakGlassClosed, BreakGlassOpened, JobDispatched, JobEnded, LossAccepted, after
from reconciler.controller.tick import ASK_AGAIN
from reconciler.deciding import gates
from reconciler.deciding.budgets import Capacity
from reconciler.deciding.decide import Dispatch, Held, expected
from reconciler.deciding.gates import Need, World
from reconciler.deciding.schedule import schedule
from reconciler.model import (
    Aftermath,
    Cause,
    Desired,
    Dispatched,
    DriftMode,
    Health,
    JobId,
    Ledger,
    Operation,
    Outcome,
    Planned,
    Presence,
    Result,
    UnitId,
    UnitRecord,
)
from reconciler.status import unit_status
from reconciler.store.projection import project
from tests.kit import facts as make
from tests.kit.whole import decide, next_due, survey
from tests.unit.controller.test_tick import FACTS, NET, TWO
from tests.unit.controller.test_tick import World as Running

ONE = make.desired(make.entry("prod/net"))
ORDERLY = make.in_order(ONE, FACTS)
APPLIED = ORDERLY.units[NET].applied
CHANGES = make.plan(make.change("file.a"))
NOTHING = make.plan()
SHOWN_ONLY = make.plan(digest="")  # no engine had a part in it
WANTED = Need(Operation.APPLY, make.fingerprint(), Cause.DESIRED)
PLENTY = Capacity(9, 9)
MARK = make.aftermath()


def decided(
    ledger: Ledger, want: Desired = ONE, now: timedelta = timedelta()
) -> tuple[list[tuple[Operation, Cause]], str | None]:
    found = list(decide(survey(want, ledger, FACTS, make.NOW + now), PLENTY))
    jobs = [(one.operation, one.cause) for one in found if isinstance(one, Dispatch) and one.unit.id == NET]
    held = [one.hold.reason for one in found if isinstance(one, Held) and one.unit == NET and one.hold]
    return jobs, held[0] if held else None


def world(want: Desired = ONE, ledger: Ledger = ORDERLY) -> World:
    return survey(want, ledger, FACTS, make.NOW)


def gate(one: World, name: str = "prod/net") -> str | None:
    unit = one.desired.units[UnitId(name)]
    record = one.ledger.units.get(unit.id) or UnitRecord(unit.id)
    holds = [each(one, unit, record, WANTED) for each in (gates.break_glass, gates.after_break_glass)]
    return next((f"{hold.reason}: {hold.message}" for hold in holds if hold), None)


def marked(mark: Aftermath | None = MARK, want: Desired = ONE, **changes: object) -> Ledger:
    return make.with_record(make.in_order(want, FACTS), NET, aftermath=mark, **changes)


def moves(mark: Aftermath | None, sessions: Iterable[str] = ()) -> World:
    """prod/new shall take over what prod/net has."""
    want = make.desired(make.entry("prod/new", moved_from="prod/net"))
    return world(want, replace(marked(mark), sessions=tuple(make.session(scope) for scope in sessions)))


# --- while it is open


@pytest.mark.parametrize(
    ("scope", "holds"), [("all", True), ("prod", True), ("prod/net", True), ("dev", False), ("prod/ne", False)]
)
def test_nothing_is_applied_where_somebody_works_by_hand_and_plans_go_on(scope: str, holds: bool) -> None:
    ledger = replace(make.with_record(Ledger(), NET), sessions=(make.session(scope),))
    jobs, held = decided(ledger)
    assert jobs == [(Operation.PLAN if holds else Operation.APPLY, Cause.DESIRED)]
    assert held == ("BreakGlass" if holds else None)


def test_the_hold_says_who_why_until_when_and_how_to_end_it() -> None:
    assert gate(world(ledger=replace(ORDERLY, sessions=(make.session(),)))) == (
        "BreakGlass: ann works by hand in prod until 2026-11-24 11:00 UTC: the site is down. `reconciler break-glass close prod` "
        "ends it sooner; what differs then is not put back by itself."
    )


def test_a_session_holds_until_its_end_is_journaled_whatever_the_clock_says() -> None:
    ledger = replace(make.with_record(Ledger(), NET), sessions=(make.session(until=make.NOW - make.HOUR),))
    assert decided(ledger)[1] == "BreakGlass"


def test_a_new_name_is_no_way_around_it() -> None:
    assert str(gate(moves(None, ["prod/net"]), "prod/new")).startswith("BreakGlass")
    assert str(gate(moves(MARK), "prod/new")).startswith("AfterBreakGlass")
    assert gate(moves(replace(MARK, accepted=True)), "prod/new") is None
    assert gate(moves(None), "prod/new") is None
    unknown = make.desired(make.entry("prod/new", moved_from="prod/never"))
    assert gate(world(unknown, Ledger()), "prod/new") is None


def test_the_status_is_suspended_even_where_nothing_waits() -> None:
    sessions = (make.session(),)
    fingerprint = expected(ONE, ORDERLY, FACTS)[NET]
    found = unit_status(NET, ONE, ORDERLY.units[NET], fingerprint, (), sessions, now=make.NOW)
    assert (found.health, found.reason, found.held) == (Health.SUSPENDED, "BreakGlass", True)
    assert found.message == "ann works by hand in prod until 2026-11-24 11:00 UTC: the site is down"


# --- when it ends


@pytest.mark.parametrize(
    ("passed", "over"),
    [
        (timedelta(), False),
        (timedelta(minutes=59), False),
        (timedelta(hours=1), True),
        (timedelta(days=400), True),  # the clock jumped ahead
        (timedelta(seconds=-30), False),  # it was put right a little
        (timedelta(hours=-1), True),  # it was put back: the session would last for two hours
    ],
)
def test_the_clock_ends_it(passed: timedelta, over: bool) -> None:
    assert breakglass.is_over(make.session(), make.NOW + passed) is over


@pytest.mark.parametrize("want", [TWO, None], ids=["known", "no commit known"])
def test_it_ends_on_time_with_the_runner_away_and_a_job_in_flight(want: Desired | None) -> None:
    one = Running(want)
    one.begin(one.record(), make.dispatched())
    session = make.session(until=make.NOW + timedelta(seconds=3))
    one.store.append(BreakGlassOpened(session))
    one.runner.broken = {"describe", "poll", "cancel"}
    due = one.tick()
    assert due is not None
    assert due == session.until < make.NOW + ASK_AGAIN
    assert one.store.ledger().sessions == (session,)
    one.clock.time = due
    one.tick()
    assert one.store.ledger().sessions == ()
    assert BreakGlassClosed(session, due, "clock") in one.store.events
    assert "session of prod ended" in one.watcher.told
    assert one.record().aftermath == Aftermath(session, due, JobId("job-1"))


def test_the_next_daemon_ends_what_the_last_one_could_not() -> None:
    """Whatever ended it: a kill, or another daemon that leads now. All that it needs is in the store."""
    session = make.session(until=make.NOW)
    asked = make.dispatched()
    one = Running(ONE)
    one.store.append(JobEnded(asked, make.result(asked, applied=APPLIED), None, None), BreakGlassOpened(session))
    one.diary.clear()
    one.tick()
    assert one.store.ledger().sessions == ()
    assert one.diary[:1] == ["BreakGlassClosed"]
    assert not any(isinstance(event, JobDispatched) and _applies(event.dispatched) for event in one.store.events)


def _applies(dispatched: Dispatched) -> bool:
    return dispatched.job.operation is Operation.APPLY


def test_the_loop_wakes_for_its_end() -> None:
    ledger = replace(ORDERLY, sessions=(make.session(until=make.NOW + timedelta(minutes=1)),))
    assert next_due(world(ledger=ledger)) == make.NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("scope", "cancelled"), [("prod", True), ("prod/net", True), ("dev", False)], ids=["over it", "itself", "elsewhere"]
)
def test_a_job_that_has_not_begun_its_apply_does_not_begin_it(scope: str, cancelled: bool) -> None:
    one = Running(ONE)
    one.begin(one.record(), make.dispatched())
    one.store.append(BreakGlassOpened(make.session(scope)))
    one.tick()
    one.tick()
    assert one.diary.count("cancel job-1") == cancelled


def test_one_that_ran_through_a_whole_session_between_two_ticks_does_not_either() -> None:
    one = Running(ONE)
    one.begin(one.record(), make.dispatched())
    session = make.session()
    one.store.append(BreakGlassOpened(session), BreakGlassClosed(session, make.NOW, "ann"))
    one.tick()
    assert "cancel job-1" in one.diary


# --- what it leaves


def closed(record: UnitRecord, session: str = "prod") -> UnitRecord | None:
    ledger = Ledger(units={record.unit: record}, sessions=(make.session(session),))
    delta = project(ledger, [BreakGlassClosed(make.session(session), make.NOW, "clock")])
    assert delta.sessions == {session: None}
    return delta.units.get(record.unit)


def test_what_is_there_is_looked_at_at_once() -> None:
    later = make.NOW + make.HOUR
    found = closed(UnitRecord(NET, applied=APPLIED, next_check=later, failure=make.failure(make.fingerprint())))
    assert found is not None
    assert found.aftermath == Aftermath(make.session(), make.NOW)
    assert found.next_check == make.NOW
    assert found.failure is not None
    assert found.failure.retry_at == make.NOW


@pytest.mark.parametrize(
    ("record", "left"),
    [
        (UnitRecord(NET, failure=make.failure(make.fingerprint())), False),
        (UnitRecord(NET, unfinished=frozenset()), True),
        (UnitRecord(NET, job=make.dispatched()), True),
        (UnitRecord(NET, job=make.dispatched(operation=Operation.PLAN)), False),
        (UnitRecord(NET, applied=replace(APPLIED, presence=Presence.ABSENT)), False),  # type: ignore[type-var]
        (UnitRecord(UnitId("dev/net"), applied=APPLIED), False),
    ],
    ids=["nothing is there", "half done", "an apply runs", "a plan runs", "destroyed", "elsewhere"],
)
def test_what_may_have_been_changed(record: UnitRecord, left: bool) -> None:
    found = closed(record)
    assert (found is not None and found.aftermath is not None) is left


def test_another_session_of_the_scope_goes_on() -> None:
    second = replace(make.session(), owner="bob")
    delta = project(Ledger(sessions=(second,)), [BreakGlassClosed(make.session(), make.NOW, "clock")])
    assert delta.sessions == {}


def test_what_a_restored_store_has_forgotten_is_looked_at_too() -> None:
    delta = project(Ledger(), [BreakGlassClosed(make.session(), make.NOW, "restore", (NET,))])
    assert delta.units == {NET: UnitRecord(NET, aftermath=MARK_AT_END)}


MARK_AT_END = Aftermath(make.session(), make.NOW)


@pytest.mark.parametrize(
    ("changes", "jobs"),
    [
        ({}, [(Operation.PLAN, Cause.DRIFT)]),
        ({"failure": make.failure(make.fingerprint("old"))}, [(Operation.PLAN, Cause.DRIFT)]),
        ({"applied": replace(APPLIED, fingerprint=make.fingerprint("old"))}, [(Operation.PLAN, Cause.DESIRED)]),  # type: ignore[type-var]
    ],
    ids=["in order", "failed before", "a merge waits"],
)
def test_it_is_planned_before_anything_is_applied(changes: dict[str, Any], jobs: list[object]) -> None:
    assert decided(marked(**changes)) == (jobs, "AfterBreakGlass")


def test_what_was_planned_during_the_session_proves_nothing() -> None:
    fingerprint = expected(ONE, ORDERLY, FACTS)[NET]
    assert fingerprint is not None
    planned = Planned(JobId("j"), fingerprint, Cause.DRIFT, CHANGES, make.NOW)
    assert decided(marked(planned=planned))[0] == [(Operation.PLAN, Cause.DRIFT)]
    looked = replace(MARK, looked=True)
    assert decided(marked(looked, planned=planned)) == ([], "AfterBreakGlass")
    assert decided(marked(looked, planned=planned), now=make.HOUR)[0] == [(Operation.PLAN, Cause.DRIFT)]
    waits = replace(planned, fingerprint=make.fingerprint("older"))
    assert decided(marked(looked, planned=waits))[0] == [(Operation.PLAN, Cause.DRIFT)]  # something was merged since


def test_a_merge_that_waits_is_looked_at_again_at_the_next_check() -> None:
    old = replace(APPLIED, fingerprint=make.fingerprint("old"))  # type: ignore[type-var]
    fingerprint = expected(ONE, ORDERLY, FACTS)[NET]
    assert fingerprint is not None
    planned = Planned(JobId("j"), fingerprint, Cause.DESIRED, CHANGES, make.NOW)
    ledger = marked(replace(MARK, looked=True), applied=old, planned=planned)
    assert decided(ledger)[0] == []
    assert decided(ledger, now=make.HOUR)[0] == [(Operation.PLAN, Cause.DESIRED)]
    asked = make.dispatched(operation=Operation.PLAN)
    record = replace(ledger.units[NET], job=asked, next_check=make.NOW)
    at = schedule(ONE.units[NET], record, make.result(asked, plan=CHANGES, fingerprint=asked.fingerprint)).next_check
    assert at is not None
    assert at > make.NOW + make.HOUR / 2  # and not over and over until then


def test_where_drift_is_only_reported_it_is_held_as_well() -> None:
    want = make.desired(make.entry("prod/net"), environments=[make.environment(drift=DriftMode.REPORT)])
    assert decided(marked(want=want), want) == ([(Operation.PLAN, Cause.DRIFT)], "AfterBreakGlass")
    assert decided(marked(None, want=want), want) == ([], None)


def said(result: Result, mark: Aftermath | None = MARK, **changes: object) -> Aftermath | None:
    record = UnitRecord(NET, applied=APPLIED, aftermath=mark, **changes)  # type: ignore[arg-type]
    return after(record, JobEnded(make.dispatched(), result, None, None)).aftermath


ASKED = make.dispatched()
LOOKED = replace(MARK, looked=True)
GONE = replace(APPLIED, presence=Presence.ABSENT)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("mark", "result", "left"),
    [
        (MARK, make.result(ASKED, applied=APPLIED), None),
        (MARK, make.result(ASKED, plan=NOTHING), None),
        (MARK, make.result(ASKED, plan=make.plan(make.change("data.a", "read"), outputs_changed=True)), None),
        (MARK, make.result(ASKED, plan=replace(NOTHING, more=1)), LOOKED),
        (MARK, make.result(ASKED, plan=CHANGES), LOOKED),
        (MARK, make.result(ASKED, Outcome.HELD, plan=CHANGES), LOOKED),
        (MARK, make.result(ASKED, Outcome.FAILED, plan=NOTHING), LOOKED),
        (MARK, make.result(ASKED, plan=SHOWN_ONLY), LOOKED),
        (MARK, make.result(ASKED, Outcome.FAILED), MARK),
        (LOOKED, make.result(ASKED, plan=NOTHING), None),
        (replace(MARK, accepted=True), make.result(ASKED, plan=CHANGES), None),
        (replace(MARK, accepted=True), make.result(ASKED, Outcome.FAILED), replace(MARK, accepted=True)),
        (replace(MARK, job=ASKED.job.id), make.result(ASKED, applied=APPLIED), replace(MARK, job=ASKED.job.id)),
        (replace(MARK, job=ASKED.job.id), make.result(ASKED, applied=GONE), None),
        (None, make.result(ASKED, plan=CHANGES), None),
    ],
)
def test_what_ends_it(mark: Aftermath | None, result: Result, left: Aftermath | None) -> None:
    assert said(result, mark) == left


def test_it_moves_with_the_state_and_is_looked_at_there() -> None:
    new = UnitId("prod/new")
    asked = make.dispatched("prod/new")
    ledger = Ledger(units={NET: UnitRecord(NET, applied=APPLIED, aftermath=LOOKED)})
    delta = project(ledger, [JobEnded(asked, make.result(asked, applied=APPLIED, moved_from=NET), None, None)])
    record = delta.units[new]
    assert record is not None
    assert record.aftermath == replace(MARK, job=asked.job.id)


def test_given_up_it_is_let_through_once_it_was_looked_at() -> None:
    units = {NET: UnitRecord(NET, aftermath=MARK), UnitId("prod/a"): UnitRecord(UnitId("prod/a"), aftermath=LOOKED)}
    names = (NET, UnitId("prod/a"), UnitId("prod/none"))
    delta = project(Ledger(units=units), [LossAccepted("prod", "it was a test", "ann", names)])
    assert delta.units == {NET: UnitRecord(NET, aftermath=replace(MARK, accepted=True)), UnitId("prod/a"): None}
    ledger = marked(replace(MARK, accepted=True))
    assert decided(ledger) == ([(Operation.PLAN, Cause.DRIFT)], "AfterBreakGlass")
    drifting = marked(None, drift_since=make.NOW)
    assert decided(drifting) == ([(Operation.APPLY, Cause.DRIFT)], None)


def test_the_hold_says_what_to_do_next() -> None:
    began = "AfterBreakGlass: ann's break-glass session of prod ended at 2026-11-24 10:00 UTC (the site is down)"
    assert gate(world(ledger=marked())) == (
        f"{began}; no plan since then has come to its end, and nothing is applied before one has."
    )
    accept = "`reconciler break-glass close prod/net --accept-loss --reason R` lets the next apply put it back."
    assert gate(world(ledger=marked(LOOKED))) == (
        f"{began}, and the unit is not in sync since (`reconciler diff prod/net`): merge what was done by hand, or put it back and "
        f"run `reconciler reconcile prod/net`; or {accept}"
    )
    want = make.desired(make.entry("prod/net", presence=Presence.ABSENT))
    assert gate(world(want, marked(LOOKED))) == f"{began}, and an entry that goes is never in sync: {accept}"


def test_it_is_what_the_status_shows_whatever_failed_besides() -> None:
    [held] = [one.hold for one in decide(world(ledger=marked(LOOKED)), PLENTY) if isinstance(one, Held)]
    record = replace(marked(LOOKED).units[NET], hold=held, failure=make.failure(make.fingerprint()))
    found = unit_status(NET, ONE, record, expected(ONE, ORDERLY, FACTS)[NET], (), now=make.NOW)
    assert (found.health, found.reason, found.held) == (Health.DEGRADED, "AfterBreakGlass", True)

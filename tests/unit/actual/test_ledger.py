"""What each event makes of a unit's record."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from reconciler.actual.ledger import (
    DIED,
    QUARANTINED,
    QUARANTINED_AFTER,
    CheckScheduled,
    HoldChanged,
    JobDispatched,
    JobEnded,
    UnitEvent,
    after,
    applied_reads,
    deaths,
    is_pausing,
    reads_now,
    take_over,
    unit_of,
)
from reconciler.model import (
    Cause,
    Dispatched,
    Hold,
    JobId,
    Ledger,
    Operation,
    Outcome,
    Planned,
    Presence,
    StateMark,
    Stray,
    Unexplained,
    UnitId,
    UnitRecord,
)
from reconciler.store.projection import project
from tests.kit import facts as make

NET = UnitId("prod/net")
JOB = JobId("job-1")
HOLD = Hold("Paused", "m", plans=True)
APPLIED = make.applied(make.unit("prod/net", reads=["prod/dns"]), make.fingerprint())
LATER = make.NOW + timedelta(hours=2)
SOME = make.plan(make.change("a"))


def ended(
    asked: Dispatched, outcome: Outcome = Outcome.SUCCEEDED, retry_at: datetime | None = None, **words: object
) -> JobEnded:
    return JobEnded(asked, make.result(asked, outcome, **words), retry_at, LATER)


def test_the_unit_of_an_event() -> None:
    asked = make.dispatched()
    events: list[UnitEvent] = [JobDispatched(asked), ended(asked), HoldChanged(NET, None), CheckScheduled(NET, LATER)]
    assert [unit_of(event) for event in events] == [NET] * 4


@pytest.mark.parametrize(("operation", "hold"), [(Operation.APPLY, None), (Operation.PLAN, HOLD)])
def test_an_apply_ends_the_hold_and_a_plan_does_not(operation: Operation, hold: Hold | None) -> None:
    asked = make.dispatched(operation=operation)
    record = after(UnitRecord(NET, hold=HOLD), JobDispatched(asked))
    assert record == UnitRecord(NET, job=asked, hold=hold)


def test_a_hold_and_a_check_are_set() -> None:
    record = after(after(UnitRecord(NET), HoldChanged(NET, HOLD)), CheckScheduled(NET, LATER))
    assert record == UnitRecord(NET, hold=HOLD, next_check=LATER)


def test_a_success_leaves_what_was_applied() -> None:
    asked = make.dispatched()
    before = UnitRecord(
        NET, job=asked, failure=make.failure(make.fingerprint()), drift_since=make.NOW, unfinished=frozenset({NET})
    )
    assert after(before, ended(asked, applied=APPLIED)) == UnitRecord(
        NET, applied=APPLIED, next_check=LATER, steady_since=make.NOW + timedelta(minutes=1)
    )


def test_a_failure_keeps_what_was_applied_and_counts() -> None:
    asked = make.dispatched()
    record = UnitRecord(NET, applied=APPLIED, job=asked)
    for count in (1, 2):
        record = after(record, ended(asked, Outcome.FAILED, LATER))
        assert record.failure is not None
        assert (record.failure.count, record.failure.reason, record.failure.retry_at) == (count, "Because", LATER)
        assert record.applied == APPLIED


@pytest.mark.parametrize(
    "asked", [make.dispatched(fp=make.fingerprint("b")), make.dispatched(judged_by="another policy")], ids=str
)
def test_a_failure_of_something_else_counts_from_one(asked: Dispatched) -> None:
    record = UnitRecord(NET, failure=make.failure(make.fingerprint(), count=5))
    new = after(record, ended(asked, Outcome.HELD, LATER)).failure
    assert new is not None
    assert (new.count, new.fingerprint, new.policy) == (1, asked.fingerprint, asked.policy)


def test_a_failure_without_a_time_waits_for_new_input() -> None:
    failure = after(UnitRecord(NET), ended(make.dispatched(), Outcome.FAILED)).failure
    assert failure is not None
    assert failure.retry_at is None
    assert failure.waits(LATER + timedelta(days=3650))


@pytest.mark.parametrize("why", sorted(DIED))
def test_a_unit_whose_jobs_die_in_a_row_is_quarantined(why: str) -> None:
    asked = make.dispatched()
    record = UnitRecord(NET, job=asked)
    said = []
    for _ in range(QUARANTINED_AFTER):
        record = after(record, ended(asked, Outcome.FAILED, LATER, reason=why))
        assert record.failure is not None
        said.append((record.failure.reason, record.failure.deaths))
    assert said == [*((why, n) for n in range(1, QUARANTINED_AFTER)), (QUARANTINED, QUARANTINED_AFTER)]


def test_a_death_after_a_word_of_its_own_or_of_other_input_is_the_first() -> None:
    asked = make.dispatched()
    died, failed = (make.result(asked, Outcome.FAILED, reason=why) for why in ("JobDied", "ApplyFailed"))
    record = UnitRecord(NET, job=asked, failure=replace(make.failure(asked.fingerprint), deaths=2))
    assert deaths(record, asked, died) == 3
    assert deaths(record, asked, failed) == 0
    assert deaths(record, make.dispatched(judged_by="looser"), died) == 1
    assert deaths(record, make.dispatched(fp=make.fingerprint("new")), died) == 1
    assert deaths(UnitRecord(NET), asked, died) == deaths(record, None, died) == 1


def test_a_success_of_something_else_is_tried_again_and_says_why() -> None:
    other = replace(APPLIED, fingerprint=make.fingerprint("newer"))
    record = after(UnitRecord(NET), ended(make.dispatched(), retry_at=LATER, applied=other))
    assert record.applied == other
    assert record.failure is not None
    assert (record.failure.reason, record.failure.outcome) == ("Superseded", Outcome.SUCCEEDED)
    assert "newer commit" in record.failure.message


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"fingerprint": make.fingerprint(), "plan": SOME}, Cause.DESIRED),
        ({"fingerprint": make.fingerprint(), "plan": SOME, "cause": Cause.UPSTREAM}, Cause.UPSTREAM),
        ({"plan": SOME}, None),
        ({"fingerprint": make.fingerprint()}, None),
    ],
)
def test_the_last_plan_is_kept(told: dict[str, object], expected: Cause | None) -> None:
    asked = make.dispatched()
    event = ended(asked, Outcome.HELD, LATER, **told)
    planned = after(UnitRecord(NET), event).planned
    want = expected and Planned(asked.job.id, make.fingerprint(), expected, SOME, event.result.ended_at)
    assert planned == want


def test_a_plan_outlives_jobs_without_one() -> None:
    asked = make.dispatched()
    record = after(UnitRecord(NET), ended(asked, Outcome.HELD, LATER, fingerprint=make.fingerprint(), plan=SOME))
    assert after(record, ended(asked, Outcome.FAILED, LATER)).planned == record.planned


ENDED_AT = make.NOW + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("before", "told", "expected"),
    [
        (None, {"cause": Cause.DRIFT, "plan": SOME}, ENDED_AT),
        (make.NOW, {"cause": Cause.DRIFT, "plan": SOME}, make.NOW),
        (make.NOW, {"cause": Cause.DRIFT, "plan": make.plan()}, None),
        (make.NOW, {"cause": Cause.DESIRED, "plan": SOME}, make.NOW),
        (make.NOW, {"cause": Cause.DRIFT}, make.NOW),
        (None, {"cause": Cause.DESIRED, "plan": SOME}, None),
        (make.NOW, {"cause": Cause.DRIFT, "plan": SOME, "applied": APPLIED}, None),
    ],
)
def test_when_drift_opens_and_closes(
    before: datetime | None, told: dict[str, object], expected: datetime | None
) -> None:
    assert (
        after(
            UnitRecord(NET, drift_since=before), ended(make.dispatched(), Outcome.SUCCEEDED, None, **told)
        ).drift_since
        == expected
    )


DNS, HUB = UnitId("prod/dns"), UnitId("prod/hub")


@pytest.mark.parametrize(
    ("operation", "outcome", "told", "expected"),
    [
        (Operation.APPLY, Outcome.FAILED, {"plan": SOME}, frozenset({DNS, HUB})),
        (Operation.APPLY, Outcome.UNCERTAIN, {}, frozenset({DNS, HUB})),
        (Operation.APPLY, Outcome.FAILED, {}, frozenset({HUB})),
        (Operation.APPLY, Outcome.HELD, {"plan": SOME}, frozenset({HUB})),
        (Operation.APPLY, Outcome.SUPERSEDED, {"plan": SOME}, frozenset({HUB})),
        (Operation.PLAN, Outcome.FAILED, {"plan": SOME}, frozenset({HUB})),
        (Operation.PLAN, Outcome.SUCCEEDED, {"plan": SOME}, frozenset({HUB})),
        (Operation.APPLY, Outcome.SUCCEEDED, {"applied": APPLIED}, None),
    ],
)
def test_an_apply_that_may_have_begun_is_unfinished_until_a_success(
    operation: Operation, outcome: Outcome, told: dict[str, object], expected: frozenset[UnitId] | None
) -> None:
    asked = make.dispatched(operation=operation, reads=["prod/dns"])
    record = after(UnitRecord(NET, unfinished=frozenset({HUB})), ended(asked, outcome, LATER, **told))
    assert record.unfinished == expected


def test_an_apply_that_reads_nothing_is_unfinished_all_the_same() -> None:
    record = after(UnitRecord(NET), ended(make.dispatched(), Outcome.UNCERTAIN, LATER))
    assert record.unfinished == frozenset()


@pytest.mark.parametrize(
    ("scope", "until", "expected"),
    [
        ("all", LATER, True),
        ("prod", LATER, True),
        ("prod/net", LATER, True),
        ("pro", LATER, False),
        ("stage", LATER, False),
        ("prod/net/more", LATER, False),
        ("all", make.NOW, False),
    ],
)
def test_what_a_pause_covers(scope: str, until: datetime, expected: bool) -> None:
    assert is_pausing(make.pause(scope, until), NET, make.NOW) is expected


def test_what_a_unit_is_built_on() -> None:
    gone = replace(APPLIED, presence=Presence.ABSENT)
    job = make.dispatched(reads=["prod/job"])
    record = UnitRecord(NET, applied=APPLIED, unfinished=frozenset({HUB}), job=job)
    assert applied_reads(UnitRecord(NET)) == frozenset()
    assert applied_reads(UnitRecord(NET, applied=gone)) == frozenset()
    assert applied_reads(record) == {DNS}
    assert reads_now(record) == frozenset({DNS, HUB, UnitId("prod/job")})
    assert reads_now(UnitRecord(NET)) == frozenset()


def test_a_moved_unit_takes_over_what_stood_for_the_old_one() -> None:
    old = UnitRecord(UnitId("prod/old"), applied=APPLIED, unfinished=frozenset({DNS}), drift_since=make.NOW, hold=HOLD)
    new = UnitRecord(NET, unfinished=frozenset({HUB}), next_check=LATER)
    expected = replace(new, applied=APPLIED, unfinished=frozenset({DNS, HUB}), drift_since=make.NOW)
    assert take_over(new, old, JOB) == expected
    assert take_over(new, replace(old, unfinished=None), JOB) == replace(expected, unfinished=frozenset({HUB}))
    assert take_over(UnitRecord(NET), old, JOB).unfinished == frozenset({DNS})


def test_a_unit_with_a_state_of_its_own_takes_over_nothing() -> None:
    own = UnitRecord(NET, applied=APPLIED)
    assert take_over(own, UnitRecord(UnitId("prod/old"), unfinished=frozenset({DNS})), JOB) == own


def test_a_move_is_projected_even_where_its_job_then_failed() -> None:
    old = UnitRecord(DNS, applied=APPLIED)
    event = ended(make.dispatched(), Outcome.FAILED, LATER, moved_from=DNS)
    delta = project(Ledger(units={DNS: old}), [event])
    record = delta.units[NET]
    assert record is not None
    assert (record.applied, delta.units[DNS]) == (APPLIED, None)


ALARM = Unexplained(StateMark("lineage", 4), StateMark("lineage", 2))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, ALARM),
        (StateMark("lineage", 4), ALARM),  # a plan found it in order: the state is still somebody else's
        (StateMark("lineage", 5), None),
        (StateMark("another", 1), None),
    ],
)
def test_an_alarm_lasts_until_a_job_of_ours_makes_the_next_state(
    state: StateMark | None, expected: Unexplained | None
) -> None:
    asked = make.dispatched()
    record = after(UnitRecord(NET), ended(asked, Outcome.HELD, LATER, unexplained=ALARM))
    assert record.unexplained == ALARM
    settled = replace(APPLIED, state=state) if state else None
    assert after(record, ended(asked, Outcome.SUCCEEDED, LATER, applied=settled)).unexplained == expected


def test_an_alarm_moves_with_the_state() -> None:
    old = UnitRecord(UnitId("prod/old"), applied=APPLIED, unexplained=ALARM)
    assert take_over(UnitRecord(NET), old, JOB).unexplained == ALARM


def test_what_may_be_there_without_a_state_is_known_until_a_job_looked_and_moves_with_the_unit() -> None:
    asked, stray = make.dispatched(), Stray("aws_vpc", id="arn")
    record = after(UnitRecord(NET), ended(asked, Outcome.HELD, LATER, strays=(stray,)))
    assert record.strays == (stray,)
    assert after(record, ended(asked, Outcome.FAILED, LATER)).strays == (stray,)
    assert after(record, ended(asked, Outcome.SUCCEEDED, LATER, strays=())).strays == ()
    assert take_over(UnitRecord(NET), replace(record, applied=APPLIED), JOB).strays == (stray,)

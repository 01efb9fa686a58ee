"""What waits for what: the table, and how often each kind is tried."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler import codec
from reconciler.actual.ledger import JobEnded, ReconcileRequested, after
from reconciler.deciding.gates import policy
from reconciler.deciding.schedule import FIRST_RETRY, LAST_RETRY, LONGEST_REST, RETRY_JITTER, schedule, sooner
from reconciler.deciding.waits import TABLE, Waits, waits
from reconciler.model import Failure, Ledger, Outcome, Result, UnitId, UnitRecord
from reconciler.store.projection import project
from tests.kit import facts as make

NET = UnitId("prod/net")
UNIT = make.desired(make.entry("prod/net")).units[NET]
FP = make.fingerprint()
ASKED = make.dispatched(NET, FP, judged_by=policy(UNIT))
OF_INPUT = sorted(reason for reason, (kind, _) in TABLE.items() if kind is Waits.INPUT)
OF_A_LOOK = sorted(reason for reason, (kind, _) in TABLE.items() if kind is Waits.LOOK)
# What providers, hosts, forges and networks say, and what nobody has heard of yet.
OF_TIME = ["ApplyFailed", "InitFailed", "StateLocked", "CredentialsRefused", "HostFault", "NotAllowed", "Invented"]


def refused(reason: str, *, transient: bool = False, outcome: Outcome = Outcome.FAILED) -> Result:
    return make.result(ASKED, outcome, reason=reason, transient=transient)


@pytest.mark.parametrize("reason", OF_INPUT)
def test_what_is_of_the_input_waits_for_it_unless_it_may_pass(reason: str) -> None:
    assert waits(refused(reason)) is Waits.INPUT
    assert waits(refused(reason, transient=True)) is Waits.TIME
    assert waits(refused(reason, outcome=Outcome.UNCERTAIN)) is Waits.TIME


@pytest.mark.parametrize("reason", OF_TIME)
def test_what_nobody_has_proven_to_be_of_the_input_is_tried_by_the_clock(reason: str) -> None:
    assert waits(refused(reason)) is Waits.TIME
    assert waits(refused(reason, outcome=Outcome.HELD, transient=True)) is Waits.TIME


@pytest.mark.parametrize("reason", OF_A_LOOK)
def test_what_the_real_world_may_lift_waits_for_a_look(reason: str) -> None:
    result = refused(reason, outcome=Outcome.HELD, transient=True)
    at = schedule(UNIT, UnitRecord(NET, job=ASKED), result).retry_at
    assert at is not None
    assert abs(at - result.ended_at - UNIT.environment.drift_interval) <= UNIT.environment.drift_interval / 10
    orphan = schedule(None, UnitRecord(NET, job=ASKED), result).retry_at
    assert orphan == result.ended_at + sooner(FIRST_RETRY, NET, result.ended_at)


def test_a_refusal_of_other_input_than_was_asked_for_is_looked_at_again() -> None:
    result = refused("InputInvalid")
    record = UnitRecord(NET, job=ASKED)
    assert schedule(UNIT, record, result).retry_at is None
    assert schedule(UNIT, record, replace(result, fingerprint=FP)).retry_at is None
    assert schedule(UNIT, record, replace(result, fingerprint=make.fingerprint("newer"))).retry_at is not None
    assert schedule(UNIT, UnitRecord(NET), result).retry_at is not None


def test_what_this_input_has_passed_before_is_no_matter_of_the_input() -> None:
    record = UnitRecord(NET, job=ASKED, applied=make.applied(UNIT, FP))
    assert schedule(UNIT, record, refused("InputInvalid")).retry_at is not None
    other = replace(record, applied=make.applied(UNIT, make.fingerprint("older")))
    assert schedule(UNIT, other, refused("InputInvalid")).retry_at is None


@pytest.mark.parametrize("reason", ["EngineTimeout", "JobTimeout"])
@pytest.mark.parametrize("minutes", [0, 1, 15, 600])
def test_what_does_not_end_in_time_has_a_quarter_of_a_slot_at_most(reason: str, minutes: int) -> None:
    result = replace(refused(reason, transient=True), ended_at=make.NOW + timedelta(minutes=minutes))
    at = schedule(UNIT, UnitRecord(NET, job=ASKED), result).retry_at
    assert at is not None
    least = min(timedelta(minutes=3 * minutes), LONGEST_REST / 2)
    assert at - result.ended_at >= max(least, FIRST_RETRY / 2)
    assert at - result.ended_at <= max(LONGEST_REST, FIRST_RETRY)


# --- how often


def lives(reason: str, outcome: Outcome, *, transient: bool, until: datetime, seconds: int = 1) -> Iterator[datetime]:
    """When jobs of one unit begin whose input never changes, and which always end so; a job takes `seconds`."""
    record, now = UnitRecord(NET), make.NOW
    while now < until:
        yield now
        asked = replace(ASKED, at=now)
        record = replace(record, job=asked)
        ended = now + timedelta(seconds=seconds)
        result = Result(asked.job, outcome, reason, "no", now, ended, transient=transient)
        plan = schedule(UNIT, record, result)
        record = after(record, JobEnded(asked, result, plan.retry_at, plan.next_check))
        if plan.retry_at is None and record.failure is not None:
            return
        now = plan.retry_at or until


@given(
    reason=st.sampled_from([*OF_TIME, *OF_A_LOOK, "EngineTimeout", "UncertainApply", "Superseded"]),
    outcome=st.sampled_from([Outcome.FAILED, Outcome.HELD, Outcome.UNCERTAIN, Outcome.SUPERSEDED]),
    seconds=st.integers(0, 900),
)
def test_no_unit_storms(reason: str, outcome: Outcome, seconds: int) -> None:
    """At most 13 tries in the first hour, and 4 in every hour after 2 hours: whatever happens, however long it takes."""
    hour = timedelta(hours=1)
    began = [*lives(reason, outcome, transient=True, until=make.NOW + 12 * hour, seconds=seconds)]
    per_hour = [sum(1 for at in began if n * hour <= at - make.NOW < (n + 1) * hour) for n in range(12)]
    assert per_hour[0] <= 13
    assert max(per_hour[2:]) <= 4
    assert sum(per_hour[2:]) > 0  # and it is never forgotten


@given(reason=st.sampled_from(OF_INPUT), seconds=st.integers(0, 900))
def test_what_is_of_the_input_has_one_try_for_each(reason: str, seconds: int) -> None:
    until = make.NOW + timedelta(days=30)
    assert [*lives(reason, Outcome.FAILED, transient=False, until=until, seconds=seconds)] == [make.NOW]


@given(reason=st.sampled_from(["JobDied", "InternalError"]))
def test_what_dies_has_three_tries(reason: str) -> None:
    assert len([*lives(reason, Outcome.FAILED, transient=True, until=make.NOW + timedelta(days=30))]) == 3


def test_a_thousand_units_do_not_come_back_in_the_same_second() -> None:
    for wait in (FIRST_RETRY, timedelta(minutes=1), LAST_RETRY):
        whens = [sooner(wait, UnitId(f"prod/u{n}"), make.NOW) for n in range(1000)]
        assert all(wait * (1 - RETRY_JITTER) <= one <= wait for one in whens)
        seconds = [int(one.total_seconds()) for one in whens]
        assert max(map(seconds.count, set(seconds))) <= max(2 * 1000 / (wait * RETRY_JITTER).total_seconds(), 10)


# --- what is on disk


def test_a_failure_of_before_is_read_and_one_of_now_comes_back() -> None:
    old = make.failure(FP)
    text = codec.encode(old).replace(b'"deaths":0,', b"")
    assert b"deaths" not in text
    assert codec.decode(Failure, text) == old
    assert codec.decode(Failure, codec.encode(replace(old, retry_at=None, deaths=2))) == replace(
        old, retry_at=None, deaths=2
    )


def test_an_admin_who_asks_ends_the_wait() -> None:
    record = after(UnitRecord(NET, job=ASKED), JobEnded(ASKED, refused("InputInvalid"), None, None))
    assert record.failure is not None
    assert record.failure.waits(make.NOW + timedelta(days=3650))
    asked = project(Ledger(units={NET: record}), [ReconcileRequested("prod/net", "ann", (NET,), make.NOW)]).units[NET]
    assert asked is not None
    assert asked.failure is not None
    assert not asked.failure.waits(make.NOW)

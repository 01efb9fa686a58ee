"""What the store asks of DynamoDB: docs/operations.md counts money by these numbers."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.actual.ledger import HeadAccepted, JobDispatched, JobEnded
from reconciler.model import (
    Applied,
    Cause,
    Change,
    Commit,
    Dispatched,
    Fingerprint,
    Job,
    JobId,
    Operation,
    Outcome,
    PlanSummary,
    Presence,
    Result,
    StateMark,
    UnitId,
)
from reconciler.store.dynamodb.store import DynamoStore
from tests.kit.dynamo import Counting, FakeTable

NOW = datetime(2026, 11, 25, tzinfo=UTC)
HEAD = Commit("4b1d" * 10)
DIGEST = "sha256:" + "0" * 64
OPERATIONS = Path(__file__).parents[4] / "docs" / "operations.md"


class Clock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def table() -> Counting:
    return Counting(FakeTable())


@pytest.fixture
def store(table: Counting) -> DynamoStore:
    opened = DynamoStore(table, "dynamodb:t", Clock())
    table.requests.clear()
    table.units.clear()
    return opened


def job(number: int, objects: int) -> tuple[JobDispatched, JobEnded]:
    """A job that applies, with texts as long as real ones."""
    unit = UnitId(f"prod/service-web-{number:05d}")
    asked = Dispatched(
        Job(JobId(f"20261125T101500-{number:010x}"), Operation.APPLY, unit, HEAD, 7),
        Fingerprint(DIGEST, DIGEST, DIGEST, DIGEST),
        DIGEST,
        Cause.DESIRED,
        NOW,
        frozenset({UnitId("prod/network")}),
    )
    applied = Applied(
        job=asked.job.id, commit=HEAD, at=NOW, fingerprint=asked.fingerprint, module="acme/service", version="1.4.2",
        presence=Presence.PRESENT, reads=frozenset({UnitId("prod/network")}),
        outputs={f"output_{n}": "hmac:" + "0" * 64 for n in range(6)},
        state=StateMark("3f2b8a44-0c7f-4a53-9f43-2c5a7f9f2d10", 42),
    )  # fmt: skip
    changes = tuple(
        Change(f"aws_security_group_rule.this[{n}]", "aws_security_group_rule", ("update",)) for n in range(objects)
    )
    result = Result(
        asked.job, Outcome.SUCCEEDED, "Applied", f"{objects} changed", NOW, NOW + timedelta(seconds=40),
        fingerprint=asked.fingerprint, plan=PlanSummary(changes, (), False, "hmac:" + "0" * 64), applied=applied,
    )  # fmt: skip
    return JobDispatched(asked), JobEnded(asked, result, None, NOW + timedelta(hours=1))


@pytest.mark.parametrize("objects", [0, 5])
def test_a_job_is_two_requests(objects: int, table: Counting, store: DynamoStore) -> None:
    for event in job(1, objects):
        store.append(event)
    assert table.requests == Counter(TransactWriteItems=2)
    assert table.units == Counter(write=16)
    assert "| a job, also a look that finds nothing to do | 2 | 16 write |" in OPERATIONS.read_text(encoding="utf-8")


def test_a_merge_is_one_request(table: Counting, store: DynamoStore) -> None:
    store.append(HeadAccepted(HEAD, (HEAD,)), actor="poller")
    assert table.requests == Counter(TransactWriteItems=1)
    assert table.units == Counter(write=4)


def test_a_renewal_is_one_unit_and_a_pass_without_events_none(table: Counting, store: DynamoStore) -> None:
    store.renew()
    store.check()
    store.ledger()
    store.append()
    store.accepted(HEAD)
    assert (table.requests, table.units) == (Counter(UpdateItem=1), Counter(write=1))


def test_a_look_of_a_standby_is_one_unit(table: Counting, store: DynamoStore) -> None:
    standby = DynamoStore(table, "dynamodb:t", Clock(), lead=False)
    assert standby.acquire() is None
    standby.term()
    assert (table.requests, table.units) == (Counter(GetItem=1), Counter(read=1))


def test_snapshots_are_a_small_part_of_what_is_written(table: Counting, store: DynamoStore) -> None:
    jobs = 700
    for number in range(jobs):
        store.append(*job(number % 250, objects=5))
    assert table.requests["PutItem"] == 2, "snapshots"
    assert table.units["write"] < jobs * 16
    assert table.requests["TransactWriteItems"] == jobs
    ledger = store.ledger()
    store.close()
    table.requests.clear()
    table.units.clear()
    again = DynamoStore(table, "dynamodb:t", Clock())
    assert again.ledger() == ledger
    assert table.units["read"] < 1200

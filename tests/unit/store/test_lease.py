from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler import replacing
from reconciler.actual.ledger import HoldChanged
from reconciler.durable import FileLock
from reconciler.errors import PassError
from reconciler.model import Hold, UnitId
from reconciler.store.lease import LEASE_LOST, STANDBY, Steady
from reconciler.store.sqlite import SqliteStore, copy_store, lock_of

UNIT = UnitId("prod/network")
TTL = 10.0


@dataclass
class Clock(Steady):
    """One for all: what differs between hosts is in tests/scenario/test_lease.py."""

    awake: float = 0.0
    asleep: float = 0.0

    def holding(self) -> float:
        return self.awake + self.asleep

    def waiting(self) -> float:
        return self.awake

    def now(self) -> datetime:
        return datetime(2026, 11, 25, tzinfo=UTC)


Open = Callable[[], SqliteStore]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    stores: list[SqliteStore] = []

    def make() -> SqliteStore:
        stores.append(SqliteStore(tmp_path / "s.db", clock, ttl=TTL, patience=0, lead=False, steady=clock))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def die(store: SqliteStore) -> None:
    """As the system ends a process: nothing is given back but what the system gives."""
    store._db.close()
    store._lock.release()


def said(store: SqliteStore, word: str) -> None:
    store.append(HoldChanged(UNIT, Hold("R", word)))


def refusal(store: SqliteStore) -> str:
    with pytest.raises(PassError) as caught:
        said(store, "no")
    return caught.value.reason


def test_one_leads_and_the_other_reads_and_writes_nothing(opened: Open) -> None:
    one, other = opened(), opened()
    assert (one.acquire(), other.acquire()) == (1, None)
    said(one, "a")
    assert refusal(other) == STANDBY
    with pytest.raises(PassError, match="stands by") as caught:
        other.ledger()
    term = one.term()
    assert term is not None
    assert term.holder in str(caught.value)
    assert other.term() == term


def test_who_takes_over_knows_what_was_written_until_then(opened: Open) -> None:
    one, other = opened(), opened()
    one.acquire()
    other.acquire()
    said(one, "a")
    one.release()
    assert other.acquire() == 2
    assert other.ledger().units[UNIT].hold == Hold("R", "a")
    assert refusal(one) == STANDBY


def test_a_dead_leader_is_not_waited_for(opened: Open, tmp_path: Path, clock: Clock) -> None:
    one, other = SqliteStore(tmp_path / "s.db", clock, ttl=TTL, steady=clock), opened()
    assert other.acquire() is None
    die(one)
    assert other.acquire() == 2


def test_a_silent_leader_is_replaced_after_a_whole_ttl_and_not_before(opened: Open, clock: Clock) -> None:
    one, other = opened(), opened()
    one.acquire()
    assert other.acquire() is None
    clock.awake += TTL - 0.1
    assert other.acquire() is None
    clock.awake += 0.1
    assert other.acquire() == 2
    assert refusal(one) == LEASE_LOST
    with pytest.raises(PassError, match="has taken over with fence 2") as caught:
        one.renew()
    assert caught.value.reason == LEASE_LOST
    assert other.verify() == 0


def test_each_renewal_is_a_sign_of_life(opened: Open, clock: Clock) -> None:
    one, other = opened(), opened()
    one.acquire()
    for _ in range(4):
        assert other.acquire() is None
        clock.awake += TTL * 0.7
        one.renew()
        one.check()
    said(one, "a")


def test_a_leader_stops_before_another_can_begin_and_goes_on_if_none_did(opened: Open, clock: Clock) -> None:
    one = opened()
    one.acquire()
    clock.awake += TTL * 0.81
    with pytest.raises(PassError, match="could not be renewed") as caught:
        one.check()
    assert caught.value.reason == "LeaseOverdue"
    one.renew()
    one.check()


def test_a_host_that_slept_has_a_leader_that_is_overdue_and_nobody_who_takes_over(opened: Open, clock: Clock) -> None:
    one, other = opened(), opened()
    one.acquire()
    other.acquire()
    clock.asleep += 100 * TTL
    assert other.acquire() is None
    with pytest.raises(PassError, match="could not be renewed"):
        one.check()
    one.renew()
    said(one, "a")


def test_who_took_over_from_a_stopped_leader_has_no_proof_until_that_one_is_gone(opened: Open, clock: Clock) -> None:
    stopped, second, third = opened(), opened(), opened()
    stopped.acquire()
    second.acquire()
    clock.awake += TTL
    assert second.acquire() == 2
    die(stopped)
    assert third.acquire() is None  # the lock is free, and whoever leads does not hold it
    second.renew()
    term = second.term()
    assert term is not None
    assert term.proof
    die(second)
    assert third.acquire() == 3


def test_a_number_that_is_taken_in_a_term_is_the_term_s_from_then_on(opened: Open) -> None:
    one, other = opened(), opened()
    one.acquire()
    assert one.next_fence(above=40) == 41
    one.renew()
    said(one, "a")
    one.release()
    assert other.acquire() == 42


def test_a_transaction_that_does_not_end_keeps_the_other_waiting_and_breaks_nothing(opened: Open, clock: Clock) -> None:
    one, other = opened(), opened()
    one.acquire()
    other.acquire()
    clock.awake += TTL
    with one._writing(), pytest.raises(PassError, match="locked") as caught:
        other.acquire()
    assert caught.value.reason == "StoreLocked"
    assert other.acquire() == 2


def test_a_restored_store_is_what_a_standby_takes_over(opened: Open, tmp_path: Path, clock: Clock) -> None:
    one, other = opened(), opened()
    one.acquire()
    said(one, "a")
    copy_store(tmp_path / "s.db", tmp_path / "copy.db")
    said(one, "b")
    other.acquire()
    one.close()
    (tmp_path / "s.db-wal").unlink(missing_ok=True)
    (tmp_path / "s.db-shm").unlink(missing_ok=True)
    shutil.move(tmp_path / "copy.db", tmp_path / "s.db")
    assert other.acquire() == 2
    assert other.ledger().units[UNIT].hold == Hold("R", "a")


def test_nobody_takes_over_while_a_restore_goes_on(opened: Open, tmp_path: Path, clock: Clock) -> None:
    one, other = opened(), opened()
    one.acquire()
    other.acquire()
    die(one)
    with FileLock(lock_of(tmp_path / "s.db").path):
        replacing.begin(tmp_path)
        clock.awake += 2 * TTL
        assert other.acquire() is None
        replacing.abandon(tmp_path)
    assert other.acquire() == 2

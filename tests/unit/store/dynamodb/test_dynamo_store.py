"""The store in a table when the table, the network or the process fails; what every store promises is in tests/contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from reconciler.actual.ledger import CheckScheduled, HeadAccepted, HoldChanged
from reconciler.codec import ACTIONS
from reconciler.errors import PassError
from reconciler.model import Commit, Hold, UnitId
from reconciler.ports import Term
from reconciler.store.dynamodb import patience
from reconciler.store.dynamodb.journal import JOURNAL, batches, puts_of
from reconciler.store.dynamodb.office import OFFICE
from reconciler.store.dynamodb.store import DynamoStore, Sizes
from reconciler.store.dynamodb.table import (
    MOST_BYTES,
    MOST_ITEMS,
    Change,
    Check,
    Item,
    Key,
    Put,
    Refused,
    Throttled,
    Unclear,
    Write,
    size_of,
)
from reconciler.store.lease import LEASE_LOST, STANDBY, Steady
from tests.kit.dynamo import FakeTable, Troubled

NOW = datetime(2026, 11, 25, tzinfo=UTC)
UNIT = UnitId("prod/network")
TTL = 15.0


class DiedError(BaseException):
    """kill -9."""


@dataclass
class Clock(Steady):
    """One for all, and it goes on by what is waited."""

    time: float = 0.0
    waits: list[float] = field(default_factory=list)

    def holding(self) -> float:
        return self.time

    def waiting(self) -> float:
        return self.time

    def now(self) -> datetime:
        return NOW

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds


@dataclass
class House:
    """A table, and whoever works with it."""

    table: FakeTable = field(default_factory=FakeTable)
    clock: Clock = field(default_factory=Clock)
    sizes: Sizes = field(default_factory=Sizes)

    def open(self, *, lead: bool = True) -> tuple[DynamoStore, Troubled]:
        way = Troubled(self.table)
        store = DynamoStore(
            way,
            "dynamodb:t",
            self.clock,
            ttl=TTL,
            lead=lead,
            steady=self.clock,
            sizes=self.sizes,
            sleep=self.clock.sleep,
        )
        return store, way

    def after_the_lease(self) -> DynamoStore:
        """A standby that takes over from one that is silent."""
        store, _ = self.open(lead=False)
        assert store.acquire() is None
        self.clock.time += TTL
        assert store.acquire() is not None
        return store


@pytest.fixture
def house() -> House:
    return House()


def hold(word: str, unit: UnitId = UNIT) -> HoldChanged:
    return HoldChanged(unit, Hold("R", word))


def word(store: DynamoStore) -> str:
    found = store.ledger().units[UNIT].hold
    assert found is not None
    return found.message


def each(number: int, raises: BaseException) -> Callable[[Sequence[Write]], None]:
    """Something that happens at that write, counted from 0, and at no other."""
    left = [number]

    def happens(_: Sequence[Write]) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise raises

    return happens


def always(raises: Exception) -> Callable[[Sequence[Write]], None]:
    def happens(_: Sequence[Write]) -> None:
        raise raises

    return happens


def cut_off_after_a_write(way: Troubled) -> None:
    """It lands, and nothing is heard any more."""

    def cut(_: Sequence[Write]) -> None:
        way.before = always(Unclear("timed out"))
        raise Unclear("timed out")

    way.after = cut


def back(way: Troubled) -> None:
    way.before = way.after = lambda _: None


# --- the lease ---------------------------------------------------------------------------------------------------


def test_one_leads_and_the_other_waits_a_whole_ttl_from_the_last_beat_it_saw(house: House) -> None:
    one, _ = house.open()
    other, _ = house.open(lead=False)
    for _ in range(4):
        house.clock.time += TTL * 0.7
        one.renew()
        assert other.acquire() is None
    with pytest.raises(PassError, match="stands by") as caught:
        other.append(hold("no"))
    assert caught.value.reason == STANDBY
    assert other.term() == one.term()
    house.clock.time += TTL - 0.1
    assert other.acquire() is None
    house.clock.time += 0.1
    assert other.acquire() == 2


def test_a_leader_that_was_stopped_writes_nothing_and_says_who_leads(house: House) -> None:
    one, _ = house.open()
    one.append(hold("a"))
    other = house.after_the_lease()
    with pytest.raises(PassError, match="could not be renewed"):
        one.check()
    before = dict(house.table.items)
    term = other.term()
    assert term is not None
    acts: list[Callable[[], object]] = [lambda: one.append(hold("b")), one.renew, one.next_fence]
    for act in acts:
        with pytest.raises(PassError, match="has taken over with fence 2") as caught:
            act()
        assert caught.value.reason == LEASE_LOST
        assert term.holder in str(caught.value)
    one.close()
    assert house.table.items == before
    assert (word(other), other.verify()) == ("a", 1)


def test_a_leader_whose_time_ran_out_and_whom_nobody_replaced_goes_on(house: House) -> None:
    one, _ = house.open()
    house.clock.time += 100 * TTL
    with pytest.raises(PassError):
        one.check()
    one.renew()
    one.check()
    one.append(hold("a"))


def test_who_gives_the_lease_back_is_not_waited_for(house: House) -> None:
    one, _ = house.open()
    other, _ = house.open(lead=False)
    assert other.acquire() is None
    one.close()
    assert other.acquire() == 2


def test_a_second_one_that_must_lead_is_refused(house: House) -> None:
    house.open()
    with pytest.raises(PassError, match="another reconciler runs on this store"):
        house.open()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_taking_over_survives_a_lost_answer(house: House, moment: str) -> None:
    store, way = house.open(lead=False)
    setattr(way, moment, each(0, Unclear("timed out")))
    assert store.acquire() == 1
    store.append(hold("a"))


def test_who_took_over_without_an_answer_does_not_wait_for_itself(house: House) -> None:
    store, way = house.open(lead=False)
    cut_off_after_a_write(way)
    with pytest.raises(PassError):
        store.acquire()
    back(way)
    assert store.acquire() == 2
    store.append(hold("a"))


def test_renewing_does_not_wait_for_an_append(house: House) -> None:
    store, way = house.open()
    began, goes_on = threading.Event(), threading.Event()

    def slow(writes: Sequence[Write]) -> None:
        if len(writes) > 1:
            began.set()
            assert goes_on.wait(60)

    way.before = slow
    thread = threading.Thread(target=lambda: store.append(hold("a")))
    thread.start()
    assert began.wait(60)
    house.clock.time += TTL
    store.renew()
    store.check()
    goes_on.set()
    thread.join()
    assert word(store) == "a"


def held_up_on(way: Troubled) -> list[Sequence[Write]]:
    """From now on what is written does not arrive; it is kept here, in order."""
    kept: list[Sequence[Write]] = []

    def keep(writes: Sequence[Write]) -> None:
        kept.append(writes)
        raise Unclear("held up")

    way.before = keep
    return kept


def test_a_release_that_arrives_late_ends_no_later_term(house: House) -> None:
    one, way = house.open()
    seen = held_up_on(way)
    one.release()
    way.before = lambda _: None
    assert one.acquire() == 2
    with pytest.raises(Refused):
        house.table.write(seen[0], "late")
    one.append(hold("a"))


def test_fences_go_on_after_a_lost_answer(house: House) -> None:
    store, way = house.open()
    way.after = each(0, Unclear("timed out"))
    assert store.next_fence() == 2
    cut_off_after_a_write(way)
    with pytest.raises(PassError):
        store.next_fence(above=40)
    back(way)
    assert store.next_fence() == 42
    store.append(hold("a"))


# --- throttles, and answers that are lost ------------------------------------------------------------------------


def test_a_throttle_is_waited_for_and_longer_each_time(house: House) -> None:
    store, way = house.open()
    left = [5]

    def throttled(_: Sequence[Write]) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Throttled("ProvisionedThroughputExceededException")

    way.before = throttled
    store.append(hold("a"))
    waits = house.clock.waits
    assert len(waits) == 5
    assert all(wait <= patience.FIRST_WAIT * 2**turn for turn, wait in enumerate(waits))
    assert all(later > sooner for sooner, later in zip(waits, waits[2:], strict=False))


def test_a_throttle_that_lasts_holds_the_pass_and_writes_nothing(house: House) -> None:
    store, way = house.open()
    before = dict(house.table.items)
    way.before = always(Throttled("ProvisionedThroughputExceededException: slow down"))
    began = house.clock.time
    with pytest.raises(PassError, match="slow down") as caught:
        store.append(hold("a"))
    assert caught.value.reason == "StoreThrottled"
    assert house.clock.time - began <= TTL / 3
    assert (store.ledger().units, house.table.items) == ({}, before)
    way.before = lambda _: None
    store.append(hold("b"))
    assert (word(store), store.verify()) == ("b", 1)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_append_is_done_once_whatever_answer_is_lost(house: House, moment: str) -> None:
    store, way = house.open()
    setattr(way, moment, each(0, Unclear("timed out")))
    store.append(hold("a"))
    store.append(hold("b"))
    assert (word(store), store.verify()) == ("b", 2)


def test_an_append_without_any_answer_is_looked_for_where_tokens_count_no_more(house: House) -> None:
    store, way = house.open()

    def lost(_: Sequence[Write]) -> None:
        house.table.done.clear()  # as after ten minutes, or at a server that knows no tokens
        way.after = lambda _: None
        raise Unclear("timed out")

    way.after = lost
    store.append(hold("a"))
    assert (word(store), store.verify()) == ("a", 1)


def test_what_landed_without_an_answer_is_told_before_anything_builds_on_it(house: House) -> None:
    store, way = house.open()
    store.append(hold("a"))
    way.after = always(Unclear("timed out"))
    with pytest.raises(PassError) as caught:
        store.append(hold("b"))
    assert caught.value.reason == "StoreUnreachable"
    way.after = lambda _: None
    with pytest.raises(PassError, match="recorded after all") as caught:
        store.append(hold("c"))
    assert caught.value.reason == "StoreUnclear"
    assert word(store) == "b"
    store.append(hold("d"))
    assert (word(store), store.verify()) == ("d", 3)


def test_what_lands_late_is_found_by_the_append_after_it(house: House) -> None:
    store, way = house.open()
    held_up = held_up_on(way)
    with pytest.raises(PassError):
        store.append(hold("a"), hold("b"))
    way.before = lambda _: house.table.write(held_up[0], "late") if house.table.items[OFFICE]["seq"] == 0 else None
    with pytest.raises(PassError, match="recorded after all"):
        store.append(hold("c"))
    way.before = lambda _: None
    with pytest.raises(PassError, match="recorded after all"):
        store.append(hold("d"))
    assert word(store) == "b"
    store.append(hold("e"))
    assert (word(store), store.verify()) == ("e", 3)


def test_what_arrives_late_replaces_no_record_of_a_later_attempt(house: House) -> None:
    house.sizes = Sizes(items=3)
    store, way = house.open()
    held_up = held_up_on(way)
    with pytest.raises(PassError):
        store.append(*(hold(f"a{n}") for n in range(6)))
    ahead = held_up[0]
    assert isinstance(ahead[0], Check)

    def late(_: Sequence[Write]) -> None:  # before each write of the attempt after it
        with pytest.raises(Refused) if Key(JOURNAL, 1) in house.table.items else _nothing():
            house.table.write(ahead, "")
        house.table.done.discard("")

    way.before = late
    store.append(*(hold(f"b{n}") for n in range(6)))
    assert (word(store), store.verify()) == ("b5", 6)


class _nothing:  # noqa: N801 - as contextlib's own
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


# --- kill -9 between any two requests ----------------------------------------------------------------------------


def requests_of(events: int, sizes: Sizes) -> int:
    """How many writes an append makes."""
    house = House(sizes=sizes)
    store, way = house.open()
    seen: list[Sequence[Write]] = []
    way.before = seen.append
    store.append(*(hold(f"b{n}") for n in range(events)))
    return len(seen)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_batch_that_is_too_large_is_there_as_a_whole_or_not_at_all(moment: str) -> None:
    sizes = Sizes(items=4)
    assert requests_of(20, sizes) == 7
    for point in range(7):
        house = House(sizes=sizes)
        store, way = house.open()
        store.append(hold("a"))
        setattr(way, moment, each(point, DiedError()))
        with pytest.raises(DiedError):
            store.append(*(hold(f"b{n}") for n in range(20)))
        again = house.after_the_lease()
        whole = point == 6 and moment == "after"
        assert word(again) == ("b19" if whole else "a"), point
        assert again.verify() == (21 if whole else 1)
        assert len(again.history("all", 100)) == again.verify()
        again.append(*(hold(f"c{n}") for n in range(3)))
        assert (word(again), again.verify()) == ("c2", 24 if whole else 4)
        last, _ = house.open(lead=False)
        assert [e.body["hold"]["message"] for e in last.history("prod/network", 3)] == ["c2", "c1", "c0"]  # type: ignore[index]


def test_a_snapshot_that_dies_at_any_point_changes_nothing(house: House) -> None:
    for moment in ("before", "after"):
        for point in range(30):
            house = House(sizes=Sizes(fold=1000))
            store, way = house.open()
            setattr(way, moment, each(point, DiedError()))
            returned = 0
            try:
                for n in range(20):
                    store.append(hold(f"a{n}"))
                    returned = n + 1
            except DiedError:
                pass
            written = int(house.table.items[OFFICE]["seq"])
            assert written - returned in {0, 1}
            again = house.after_the_lease()
            assert again.verify() == written
            assert not written or word(again) == f"a{written - 1}"


# --- snapshots ---------------------------------------------------------------------------------------------------


def test_a_start_reads_the_snapshot_and_what_came_after_it_alone() -> None:
    house = House(sizes=Sizes(fold=2000))
    store, _ = house.open()
    chain = tuple(Commit(f"{n:040x}") for n in range(5))
    store.append(HeadAccepted(chain[-1], chain))
    for n in range(100):
        store.append(hold(f"a{n}"), CheckScheduled(UnitId(f"prod/u{n}"), NOW))
    ledger = store.ledger()
    store.close()
    for number in range(1, 150):  # history is kept for people; nobody else needs it
        del house.table.items[Key(JOURNAL, number)]
    again, _ = house.open()
    assert again.ledger() == ledger
    assert again.accepted(chain[2])
    with pytest.raises(PassError, match="record 1 of the journal is missing"):
        again.verify()


def test_a_large_snapshot_is_written_a_part_with_each_append(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.store.dynamodb.folding.MOST_OF_ITEM", 100)
    house = House(sizes=Sizes(fold=2000))
    store, way = house.open()
    seen: list[int] = []
    for n in range(60):
        count: list[Sequence[Write]] = []
        way.before = count.append
        store.append(hold(f"a{n}"), CheckScheduled(UnitId(f"prod/u{n}"), NOW))
        seen.append(len(count))
    assert max(seen) == 2
    assert int(house.table.items[OFFICE]["parts"]) > 3
    ledger = store.ledger()
    again = house.after_the_lease()
    assert again.ledger() == ledger


def test_a_snapshot_that_cannot_be_written_stops_no_append() -> None:
    house = House(sizes=Sizes(fold=500))
    store, way = house.open()

    def full(writes: Sequence[Write]) -> None:
        if isinstance(writes[0], Put):
            raise Throttled("slow down")

    way.before = full
    for n in range(5):
        store.append(hold(f"a{n}" * 100))
    assert "slot" not in house.table.items[OFFICE]
    way.before = lambda _: None
    store.append(hold("b"))
    store.append(hold("c"))
    assert "slot" in house.table.items[OFFICE]


# --- what somebody did to the table ------------------------------------------------------------------------------


def change(house: House, key: Key, **values: str | int | bytes) -> None:
    house.table.items[key] = {**house.table.items[key], **values}


def refusal(house: House) -> PassError:
    with pytest.raises(PassError) as caught:
        house.open()
    return caught.value


def closed(house: House, *words: str) -> None:
    store, _ = house.open()
    for one in words:
        store.append(hold(one))
    store.close()


def test_a_newer_store_is_refused_and_left_alone(house: House) -> None:
    closed(house, "a")
    change(house, OFFICE, version=2)
    before = dict(house.table.items)
    assert refusal(house).reason == "StoreTooNew"
    assert house.table.items == before


@pytest.mark.parametrize("what", ["action", "field"])
def test_an_event_of_a_newer_version_is_refused(house: House, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed(house, "a")
    if what == "action":
        monkeypatch.delitem(ACTIONS, "hold-changed")
    else:
        monkeypatch.setattr("reconciler.store.chain._hash", lambda *_: house.table.items[OFFICE]["hash"])
        body = str(house.table.items[Key(JOURNAL, 1)]["body"])
        change(house, Key(JOURNAL, 1), body=body[:-1] + ',"since":1}', hash=str(house.table.items[OFFICE]["hash"]))
    assert refusal(house).reason == "StoreTooNew"
    assert house.table.items[OFFICE]["holder"] == "", "it does not keep the lease of what it cannot read"


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_record_that_is_not_what_was_written_is_refused(house: House, number: int, how: str) -> None:
    closed(house, "a", "b", "c")
    if how == "gone":
        del house.table.items[Key(JOURNAL, number)]
    else:
        change(house, Key(JOURNAL, number), actor="root")
    assert refusal(house).reason == "AuditBroken"


def test_a_record_that_is_seen_a_moment_later_is_waited_for(house: House) -> None:
    """A transaction that ended may be seen in one item, and not yet in another."""
    closed(house, "a", "b")
    key = Key(JOURNAL, 2)
    late: Item = house.table.items.pop(key)
    store, way = house.open(lead=False)
    reads = [0]

    def reading() -> None:
        reads[0] += 1
        if reads[0] == 6:
            house.table.items[key] = late

    way.reading = reading
    assert store.acquire() == 2
    assert word(store) == "b"


def test_a_snapshot_that_is_not_what_was_written_is_refused() -> None:
    house = House(sizes=Sizes(fold=100))
    closed(house, "a", "b", "c", "d")
    slot = str(house.table.items[OFFICE]["slot"])
    change(house, Key(slot, 1), data=b"something")
    error = refusal(house)
    assert error.reason == "StoreCorrupt"
    assert "point-in-time recovery" in str(error)


def test_an_emptied_table_ends_the_leader(house: House) -> None:
    store, _ = house.open()
    store.append(hold("a"))
    house.table.items.clear()
    acts: list[Callable[[], object]] = [lambda: store.append(hold("b")), store.renew]
    for act in acts:
        with pytest.raises(PassError, match="emptied the table"):
            act()
    assert house.table.items == {}


def test_a_lease_that_is_no_lease_is_refused(house: House) -> None:
    closed(house)
    change(house, OFFICE, fence="many")
    assert refusal(house).reason == "StoreCorrupt"


def test_a_term_is_read_where_nobody_looked_yet(house: House) -> None:
    fresh, _ = house.open(lead=False)
    assert fresh.term() is None
    house.open()
    found = fresh.term()
    assert isinstance(found, Term)
    assert found.fence == 1
    assert fresh.history("all", 5) == []


# --- sizes -------------------------------------------------------------------------------------------------------


def test_no_transaction_is_too_large(house: House) -> None:
    store, way = house.open()
    seen: list[Sequence[Write]] = []
    way.before = seen.append
    store.append(*(hold("x" * 1000, UnitId(f"prod/u{n}")) for n in range(250)))
    store.append(*(hold("\N{SNOWMAN}" * 200_000) for _ in range(12)))
    for writes in seen:
        assert len(writes) <= MOST_ITEMS
        puts = [one for one in writes if isinstance(one, Put)]
        assert sum(size_of(one.item) for one in puts) <= MOST_BYTES
        assert all(size_of(one.item) <= 400_000 for one in puts)
    assert len(seen) == 6
    assert store.verify() == 262


def test_one_item_too_many_begins_another_transaction() -> None:
    puts = [Put(Key(JOURNAL, n), {"body": "x" * 90, "stamp": ""}) for n in range(5)]
    assert [len(one) for one in batches(puts, 3, 10_000)] == [2, 2, 1]
    assert [len(one) for one in batches(puts, 100, 500)] == [2, 2, 1]
    assert [len(one) for one in batches(puts[:1], 2, 10)] == [1]


def test_a_record_says_what_it_is_about_to_the_index(house: House) -> None:
    store, way = house.open()
    seen: list[Write] = []
    way.before = seen.extend
    store.append(hold("a"), HeadAccepted(Commit("a" * 40)))
    changed, first, second = seen
    assert isinstance(changed, Change)
    assert isinstance(first, Put)
    assert isinstance(second, Put)
    assert (first.item["unit"], "unit" in second.item) == (UNIT, False)
    records = list(store._journal.records(1, 2))
    assert [put.item for record in records for put in puts_of(record, str(first.item["stamp"]))] == [
        first.item,
        second.item,
    ]
    assert replace(records[0], seq=2) != records[1]

"""What every store promises. Each test runs on every factory in `STORES`."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.actual.ledger import (
    BreakGlassClosed,
    BreakGlassOpened,
    CheckScheduled,
    Event,
    Frozen,
    HeadAccepted,
    HistoryAccepted,
    HoldChanged,
    JobDispatched,
    JobEnded,
    LossAccepted,
    OutOfBand,
    Paused,
    ReconcileRequested,
    Restored,
    Resumed,
    Started,
    Thawed,
)
from reconciler.codec import decode_event, encode_event
from reconciler.errors import PassError
from reconciler.model import (
    Aftermath,
    Applied,
    BreakGlass,
    Cause,
    Change,
    Commit,
    Dispatched,
    Fingerprint,
    Hold,
    Job,
    JobId,
    Ledger,
    Operation,
    Outcome,
    Outside,
    OutsideChange,
    Pause,
    PlanSummary,
    Presence,
    Result,
    StateMark,
    UnitId,
)
from reconciler.ports import Chosen
from reconciler.store.dynamodb.aws import AwsTable, open_client
from reconciler.store.dynamodb.store import DynamoStore, Sizes
from reconciler.store.dynamodb.table import Table
from reconciler.store.opening import Kept
from reconciler.store.projection import Projection, project
from reconciler.store.sqlite import SqliteStore
from tests.kit.aws import REGION, Aws, serving
from tests.kit.dynamo import FakeTable, make_table

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
UNIT = UnitId("prod/network")
HEAD = Commit("4b1d" * 10)


@dataclass
class Clock:
    time: datetime = NOW

    def now(self) -> datetime:
        return self.time


Open = Callable[[], Kept]
Make = Callable[[Path], Open]
TABLES = count()


def sqlite(_: pytest.FixtureRequest) -> Make:
    return lambda folder: lambda: SqliteStore(folder / "store" / "reconciler.db", Clock(), patience=0.05)


def in_table(table: Table) -> Open:
    """Small transactions and many snapshots, so that each of them occurs."""
    sizes = Sizes(items=3, fold=1500)
    return lambda: DynamoStore(table, "dynamodb:contract", Clock(), sizes=sizes, sleep=lambda _: None)


def simulated(_: pytest.FixtureRequest) -> Make:
    """Each folder has a table of its own."""
    tables: dict[Path, FakeTable] = {}
    return lambda folder: in_table(tables.setdefault(folder, FakeTable()))


def dynamodb(request: pytest.FixtureRequest) -> Make:
    aws: Aws = request.getfixturevalue("aws")
    client = open_client(REGION, aws.endpoint)
    request.addfinalizer(client.close)

    def made(_: Path) -> Open:
        name = f"contract-{next(TABLES)}"
        make_table(aws.client("dynamodb"), name)  # patient: at its first table the server loads what it knows of them
        return in_table(AwsTable(client, name, f"dynamodb:{name}"))

    return made


STORES = [
    pytest.param(sqlite, id="sqlite"),
    pytest.param(simulated, id="simulated"),
    pytest.param(dynamodb, id="dynamodb", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with serving() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield found


@pytest.fixture(params=STORES)
def factory(request: pytest.FixtureRequest) -> Make:
    made: Make = request.param(request)
    return made


@pytest.fixture
def opened(factory: Make, tmp_path: Path) -> Open:
    return factory(tmp_path)


@pytest.fixture
def store(opened: Open) -> Iterator[Kept]:
    store = opened()
    yield store
    store.close()


def dispatched(unit: UnitId = UNIT, job: str = "j1") -> Dispatched:
    fingerprint = Fingerprint("m", "i", "s", "u")
    return Dispatched(Job(JobId(job), Operation.APPLY, unit, HEAD, 1), fingerprint, "policy", Cause.DESIRED, NOW)


def ended(asked: Dispatched, outcome: Outcome = Outcome.SUCCEEDED, moved_from: UnitId | None = None) -> JobEnded:
    applied = Applied(
        job=asked.job.id,
        commit=HEAD,
        at=NOW,
        fingerprint=asked.fingerprint,
        module="acme/vpc",
        version="1.4.2",
        presence=Presence.PRESENT,
        reads=frozenset({UnitId("prod/dns"), UnitId("prod/hub")}),
        outputs={"id": "hmac:1"},
        state=StateMark("lineage", 3),
    )
    result = Result(
        asked.job,
        outcome,
        "",
        "done",
        NOW,
        NOW + timedelta(seconds=3),
        fingerprint=asked.fingerprint,
        plan=PlanSummary((Change("file.a", "file", ("create",)),), (), False, "hmac:2"),
        applied=applied if outcome is Outcome.SUCCEEDED else None,
        moved_from=moved_from,
    )
    retry_at = None if outcome is Outcome.SUCCEEDED else NOW + timedelta(minutes=1)
    return JobEnded(asked, result, retry_at, NOW + timedelta(hours=1))


# --- any sequence of events --------------------------------------------------------------------------------------

units = st.sampled_from([UNIT, UnitId("prod/dns"), UnitId("stage/app")])
scopes = st.sampled_from(["all", "prod", "prod/network"])
texts = st.text(max_size=20)
times = st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
holds = st.builds(Hold, reason=texts, message=texts, plans=st.booleans())
commits = st.text("0123456789abcdef", min_size=40, max_size=40).map(Commit)
dispatches = st.builds(dispatched, units, st.text("abc", min_size=1, max_size=5))
sessions = st.builds(
    BreakGlass, scopes, st.just("ann"), st.just("down"), st.just(NOW), st.just(NOW + timedelta(hours=1))
)
outsiders = st.builds(
    OutsideChange,
    environment=st.sampled_from(["prod", "stage"]),
    account=st.just("111111111111"),
    principal=texts,
    calls=st.just(("s3:PutBucketPolicy",)),
    objects=st.lists(texts, max_size=2).map(tuple),
    since=times,
    until=times,
    count=st.integers(1, 10_000),
    event=texts,
    units=st.frozensets(units, max_size=2),
    break_glass=st.booleans(),
    seen_at=times,
)
events = st.one_of(
    st.builds(OutOfBand, outsiders, st.lists(texts, max_size=3).map(tuple)),
    st.builds(HeadAccepted, commits, st.lists(commits, max_size=3).map(tuple), st.none() | commits),
    st.builds(HistoryAccepted, commits, commits, *[st.lists(commits, max_size=3).map(tuple)] * 2, texts),
    st.builds(Frozen, holds, st.none() | times),
    st.just(Thawed()),
    st.builds(JobDispatched, dispatches),
    st.builds(ended, dispatches, st.sampled_from(Outcome), st.none() | units),
    st.builds(HoldChanged, units, st.none() | holds),
    st.builds(CheckScheduled, units, times),
    st.builds(Paused, st.builds(Pause, scopes, texts, texts, times, times)),
    st.builds(Resumed, scopes, texts),
    st.builds(BreakGlassOpened, sessions),
    st.builds(BreakGlassClosed, sessions, times, texts),
    st.builds(LossAccepted, scopes, texts, texts, st.lists(units, max_size=2).map(tuple)),
    st.builds(ReconcileRequested, scopes, texts, st.lists(units, max_size=2).map(tuple), times),
    st.builds(Started, texts, st.integers(0, 2**40)),
    st.builds(Restored, texts, times),
)


journals = st.lists(st.lists(events, max_size=4), max_size=8)


@pytest.mark.parametrize("factory", STORES[:2], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=journals)
def test_what_is_read_back_is_what_was_projected(
    batches: list[list[Event]], factory: Make, tmp_path_factory: pytest.TempPathFactory
) -> None:
    read_back(batches, factory(tmp_path_factory.mktemp("any")))


# moto copies the table for each item that is written: it takes a hundred times as long as the simulation.
@pytest.mark.parametrize("factory", STORES[2:], indirect=True)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=journals)
def test_what_is_read_back_from_dynamodb_is_what_was_projected(
    batches: list[list[Event]], factory: Make, tmp_path: Path
) -> None:
    read_back(batches, factory(tmp_path))


def read_back(batches: list[list[Event]], opened: Open) -> None:
    store = opened()
    for batch in batches:
        store.append(*batch)
    before = store.ledger()
    history = store.history("all", 1000)
    store.close()
    again = opened()
    assert again.ledger() == before
    assert again.verify() == sum(map(len, batches))
    assert again.history("all", 1000) == history
    again.close()
    flat = [event for batch in batches for event in batch]
    replayed = Projection(Ledger())
    for event in flat:
        replayed.advance(project(replayed.ledger(), [event]))
    assert replayed.ledger() == before


@given(st.lists(events, max_size=6))
def test_every_event_survives_the_journal(journal: list[Event]) -> None:
    assert [decode_event(*encode_event(event)) for event in journal] == journal


# --- the projection ----------------------------------------------------------------------------------------------


def test_a_new_store_knows_nothing(store: Kept) -> None:
    assert store.ledger() == Ledger()
    assert store.verify() == 0


def test_a_job_is_in_the_ledger_from_its_dispatch_to_its_end(store: Kept) -> None:
    store.append(JobDispatched(dispatched()))
    assert store.ledger().units[UNIT].job == dispatched()
    store.append(ended(dispatched()))
    record = store.ledger().units[UNIT]
    assert record.job is None
    assert record.applied is not None
    assert record.applied.reads == {"prod/dns", "prod/hub"}


def test_a_moved_unit_leaves_no_record_under_its_old_name(store: Kept, opened: Open) -> None:
    old = UnitId("prod/old")
    store.append(ended(dispatched(old)))
    store.append(ended(dispatched(), moved_from=old))
    store.close()
    again = opened()
    assert set(again.ledger().units) == {UNIT}
    again.close()


def test_a_record_that_says_nothing_is_not_kept(store: Kept) -> None:
    store.append(HoldChanged(UNIT, Hold("Paused", "m")))
    assert UNIT in store.ledger().units
    store.append(HoldChanged(UNIT, None))
    assert UNIT not in store.ledger().units


def test_a_request_makes_the_check_due_and_ends_the_back_off(store: Kept) -> None:
    store.append(ended(dispatched(), Outcome.FAILED))
    store.append(ReconcileRequested("prod", "root", (UNIT, UnitId("prod/never")), NOW))
    record = store.ledger().units[UNIT]
    assert record.next_check == NOW
    assert record.failure is not None
    assert record.failure.retry_at == NOW
    assert set(store.ledger().units) == {UNIT}


def test_a_pause_replaces_the_one_of_the_same_scope(store: Kept) -> None:
    pause = Pause("prod", "ann", "migration", NOW, NOW + timedelta(hours=1))
    store.append(Paused(pause), Paused(replace(pause, owner="bob")))
    assert store.ledger().pauses == (replace(pause, owner="bob"),)
    store.append(Resumed("prod", "bob"))
    assert store.ledger().pauses == ()


def test_what_others_wrote_and_what_is_to_be_looked_at_are_on_disk(store: Kept, opened: Open) -> None:
    seen = OutsideChange("prod", "111111111111", "mallory", ("ec2:RunInstances",), (), NOW, NOW, 2, "e", seen_at=NOW)
    store.append(ended(dispatched()), OutOfBand(seen, ("d1", "d2")), actor="cloudtrail")
    store.close()
    again = opened()
    assert (again.ledger().outside, again.ledger().told) == ((seen,), ("d1", "d2"))
    assert again.ledger().units[UNIT].outside == Outside(NOW)
    (told,) = again.history("all", 9, Chosen(action="out-of-band"))
    assert (told.unit, told.actor, told.body["events"]) == ("prod", "cloudtrail", ["d1", "d2"])
    assert next(one.action for one in again.history("prod/network", 9)) == "out-of-band"
    again.append(ended(dispatched(job="j2")))
    assert again.ledger().units[UNIT].outside is None
    again.close()


def test_a_session_and_what_it_leaves_are_on_disk(store: Kept, opened: Open) -> None:
    session = BreakGlass("prod", "ann", "the site is down", NOW, NOW + timedelta(hours=1))
    store.append(ended(dispatched()), BreakGlassOpened(session))
    store.close()
    again = opened()
    assert again.ledger().sessions == (session,)
    again.append(BreakGlassClosed(session, NOW, "clock"), actor="clock")
    again.close()
    last = opened()
    assert last.ledger().sessions == ()
    assert last.ledger().units[UNIT].aftermath == Aftermath(session, NOW)
    assert [e.action for e in last.history("prod/network", 2)] == ["break-glass-closed", "break-glass-opened"]


def test_a_ledger_that_was_handed_out_never_changes(store: Kept) -> None:
    store.append(JobDispatched(dispatched()))
    held = store.ledger()
    store.append(ended(dispatched()), HeadAccepted(HEAD))
    assert held.units[UNIT].job == dispatched()
    assert held.head is None
    assert store.ledger().head == HEAD
    assert store.ledger() is store.ledger()


def test_a_ledger_cannot_be_written_to(store: Kept) -> None:
    with pytest.raises(TypeError):
        store.ledger().units[UNIT] = None  # type: ignore[index]


def test_fences_grow_and_are_remembered(store: Kept, opened: Open) -> None:
    fences = [store.next_fence(), store.next_fence()]
    store.close()
    again = opened()
    fences += [again.next_fence(), again.next_fence(above=9), again.next_fence(above=4)]
    again.close()
    assert fences == [2, 3, 5, 10, 11]  # each time that somebody begins to lead is one, too


def test_accepted_commits_include_those_in_between(store: Kept) -> None:
    between = Commit("a" * 40)
    store.append(HeadAccepted(HEAD, (between,)))
    assert store.accepted(HEAD)
    assert store.accepted(between)
    assert not store.accepted(Commit("b" * 40))


def test_another_history_takes_the_place_of_what_was_abandoned(store: Kept) -> None:
    genesis, old, new, between = (Commit(letter * 40) for letter in "abcd")
    store.append(HeadAccepted(old, (old,), genesis), Frozen(Hold("HistoryRewritten", "who?"), NOW))
    assert (store.ledger().base, store.ledger().frozen_at) == (genesis, NOW)
    store.append(HistoryAccepted(old, new, (between, new), (old,), "known"), actor="ann")
    assert store.ledger() == Ledger(head=new, base=new)
    assert [store.accepted(commit) for commit in (old, between, new)] == [False, True, True]
    store.append(HeadAccepted(HEAD, (HEAD,), new))
    assert store.ledger().base == new


def test_threads_append_without_losing_anything(store: Kept) -> None:
    names = [UnitId(f"prod/u{n}") for n in range(4)]

    def work(unit: UnitId) -> None:
        for n in range(10):
            store.append(CheckScheduled(unit, NOW + timedelta(minutes=n)))
            assert store.ledger().units[unit].next_check == NOW + timedelta(minutes=n)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.verify() == 40
    assert set(store.ledger().units) == set(names)


# --- the journal -------------------------------------------------------------------------------------------------


def test_history_of_a_unit_has_what_covers_it_newest_first(store: Kept) -> None:
    pause = Pause("prod", "ann", "migration", NOW, NOW + timedelta(hours=1))
    store.append(HeadAccepted(HEAD), JobDispatched(dispatched()), Paused(pause), actor="ann")
    store.append(JobDispatched(dispatched(UnitId("prod-eu/network"))), Resumed("all", "bob"))
    assert [e.action for e in store.history("prod/network", 9)] == ["resumed", "paused", "job-dispatched"]
    assert [e.action for e in store.history("prod", 9)] == ["resumed", "paused", "job-dispatched"]
    assert [e.seq for e in store.history("all", 2)] == [5, 4]
    event = store.history("prod/network", 2)[1]
    assert (event.actor, event.at, event.unit) == ("ann", NOW, "prod")
    assert event.body["pause"]["reason"] == "migration"  # type: ignore[index]


def test_what_came_after_an_event_is_told_oldest_first(store: Kept) -> None:
    store.append(HeadAccepted(HEAD), *(Resumed(f"env-{n}", "clock") for n in range(4)))
    assert [(e.seq, e.unit) for e in store.since(2, 2)] == [(3, "env-1"), (4, "env-2")]
    assert [e.seq for e in store.since(4, 100)] == [5]
    assert store.since(5, 100) == []


def test_history_is_read_in_pages_and_by_actor_and_kind(store: Kept) -> None:
    others = [CheckScheduled(UnitId(f"prod/u{n}"), NOW) for n in range(24)]
    store.append(HoldChanged(UNIT, Hold("R", "m")), *others[:12], actor="ann")
    store.append(HoldChanged(UNIT, None), *others[12:], CheckScheduled(UNIT, NOW), actor="bob")
    assert [e.seq for e in store.history("prod", 100)] == list(range(27, 0, -1))
    assert [e.seq for e in store.history("prod/network", 100)] == [27, 14, 1]
    assert [e.seq for e in store.history("prod/network", 1, Chosen(before=27))] == [14]
    assert [e.seq for e in store.history("prod", 9, Chosen(actor="ann", action="hold-changed"))] == [1]
    assert [e.seq for e in store.history("all", 3, Chosen(before=3, actor="ann"))] == [2, 1]


def test_what_is_larger_than_one_item_of_a_table_is_kept_whole(store: Kept, opened: Open) -> None:
    chain = tuple(Commit(f"{number:040x}") for number in range(9000))  # 387 KB
    store.append(HeadAccepted(HEAD, chain), HoldChanged(UNIT, Hold("R", "\N{SNOWMAN}" * 150_000)))
    before = store.ledger()
    store.close()
    again = opened()
    assert again.accepted(chain[-1])
    assert again.ledger() == before
    assert again.verify() == 2
    assert again.history("all", 1)[0].body["hold"]["message"] == "\N{SNOWMAN}" * 150_000  # type: ignore[index]
    again.close()


# --- what only a file can suffer ---------------------------------------------------------------------------------

TAMPERING = {
    "a changed body": "UPDATE events SET body = replace(body, 'm3', 'm4') WHERE seq = 3",
    "a changed actor": "UPDATE events SET actor = 'root' WHERE seq = 2",
    "a changed time": "UPDATE events SET at = '2020-01-01T00:00:00+00:00' WHERE seq = 1",
    "a missing record": "DELETE FROM events WHERE seq = 2",
    "a missing first": "DELETE FROM events WHERE seq = 1",
    "a missing last": "DELETE FROM events WHERE seq = 5",
    "two swapped": "UPDATE events SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE seq IN (2, 3);"
    "UPDATE events SET seq = -seq WHERE seq < 0",
    "one more": "INSERT INTO events SELECT 6, at, actor, action, unit, body, hash, hash FROM events WHERE seq = 5",
}


@pytest.mark.parametrize("what", TAMPERING)
def test_verify_finds(what: str, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", Clock())
    for n in range(1, 6):
        store.append(HoldChanged(UNIT, Hold("R", f"m{n}")))
    assert store.verify() == 5
    with sqlite3.connect(tmp_path / "s.db") as other:
        other.executescript(TAMPERING[what])
    other.close()
    with pytest.raises(PassError, match=r"record [1-6] of the journal") as caught:
        store.verify()
    assert caught.value.reason == "AuditBroken"
    store.close()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = SqliteStore(path, Clock())
    code = (
        "import sys, pathlib; from reconciler.store.sqlite import SqliteStore; from reconciler.errors import PassError\n"
        "try: SqliteStore(pathlib.Path(sys.argv[1]), None)\n"
        "except PassError as error: print(error.reason, error)"
    )
    asked = [sys.executable, "-c", code, str(path)]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout
    assert told.startswith("StoreLocked")
    assert "another reconciler" in told
    store.close()
    assert subprocess.run(asked, capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout == ""


CRASHING = """
import sys, pathlib, datetime
from reconciler.actual.ledger import HoldChanged
from reconciler.model import Hold
from reconciler.store.sqlite import SqliteStore
class Clock:
    def now(self): return datetime.datetime.now(datetime.timezone.utc)
store = SqliteStore(pathlib.Path(sys.argv[1]), Clock())
n = 0
while True:
    n += 1
    store.append(*[HoldChanged(f"prod/u{n}", Hold("R", str(i))) for i in range(3)])
    print(n, flush=True)
"""


@pytest.mark.parametrize("kill_at", [1, 7, 40])
def test_kill_9_loses_nothing_that_returned_and_tears_no_batch(kill_at: int, tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    child = subprocess.Popen([sys.executable, "-c", CRASHING, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout as told:
        for line in told:
            if int(line) == kill_at:
                break
        os.kill(child.pid, signal.SIGKILL)
        seen = max([kill_at, *(int(rest) for rest in told if rest.endswith("\n"))])
    child.wait()
    store = SqliteStore(path, Clock())
    kept = len(store.ledger().units)
    assert kept >= seen
    assert store.verify() == 3 * kept
    assert all(r.hold == Hold("R", "2") for r in store.ledger().units.values())
    store.close()


def test_a_full_disk_stops_the_write_and_nothing_is_half_done(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", Clock())
    store.append(HeadAccepted(HEAD))
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(PassError, match="Free space") as caught:
        store.append(HoldChanged(UNIT, Hold("R", "x" * 100_000)))
    assert caught.value.reason == "StoreFull"
    assert store.ledger() == Ledger(head=HEAD, base=HEAD)
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.append(HoldChanged(UNIT, Hold("R", "m")))
    assert store.verify() == 2
    store.close()


def test_a_foreign_lock_stops_the_write_and_it_goes_on_after(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", Clock(), patience=0.01)
    other = sqlite3.connect(tmp_path / "s.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PassError, match="Another program") as caught:
        store.append(HeadAccepted(HEAD))
    assert caught.value.reason == "StoreLocked"
    with pytest.raises(PassError, match="Another program"):
        store.next_fence()
    assert store.ledger() == Ledger()
    other.execute("ROLLBACK")
    other.close()
    store.append(HeadAccepted(HEAD))
    assert store.ledger().head == HEAD
    store.close()


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(PassError, match="restore the last backup") as caught:
        SqliteStore(path, Clock())
    assert caught.value.reason == "StoreCorrupt"
    assert path.read_bytes() == b"not a database" * 1000


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", Clock())
    store.append(HoldChanged(UNIT, Hold("R", "m")))
    store._db.execute("UPDATE units SET record = '{}'")
    store.close()
    with pytest.raises(PassError, match="restore the last backup"):
        SqliteStore(tmp_path / "s.db", Clock())


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "s.db", Clock())
    store._db.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(PassError, match="newer reconciler") as caught:
        SqliteStore(tmp_path / "s.db", Clock())
    assert caught.value.reason == "StoreTooNew"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PassError, match=r"store\.path") as caught:
        SqliteStore(tmp_path / "file" / "s.db", Clock())
    assert caught.value.reason == "StoreUnwritable"


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "s.db", Clock())
    store.append(HeadAccepted(HEAD))
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "new").iterdir()}
    assert set(modes.values()) == {0o600}
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    store.close()

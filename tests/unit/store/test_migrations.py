from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from reconciler.actual.ledger import HeadAccepted, JobDispatched, JobEnded, Started, Thawed
from reconciler.codec import decode_event
from reconciler.errors import PassError
from reconciler.model import Hold, Outcome, UnitId
from reconciler.store import sqlite
from reconciler.store.migrations import MIGRATIONS, migrate, version_of
from reconciler.store.sqlite import SqliteStore, verify_file
from tests.kit.before import store_of

NEXT = "ALTER TABLE pauses ADD COLUMN scope_kind TEXT; UPDATE pauses SET scope_kind = 'environment';"
NOW = datetime(2026, 11, 25, tzinfo=UTC)


@dataclass
class Clock:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "reconciler.db"
    store_of(1, path)
    return path


def of_next_version(path: Path) -> None:
    """As a program with one more migration leaves it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, path, (*MIGRATIONS, NEXT))


def test_a_store_of_version_1_opens_with_all_that_is_in_it(old: Path) -> None:
    store = SqliteStore(old, Clock())
    ledger = store.ledger()
    assert set(ledger.units) == {"prod/network", "prod/dns", "stage/app"}
    network = ledger.units[UnitId("prod/network")]
    assert network.applied is not None
    assert network.applied.reads == {"prod/dns", "prod/hub"}
    assert network.job is None
    assert ledger.units[UnitId("prod/dns")].job is not None
    assert ledger.units[UnitId("stage/app")].hold is not None
    assert [pause.scope for pause in ledger.pauses] == ["prod"]
    assert ledger.frozen is not None
    assert ledger.head == "4b1d" * 10
    assert store.next_fence() == 3
    assert store.verify() == 8
    store.append(Thawed())
    assert store.verify() == 9


@pytest.mark.parametrize("later", [(), (NEXT,)])
def test_a_store_of_version_2_opens_with_all_that_is_in_it(later: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "reconciler.db"
    store_of(2, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        assert version_of(db) == 2
        migrate(db, path, (*MIGRATIONS, *later))
        assert version_of(db) == len(MIGRATIONS) + len(later)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")  # the further step added a column that nobody asks for
    store = SqliteStore(path, Clock())
    ledger = store.ledger()
    assert set(ledger.units) == {"prod/network", "prod/dns", "prod/hub", "prod/net", "stage/app"}
    lost, hub = ledger.units[UnitId("prod/net")], ledger.units[UnitId("prod/hub")]
    assert lost.failure is not None
    assert (lost.failure.outcome, lost.hold) == (Outcome.UNCERTAIN, Hold("Uncertain", "Look for it."))
    assert hub.next_check == datetime(2026, 11, 29, 14, tzinfo=UTC)
    assert ([pause.scope for pause in ledger.pauses], ledger.frozen, ledger.head) == (["stage"], None, "5c2e" * 10)
    assert store.next_fence() == 5
    assert store.verify() == 22
    ends = [decode_event(one.action, orjson.dumps(one.body)) for one in store.history("all", 99)]
    store.close()
    assert [type(one) for one in reversed(ends[-5:])] == [Started, HeadAccepted, JobDispatched, JobEnded, JobDispatched]


def test_an_older_store_is_brought_up_to_date_and_kept_as_it_was(old: Path) -> None:
    of_next_version(old)
    with closing(sqlite3.connect(old)) as db:
        assert version_of(db) == len(MIGRATIONS) + 1
        assert db.execute("SELECT scope, scope_kind FROM pauses").fetchall() == [("prod", "environment")]
    assert verify_file(old) == 8
    kept = old.with_name(f"reconciler.db.before-v{len(MIGRATIONS) + 1}")
    assert kept.stat().st_mode & 0o777 == 0o600
    assert verify_file(kept) == 8
    kept.replace(old)
    store = SqliteStore(old, Clock())
    assert len(store.ledger().units) == 3
    store.close()


def test_a_store_that_is_up_to_date_is_not_copied(old: Path) -> None:
    SqliteStore(old, Clock()).close()
    kept = old.with_name(f"reconciler.db.before-v{len(MIGRATIONS)}")
    kept.unlink()
    SqliteStore(old, Clock()).close()
    assert sorted(path.name for path in old.parent.iterdir()) == ["reconciler.db", "reconciler.db.lock"]


def test_a_program_refuses_the_store_of_the_next_one_and_changes_nothing(old: Path) -> None:
    of_next_version(old)
    before = old.read_bytes()
    with pytest.raises(PassError, match="install that version again") as caught:
        SqliteStore(old, Clock())
    assert caught.value.reason == "StoreTooNew"
    assert old.read_bytes() == before


def test_a_migration_that_fails_leaves_the_old_store(old: Path) -> None:
    broken = (*MIGRATIONS, NEXT, "INSERT INTO nowhere VALUES (1);")
    with closing(sqlite3.connect(old, isolation_level=None)) as db, pytest.raises(sqlite3.Error, match="nowhere"):
        migrate(db, old, broken)
    store = SqliteStore(old, Clock())
    assert store.verify() == 8
    store.close()


def test_a_record_with_a_field_of_a_newer_version_is_refused(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(old)) as db, db:
        db.execute("UPDATE units SET record = json_set(record, '$.applied.imported', 1) WHERE unit = 'prod/network'")
    with pytest.raises(PassError, match="the field imported of UnitRecord is not known here") as caught:
        sqlite.SqliteStore(old, Clock())
    assert caught.value.reason == "StoreTooNew"

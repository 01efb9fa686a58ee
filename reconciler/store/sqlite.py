"""The store in one SQLite file: the journal, its projection, and a lock that keeps a second daemon out."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import orjson

from reconciler.codec import Newer, decode, decode_kept, encode, encode_event
from reconciler.durable import FileLock
from reconciler.errors import PassError
from reconciler.ledger import Event
from reconciler.model import Commit, Hold, Ledger, Pause, UnitId, UnitRecord
from reconciler.ports import ALL, Chosen, Clock, HistoryEvent
from reconciler.replacing import check_whole
from reconciler.store.chain import Record, Tip, check, link
from reconciler.store.copying import copy_to
from reconciler.store.migrations import check_known, migrate, too_new, version_of
from reconciler.store.projection import Delta, Projection, project, subject_of

_COLUMNS = "seq, at, actor, action, unit, body, previous, hash"


class SqliteStore:
    """`ports.Store` and `ports.Journal` over one file, for one process at a time.

    Every append is one transaction that is on disk before memory follows, so memory never knows more than the disk.
    """

    def __init__(self, path: Path, clock: Clock, *, patience: float = 5.0) -> None:
        """Open the file, or make it. `patience`: seconds to wait for a foreign reader's or backup's lock.

        Raises:
            PassError: another process has it, a newer version wrote it, or it cannot be read.
        """
        self._path, self._clock, self._patience = path, clock, patience
        self._guard = threading.RLock()
        self._tip = Tip()
        self._doubtful = False
        self._lock = lock_of(path)
        self._take_file()
        try:
            with self._speaking_of("open"):
                self._db = self._connect()
        except BaseException:
            self._lock.release()
            raise
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. Whatever `append` returned from is in it."""
        with self._guard:
            self._db.close()
            self._lock.release()

    # --- Store -----------------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """The projection as of the last event: a snapshot that never changes, and the same object until it would."""
        with self._guard:
            return self._projection.ledger()

    def append(self, *events: Event, actor: str = "controller") -> None:
        """Journal the events in one transaction and project them.

        Raises:
            PassError: nothing of it was recorded; the message says what to do.
        """
        with self._guard:
            if self._doubtful:
                self._load()
            delta = project(self._projection.ledger(), events)
            records = self._records(events, actor)
            with self._writing():
                self._write(records, delta)
            self._projection.advance(delta)
            self._tip = Tip(records[-1].seq, records[-1].hash) if records else self._tip

    def next_fence(self, above: int = 0) -> int:
        """A number greater than `above` and than every one handed out before.

        Raises:
            PassError: none was handed out; the message says what to do.
        """
        with self._guard, self._writing():
            fence = max(int(self._meta("fence") or 0), above) + 1
            self._set_meta("fence", str(fence))
        return fence

    # --- Journal ---------------------------------------------------------------------------------------------------

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        """The newest events of a unit, of an environment or of `all`, newest first; with the pauses that cover it."""
        where, scopes = _covering(scope)
        values: list[int | str] = [*scopes]
        for condition, value in _choosing(chosen):
            where += f" AND {condition}"
            values.append(value)
        query = f"SELECT {_COLUMNS} FROM events WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - no input in it
        with self._speaking_of("read"), closing(self._reader()) as db:
            return [_history(Record(*row)) for row in db.execute(query, (*values, limit))]

    def verify(self) -> int:
        """Recompute the hash chain over the whole journal and return the number of records."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return _verified(db, self._path)

    def accepted(self, commit: Commit) -> bool:
        """Whether the commit was ever part of an accepted head's first-parent chain."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return db.execute("SELECT 1 FROM commits WHERE sha = ?", (commit,)).fetchone() is not None

    # --- the file --------------------------------------------------------------------------------------------------

    def _take_file(self) -> None:
        check_whole(self._path.parent)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            taken = self._lock.take()
            if taken:
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            self._lock.release()
            raise PassError(
                "StoreUnwritable", f"{error}: store.path must be in a folder that this user owns"
            ) from error
        if not taken:
            raise locked(self._path)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=self._patience, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> None:
        with self._speaking_of("open"):
            check_known(self._path, version_of(self._db))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            migrate(self._db, self._path)
        self._load()

    def _reader(self) -> sqlite3.Connection:
        """A connection of its own, so that reading the journal never holds up the loop."""
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=self._patience, isolation_level=None
        )

    def _load(self) -> None:
        """Read the projection from disk: at start, and after a write that may or may not have happened."""
        with self._speaking_of("read"):
            units = self._db.execute("SELECT record FROM units")
            records = {record.unit: record for (row,) in units for record in [decode_kept(UnitRecord, row)]}
            pauses = tuple(
                decode_kept(Pause, row) for (row,) in self._db.execute("SELECT pause FROM pauses ORDER BY scope")
            )
            tip = self._meta("tip")
            self._projection = Projection(self._trust(Ledger(units=records, pauses=pauses)))
            self._tip = decode(Tip, tip) if tip else Tip()
            self._doubtful = False

    def _trust(self, ledger: Ledger) -> Ledger:
        """The ledger with what is known of the protected branch."""
        head, base, frozen, at = (self._meta(name) for name in ("head", "base", "frozen", "frozen_at"))
        return replace(
            ledger,
            head=Commit(head) if head else None,
            base=Commit(base) if base else None,
            frozen=decode(Hold, frozen) if frozen else None,
            frozen_at=datetime.fromisoformat(at) if at else None,
        )

    def _records(self, events: Sequence[Event], actor: str) -> list[Record]:
        at = self._clock.now().astimezone(UTC).isoformat()
        records: list[Record] = []
        tip = self._tip
        for event in events:
            action, body = encode_event(event)
            record = link(tip, at=at, actor=actor, action=action, unit=subject_of(event), body=body.decode())
            records.append(record)
            tip = Tip(record.seq, record.hash)
        return records

    def _write(self, records: Sequence[Record], delta: Delta) -> None:
        rows = [(r.seq, r.at, r.actor, r.action, r.unit, r.body, r.previous, r.hash) for r in records]
        self._db.executemany(f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
        for commit, accepted in delta.commits.items():
            query = "INSERT OR IGNORE INTO commits VALUES (?)" if accepted else "DELETE FROM commits WHERE sha = ?"
            self._db.execute(query, (commit,))
        for unit, record in delta.units.items():
            self._put("units", "unit", unit, record)
        for scope, pause in delta.pauses.items():
            self._put("pauses", "scope", scope, pause)
        self._set_meta("head", delta.head)
        self._set_meta("base", delta.base)
        self._set_meta("frozen", encode(delta.frozen).decode() if delta.frozen else None)
        self._set_meta("frozen_at", delta.frozen_at.astimezone(UTC).isoformat() if delta.frozen_at else None)
        if records:
            self._set_meta("tip", encode(Tip(records[-1].seq, records[-1].hash)).decode())

    def _put(self, table: str, key: str, name: UnitId | str, fact: UnitRecord | Pause | None) -> None:
        if fact is None:
            self._db.execute(f"DELETE FROM {table} WHERE {key} = ?", (name,))  # noqa: S608 - names of this module's
        else:
            self._db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (name, encode(fact).decode()))  # noqa: S608

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _set_meta(self, name: str, value: str | None) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction. When it fails, memory is read again from disk before the next one builds on it."""
        with self._speaking_of("write"):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._doubtful = True
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _speaking_of(self, verb: str) -> Iterator[None]:
        """Turn what SQLite says into what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise _remedy(self._path, verb, error) from error
        except Newer as error:
            raise too_new(self._path, str(error)) from error
        except ValueError as error:
            raise PassError("StoreCorrupt", f"{self._path}: cannot {verb}: {error}. {_RESTORE}") from error


def lock_of(path: Path) -> FileLock:
    """What whoever works with the store holds."""
    return FileLock(path.with_name(path.name + ".lock"))


def locked(path: Path) -> PassError:
    """Another process has the store."""
    return PassError(
        "StoreLocked",
        f"{path}: another reconciler runs on this store; stop it first, or give this one its own store.path",
    )


def verify_file(path: Path) -> int:
    """As `SqliteStore.verify`, of a file that a daemon may have open.

    Raises:
        PassError: "AuditBroken"; or the file cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            return _verified(db, path)
    except sqlite3.Error as error:
        raise _remedy(path, "read", error) from error
    except ValueError as error:
        raise PassError("StoreCorrupt", f"{path}: cannot read: {error}. {_RESTORE}") from error


def copy_store(path: Path, target: Path) -> int:
    """Copy the store as it is at one moment, whether or not a daemon has it open; how many records the copy's journal has.

    Raises:
        PassError: "StoreTooNew", "AuditBroken"; or the file cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            check_known(path, version_of(db))
            copy_to(db, target)
    except sqlite3.Error as error:
        raise _remedy(path, "copy", error) from error
    return verify_file(target)


def _verified(db: sqlite3.Connection, path: Path) -> int:
    db.execute("BEGIN")  # one snapshot: the chain and its tip belong together
    row = db.execute("SELECT value FROM meta WHERE name = 'tip'").fetchone()
    tip = decode(Tip, row[0]) if row else Tip()
    rows = db.execute(f"SELECT {_COLUMNS} FROM events ORDER BY seq")  # noqa: S608 - no input in it
    return check((Record(*row) for row in rows), tip, str(path))


_RESTORE = "Stop the daemon, put the file aside and restore the last backup."
_REMEDIES = {
    "SQLITE_FULL": ("StoreFull", "Free space on its disk; nothing was recorded, and work goes on by itself then."),
    "SQLITE_BUSY": ("StoreLocked", "Another program holds the file locked: end it; work goes on by itself then."),
    "SQLITE_LOCKED": ("StoreLocked", "Another program holds the file locked: end it; work goes on by itself then."),
    "SQLITE_CORRUPT": ("StoreCorrupt", _RESTORE),
    "SQLITE_NOTADB": ("StoreCorrupt", _RESTORE),
    "SQLITE_READONLY": ("StoreUnwritable", "The daemon's user must own the file and its folder."),
    "SQLITE_CANTOPEN": ("StoreUnwritable", "The daemon's user must own the file and its folder."),
    "SQLITE_PERM": ("StoreUnwritable", "The daemon's user must own the file and its folder."),
}


def _remedy(path: Path, verb: str, error: sqlite3.Error) -> PassError:
    name = getattr(error, "sqlite_errorname", "")
    primary = "_".join(name.split("_")[:2])  # SQLITE_READONLY_DBMOVED is a kind of SQLITE_READONLY
    reason, remedy = _REMEDIES.get(primary, ("StoreFailed", "See the disk's health and the kernel's log."))
    return PassError(reason, f"{path}: cannot {verb}: {error}. {remedy}")


def _covering(scope: str) -> tuple[str, tuple[str, ...]]:
    """The condition for events about the scope, or that cover or lie inside it, and its parameters."""
    if scope == "all":
        return "1", ()
    environment, _, rest = scope.partition("/")
    if rest:
        return "unit IN (?, ?, 'all')", (scope, environment)
    return "(unit IN (?, 'all') OR (unit >= ? AND unit < ?))", (scope, f"{scope}/", f"{scope}0")  # "0" follows "/"


def _choosing(chosen: Chosen) -> Iterator[tuple[str, int | str]]:
    """The conditions for what else was asked, each with its parameter."""
    if chosen.before is not None:
        yield "seq < ?", chosen.before
    if chosen.actor:
        yield "actor = ?", chosen.actor
    if chosen.action:
        yield "action = ?", chosen.action


def _history(record: Record) -> HistoryEvent:
    at = datetime.fromisoformat(record.at)
    return HistoryEvent(record.seq, at, record.actor, record.action, record.unit, orjson.loads(record.body))

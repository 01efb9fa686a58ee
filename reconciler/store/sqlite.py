"""The store in one SQLite file: the journal, its projection, and the lease that lets one process at a time write them."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from reconciler.actual.ledger import Event
from reconciler.actual.shared import shared
from reconciler.codec import Newer, decode, decode_kept, encode, encode_event
from reconciler.durable import FileLock
from reconciler.errors import PassError
from reconciler.model import BreakGlass, Commit, Hold, Ledger, OutsideChange, Pause, UnitRecord
from reconciler.ports import ALL, Chosen, Clock, HistoryEvent, Term
from reconciler.replacing import check_whole, under_way
from reconciler.store import lease
from reconciler.store.chain import Record, Tip, link
from reconciler.store.copying import copy_to
from reconciler.store.lease import TTL, Steady
from reconciler.store.migrations import MIGRATIONS, check_known, migrate, too_new, version_of
from reconciler.store.projection import Delta, Projection, project, subject_of
from reconciler.store.reading import COLUMNS, following, newest, verified
from reconciler.store.remedies import RESTORE, remedy

T = TypeVar("T")


class SqliteStore:
    """`ports.Store`, `ports.Journal` and `ports.Lease` over one file.

    Every append is one transaction that is on disk before memory follows, so memory never knows more than the disk. The
    same transaction looks whether this process still leads. The lock beside the file is held by whoever leads, for as long
    as it lives: who finds it free need not wait.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        patience: float = 5.0,
        ttl: float = TTL,
        lead: bool = True,
        steady: Steady | None = None,
    ) -> None:
        """Open the file, or make it. `patience`: seconds to wait for a foreign reader's or backup's lock.

        `lead`: at once, as a program does that has the store for itself; otherwise nothing is read until `acquire`.

        Raises:
            PassError: another process leads, a newer version wrote it, or it cannot be read.
        """
        self._path, self._clock, self._patience = path, clock, patience
        self._ttl, self._steady = ttl, steady or Steady()
        self._holder, self._fence, self._until = lease.new_holder(), 0, 0.0
        self._watched = lease.Waiting()
        self._guard = threading.RLock()
        self._tip = Tip()
        self._projection = Projection(Ledger())
        self._doubtful = False
        self._lock = lock_of(path)
        self._open()
        try:
            if lead:
                self._lead_alone()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the lease and of the file. Whatever `append` returned from is in it."""
        with self._guard:
            self.release()
            self._db.close()

    # --- Lease -----------------------------------------------------------------------------------------------------

    def acquire(self) -> int | None:
        """See `Lease`. Memory is read from disk in the transaction that takes over."""
        with self._guard:
            try:
                free = self._take_lock()
                if self._is_ready(free=free) and self._take_over(free=free):
                    return self._fence
            finally:
                if not self._fence:
                    self._lock.release()
            return None

    def renew(self) -> None:
        """See `Lease`. A lock that a stopped leader held is taken once that one has died."""
        with self._guard:
            proof, began = self._take_lock(), self._steady.holding()
            with self._writing():
                ours = self._ours()
                if self._found() != self._file:
                    raise lease.replaced(self._path)
                lease.write(self._db, replace(ours, ttl=self._ttl, beat=ours.beat + 1, proof=proof))
            self._until = began + self._ttl * (1 - lease.MARGIN)

    def check(self) -> None:
        """See `Lease`."""
        if self._steady.holding() >= self._until:
            raise lease.overdue(self._path, self._ttl)

    def release(self) -> None:
        """See `Lease`."""
        with self._guard:
            if self._fence:
                with suppress(PassError), self._writing():
                    lease.write(self._db, replace(self._ours(), holder=""))
            self._fence, self._until = 0, 0.0
            self._lock.release()

    def term(self) -> Term | None:
        """See `Lease`. Never waits for a writer."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return lease.read(db) if version_of(db) == len(MIGRATIONS) else None

    def _take_lock(self) -> bool:
        with self._speaking_of("lock"):
            return self._lock.take()

    def _is_ready(self, *, free: bool) -> bool:
        """Whether the store is of this version. An older one is brought up to date by whoever has the lock, for nobody uses it."""
        if not free and under_way(self._path.parent):
            return False  # a restore holds the lock
        with self._speaking_of("open"):
            if not self._path.exists() or self._found() != self._file:
                self._db.close()
                self._open()
            check_whole(self._path.parent)
            check_known(self._path, found := version_of(self._db))
            if found < len(MIGRATIONS) and free:
                migrate(self._db, self._path)
            return free or found == len(MIGRATIONS)

    def _take_over(self, *, free: bool) -> bool:
        before = self._steady.waiting()
        with self._speaking_of("read"):
            term = lease.read(self._db)
        began = self._steady.holding()
        if not self._watched.lets(term, before, self._steady.waiting(), free=free):
            return False
        ours = Term(self._holder, term.fence + 1, self._ttl, proof=free)
        with self._writing():
            if lease.read(self._db) != term:
                return False
            lease.write(self._db, ours)
            self._load()
        self._fence, self._until = ours.fence, began + self._ttl * (1 - lease.MARGIN)
        return True

    def _ours(self) -> Term:
        """This process's term, inside a transaction. Raises PassError: it has none, or another one took over."""
        if not self._fence:
            raise lease.standing_by(self._path, self.term())
        found = lease.read(self._db)
        if (found.holder, found.fence) != (self._holder, self._fence):
            raise lease.lost(self._path, self._fence, found)
        return found

    def _lead_alone(self) -> None:
        if self.acquire() is None:
            raise locked(self._path)

    # --- Store -----------------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """The projection as of the last event: a snapshot that never changes, and the same object until it would.

        Raises:
            PassError: "Standby": this process does not lead, and nothing that it knew would be true.
        """
        with self._guard:
            if not self._fence:
                raise lease.standing_by(self._path, self.term())
            return self._projection.ledger()

    def append(self, *events: Event, actor: str = "controller") -> None:
        """Journal the events in one transaction and project them.

        Raises:
            PassError: nothing of it was recorded; the message says what to do.
        """
        with self._guard:
            if self._doubtful and self._fence:
                self._load()
            delta = project(self._projection.ledger(), events)
            records = self._records(events, actor)
            with self._writing():
                self._ours()
                self._write(records, delta)
            self._projection.advance(delta)
            self._tip = Tip(records[-1].seq, records[-1].hash) if records else self._tip

    def next_fence(self, above: int = 0) -> int:
        """A number greater than `above` and than every one handed out before.

        Raises:
            PassError: none was handed out; the message says what to do.
        """
        with self._guard:
            with self._writing():
                ours = self._ours()
                fence = max(ours.fence, above) + 1
                lease.write(self._db, replace(ours, fence=fence))
            self._fence = fence
            return fence

    # --- Journal ---------------------------------------------------------------------------------------------------

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        """The newest events of a unit, of an environment or of `all`, newest first; with the pauses that cover it."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return newest(db, scope, limit, chosen)

    def since(self, number: int, limit: int) -> Sequence[HistoryEvent]:
        """The events after the one of that number, oldest first."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return following(db, number, limit)

    def verify(self) -> int:
        """Recompute the hash chain over the whole journal and return the number of records."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return verified(db, self._path)

    def accepted(self, commit: Commit) -> bool:
        """Whether the commit was ever part of an accepted head's first-parent chain."""
        with self._speaking_of("read"), closing(self._reader()) as db:
            return db.execute("SELECT 1 FROM commits WHERE sha = ?", (commit,)).fetchone() is not None

    # --- the file --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._make_file()
        with self._speaking_of("open"):
            self._file = self._found()
            self._db = self._connect()
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _found(self) -> tuple[int, int]:
        """Which file is there: a restore puts another in its place."""
        found = self._path.stat()
        return found.st_dev, found.st_ino

    def _make_file(self) -> None:
        check_whole(self._path.parent)
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise PassError(
                "StoreUnwritable", f"{error}: store.path must be in a folder that this user owns"
            ) from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=self._patience, isolation_level=None, check_same_thread=False)

    def _prepare(self) -> None:
        with self._speaking_of("open"):
            check_known(self._path, version_of(self._db))
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")

    def _reader(self) -> sqlite3.Connection:
        """A connection of its own, so that reading the journal never holds up the loop."""
        return sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode=ro", uri=True, timeout=self._patience, isolation_level=None
        )

    def _load(self) -> None:
        """Read the projection from disk: at start, and after a write that may or may not have happened."""
        with self._speaking_of("read"):
            units = self._db.execute("SELECT record FROM units")
            records = {record.unit: record for (row,) in units for record in [shared(decode_kept(UnitRecord, row))]}
            pauses = self._all(Pause, "SELECT pause FROM pauses ORDER BY scope")
            sessions = self._all(BreakGlass, "SELECT session FROM sessions ORDER BY scope")
            outside = self._all(OutsideChange, "SELECT change FROM outside ORDER BY key")
            tip, told = self._meta("tip"), self._meta("told")
            digests = decode(tuple[str, ...], told) if told else ()
            known = Ledger(units=records, pauses=pauses, sessions=sessions, outside=outside, told=digests)
            self._projection = Projection(self._trust(known))
            self._tip = decode(Tip, tip) if tip else Tip()
            self._doubtful = False

    def _all(self, kind: type[T], query: str) -> tuple[T, ...]:
        return tuple(decode_kept(kind, row) for (row,) in self._db.execute(query))

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
        self._db.executemany(f"INSERT INTO events ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
        for commit, accepted in delta.commits.items():
            query = "INSERT OR IGNORE INTO commits VALUES (?)" if accepted else "DELETE FROM commits WHERE sha = ?"
            self._db.execute(query, (commit,))
        for unit, record in delta.units.items():
            self._put("units", "unit", unit, record)
        for scope, pause in delta.pauses.items():
            self._put("pauses", "scope", scope, pause)
        for scope, session in delta.sessions.items():
            self._put("sessions", "scope", scope, session)
        for name, change in delta.outside.items():
            self._put("outside", "key", name, change)
        if delta.told is not None:
            self._set_meta("told", encode(delta.told).decode())
        self._set_meta("head", delta.head)
        self._set_meta("base", delta.base)
        self._set_meta("frozen", encode(delta.frozen).decode() if delta.frozen else None)
        self._set_meta("frozen_at", delta.frozen_at.astimezone(UTC).isoformat() if delta.frozen_at else None)
        if records:
            self._set_meta("tip", encode(Tip(records[-1].seq, records[-1].hash)).decode())

    def _put(self, table: str, key: str, name: str, fact: object | None) -> None:
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
            raise remedy(self._path, verb, error) from error
        except OSError as error:
            raise PassError(
                "StoreUnwritable", f"{error}: the daemon's user must own store.path and its folder"
            ) from error
        except Newer as error:
            raise too_new(self._path, str(error)) from error
        except ValueError as error:
            raise PassError("StoreCorrupt", f"{self._path}: cannot {verb}: {error}. {RESTORE}") from error


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
            return verified(db, path)
    except sqlite3.Error as error:
        raise remedy(path, "read", error) from error
    except ValueError as error:
        raise PassError("StoreCorrupt", f"{path}: cannot read: {error}. {RESTORE}") from error


def copy_store(path: Path, target: Path) -> int:
    """Copy the store as it is at one moment, whether or not a daemon has it open; how many records the copy's journal has.

    Raises:
        PassError: "StoreTooNew", "AuditBroken"; or the file cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as db:
            check_known(path, version_of(db))
            copy_to(db, target)
        with closing(sqlite3.connect(target, isolation_level=None)) as copy:
            lease.free(copy)
    except sqlite3.Error as error:
        raise remedy(path, "copy", error) from error
    return verify_file(target)

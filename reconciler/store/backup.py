"""The controller's part of a backup: its store, and what it has proven. Whatever git has is fetched again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reconciler import snapshot
from reconciler.actual.ledger import BreakGlassClosed, BreakGlassOpened, Event, Frozen, Paused, Restored
from reconciler.archive import Archive, Piece
from reconciler.errors import ReconcilerError
from reconciler.model import BreakGlass, Ledger, UnitId
from reconciler.ports import Clock
from reconciler.store import lease
from reconciler.store.sqlite import SqliteStore, copy_store, lock_of, locked
from reconciler.trust import is_final

PLANE = "controller"
STORE = "store.db"  # its name in the archive
BESIDE = ("proofs", "catalogs")
_PROVEN = r"proofs/(?:[0-9a-f]{2}|keys)\.jsonl|proofs/version|catalogs/[A-Za-z0-9_-]{1,100}\.json"
NAMES = re.compile(rf"store\.db|{_PROVEN}")


@dataclass(frozen=True, slots=True)
class Part:
    """A plane's files, and what the manifest says of the plane."""

    pieces: tuple[Piece, ...]
    about: dict[str, str]


def collect(path: Path, scratch: Path) -> Part:
    """Everything of the controller, also while it runs. The store first: whatever it leans on was proven before.

    Raises:
        PassError: the store cannot be read, its journal's chain is broken, or there is no still moment.
    """
    copy = scratch / STORE
    records = copy_store(path, copy)
    proven = snapshot.take(path.parent, BESIDE, lambda name: NAMES.fullmatch(name) is not None)
    pieces = [Piece(STORE, path=copy, size=copy.stat().st_size), *proven]
    return Part(tuple(pieces), {"records": str(records)})


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """No daemon works with the store, and none begins to. Raises PassError "StoreLocked"."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = lock_of(path)
    if not lock.take():
        raise locked(path)
    try:
        if lease.holds_without_proof(path):
            raise locked(path)
        yield
    finally:
        lock.release()


def there(path: Path) -> list[str]:
    """What a restore would replace."""
    return [name for name in (path.name, *BESIDE) if (path.parent / name).exists()]


def replaced(path: Path) -> tuple[str, ...]:
    """Every name that a restore puts there, or takes away: the store's own side files with it."""
    return (path.name, f"{path.name}-wal", f"{path.name}-shm", *BESIDE)


def prepare(new: Path, path: Path, archive: Archive, clock: Clock) -> list[str]:
    """Make what was unpacked into the store that shall be; what it takes over from the one that is replaced, for people.

    What an admin stopped since stays stopped, no fence is handed out twice, and a history that was found rewritten stays so.

    Raises:
        PassError: the backup's store cannot be used.
    """
    (new / STORE).rename(new / path.name)
    store = SqliteStore(new / path.name, clock)
    try:
        told = _carry_over(store, path, new / "old.db", clock) if path.exists() else []
        store.append(Restored(archive.sha256, archive.manifest.made_at), actor="restore")
        ledger = store.ledger()
        pauses = [f"{one.scope} is paused until {one.until:%Y-%m-%d %H:%M UTC}" for one in ledger.pauses]
        sessions = [f"{one.scope}: break-glass until {one.until:%Y-%m-%d %H:%M UTC}" for one in ledger.sessions]
    finally:
        store.close()
    return [*told, *pauses, *sessions]


def _carry_over(store: SqliteStore, old: Path, copy: Path, clock: Clock) -> list[str]:
    try:
        copy_store(old, copy)
        before = SqliteStore(copy, clock)
    except ReconcilerError as error:
        what = "look whether a pause was made, or a break-glass session opened, since"
        return [f"The store that is replaced cannot be read ({error.reason}): {what}."]
    try:
        store.next_fence(before.next_fence() - 1)
        stricter = _stricter(before.ledger(), store.ledger(), clock)
        store.append(*stricter, actor="restore")
    finally:
        before.close()
    return (
        [f"Taken over from the store that is replaced: {len(stricter)} stops that were made since."] if stricter else []
    )


def _stricter(before: Ledger, now: Ledger, clock: Clock) -> list[Event]:
    """What stops something in the ledger that is replaced, and not in the restored one."""
    known = {pause.scope: pause for pause in now.pauses}
    events: list[Event] = [
        Paused(pause)
        for pause in before.pauses
        if pause.until > clock.now() and (pause.scope not in known or known[pause.scope].until < pause.until)
    ]
    events += _by_hand(before, now, clock)
    if before.frozen is not None and is_final(before.frozen.reason) and before.frozen != now.frozen:
        events.append(Frozen(before.frozen, before.frozen_at))
    return events


def _by_hand(before: Ledger, now: Ledger, clock: Clock) -> list[Event]:
    """Where people work by hand, or did and it was not settled: nothing of that is put back by a store that does not know of it."""
    opened = [session for session in before.sessions if session not in now.sessions]
    marked: dict[BreakGlass, list[UnitId]] = {}
    for unit, record in sorted(before.units.items()):
        if record.aftermath is not None:
            marked.setdefault(record.aftermath.session, []).append(unit)
    closed = [BreakGlassClosed(one, clock.now(), "restore", tuple(units)) for one, units in marked.items()]
    return [*closed, *(BreakGlassOpened(session) for session in opened)]

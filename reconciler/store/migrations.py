"""The store's versions: what a newer program does to a store that an older one wrote, and what an older one refuses."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from reconciler.errors import PassError
from reconciler.store.copying import copy_to

V1 = """
CREATE TABLE events (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, unit TEXT,
  body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_unit ON events (unit, seq);
CREATE TABLE units (unit TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pauses (scope TEXT PRIMARY KEY, pause TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE commits (sha TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT) STRICT, WITHOUT ROWID;
"""

# Who leads. Fences go on where version 1, which knew one process at a time, left off.
V2 = """
CREATE TABLE lease (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  holder TEXT NOT NULL, fence INTEGER NOT NULL, ttl REAL NOT NULL, beat INTEGER NOT NULL, proof INTEGER NOT NULL
) STRICT;
INSERT INTO lease SELECT 1, '', coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'fence'), 0), 0, 0, 0;
DELETE FROM meta WHERE name = 'fence';
"""

# Break-glass sessions that are open.
V3 = """
CREATE TABLE sessions (scope TEXT PRIMARY KEY, session TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

# What others wrote in the environments' accounts.
V4 = """
CREATE TABLE outside (key TEXT PRIMARY KEY, change TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""

# The script at n brings version n to n + 1. One that was released is never changed: a further version is a further script.
MIGRATIONS: tuple[str, ...] = (V1, V2, V3, V4)


def migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the store up to this program's version: all steps in one transaction, so that a crash leaves the old one.

    The store as it was is kept beside it, as `<name>.before-v<N>`, before anything is changed.

    Raises:
        PassError: "StoreTooNew".
    """
    found, wanted = version_of(db), len(migrations)
    check_known(path, found, wanted)
    if found == wanted:
        return
    if found:
        copy_to(db, path.with_name(f"{path.name}.before-v{wanted}"))
    steps = "\n".join(migrations[found:])
    try:
        db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {wanted}; COMMIT;")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def version_of(db: sqlite3.Connection) -> int:
    """The version of a store; 0 of a new file."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def check_known(path: Path, found: int, known: int = len(MIGRATIONS)) -> None:
    """Raises PassError "StoreTooNew": a newer program wrote it, and only that one knows what it means."""
    if found > known:
        raise too_new(path, f"store version {found}, this one knows {known}")


def too_new(path: Path, what: str) -> PassError:
    """A newer program wrote the store: read as an older one it would be misread."""
    return PassError(
        "StoreTooNew",
        f"{path}: written by a newer reconciler ({what}); install that version again, or restore the backup from before the "
        f"upgrade: `reconciler restore`, or the copy {path.name}.before-v* beside it",
    )

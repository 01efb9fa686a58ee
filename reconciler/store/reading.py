"""The journal as it is read: for people, and to be verified."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import orjson

from reconciler.codec import decode
from reconciler.ports import ALL, Chosen, HistoryEvent
from reconciler.store.chain import Record, Tip, check

COLUMNS = "seq, at, actor, action, unit, body, previous, hash"


def newest(db: sqlite3.Connection, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
    """The newest events of a unit, of an environment or of `all`, newest first; with the pauses that cover it."""
    where, scopes = _covering(scope)
    values: list[int | str] = [*scopes]
    for condition, value in _choosing(chosen):
        where += f" AND {condition}"
        values.append(value)
    query = f"SELECT {COLUMNS} FROM events WHERE {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - no input in it
    return [_history(Record(*row)) for row in db.execute(query, (*values, limit))]


def following(db: sqlite3.Connection, number: int, limit: int) -> Sequence[HistoryEvent]:
    """The events after the one of that number, oldest first."""
    query = f"SELECT {COLUMNS} FROM events WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608 - no input in it
    return [_history(Record(*row)) for row in db.execute(query, (number, limit))]


def verified(db: sqlite3.Connection, path: Path) -> int:
    """Recompute the hash chain and return the number of records. Raises PassError "AuditBroken"."""
    db.execute("BEGIN")  # one snapshot: the chain and its tip belong together
    row = db.execute("SELECT value FROM meta WHERE name = 'tip'").fetchone()
    tip = decode(Tip, row[0]) if row else Tip()
    rows = db.execute(f"SELECT {COLUMNS} FROM events ORDER BY seq")  # noqa: S608 - no input in it
    return check((Record(*row) for row in rows), tip, str(path))


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

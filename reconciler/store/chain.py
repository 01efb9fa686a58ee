"""The hash chain of the journal: each record vouches for all before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from reconciler.errors import PassError

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Record:
    """One event as it lies in the journal. `at` is ISO 8601 in UTC, `body` the event's JSON, hashes are hex."""

    seq: int
    at: str
    actor: str
    action: str
    unit: str | None
    body: str
    previous: str
    hash: str


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest record: kept apart from the records, so that one missing at the end shows."""

    seq: int = 0
    hash: str = GENESIS


def link(tip: Tip, *, at: str, actor: str, action: str, unit: str | None, body: str) -> Record:
    """The next record of the chain."""
    seq = tip.seq + 1
    return Record(seq, at, actor, action, unit, body, tip.hash, _hash(tip.hash, seq, at, actor, action, unit, body))


def _hash(previous: str, *record: int | str | None) -> str:
    return hashlib.sha256(previous.encode() + b"\n" + orjson.dumps(record)).hexdigest()


def check(records: Iterable[Record], tip: Tip, place: str, start: Tip = Tip()) -> int:
    """Recompute the chain from the record after `start` on; the number of the last. `place` names the journal in the error.

    Raises:
        PassError: "AuditBroken", naming the first record that does not fit.
    """
    last = start
    for record in records:
        expected = link(
            last, at=record.at, actor=record.actor, action=record.action, unit=record.unit, body=record.body
        )
        if record != expected:
            missing = record.seq != expected.seq
            raise _broken(place, expected.seq, "is missing" if missing else "is not what was written")
        last = Tip(record.seq, record.hash)
    if last != tip:
        raise _broken(place, last.seq + 1, f"is missing: the journal's last record is number {tip.seq}")
    return last.seq


def _broken(place: str, seq: int, what: str) -> PassError:
    return PassError(
        "AuditBroken",
        f"{place}: record {seq} of the journal {what}. Somebody or something changed the file behind the daemon: keep a "
        "copy of it as evidence, find out who can write there, and restore the last backup whose journal verifies.",
    )

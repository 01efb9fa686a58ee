"""The journal's records as items, and as they are read: for people, to be verified, and to be projected.

A record is one item. What of its body does not fit lies in items of its own, written before it or with it. Whether a record
counts is said by the tip alone, which is in the lease's item: what lies beyond it was left by a write that never ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import islice

import orjson

from reconciler.ports import Chosen, HistoryEvent
from reconciler.store.chain import Record
from reconciler.store.dynamodb.patience import Patient
from reconciler.store.dynamodb.table import AT_ONCE, MOST_OF_ITEM, STAMP, Item, Key, Put, Range, Value, size_of

JOURNAL = "journal"
SOME = 100  # records of an answer where only some of them are wanted
_CHARACTERS = MOST_OF_ITEM // 4  # of a body in one item: none has more than four bytes


def stamp_of(fence: int, attempt: int) -> str:
    """Sorts by term, then by attempt: a request of an earlier one that arrives late replaces nothing of a later one."""
    return f"{fence:020d}.{attempt:020d}"


def puts_of(record: Record, stamp: str) -> Iterator[Put]:
    """What is written of a record, its item last."""
    first, *more = _parts(record.body)
    for number, part in enumerate(more, 1):
        yield Put(Key(_more(record.seq), number), {"body": part, STAMP: stamp})
    item: dict[str, Value] = {
        "at": record.at,
        "actor": record.actor,
        "action": record.action,
        "body": first,
        "previous": record.previous,
        "hash": record.hash,
        STAMP: stamp,
    }
    if record.unit is not None:
        item["unit"] = record.unit
    if more:
        item["more"] = len(more)
    yield Put(Key(JOURNAL, record.seq), item)


def batches(puts: Sequence[Put], most_items: int, most_bytes: int) -> list[list[Put]]:
    """The writes in transactions that are not too large, one item kept free for the lease's."""
    made: list[list[Put]] = [[]]
    size = 0
    for put in puts:
        more = size_of(put.item) + 100
        if made[-1] and (len(made[-1]) + 1 >= most_items or size + more > most_bytes):
            made.append([])
            size = 0
        made[-1].append(put)
        size += more
    return made


@dataclass(frozen=True, slots=True)
class Journal:
    """The records in the table. `tip` is always the number of the last one that counts."""

    table: Patient

    def records(self, first: int, tip: int) -> Iterator[Record]:
        """From that number on, oldest first."""
        for page in self.table.pages(Range(JOURNAL, first, tip)):
            for key, item in page.items:
                yield self._record(key, item)

    def newest(self, scope: str, limit: int, chosen: Chosen, tip: int) -> list[HistoryEvent]:
        """The newest events of a unit, of an environment or of `all`, newest first; with the pauses that cover it."""
        last = min(tip, chosen.before - 1) if chosen.before is not None else tip
        plain = scope == "all" and not chosen.actor and not chosen.action
        found = self._about(scope, last) if "/" in scope else self._backward(last, limit if plain else SOME)
        wanted = (one for one in found if _covers(scope, one.unit) and _is_chosen(one, chosen))
        return [_history(one) for one in islice(wanted, limit)]

    def following(self, number: int, limit: int, tip: int) -> list[HistoryEvent]:
        """The events after the one of that number, oldest first."""
        return [_history(one) for one in self.records(number + 1, min(tip, number + limit))]

    def _backward(self, last: int, at_once: int) -> Iterator[Record]:
        for page in self.table.pages(Range(JOURNAL, 1, last, newest_first=True, limit=at_once)):
            for key, item in page.items:
                yield self._record(key, item)

    def _about(self, unit: str, last: int) -> Iterator[Record]:
        """By the index, which has numbers only. It may know of records that were replaced: the items themselves tell."""
        scopes = (unit, unit.partition("/")[0], "all")
        numbers = merge(*(self._numbers(scope, last) for scope in scopes), reverse=True)
        while some := list(islice(numbers, AT_ONCE)):
            for key, item in self.table.read_all([Key(JOURNAL, number) for number in some]):
                yield self._record(key, item)

    def _numbers(self, unit: str, last: int) -> Iterator[int]:
        for page in self.table.pages(Range(JOURNAL, 1, last, newest_first=True, limit=SOME, unit=unit)):
            yield from (key.number for key, _ in page.items)

    def _record(self, key: Key, item: Item) -> Record:
        body, unit, more = str(item["body"]), item.get("unit"), int(item.get("more", 0))
        if more:
            pages = self.table.pages(Range(_more(key.number), 1, more))
            body += "".join(str(part["body"]) for page in pages for _, part in page.items)
        at, actor, action, previous, found = (str(item[name]) for name in ("at", "actor", "action", "previous", "hash"))
        return Record(key.number, at, actor, action, None if unit is None else str(unit), body, previous, found)


def _parts(body: str) -> list[str]:
    return [body[start : start + _CHARACTERS] for start in range(0, len(body), _CHARACTERS)] or [""]


def _more(seq: int) -> str:
    return f"journal#{seq}"


def _covers(scope: str, unit: str | None) -> bool:
    """Whether an event is about the scope, or about what covers it or lies inside it."""
    if scope == "all":
        return True
    environment, _, rest = scope.partition("/")
    return unit in {scope, environment, "all"} or (not rest and unit is not None and unit.startswith(f"{scope}/"))


def _is_chosen(record: Record, chosen: Chosen) -> bool:
    return chosen.actor in {"", record.actor} and chosen.action in {"", record.action}


def _history(record: Record) -> HistoryEvent:
    at = datetime.fromisoformat(record.at)
    return HistoryEvent(record.seq, at, record.actor, record.action, record.unit, orjson.loads(record.body))

"""DynamoDB in memory, as far as the store asks it: the same conditions, all or none. The contract suite holds it against moto's."""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.store.dynamodb.table import (
    MOST_ITEMS,
    STAMP,
    Change,
    Item,
    Key,
    Page,
    Put,
    Range,
    Refused,
    Table,
    Write,
    size_of,
)

DEPLOY = Path(__file__).parents[2] / "deploy" / "dynamodb"
ONE_ANSWER = 20  # items; DynamoDB's is 1 MB


def make_table(client: Any, name: str) -> None:
    """Make the table as an admin does by the documented command."""
    client.create_table(TableName=name, **json.loads((DEPLOY / "table.json").read_text()))


@dataclass
class FakeTable:
    """`Table`. It takes no parts of the wire format, and so says nothing of `aws.AwsTable`."""

    items: dict[Key, Item] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    done: set[str] = field(default_factory=set)  # tokens

    def read(self, key: Key) -> Item | None:
        with self.guard:
            return self.items.get(key)

    def read_many(self, keys: Sequence[Key]) -> Mapping[Key, Item]:
        with self.guard:
            return {key: self.items[key] for key in keys if key in self.items}

    def page(self, wanted: Range) -> Page:
        with self.guard:
            numbers = range(wanted.first, wanted.last + 1)
            if wanted.unit is None:
                found = [key for number in numbers if (key := Key(wanted.group, number)) in self.items]
            else:
                found = sorted(key for key, item in self.items.items() if item.get("unit") == wanted.unit)
                found = [key for key in found if wanted.first <= key.number <= wanted.last]
            if wanted.newest_first:
                found.reverse()
            most = min(wanted.limit or ONE_ANSWER, ONE_ANSWER)
            here, more = found[:most], found[most:]
            rest: Range | None = None
            if more and wanted.newest_first:
                rest = replace(wanted, last=here[-1].number - 1)
            elif more:
                rest = replace(wanted, first=here[-1].number + 1)
            return Page([(key, {} if wanted.unit is not None else self.items[key]) for key in here], rest)

    def write(self, writes: Sequence[Write], token: str) -> None:
        assert len({write.key for write in writes}) == len(writes) <= MOST_ITEMS, "DynamoDB would refuse it"
        with self.guard:
            if token in self.done:
                return
            for index, write in enumerate(writes):
                if not self._holds(write):
                    raise Refused(index, self.items.get(write.key))
            for write in writes:
                if isinstance(write, Put):
                    self.items[write.key] = dict(write.item)
                elif isinstance(write, Change):
                    self.items[write.key] = {**self.items.get(write.key, {}), **write.values}
            if len(writes) > 1:
                self.done.add(token)

    def _holds(self, write: Write) -> bool:
        there = self.items.get(write.key)
        if isinstance(write, Put):
            return there is None or str(there[STAMP]) <= str(write.item[STAMP])
        if write.when is None:
            return there is None
        return there is not None and all(there.get(name) == value for name, value in write.when.items())


@dataclass
class Counting:
    """A table whose requests are counted, with the units that AWS bills: of writes by KB, of reads by 4 KB."""

    table: Table
    requests: Counter[str] = field(default_factory=Counter)
    units: Counter[str] = field(default_factory=Counter)

    def _count(self, verb: str, kind: str, units: int) -> None:
        self.requests[verb] += 1
        self.units[kind] += units

    def read(self, key: Key) -> Item | None:
        found = self.table.read(key)
        self._count("GetItem", "read", _blocks(size_of(found or {}) + 20, 4096))
        return found

    def read_many(self, keys: Sequence[Key]) -> Mapping[Key, Item]:
        found = self.table.read_many(keys)
        self._count("BatchGetItem", "read", sum(_blocks(size_of(one) + 20, 4096) for one in found.values()))
        return found

    def page(self, wanted: Range) -> Page:
        page = self.table.page(wanted)
        self._count("Query", "read", _blocks(sum(size_of(item) + 20 for _, item in page.items), 4096))
        return page

    def write(self, writes: Sequence[Write], token: str) -> None:
        self.table.write(writes, token)
        verb = "TransactWriteItems" if len(writes) > 1 else "PutItem" if isinstance(writes[0], Put) else "UpdateItem"
        units = 0
        for write in writes:
            size = size_of(write.item if isinstance(write, Put) else self.table.read(write.key) or {}) + 20
            units += _blocks(size, 1024) * (2 if len(writes) > 1 else 1)
            units += 1 if isinstance(write, Put) and "unit" in write.item else 0  # the index
        self._count(verb, "write", units)


def _blocks(size: int, block: int) -> int:
    return max(1, -(-size // block))


@dataclass
class Troubled:
    """A table to which something happens: `before` and `after` each write may raise what DynamoDB and networks answer."""

    table: Table
    before: Callable[[Sequence[Write]], None] = lambda _: None
    after: Callable[[Sequence[Write]], None] = lambda _: None
    reading: Callable[[], None] = lambda: None

    def read(self, key: Key) -> Item | None:
        self.reading()
        return self.table.read(key)

    def read_many(self, keys: Sequence[Key]) -> Mapping[Key, Item]:
        self.reading()
        return self.table.read_many(keys)

    def page(self, wanted: Range) -> Page:
        self.reading()
        return self.table.page(wanted)

    def write(self, writes: Sequence[Write], token: str) -> None:
        self.before(writes)
        self.table.write(writes, token)
        self.after(writes)


@contextmanager
def quick_transactions() -> Iterator[None]:
    """moto's transactions, as DynamoDB's in two respects: alone while they last, and no slower as the table grows.

    moto copies the table once for each item of a transaction, and puts the copy back where it fails, with whatever others wrote meanwhile.
    Here the items that it touches are put back, and nothing else.
    """
    from moto.dynamodb import models

    of, guard = models.DynamoDBBackend, threading.RLock()
    names = ("put_item", "update_item", "delete_item", "get_item", "query", "transact_write_items")
    was = {name: getattr(of, name) for name in names}

    def alone(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **more: Any) -> Any:
            with guard:
                return was[name](self, *args, **more)

        return call

    def transact(self: Any, transact_items: list[dict[str, Any]]) -> None:
        with guard, pytest.MonkeyPatch.context() as patch:
            before = [_item(self, *one.values()) for one in transact_items]
            patch.setattr(models, "copy", _Copy())
            try:
                was["transact_write_items"](self, transact_items)
            except Exception:
                for table, where, item in before:
                    _put_back(table, where, item)
                raise

    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(of, name, transact if name == "transact_write_items" else alone(name))
        yield


class _Copy:
    """The module `copy`, but for tables."""

    @staticmethod
    def deepcopy(what: Any) -> Any:
        return what if hasattr(what, "table_arn") else copy.deepcopy(what)


def _item(backend: Any, op: Mapping[str, Any]) -> tuple[Any, tuple[Any, Any], Any]:
    """The item that a part of a transaction is about, as it is: its table, its key, and a copy of it."""
    table = backend.get_table(op["TableName"])
    where = backend.get_keys_value(table, op.get("Key") or op["Item"])
    return table, where, copy.deepcopy(table.items[where[0]].get(where[1]))


def _put_back(table: Any, where: tuple[Any, Any], item: Any) -> None:
    if item is None:
        table.items[where[0]].pop(where[1], None)
    else:
        table.items[where[0]][where[1]] = item

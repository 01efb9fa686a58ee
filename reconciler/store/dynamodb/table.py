"""A table of DynamoDB as far as the store needs it: strongly consistent reads, and conditional writes that are all done or none.

Narrow, so that the same store runs on AWS (`aws.AwsTable`) and in a simulation of hosts that stop, die and lose answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Value = str | int | bytes
Item = Mapping[str, Value]  # without its key

MOST_ITEMS = 100  # of a transaction, by DynamoDB's limits
MOST_BYTES = 3_500_000  # of a transaction; the limit is 4 MB
MOST_OF_ITEM = 300_000  # bytes; the limit is 400 KB
AT_ONCE = 25  # items of one read: as large as they may be, that is within the limit of 16 MB
STAMP = "stamp"


class Key(NamedTuple):
    """Where an item is: `pk` and `sk` in the table."""

    group: str
    number: int


@dataclass(frozen=True, slots=True)
class Put:
    """Replaces an item whole, where there is none, or one whose `stamp` is not later."""

    key: Key
    item: Item


@dataclass(frozen=True, slots=True)
class Change:
    """Sets attributes of the item that has those of `when`; None: where there is no such item, and makes it."""

    key: Key
    values: Item
    when: Item | None


@dataclass(frozen=True, slots=True)
class Check:
    """Writes nothing: the item must have these attributes."""

    key: Key
    when: Item


Write = Put | Change | Check


@dataclass(frozen=True, slots=True)
class Range:
    """Items of a group with numbers from `first` to `last`, both included; `limit`: of one answer.

    `unit`: only the keys of those about it, by the index, which lags behind by moments; everything else is strongly consistent.
    """

    group: str
    first: int
    last: int
    newest_first: bool = False
    limit: int | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: what it has, and what is still to be asked for; None: nothing."""

    items: Sequence[tuple[Key, Item]]
    rest: Range | None


class Table(Protocol):
    """Each method is one request, and safe to call from any thread.

    Raises:
        Throttled, Unclear: see there. PassError: asking again would not help; the message says what to do.
    """

    def read(self, key: Key) -> Item | None:
        """The item; None: there is none."""

    def read_many(self, keys: Sequence[Key]) -> Mapping[Key, Item]:
        """Those of the items that are there. At most `AT_ONCE` keys."""

    def page(self, wanted: Range) -> Page:
        """The first items of the range."""

    def write(self, writes: Sequence[Write], token: str) -> None:
        """All of it or nothing. The same token again within ten minutes: done once.

        Raises:
            Refused: a condition does not hold; nothing was written.
        """


class Refused(Exception):
    """A condition does not hold. `index`: of the first such write; `item`: what is there."""

    def __init__(self, index: int, item: Item | None) -> None:
        super().__init__(f"the condition of write {index} does not hold")
        self.index, self.item = index, item


class Throttled(Exception):
    """Nothing was done, and the same may be asked again: too much is asked of the table, or another request is at the item."""


class Unclear(Exception):
    """No answer came. It may be done, may be done later, or never."""


def size_of(item: Item) -> int:
    """Bytes, as DynamoDB counts them: names and values."""
    return sum(len(name.encode()) + _size(value) for name, value in item.items())


def _size(value: Value) -> int:
    if isinstance(value, str):
        return len(value.encode())
    return len(value) if isinstance(value, bytes) else 21

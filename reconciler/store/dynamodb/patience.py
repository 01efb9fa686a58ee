"""Asks a table again where that may help, for a bounded time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar
from uuid import uuid4

from reconciler.errors import PassError
from reconciler.store.dynamodb.table import AT_ONCE, Item, Key, Page, Range, Table, Throttled, Unclear, Write
from reconciler.store.lease import Steady

T = TypeVar("T")

TRIES = 10
FIRST_WAIT = 0.05  # seconds; doubles, and a random part of it is waited
LONGEST_WAIT = 1.0
THROTTLED = "StoreThrottled"
UNREACHABLE = "StoreUnreachable"


@dataclass(frozen=True, slots=True)
class Patient:
    """A table whose throttles and lost answers are asked again: at most `TRIES` times, and no more after `seconds`.

    A write is asked again with its token, so that it is done once although its first answer was lost.
    """

    table: Table
    place: str
    seconds: float
    steady: Steady
    sleep: Callable[[float], None]
    chance: random.Random = field(default_factory=random.Random)

    def read(self, key: Key) -> Item | None:
        """See `Table`."""
        return self._ask("read", partial(self.table.read, key))

    def read_all(self, keys: Sequence[Key]) -> Iterator[tuple[Key, Item]]:
        """Those of the items that are there, in the order of the keys."""
        for start in range(0, len(keys), AT_ONCE):
            asked = keys[start : start + AT_ONCE]
            found = self._ask("read", partial(self.table.read_many, asked))
            yield from ((key, found[key]) for key in asked if key in found)

    def pages(self, wanted: Range) -> Iterator[Page]:
        """The range, answer by answer, each asked for when it is wanted."""
        rest: Range | None = wanted if wanted.first <= wanted.last else None
        while rest is not None:
            page = self._ask("read", partial(self.table.page, rest))
            yield page
            rest = page.rest

    def write(self, *writes: Write) -> None:
        """See `Table`. Raises Refused; PassError where it was not, or may not have been, done."""
        token = str(uuid4())
        self._ask("write", lambda: self.table.write(writes, token))

    def _ask(self, verb: str, ask: Callable[[], T]) -> T:
        end, clear = self.steady.holding() + self.seconds, True
        for wait in self._waits():
            try:
                return ask()
            except Throttled as error:
                last: Exception = error
            except Unclear as error:
                last, clear = error, False
            if self.steady.holding() + wait > end:
                break
            self.sleep(wait)
        raise self._given_up(verb, last, clear=clear)

    def _waits(self) -> Iterator[float]:
        for turn in range(TRIES):
            yield self.chance.uniform(0.5, 1) * min(LONGEST_WAIT, FIRST_WAIT * 2.0**turn)

    def _given_up(self, verb: str, last: Exception, *, clear: bool) -> PassError:
        if clear:
            return PassError(
                THROTTLED,
                f"{self.place}: cannot {verb}: {last}. Nothing of it was done, and it is tried again by itself; if it lasts, raise the "
                "table's capacity (on-demand needs none), or look for who else uses it.",
            )
        return PassError(
            UNREACHABLE,
            f"{self.place}: cannot {verb}: {last}. It is tried again by itself; look at the network between this host and DynamoDB, "
            "and at the region's health.",
        )

"""How often the objects of buckets are asked for: from the lines that moto's server writes, one for each request."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LINE = re.compile(r"(GET|HEAD|PUT|DELETE) /([a-z0-9.-]+)(?:/([^ ?]*))?(\S*) HTTP")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for an object. `at`: by the steady clock; `key` is empty where objects are listed."""

    at: float
    verb: str
    bucket: str
    key: str

    @property
    def writes(self) -> bool:
        """Whether it is billed as a write. Those that remove cost nothing, and lists as much as writes."""
        return self.verb == "PUT" or not self.key


@contextmanager
def counting() -> Iterator[list[Asked]]:
    """Every request for an object while a block runs, oldest first. Others of the server's are not in it."""
    found, logger = list[Asked](), logging.getLogger("werkzeug")
    handler = _Handler(found.append)
    before = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [handler], False  # nobody reads them
    logger.setLevel(logging.INFO)
    try:
        yield found
    finally:
        logger.handlers, _, logger.propagate = before
        logger.setLevel(before[1])


class _Handler(logging.Handler):
    def __init__(self, tell: Callable[[Asked], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        line = _LINE.search(record.getMessage())
        if line is not None:
            self._tell(Asked(time.monotonic(), line[1], line[2], line[3] or ""))


def billed(asked: list[Asked]) -> dict[str, int]:
    """How many of them read, and how many write."""
    kinds = Counter("writes" if one.writes else "reads" for one in asked if one.verb != "DELETE")
    return {"reads": kinds["reads"], "writes": kinds["writes"]}

"""Objects of a bucket in memory: the same conditions as S3's. The contract suite holds it against moto's."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from reconciler.errors import PassError
from reconciler.runner.bucket import Found, Objects, Over

T = TypeVar("T")

EPOCH = datetime(2026, 11, 30, tzinfo=UTC)


@dataclass
class FakeObjects:
    """`Objects`. As in S3, a tag is its content's."""

    objects: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    guard: threading.Lock = field(default_factory=threading.Lock)
    writes: int = 0

    @property
    def place(self) -> str:
        return "s3://acme/memory/"

    def get(self, key: str) -> Found | None:
        with self.guard:
            there = self.objects.get(key)
            return Found(there[0], tag_of(there[0])) if there else None

    def tag(self, key: str) -> str | None:
        found = self.get(key)
        return found.tag if found else None

    def put(self, key: str, body: bytes, over: str | Over) -> str | None:
        with self.guard:
            there = self.objects.get(key)
            tag = tag_of(there[0]) if there else None
            if over is not Over.ANYTHING and tag != (None if over is Over.NOTHING else over):
                return None
            self.writes += 1
            self.objects[key] = body, self.writes
            return tag_of(body)

    def delete(self, key: str, tag: str) -> bool:
        with self.guard:
            there = self.objects.get(key)
            if there is None or tag_of(there[0]) != tag:
                return False
            del self.objects[key]
            return True

    def listed(self, prefix: str) -> list[tuple[str, datetime]]:
        with self.guard:
            found = [(key, at) for key, (_, at) in self.objects.items() if key.startswith(prefix)]
        return sorted((key, EPOCH + timedelta(seconds=at)) for key, at in found)


def tag_of(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def away(key: str = "") -> PassError:
    """What a bucket that does not answer is to the runner."""
    return PassError("MemoryUnavailable", f"{key}: no answer")


@dataclass
class Troubled:
    """Objects to which something happens: `before` and `after` each request may raise; they are given its number, from 1, and what it is."""

    objects: Objects
    before: Callable[[int, str, str], None] = lambda *_: None
    after: Callable[[int, str, str], None] = lambda *_: None
    count: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def place(self) -> str:
        return self.objects.place

    def _ask(self, verb: str, key: str, ask: Callable[[], T]) -> T:
        self.count += 1
        number = self.count
        self.requests[verb] += 1
        self.before(number, verb, key)
        answer = ask()
        self.after(number, verb, key)
        return answer

    def get(self, key: str) -> Found | None:
        return self._ask("get", key, lambda: self.objects.get(key))

    def tag(self, key: str) -> str | None:
        return self._ask("tag", key, lambda: self.objects.tag(key))

    def put(self, key: str, body: bytes, over: str | Over) -> str | None:
        return self._ask("put", key, lambda: self.objects.put(key, body, over))

    def delete(self, key: str, tag: str) -> bool:
        return self._ask("delete", key, lambda: self.objects.delete(key, tag))

    def listed(self, prefix: str) -> list[tuple[str, datetime]]:
        return self._ask("list", prefix, lambda: self.objects.listed(prefix))

"""A cabinet in a bucket: nobody can be made to wait there, so who was slower is told when it writes.

What is written over something begins with a line of its own, `#reconciler <16 hex digits>`, which no reader sees: no two writes are
the same bytes, so an object's tag never comes back, and a write whose answer was lost is known when it is found.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler.cabinet import ConflictError
from reconciler.durable import PATIENCE
from reconciler.errors import PassError
from reconciler.runner.bucket import Objects, Over

MARK = b"#reconciler "
_DIGITS = 8  # bytes of what tells one write from another


@dataclass
class _Seen:
    """What this process knows of the bucket: it may write over what it read, and nothing else."""

    tags: dict[str, str | None] = field(default_factory=dict)  # of what was read or written last
    kept: dict[str, bytes | None] = field(default_factory=dict)  # of what is held: it stays as it was read
    held: list[str] = field(default_factory=list)
    unsure: dict[str, bytes] = field(default_factory=dict)  # what was sent, and nobody knows whether it arrived

    def holds(self, key: str) -> bool:
        """Whether somebody works on the document, and its content stays as it was read."""
        return any(key.startswith(over) for over in self.held)


class S3Cabinet:
    """See `Cabinet`."""

    def __init__(self, objects: Objects, prefix: str = "", seen: _Seen | None = None) -> None:
        self._objects, self._prefix, self._seen = objects, prefix, seen or _Seen()

    @property
    def place(self) -> str:
        """See `Cabinet`."""
        return f"{self._objects.place}{self._prefix}".removesuffix("/")

    def within(self, name: str) -> S3Cabinet:
        """See `Cabinet`."""
        return S3Cabinet(self._objects, f"{self._prefix}{name}/", self._seen)

    def read(self, name: str) -> bytes | None:
        """See `Cabinet`."""
        key, seen = self._prefix + name, self._seen
        if key in seen.kept:
            return seen.kept[key]
        found = self._objects.get(key)
        data = _content(found.body) if found else None
        self._saw(key, found.tag if found else None, data)
        return data

    def look(self, name: str) -> Hashable:
        """See `Cabinet`."""
        key = self._prefix + name
        return self._seen.tags[key] if key in self._seen.kept else self._objects.tag(key)

    def write(self, name: str, data: bytes) -> None:
        """See `Cabinet`."""
        key, seen = self._prefix + name, self._seen
        if key not in seen.tags:
            self.read(name)
        body = b"%b%b\n%b" % (MARK, secrets.token_hex(_DIGITS).encode(), data)
        if (tag := self._put(key, body)) is None:
            found = self._objects.get(key)
            tag = found.tag if found and found.body == body else None
            if found and found.body == seen.unsure.pop(key, None):  # an earlier write of ours did arrive
                seen.tags[key] = found.tag
                tag = self._put(key, body)
        if tag is None:
            raise ConflictError(f"{self.place}/{name}")
        self._saw(key, tag, data)

    def create(self, name: str, data: bytes) -> bool:
        """See `Cabinet`. `data` has to be like no other's: a try whose answer was lost is made again, and finds its own."""
        key = self._prefix + name
        tag = self._objects.put(key, data, Over.NOTHING)
        if tag is None:
            found = self._objects.get(key)
            if found is None or found.body != data:
                return False
            tag = found.tag
        self._saw(key, tag, data)
        return True

    def append(self, name: str, line: str) -> None:
        """See `Cabinet`. The document is written anew as a whole."""
        self.write(name, b"%b%b\n" % (self.read(name) or b"", line.encode()))

    def delete(self, name: str) -> None:
        """See `Cabinet`."""
        key, seen = self._prefix + name, self._seen
        tag = seen.tags[key] if key in seen.tags else self._objects.tag(key)
        if tag is not None and not self._objects.delete(key, tag) and self._objects.tag(key) is not None:
            raise ConflictError(f"{self.place}/{name}")
        self._saw(key, None, None)

    def names(self, under: str, *, oldest_first: bool = False) -> list[str]:
        """See `Cabinet`."""
        found = self._objects.listed(f"{self._prefix}{under}/" if under else self._prefix)
        found.sort(key=(lambda one: (one[1], one[0])) if oldest_first else None)
        return [key.removeprefix(self._prefix) for key, _ in found]

    def stamp(self, name: str, at: datetime) -> None:
        """See `Cabinet`."""
        self._objects.put(self._prefix + name, b"%f" % at.timestamp(), Over.ANYTHING)

    def stamped(self, name: str) -> datetime | None:
        """See `Cabinet`."""
        found = self._objects.get(self._prefix + name)
        try:
            return datetime.fromtimestamp(float(found.body), UTC) if found else None
        except ValueError as error:
            what = (
                f"{self.place}/{name}: not a number; something else wrote it: bring an older version of the object back"
            )
            raise PassError("FileCorrupt", what) from error

    @contextmanager
    def exclusive(self, name: str, over: str, patience: float = PATIENCE) -> Iterator[None]:  # noqa: ARG002 - the protocol's
        """See `Cabinet`. Nobody waits; what changed meanwhile is not written over."""
        seen, key = self._seen, self._prefix + over
        seen.held.append(key)
        try:
            yield
        finally:
            seen.held.remove(key)
            for one in [one for one in seen.kept if not seen.holds(one)]:
                del seen.kept[one]

    def _put(self, key: str, body: bytes) -> str | None:
        try:
            return self._objects.put(key, body, self._seen.tags[key] or Over.NOTHING)
        except PassError:
            self._seen.unsure[key] = body
            raise

    def _saw(self, key: str, tag: str | None, data: bytes | None) -> None:
        seen = self._seen
        seen.tags[key] = tag
        seen.unsure.pop(key, None)
        if seen.holds(key):
            seen.kept[key] = data


def _content(body: bytes) -> bytes:
    """The document, without the line that tells one write from another."""
    return body.partition(b"\n")[2] if body.startswith(MARK) else body

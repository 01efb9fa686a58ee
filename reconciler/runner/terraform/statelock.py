"""Terraform's own lock of a state, as an object beside it: every engine with `use_lockfile` respects it, and shows who has it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from reconciler.errors import UnitError

LOCK_SUFFIX = ".tflock"
MOST_OF_A_LOCK = 64 * 1024  # bytes; what is longer is nobody's that we know
_WORDS = {
    "ID": "id",
    "Operation": "operation",
    "Info": "info",
    "Who": "who",
    "Version": "version",
    "Created": "created",
    "Path": "path",
}


@dataclass(frozen=True, slots=True)
class LockInfo:
    """What a lock says of its holder, in the words of Terraform's own `LockInfo`. `info` is free text."""

    id: str
    operation: str = ""
    info: str = ""
    who: str = ""
    version: str = ""
    created: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """A lock as it stands. `tag` names this very version of the object: another holder's is another."""

    info: LockInfo
    tag: str


class StateLock(Protocol):
    """One state's lock. Every change is made on a condition that the store itself checks, so that of two who try, one succeeds.

    All raise UnitError "StateUnavailable": nobody can say what became of it.
    """

    @property
    def path(self) -> str:
        """The state, as the lock names it."""

    @property
    def place(self) -> str:
        """The lock, for people."""

    def take(self, info: LockInfo) -> str | None:
        """Become the holder; the tag of the lock. None: there is a lock."""

    def look(self) -> Found | None:
        """The lock; None: there is none."""

    def replace(self, tag: str, info: LockInfo) -> str | None:
        """Become the holder in place of the one whose lock has that tag. None: it is not there any more."""

    def drop(self, tag: str) -> bool:
        """Remove the lock that has that tag. False: it is not there any more."""


def encode(info: LockInfo) -> bytes:
    """The lock's bytes, as Terraform writes them (measured with 1.11.4)."""
    return json.dumps({word: getattr(info, name) for word, name in _WORDS.items()}, separators=(",", ":")).encode()


def parse(raw: bytes) -> LockInfo:
    """What the lock says. One that cannot be read has no ID, and is somebody's all the same."""
    try:
        said = json.loads(raw)
        words = {name: said[word] for word, name in _WORDS.items() if word in said}
    except (ValueError, TypeError, RecursionError):
        return LockInfo("")
    if not all(isinstance(word, str) for word in words.values()):
        return LockInfo("")
    return LockInfo(**{"id": "", **words})


@dataclass(frozen=True, slots=True)
class ObjectLock:
    """The lock of a state in S3. `call`: see `S3Backend`; its conditions are If-None-Match and If-Match."""

    bucket: str
    state: str
    call: Callable[..., Any]
    put_options: Callable[[], dict[str, Any]]

    @property
    def path(self) -> str:
        """See `StateLock`."""
        return f"{self.bucket}/{self.state}"

    @property
    def place(self) -> str:
        """See `StateLock`."""
        return f"s3://{self.bucket}/{self._key}"

    @property
    def _key(self) -> str:
        return f"{self.state}{LOCK_SUFFIX}"

    def take(self, info: LockInfo) -> str | None:
        """See `StateLock`."""
        return self._put(info, IfNoneMatch="*")

    def look(self) -> Found | None:
        """See `StateLock`."""
        answer = self.call("get_object", self._key, absent_ok=True)
        return Found(parse(answer["Body"].read(MOST_OF_A_LOCK)), str(answer["ETag"])) if answer else None

    def replace(self, tag: str, info: LockInfo) -> str | None:
        """See `StateLock`."""
        return self._put(info, IfMatch=tag)

    def drop(self, tag: str) -> bool:
        """See `StateLock`."""
        try:
            return self.call("delete_object", self._key, absent_ok=True, IfMatch=tag) is not None
        except UnitError as error:
            if "NotImplemented" not in str(error):
                raise
        found = self.look()  # a server that knows no conditions here: as near to one as can be
        return found is not None and found.tag == tag and self.call("delete_object", self._key) is not None

    def _put(self, info: LockInfo, **condition: str) -> str | None:
        said = {"Body": encode(info), "ContentType": "application/json", **self.put_options()}
        answer = self.call("put_object", self._key, absent_ok=True, **said, **condition)
        if answer is not None:
            return str(answer["ETag"])
        found = self.look()  # a try whose answer was lost is made again, and finds its own
        return found.tag if found is not None and found.info == info else None

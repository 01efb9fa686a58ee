"""One record is one line of JSON that ends in its own hash and names the hash before it. Pure, over bytes.

The hash is over the line's bytes up to it, so there is no second way to write a record: any other byte is another record.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler import codec

GENESIS = "0" * 64
LONGEST = 2 << 20  # bytes of a line, more than any record has: a reader need not believe in longer ones

_HEAD = re.compile(
    rb'\{"seq":([1-9][0-9]{0,17}),"previous":"([0-9a-f]{64})","at":"[0-9TZ:.-]{20,27}","kind":"[a-z-]{1,40}","body":\{'
)
_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"\}')
_TAIL_LENGTH = 75


@dataclass(frozen=True, slots=True)
class Head:
    """The newest record of a chain: how many there are, and its hash."""

    count: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True)
class Record:
    """A record, read back. `at` is ISO 8601 in UTC."""

    seq: int
    at: str
    kind: str
    body: dict[str, Any]
    hash: str


class ChainError(ValueError):
    """A line is not the next record of its chain."""


def link(head: Head, at: datetime, kind: str, body: object) -> bytes:
    """The line of the next record, newline included. `body` is a fact or a mapping that the codec can write.

    Raises:
        ChainError: it would be longer than a reader accepts.
    """
    parts = (
        codec.encode(head.count + 1),
        codec.encode(head.hash),
        codec.encode(at),
        codec.encode(kind),
        codec.encode(body),
    )
    text = b'{"seq":%b,"previous":%b,"at":%b,"kind":%b,"body":%b' % parts
    line = text + b',"hash":"%b"}\n' % _hash(text)
    if len(line) > LONGEST:
        raise ChainError(f"a record has {len(line)} bytes; {LONGEST} is the most")
    return line


def follow(head: Head, line: bytes) -> Head:
    """The head once this line, without its newline, is the newest record.

    Raises:
        ChainError: it is none, or not the next one.
    """
    begin, end = _HEAD.match(line), _TAIL.fullmatch(line, max(len(line) - _TAIL_LENGTH, 0))
    if begin is None or end is None or len(line) >= LONGEST:
        raise ChainError("is no record")
    if end[1] != _hash(line[:-_TAIL_LENGTH]):
        raise ChainError("is not what was written: its hash does not fit")
    if int(begin[1]) != head.count + 1:
        raise ChainError(f"has number {int(begin[1])}")
    if begin[2].decode() != head.hash:
        raise ChainError("does not follow the record before it")
    return Head(head.count + 1, end[1].decode())


def read(line: bytes) -> Record:
    """The record of a line that `follow` accepted.

    Raises:
        ChainError: somebody gave a line a hash that is no record.
    """
    try:
        said = json.loads(line)
        return Record(said["seq"], said["at"], said["kind"], said["body"], said["hash"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ChainError(f"is no record: {error!r}") from error


def _hash(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()

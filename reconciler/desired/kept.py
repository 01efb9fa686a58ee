"""Parsed entries as bytes and back, so that a start need not parse what an earlier one has. Pure.

    one line: what wrote it, and the SHA-256 of all that follows
    blocks: a line of JSON, what some entries name, and a record for each of these entries, by its path and the id of its content;
            and then these files as they are, each with its inputs, see `packed`

What is not whole, or was written by other code, is as good as nothing: neither is looked into.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from sys import intern
from typing import Any

import orjson

from reconciler.desired.entries import Places
from reconciler.desired.packed import Named, Packed
from reconciler.errors import Place
from reconciler.model import Allowances, Entry, Presence, Reference, SecretReference, Text, UnitId

_TOGETHER = 1000  # records that are in memory as JSON at a time
_PLAIN = Allowances()
_NONE: dict[str, str] = {}  # of most entries, and never changed


def write_kept(code: str, entries: Iterable[Entry], blobs: Mapping[str, str]) -> bytes:
    """The entries, but those that JSON cannot say. `blobs` has the id of each one's content by its path, `code` no blank."""
    body = b"".join(_block(some, blobs) for some in _together(entries))
    return b"%s %s\n%s" % (code.encode(), hashlib.sha256(body).hexdigest().encode(), body)


def read_kept(code: str, data: bytes, wanted: Mapping[str, str]) -> dict[str, Entry]:
    """Of these files, path -> id of content, the entries that are there; none at all where this very code did not write all of it."""
    head, _, body = data.partition(b"\n")
    if head != b"%s %s" % (code.encode(), hashlib.sha256(body).hexdigest().encode()):
        return {}
    found: dict[str, Entry] = {}
    at = 0
    while at < len(body):
        end = body.index(b"\n", at)
        told, records = orjson.loads(body[at:end])
        names, at = [_name(one) for one in told], end + 1
        for size, inputs, path, blob, *record in records:
            if wanted.get(path) == blob:
                packed = body[at + size : at + size + inputs]
                path = intern(path)  # noqa: PLW2901 - the same
                found[path] = _entry(path, record, names, body[at : at + size], packed)
            at += size + inputs
    return found


def _together(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while some := [*islice(rest, _TOGETHER)]:
        yield some


def _block(entries: Iterable[Entry], blobs: Mapping[str, str]) -> bytes:
    """What the entries name, each once, and a record for each entry; then their files and inputs."""
    names: dict[Named, int] = {}
    records: list[bytes] = []
    files: list[bytes] = []
    for entry in entries:
        places, inputs = entry.places, entry.inputs
        if isinstance(places, Places) and isinstance(inputs, Packed):  # else JSON cannot say it
            records.append(
                _record(entry, (len(places.data), len(inputs.data)), blobs[places.path], inputs.names, names)
            )
            files += places.data, inputs.data
    return b"[%s,[%s]]\n%s" % (orjson.dumps([_told(name) for name in names]), b",".join(records), b"".join(files))


def _record(entry: Entry, sizes: tuple[int, int], blob: str, named: Iterable[Named], names: dict[Named, int]) -> bytes:
    allow = entry.allowances
    return orjson.dumps(
        [
            *sizes, entry.place.path, blob, entry.unit, entry.module, entry.version, entry.ref,
            [names.setdefault(name, len(names)) for name in named], entry.providers, entry.depends_on, entry.presence,
            None if allow == _PLAIN else [allow.destroy, allow.downgrade, allow.replace], entry.moved_from,
            entry.promotion_skip, entry.imports, entry.adopt,
        ]
    )  # fmt: skip


def _entry(path: str, record: list[Any], names: list[Named], data: bytes, inputs: bytes) -> Entry:
    unit, module, version, ref, named, providers, after, presence, allow, source, skip, imports, adopt = record
    return Entry(
        UnitId(intern(unit)), Place(path), intern(module), version and intern(version), ref,
        Packed(inputs, tuple([names[number] for number in named])), providers or _NONE, tuple(after),
        Presence(presence), Allowances(allow[0], allow[1], tuple(allow[2])) if allow else _PLAIN,
        source, skip, imports or _NONE, adopt, Places(path, data),
    )  # fmt: skip


def _told(name: Named) -> Any:
    match name:
        case Reference(unit, output, path):
            return [unit, output, *path]
        case SecretReference(secret):
            return {"secret": secret}
        case _:
            return {"text": [part if isinstance(part, str) else _told(part) for part in name.parts]}


def _name(told: Any) -> Named:
    if isinstance(told, dict) and "text" in told:
        return Text(tuple(part if isinstance(part, str) else _value(part) for part in told["text"]))
    return _value(told)


def _value(told: Any) -> Reference | SecretReference:
    if isinstance(told, dict):
        return SecretReference(told["secret"])
    unit, output, *path = told
    return Reference(UnitId(unit), output, tuple(path))

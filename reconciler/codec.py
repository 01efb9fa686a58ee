"""Facts as JSON and back: what the journal, the spool folders and the API hold.

`encode` is canonical: equal facts give equal bytes. `decode` is strict about types and ignores fields that it does not
know, so that an older reader survives a newer writer's additions. `decode_kept` does not: what is read to be written back
would lose them, and an older program would go on as if they said nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import PurePath
from typing import Any, TypeVar, cast

import orjson
from pydantic import TypeAdapter

from reconciler.actual.ledger import (
    BreakGlassClosed,
    BreakGlassOpened,
    CheckScheduled,
    Event,
    Frozen,
    HeadAccepted,
    HistoryAccepted,
    HoldChanged,
    JobDispatched,
    JobEnded,
    LossAccepted,
    OutOfBand,
    Paused,
    PullShown,
    ReconcileRequested,
    Restored,
    Resumed,
    SkipSeen,
    Started,
    Thawed,
)

T = TypeVar("T")

# The names under which events stand in the journal: published, so they never change meaning.
ACTIONS: Mapping[str, type[Event]] = {
    "head-accepted": HeadAccepted,
    "history-accepted": HistoryAccepted,
    "frozen": Frozen,
    "thawed": Thawed,
    "job-dispatched": JobDispatched,
    "job-ended": JobEnded,
    "hold-changed": HoldChanged,
    "check-scheduled": CheckScheduled,
    "paused": Paused,
    "resumed": Resumed,
    "break-glass-opened": BreakGlassOpened,
    "break-glass-closed": BreakGlassClosed,
    "loss-accepted": LossAccepted,
    "reconcile-requested": ReconcileRequested,
    "out-of-band": OutOfBand,
    "pull-shown": PullShown,
    "skip-seen": SkipSeen,
    "started": Started,
    "restored": Restored,
}
_NAMES = {kind: name for name, kind in ACTIONS.items()}

_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME


def encode(fact: object) -> bytes:
    """The fact as JSON: keys and sets sorted, times in UTC with a Z, durations as ISO 8601.

    Raises:
        TypeError: something in it has no JSON form: a time without a zone, an integer beyond 64 bits.
    """
    return orjson.dumps(fact, default=_plain, option=_CANONICAL)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(type(value))}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return sorted(value, key=encode)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return _adapter(timedelta).dump_python(value, mode="json")
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@cache
def _names(kind: type) -> tuple[str, ...]:
    """Of the fields of a dataclass."""
    return tuple(field.name for field in fields(kind))


def decode(kind: type[T], data: bytes | str) -> T:
    """The fact of that type.

    Raises:
        ValueError: the bytes are not JSON, or not of that type; the message names the field.
    """
    return cast("T", _adapter(cast("Hashable", kind)).validate_json(data, strict=True))


class Newer(ValueError):
    """A fact has a field that this version does not know."""


def decode_kept(kind: type[T], data: bytes | str) -> T:
    """As `decode`, for a fact that a plane keeps and writes back.

    Raises:
        Newer: a newer version of reconciler wrote it. ValueError: see `decode`.
    """
    fact = decode(kind, data)
    field = _unknown(orjson.loads(data), orjson.loads(encode(fact)))
    if field is not None:
        raise Newer(f"the field {field} of {kind.__name__} is not known here")
    return fact


def _unknown(found: object, known: object) -> str | None:
    """The first field that was in the JSON and is not in what was made of it; None: there is none."""
    if isinstance(found, dict) and isinstance(known, dict):
        if surplus := sorted(found.keys() - known.keys()):
            return str(surplus[0])
        pairs = ((value, known[name]) for name, value in found.items())
    elif isinstance(found, list) and isinstance(known, list):
        pairs = ((value, kept) for value, kept in zip(found, known, strict=False))
    else:
        return None
    return next((field for value, kept in pairs if (field := _unknown(value, kept)) is not None), None)


def prepare(*kinds: type) -> None:
    """Build what `decode` and `encode` need for these types now, so that processes forked from this one need not."""
    for kind in kinds:
        _adapter(cast("Hashable", kind))
        if is_dataclass(kind):
            _names(kind)


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("type[Any]", kind))


def action_of(event: Event) -> str:
    """The published name of the event's kind."""
    return _NAMES[type(event)]


def encode_event(event: Event) -> tuple[str, bytes]:
    """The event as the journal holds it: action and body."""
    return action_of(event), encode(event)


def decode_event(action: str, body: bytes | str) -> Event:
    """The event that the journal holds.

    Raises:
        ValueError: the action is unknown or the body does not fit it.
    """
    kind = ACTIONS.get(action)
    if kind is None:
        raise ValueError(f"unknown action {action!r}: a newer version of reconciler wrote it")
    return decode(kind, body)

"""Writes in an account by somebody who is none of those that may: what of an account's trail is one, and what it is about. Pure.

An event is what EventBridge hands on of CloudTrail. The trail may be wrong about what it leaves out, so whatever is not said counts
against the event: a call that does not say that it only read is a write, and a principal that is not named is nobody's.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

from reconciler.actual import breakglass
from reconciler.model import JobId, Outside, OutsideChange, Result, UnitId, UnitRecord

DETAIL_TYPE = "AWS API Call via CloudTrail"
INSTALLATION, UNIT = "reconciler:installation", "reconciler:unit"  # the tags that the runner gives every object
LARGEST = 1 << 20  # bytes of an event: a queue takes no more either
DEEPEST = 8  # steps into what was asked and answered
MOST_LOOKED_AT = 2_000  # values of one event
LONGEST_WORD = 300  # characters of anything that is told
MOST_TOLD = 20  # calls and objects of one fold
MOST_FOLDS = 20  # principals of one batch; all others are one
MOST_KEPT = 50  # changes in the ledger
MOST_DIGESTS = (
    2_000  # in the ledger: more than one record can have, so that none of those is forgotten that may come again
)
OTHERS = "(others)"

_NAMES = re.compile(
    r"(?:.*[a-z0-9])?(?:Arn|ARN|Id|Name|Identifier)s?|arns?|ARN|ids?|names?|identifiers?"
)  # keys whose values name objects
_READS = re.compile(
    r"(?:Get|List|Describe|Head|Lookup|Batch(?:Get|Describe)|Search|Scan|Query|Select|Preview|Check|Test)[A-Z]"
)


class Verdict(StrEnum):
    """What an event is."""

    OUTSIDE = "outside"  # somebody else's write
    BREAK_GLASS = "break-glass"  # the emergency role's
    ALLOWED = "allowed"
    IGNORED = "ignored"  # it read, failed, is of another account, or of an environment in which people may write
    INVALID = "invalid"  # no event of a trail


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may write where. `accounts`: account -> the environments in it. Patterns are ARNs or services, `*` is any text."""

    installation: str
    accounts: Mapping[str, Sequence[str]]
    allowed: Sequence[str] = ()
    break_glass: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was made of an event. `digest` is the same whenever the same event is told. `changes`: one for each environment."""

    verdict: Verdict
    digest: str = ""
    changes: tuple[OutsideChange, ...] = ()


@dataclass(slots=True)
class _Found:
    """What is known of the objects of a call."""

    objects: dict[str, None] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    left: int = MOST_LOOKED_AT


def judge(body: str, rules: Rules, open_to: AbstractSet[str] = frozenset()) -> Seen:
    """What the event is. `open_to`: environments in which people may write."""
    if len(body) > LARGEST:
        return Seen(Verdict.INVALID)
    try:
        envelope = orjson.loads(body)
    except ValueError:
        return Seen(Verdict.INVALID)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("detail"), dict):
        return Seen(Verdict.INVALID)
    detail = envelope["detail"]
    name, source = _word(detail.get("eventName")), _word(detail.get("eventSource"))
    if envelope.get("detail-type") != DETAIL_TYPE:
        return Seen(Verdict.IGNORED)
    if not name or not source:
        return Seen(Verdict.INVALID)
    account = _word(detail.get("recipientAccountId")) or _word(envelope.get("account"))
    environments = [one for one in rules.accounts.get(account, ()) if one not in open_to]
    if not environments or not _writes(detail, name):
        return Seen(Verdict.IGNORED)
    principals = _principals(detail.get("userIdentity"))
    if _is_one_of(principals, rules.allowed):
        return Seen(Verdict.ALLOWED)
    by_hand = _is_one_of(principals, rules.break_glass)
    found, at = _objects(detail), _time(detail.get("eventTime"))
    event = _word(detail.get("eventID"))
    units = _units(found.tags, rules.installation)
    changes = tuple(
        OutsideChange(
            environment=environment,
            account=account,
            principal=principals[0],
            calls=(f"{source.removesuffix('.amazonaws.com')}:{name}",),
            objects=tuple(found.objects)[:MOST_TOLD],
            since=at,
            until=at,
            count=1,
            event=event,
            units=frozenset(one for one in units if one.startswith(f"{environment}/")),
            break_glass=by_hand,
        )
        for environment in environments
    )
    return Seen(Verdict.BREAK_GLASS if by_hand else Verdict.OUTSIDE, _digest(event or body), changes)


def _word(value: object) -> str:
    """Text that can be told; empty where it is none."""
    return "".join(c if c.isprintable() else "?" for c in value[:LONGEST_WORD]) if isinstance(value, str) else ""


def _digest(event: str) -> str:
    return hashlib.sha256(event.encode(errors="replace")).hexdigest()[:24]


def _time(value: object) -> datetime:
    """When it happened, as the trail says; the epoch where it does not."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    return found.astimezone(UTC) if found is not None and found.tzinfo is not None else datetime.fromtimestamp(0, UTC)


def _writes(detail: Mapping[str, Any], name: str) -> bool:
    """Whether the call may have changed something."""
    if detail.get("errorCode"):
        return False
    only_reads = detail.get("readOnly")
    return not only_reads if isinstance(only_reads, bool) else _READS.match(name) is None


def _principals(identity: object) -> list[str]:
    """The names by which the caller may be known, the one for people first: a session counts as its role."""
    who: Mapping[str, Any] = identity if isinstance(identity, dict) else {}
    context = who.get("sessionContext")
    issuer = context.get("sessionIssuer") if isinstance(context, dict) else None
    kind = _word(who.get("type"))
    role = _word(issuer.get("arn")) if isinstance(issuer, dict) else ""
    if kind == "AWSService":
        names = [_word(who.get("invokedBy"))]
    elif kind in ("AssumedRole", "FederatedUser"):
        names = [role or _word(who.get("arn"))]
    else:
        names = [_word(who.get("arn")), _word(who.get("principalId")), _word(who.get("userName"))][:1]
    said = [name for name in names if name]
    return said or [
        f"({kind or 'unknown'} {_word(who.get('principalId')) or _word(who.get('accountId'))})".replace(" )", ")")
    ]


def _is_one_of(principals: Sequence[str], patterns: Iterable[str]) -> bool:
    return any(matches(pattern, one) for pattern in patterns for one in principals)


def matches(pattern: str, text: str) -> bool:
    """Whether the whole text is like the pattern: `*` is any text, and nothing else is special."""
    first, *others = pattern.split("*")
    if not others:
        return text == pattern
    *middle, last = others
    if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for (
        part
    ) in middle:  # the first place of each is as good as any: no pattern takes longer than its length times the text's
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _objects(detail: Mapping[str, Any]) -> _Found:
    """What the call names, by the keys of what was asked and answered, and the tags that stand there."""
    found = _Found()
    listed = detail.get("resources")
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and (arn := _word(one.get("ARN"))):
            found.objects[arn] = None
    for part in ("requestParameters", "responseElements"):
        _walk(detail.get(part), "", found, DEEPEST)
    return found


def _walk(value: object, key: str, found: _Found, depth: int) -> None:
    found.left -= 1
    if depth < 0 or found.left < 0:
        return
    if isinstance(value, dict):
        _take_tags(value, key, found.tags)
        for name, inner in value.items():
            _walk(inner, name, found, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _walk(inner, key, found, depth - 1)
    elif isinstance(value, str) and len(value) <= LONGEST_WORD and _NAMES.fullmatch(key) and (word := _word(value)):
        found.objects[word] = None


def _take_tags(value: Mapping[str, Any], key: str, tags: dict[str, str]) -> None:
    """Tags as services write them: `{key, value}`, `{tagKey, tagValue}`, or a mapping under a key that says so."""
    small = {name.lower(): inner for name, inner in value.items() if isinstance(inner, str)}
    for name, said in (("key", "value"), ("tagkey", "tagvalue")):
        if name in small and said in small:
            tags[small[name]] = small[said]
    if key.lower() in ("tags", "tagset", "tagging"):
        tags.update({name: inner for name, inner in value.items() if isinstance(inner, str)})


def _units(tags: Mapping[str, str], installation: str) -> frozenset[UnitId]:
    """The unit that owns the object, as the tags in the call say."""
    unit = tags.get(UNIT, "")
    if tags.get(INSTALLATION) != installation or not re.fullmatch(r"[a-z0-9_-]+(?:/[a-z0-9_-]+)+", unit):
        return frozenset()
    return frozenset({UnitId(unit)})


# --- folding -----------------------------------------------------------------------------------------------------


def fold(changes: Iterable[OutsideChange]) -> list[OutsideChange]:
    """One for each principal in each environment; beyond `MOST_FOLDS` of them the rest of an environment is one."""
    folded: dict[str, OutsideChange] = {}
    for change in changes:
        known = change.key in folded or len(folded) < MOST_FOLDS
        one = change if known else replace(change, principal=OTHERS, break_glass=False)
        folded[one.key] = joined(folded[one.key], one) if one.key in folded else one
    return list(folded.values())


def joined(older: OutsideChange, newer: OutsideChange) -> OutsideChange:
    """Both as one: the same environment and principal."""
    units = older.units | newer.units
    return replace(
        newer,
        calls=_some((*older.calls, *newer.calls)),
        objects=_some((*older.objects, *newer.objects)),
        since=min(older.since, newer.since),
        until=max(older.until, newer.until),
        count=older.count + newer.count,
        units=frozenset(sorted(units)[:MOST_TOLD]),
        break_glass=older.break_glass and newer.break_glass,
    )


def _some(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))[:MOST_TOLD]


def kept(known: Mapping[str, OutsideChange | None], change: OutsideChange) -> dict[str, OutsideChange | None]:
    """What becomes of the changes of late with one more; None: that one goes."""
    before = known.get(change.key)
    merged = change if before is None else joined(before, change)
    others = sorted(_others(known, change), key=lambda one: (one.seen_at or one.until, one.key), reverse=True)
    return {**{one.key: None for one in others[MOST_KEPT - 1 :]}, change.key: merged}


def _others(known: Mapping[str, OutsideChange | None], change: OutsideChange) -> Iterator[OutsideChange]:
    return (one for one in known.values() if one is not None and one.key != change.key)


# --- what it is about ----------------------------------------------------------------------------------------------


def concerns(change: OutsideChange, unit: UnitId) -> bool:
    """Whether the change may be of the unit: of any of its environment. A tag that a call shows says who is looked at first,

    and no more: whoever writes where they may not could show another unit's.
    """
    return unit.partition("/")[0] == change.environment


def marked(record: UnitRecord, change: OutsideChange) -> UnitRecord:
    """The record of a unit that the change may be of; the same where it is to be looked at anyway."""
    before, running = record.outside, record.job.job.id if record.job else None
    named = record.unit in change.units
    if before is not None and not before.looked and (before.job, before.named or not named) == (running, True):
        return record
    since = change.seen_at or change.until
    mark = Outside(since if before is None else before.since, named or (before is not None and before.named), running)
    return replace(record, outside=mark)


def left_after(mark: Outside, result: Result) -> Outside | None:
    """What is left of it once a job of the unit has ended; None: the unit is in order, or gone."""
    if breakglass.is_gone(result):
        return None
    if result.job.id == mark.job:
        return mark
    if breakglass.is_settled(result):
        return None
    return mark if result.plan is None else replace(mark, looked=True)


def moved(mark: Outside | None, job: JobId) -> Outside | None:
    """The mark of a state that a job has moved to another unit: it is to be looked at there."""
    return mark and replace(mark, job=job, looked=False)

"""Policies of IAM, as far as they say who could write. Pure.

What cannot be decided counts as "could": a condition, a deny of something narrower, a pattern that may match a write. Service control
policies, session policies and what a service's own access lists say are not seen here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.runner.guard.patterns import covers, meet

# Verbs that change nothing. Everything else is a write.
READS = (
    "batchcheck", "batchdescribe", "batchget", "check", "describe", "download", "estimate", "filter", "get", "head", "list", "lookup",
    "query", "read", "scan", "search", "select", "simulate", "validate", "verify", "view",
)  # fmt: skip
# Calls that change nothing by themselves. A role that is passed needs another call, which writes; who may assume which role is
# told by the roles.
HARMLESS = frozenset(
    {"iam:passrole", "kms:decrypt", "kms:encrypt", "kms:generatedatakey", "kms:generatedatakey*", "kms:generaterandom"}
)
ASSUMES = ("sts:assumerole", "sts:assumerolewithsaml", "sts:assumerolewithwebidentity")
ANY = ("*",)


@dataclass(frozen=True, slots=True)
class Statement:
    """One of a policy. `source` says where it stands; `but` are what a NotAction or NotResource lists. Actions are in lower case."""

    source: str
    allows: bool
    actions: tuple[str, ...] = ANY
    but_actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ANY
    but_resources: tuple[str, ...] = ()
    principals: tuple[tuple[str, str], ...] = ()  # (kind, who); of trust and resource policies
    but_principals: bool = False
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """What lets somebody do something: a text has to be like all of `actions` to be an action of it; so with `resources`."""

    source: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    condition: str = ""

    def __str__(self) -> str:
        when = f", if {self.condition}" if self.condition else ""
        return f"{self.source}: {' and '.join(self.actions)} on {' and '.join(self.resources)}{when}"


def statements(document: object, source: str) -> list[Statement]:
    """The statements of a policy. Raises ValueError: it is none."""
    body = json.loads(document) if isinstance(document, str) else document
    if not isinstance(body, Mapping):
        raise ValueError(f"{source} is no policy")  # noqa: TRY004 - of a file, not of an argument
    return [_statement(one, _named(source, one, number)) for number, one in enumerate(_listed(body.get("Statement")))]


def _named(source: str, one: object, number: int) -> str:
    sid = one.get("Sid") if isinstance(one, Mapping) else None
    return f"{source}, statement {sid or number + 1}"


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _statement(one: object, source: str) -> Statement:
    if not isinstance(one, Mapping) or one.get("Effect") not in ("Allow", "Deny"):
        raise ValueError(f"{source} is no statement")
    words = {
        name: tuple(map(str, _listed(one.get(name)))) for name in ("Action", "NotAction", "Resource", "NotResource")
    }
    condition = one.get("Condition")
    return Statement(
        source=source,
        allows=one["Effect"] == "Allow",
        actions=tuple(word.lower() for word in words["Action"]) or ANY,
        but_actions=tuple(word.lower() for word in words["NotAction"]),
        resources=words["Resource"] or ANY,
        but_resources=words["NotResource"],
        principals=tuple(_principals(one.get("Principal", one.get("NotPrincipal")))),
        but_principals="NotPrincipal" in one,
        condition=json.dumps(condition, sort_keys=True) if condition else "",
    )


def _principals(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield "AWS", value
    elif isinstance(value, Mapping):
        for kind, who in value.items():
            yield from ((str(kind), str(one)) for one in _listed(who))


# --- what is left of what is allowed


def is_read(pattern: str) -> bool:
    """Whether every action like the pattern surely changes nothing."""
    service, _, name = pattern.partition(":")
    verb = name.partition("*")[0].partition("?")[0]
    return service == "sts" or pattern in HARMLESS or verb.startswith(READS)


def writes(grants: Iterable[Grant]) -> list[Grant]:
    """Those by which something could be changed."""
    return [grant for grant in grants if not any(map(is_read, grant.actions))]


def granted(identity: Sequence[Statement], boundary: Sequence[Statement] | None = None) -> list[Grant]:
    """What the policies let whoever has them do. `boundary`: what he may do at most; None: anything."""
    grants = [grant for one in identity if one.allows for grant in _grants(one)]
    if boundary is not None:
        bounds = [bound for one in boundary if one.allows for bound in _grants(one)]
        grants = [both for grant in grants for bound in bounds if (both := _both(grant, bound))]
    for one in (*identity, *(boundary or ())):
        if not one.allows and not one.condition:
            grants = [left for grant in grants for left in _denied(grant, one)]
    return grants


def _grants(one: Statement) -> Iterator[Grant]:
    """One for each pair of an action and a resource. What is listed under Not... is taken away like a deny."""
    for action in one.actions:
        for resource in one.resources:
            excepted = any(covers(but, action) for but in one.but_actions)
            if not excepted and not any(covers(but, resource) for but in one.but_resources):
                yield Grant(one.source, (action,), (resource,), one.condition)


def _both(grant: Grant, bound: Grant) -> Grant | None:
    """What both let through; None: nothing."""
    actions, resources = _joined(grant.actions, bound.actions), _joined(grant.resources, bound.resources)
    if not meet(actions) or not meet(resources):
        return None
    conditions = " and ".join(filter(None, dict.fromkeys((grant.condition, bound.condition))))
    return Grant(grant.source, actions, resources, conditions)


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """The patterns of both, without those that say no more than another."""
    found = tuple(dict.fromkeys((*one, *other)))
    return tuple(p for p in found if not any(q != p and covers(p, q) for q in found))


def _denied(grant: Grant, deny: Statement) -> Iterator[Grant]:
    """What a deny leaves of a grant: all of it, where it is not sure that the deny covers it."""
    all_resources = not deny.but_resources and any(
        covers(resource, ours) for resource in deny.resources for ours in grant.resources
    )
    if not all_resources:
        yield grant
    elif deny.but_actions:
        for left in deny.but_actions:
            actions = _joined(grant.actions, (left,))
            if meet(actions):
                yield Grant(grant.source, actions, grant.resources, grant.condition)
    elif not any(covers(action, ours) for action in deny.actions for ours in grant.actions):
        yield grant


def lets(grants: Iterable[Grant], action: str, resource: str) -> Grant | None:
    """The first of the grants by which this action on this resource could be done."""
    for grant in grants:
        if meet((*grant.actions, action)) and meet((*grant.resources, resource)):
            return grant
    return None

"""Who could write in an account besides those that may, and what lets them: pure, from what the account says of itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.actual.outofband import matches
from reconciler.runner.guard.policy import ASSUMES, Grant, Statement, granted, lets, writes

LINKED = ":role/aws-service-role/"  # roles that nobody but a service can assume, as AWS itself wrote
OUTSIDE = "outside"  # the kind of whoever is not of the account: other accounts, services, identity providers, anybody


@dataclass(frozen=True, slots=True)
class Identity:
    """A user or a role. `policies` are those that it has, its groups' included; `trust` says who may assume a role."""

    arn: str
    policies: tuple[Statement, ...] = ()
    boundary: tuple[Statement, ...] | None = None
    trust: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """Something with a policy of its own: a bucket, a key, a queue, a topic."""

    arn: str
    policy: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """What an account says. `unread`: what could not be looked at, and why."""

    number: str
    identities: Sequence[Identity]
    resources: Sequence[Resource] = ()
    unread: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Writer:
    """Somebody who could write. `by`: the roles that he assumes one after the other; `why`: the statements that let him."""

    principal: str
    kind: str
    why: tuple[str, ...]
    by: tuple[str, ...] = ()


@dataclass(slots=True)
class _Found:
    """Who could write, by name; the first way that was found is the shortest."""

    writers: dict[str, Writer] = field(default_factory=dict)

    def add(self, writer: Writer) -> bool:
        known = self.writers.setdefault(writer.principal, writer)
        return known is writer


def audit(account: Account, allowed: Iterable[str]) -> list[Writer]:
    """Everybody who could write and is like none of the patterns, by name."""
    may = {one.arn: granted(one.policies, one.boundary) for one in account.identities}
    found = _Found()
    waiting = [
        Writer(one.arn, _kind(one.arn, account.number), tuple(map(str, let)))
        for one in account.identities
        if (let := writes(may[one.arn]))
    ]
    for resource in account.resources:
        waiting += _by_resource(account, resource)
    roles = {one.arn: one for one in account.identities if one.trust and LINKED not in one.arn}
    while waiting:
        writer, *waiting = waiting
        if found.add(writer) and writer.principal in roles:
            waiting += _assuming(account, may, roles[writer.principal], writer)
    patterns = tuple(allowed)
    others = [one for one in found.writers.values() if not any(matches(p, one.principal) for p in patterns)]
    return sorted(others, key=lambda one: one.principal)


def _kind(arn: str, number: str) -> str:
    words = arn.split(":")
    inside = len(words) > 5 and words[4] == number and words[2] == "iam"
    return words[5].partition("/")[0] if inside else OUTSIDE


def _by_resource(account: Account, resource: Resource) -> Iterator[Writer]:
    """Who is let by the resource's own policy. One of the account itself is as its identities' policies say, or named."""
    denies = [one for one in resource.policy if not one.allows and (_everybody(one) or one.but_principals)]
    denies = [
        one for one in denies if not one.but_principals
    ]  # whom it leaves out is not worked out: it takes nothing away
    for one in resource.policy:
        if not one.allows:
            continue
        let = writes(granted([one, *denies]))
        if not let:
            continue
        for who, kind in _whom(one, account.number):
            if not _is_account(who, account.number):
                yield Writer(who, kind, tuple(map(str, let)))


def _everybody(one: Statement) -> bool:
    return any(who == "*" for _, who in one.principals)


def _whom(one: Statement, number: str) -> Iterator[tuple[str, str]]:
    """Whom a statement with principals lets: each, with its kind. All but some are anybody."""
    if one.but_principals:
        yield "*", OUTSIDE
        return
    for kind, who in one.principals:
        yield who, _kind(who, number) if kind == "AWS" else OUTSIDE


def _is_account(who: str, number: str) -> bool:
    """Whether the account as a whole is meant: then its own policies say who of it."""
    return who == number or re.fullmatch(rf"arn:aws[a-z-]*:iam::{number}:root", who) is not None


def _assuming(account: Account, may: Mapping[str, list[Grant]], role: Identity, writer: Writer) -> Iterator[Writer]:
    """Who may become the role, and so could do what it could."""
    by = (role.arn, *writer.by)
    for one in role.trust:
        if not one.allows or not any(
            lets([grant], action, "*") for grant in granted([one, *_against(role.trust)]) for action in ASSUMES
        ):
            continue
        when = f", if {one.condition}" if one.condition else ""
        trusts = f"{one.source}{when}"
        for who, kind in _whom(one, account.number):
            inside = _is_account(who, account.number) or who == "*"
            if not _is_account(who, account.number):
                yield Writer(who, kind, (trusts,), by)
            if inside:
                yield from _of_the_account(account, may, role, trusts, by)


def _against(policy: Iterable[Statement]) -> list[Statement]:
    """The denies that are everybody's. Whom a NotPrincipal leaves out is not worked out: it takes nothing away."""
    return [one for one in policy if not one.allows and _everybody(one) and not one.but_principals]


def _of_the_account(
    account: Account, may: Mapping[str, list[Grant]], role: Identity, trusts: str, by: tuple[str, ...]
) -> Iterator[Writer]:
    """The account is trusted as a whole: whoever of it has a policy that lets him assume the role."""
    for one in account.identities:
        grant = lets(may[one.arn], ASSUMES[0], role.arn) if one.arn != role.arn else None
        if grant is not None:
            yield Writer(one.arn, _kind(one.arn, account.number), (str(grant), trusts), by)

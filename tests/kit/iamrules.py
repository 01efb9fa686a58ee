"""IAM's rules of evaluation, for as much of the language as our own policies use; what is not known is an error, never a guess.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html: a deny counts wherever it stands; then every kind of
policy that there is (identity, boundary, the organization's) has to allow. Of a resource's own policy only denies are looked at: ours grant
nothing to a role.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

Document = Mapping[str, Any]
Context = Mapping[str, str | list[str]]
ELEMENTS = frozenset({"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal", "Condition"})


def allowed(
    action: str,
    resource: str,
    context: Context,
    *,
    identity: Sequence[Document],
    boundary: Document | None = None,
    organization: Sequence[Document] = (),
    of_resource: Sequence[Document] = (),
) -> bool:
    """Whether somebody with these policies may do this. `context`: keys of the request, `aws:PrincipalArn` of the caller among them."""
    kinds = [identity, *([[boundary]] if boundary is not None else []), *([organization] if organization else [])]
    everything = [one for kind in kinds for one in kind] + list(of_resource)
    if any(says(one, "Deny", action, resource, context) for one in everything):
        return False
    return all(any(says(one, "Allow", action, resource, context) for one in kind) for kind in kinds)


def trusts(document: Document, action: str, context: Context) -> bool:
    """Whether a role's trust policy lets the caller do this to it."""
    if says(document, "Deny", action, None, context):
        return False
    return says(document, "Allow", action, None, context)


def says(document: Document, effect: str, action: str, resource: str | None, context: Context) -> bool:
    """Whether a statement of this effect covers the request. `resource`: None where policies of that kind name none."""
    listed = document["Statement"]
    return any(
        one["Effect"] == effect and _covers(one, action, resource, context)
        for one in (listed if isinstance(listed, list) else [listed])
    )


def _covers(one: Mapping[str, Any], action: str, resource: str | None, context: Context) -> bool:
    if unknown := one.keys() - ELEMENTS:
        raise NotImplementedError(f"{sorted(unknown)} of {one}")
    return (
        _listed(one, "Action", action.lower(), str.lower)
        and (resource is None or _listed(one, "Resource", resource, str))
        and _principal(one, context)
        and all(
            _holds(test, key, _all(values), context)
            for test, keys in one.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _listed(one: Mapping[str, Any], element: str, text: str, as_it_counts: Callable[[str], str]) -> bool:
    but = f"Not{element}"
    if (element in one) == (but in one):
        raise NotImplementedError(f"neither or both of {element} and {but}: {one}")
    found = any(like(as_it_counts(pattern), text) for pattern in _all(one.get(element, one.get(but))))
    return found if element in one else not found


def _principal(one: Mapping[str, Any], context: Context) -> bool:
    said = one.get("Principal")
    if said is None or said in ("*", {"AWS": "*"}):
        return True
    if not isinstance(said, Mapping) or said.keys() - {"AWS", "Service"}:
        raise NotImplementedError(f"{said}")
    return context["aws:PrincipalArn"] in _all(said.get("AWS", []))


def _all(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    if "${" in text:
        raise NotImplementedError(f"a variable: {text}")
    signs = {"*": ".*", "?": "."}
    return re.compile("".join(signs.get(sign, re.escape(sign)) for sign in text), re.DOTALL)


def like(pattern: str, text: str) -> bool:
    """IAM's patterns: `*` is any text, `?` one character."""
    return _pattern(pattern).fullmatch(text) is not None


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


TESTS: Mapping[str, Callable[[str, str], bool]] = {
    "Bool": lambda wanted, is_: wanted.lower() == is_.lower(),
    "StringEquals": lambda wanted, is_: wanted == is_,
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
    "NumericLessThan": lambda wanted, is_: float(is_) < float(wanted),
    "DateLessThan": lambda wanted, is_: _moment(is_) < _moment(wanted),
}
NOT = {f"{kind}Not{how}": f"{kind}{how}" for kind in ("String", "Arn") for how in ("Equals", "Like")}


def _holds(test: str, key: str, wanted: Sequence[str], context: Context) -> bool:
    """One test of a condition. A key that the request has not: what denies by `Not` holds then, what compares does not."""
    there = {name.lower(): value for name, value in context.items()}.get(key.lower())
    if test == "Null":
        return (there is None) == (wanted[0].lower() == "true")
    of_many, _, test = test.rpartition(":")
    name = test.removesuffix("IfExists")
    if there is None:
        return test.endswith("IfExists") or name in NOT
    if of_many not in ("", "ForAnyValue") or isinstance(there, list) != bool(of_many):
        raise NotImplementedError(f"{of_many or 'one value'} of {key}={there}")
    found = any(TESTS[NOT.get(name, name)](one, value) for one in wanted for value in _all(there))
    return not found if name in NOT else found

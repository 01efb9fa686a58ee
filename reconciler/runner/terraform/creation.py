"""What a plan makes: the objects that an apply of it brings into the world."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.runner.terraform.providers import BUILTIN

BUCKET = "aws_s3_bucket"
# Besides the builtin one: what these make is in the state, and nowhere else.
OBJECTLESS = frozenset({"hashicorp/null", "hashicorp/random", "hashicorp/time", "hashicorp/tls"})


@dataclass(frozen=True, slots=True)
class Creation:
    """An object that an apply makes.

    `provider` is its source without the registry; `tagged`: whether the provider's default tags reach it; `was` marks the object
    whose place it takes (see `mark`); `id` is its own, as far as the engine told it; `region` where it differs from the provider's;
    `name` is what the plan calls a bucket, which has no tags at first.
    """

    address: str
    type: str
    provider: str
    tagged: bool = False
    was: str = ""
    id: str = ""
    region: str = ""
    name: str = ""


def creations(plan: Mapping[str, Any]) -> tuple[Creation, ...]:
    """What a plan (`show -json`) makes anew, or in place of another object; only what is somewhere besides the state."""
    gone = {d["address"]: d["change"].get("before") for d in plan.get("resource_drift") or ()}
    return tuple(_creations(plan.get("resource_changes") or (), gone))


def _creations(changes: Iterable[Mapping[str, Any]], gone: Mapping[str, Any]) -> Iterator[Creation]:
    for raw in changes:
        change, name = raw["change"], str(raw.get("provider_name", ""))
        if "create" not in change["actions"] or name.startswith(BUILTIN):
            continue
        source = name.partition("/")[2]
        if source in OBJECTLESS:
            continue
        after, unknown = (one if isinstance(one, Mapping) else {} for one in _sides(change))
        before = change.get("before") or gone.get(raw["address"])
        tainted = raw.get("action_reason") == "replace_because_tainted"
        yield Creation(
            address=str(raw["address"]),
            type=str(raw["type"]),
            provider=source,
            tagged="tags_all" in after or "tags_all" in unknown,
            was=mark(before, tainted=tainted) if isinstance(before, Mapping) else "",
            region=str(after.get("region") or ""),
            name=str(after.get("bucket") or "") if raw["type"] == BUCKET else "",
        )


def _sides(change: Mapping[str, Any]) -> tuple[Any, Any]:
    return change.get("after"), change.get("after_unknown")


def mark(attributes: Mapping[str, Any], *, tainted: bool) -> str:
    """Tells an object from the one that takes its place. Objects without an id are all alike."""
    return hashlib.sha256(f"{tainted} {attributes.get('id')}".encode()).hexdigest()[:16]

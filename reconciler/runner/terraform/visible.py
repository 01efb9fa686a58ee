"""What rules may look at of a plan: what changes, as the engine says it, without what is sensitive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.model import Json
from reconciler.runner.terraform.plan import Raw, counts, not_a_plan

_GONE = object()
_SIDES = ("before", "after")


def visible(plan: Raw) -> dict[str, Any]:
    """The plan's `resource_changes` (those that change something), `resource_drift` and `output_changes`.

    A value that is marked sensitive is not there, so that nobody can ask after it; a list in which one is marked is not there
    as a whole, since its other members would be counted wrong. Raises UnitError "PlanInvalid".
    """
    try:
        outputs = (plan.get("output_changes") or {}).items()
        return {
            "resource_changes": [_object(one) for one in plan.get("resource_changes") or () if counts(one)],
            "resource_drift": [_object(one) for one in plan.get("resource_drift") or ()],
            "output_changes": {name: _change(one) for name, one in outputs if list(one["actions"]) != ["no-op"]},
        }
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise not_a_plan(error) from error


def _object(raw: Raw) -> dict[str, Any]:
    return {**raw, "change": _change(raw["change"])}


def _change(raw: Raw) -> dict[str, Any]:
    shown = {side: _shown(raw[side], raw.get(f"{side}_sensitive")) for side in _SIDES if side in raw}
    return {name: value for name, value in {**raw, **shown}.items() if value is not _GONE}


def _shown(value: Json, mark: Json) -> Any:
    """The value without what `mark`, a tree of its shape with `true` for what is sensitive, names."""
    if mark is True:
        return _GONE
    if isinstance(mark, Mapping) and isinstance(value, Mapping):
        inner = {key: _shown(one, mark.get(key)) for key, one in value.items()}
        return {key: one for key, one in inner.items() if one is not _GONE}
    if isinstance(mark, list) and isinstance(value, list):
        marks = [*mark, *[None] * len(value)]
        items = [_shown(one, marks[number]) for number, one in enumerate(value)]
        return _GONE if any(one is _GONE for one in items) else items
    return value

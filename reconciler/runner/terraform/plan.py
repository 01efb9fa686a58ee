"""What a plan would do: a summary free of values, a digest of the values, and the secrets that must be hidden."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.errors import UnitError
from reconciler.model import Change, Json, PlanSummary
from reconciler.runner.terraform.creation import Creation, creations

Raw = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is taken from a plan: its summary, the addresses that refresh found changed, its secrets, and what it makes."""

    summary: PlanSummary
    drifted: frozenset[str]
    secrets: frozenset[str]
    creations: tuple[Creation, ...] = ()


def parse_plan(raw: bytes) -> Raw:
    """What `show -json` printed. Raises UnitError "PlanInvalid"."""
    try:
        plan = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise not_a_plan(error) from error
    if not isinstance(plan, dict):
        raise not_a_plan(TypeError("no JSON object"))
    return plan


def take_in(plan: Raw, key: bytes) -> Reading:
    """Read a plan. `key` is `summarise`'s. Raises UnitError "PlanInvalid"."""
    try:
        return Reading(summarise(plan, key), drifted_in(plan), secrets_in(plan), creations(plan))
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise not_a_plan(error) from error


def not_a_plan(error: Exception) -> UnitError:
    """What the engine said of its plan makes no sense: the unit fails, whatever the plan is."""
    what = f"The engine's account of the plan cannot be read ({type(error).__name__}: {str(error)[:200]})"
    return UnitError("PlanInvalid", f"{what}. Nothing is applied; is the engine one of the supported versions?")


def summarise(plan: Raw, key: bytes) -> PlanSummary:
    """The change set of `show -json`. `key` makes the digest useless to whoever guesses values."""
    changes = sorted(filter(counts, plan.get("resource_changes") or ()), key=_identity)
    drift = plan.get("resource_drift") or ()
    outputs = {n: o for n, o in (plan.get("output_changes") or {}).items() if list(o["actions"]) != ["no-op"]}
    return PlanSummary(
        changes=tuple(map(_change, changes)),
        missing=tuple(sorted(str(d["address"]) for d in drift if list(d["change"]["actions"]) == ["delete"])),
        outputs_changed=bool(outputs),
        digest=_digest([_canonical(raw) for raw in changes], outputs, key),
    )


def drifted_in(plan: Raw) -> frozenset[str]:
    """The addresses of the objects that refresh found other than the state says, and that are still there."""
    drift = plan.get("resource_drift") or ()
    return frozenset(str(one["address"]) for one in drift if list(one["change"]["actions"]) == ["update"])


def counts(raw: Raw) -> bool:
    """Whether a resource of the plan changes. Reading data changes nothing, nor does a no-op, unless it brings an object into the state."""
    actions = raw["change"]["actions"]
    return actions not in (["no-op"], ["read"]) or bool(raw["change"].get("importing"))


def _identity(raw: Raw) -> tuple[str, str]:
    return raw["address"], raw.get("deposed", "")


def _change(raw: Raw) -> Change:
    reason = "import" if raw["change"].get("importing") else raw.get("action_reason", "")
    change = Change(raw["address"], raw["type"], tuple(raw["change"]["actions"]), reason)
    if not all(isinstance(word, str) for word in (change.address, change.type, change.reason, *change.actions)):
        raise TypeError("no change has such parts")
    return change


def _canonical(raw: Raw) -> list[Json]:
    change = raw["change"]
    parts = ("actions", "before", "after", "after_unknown", "replace_paths", "importing")
    return [*_identity(raw), *(change.get(part) for part in parts)]


def _digest(changes: list[list[Json]], outputs: Raw, key: bytes) -> str:
    values = {
        name: [o.get(part) for part in ("actions", "before", "after", "after_unknown")] for name, o in outputs.items()
    }
    text = json.dumps([changes, values], sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


# --- secrets -----------------------------------------------------------------------------------------------------


def secrets_in(plan: Raw) -> frozenset[str]:
    """Every scalar that is marked sensitive anywhere in a plan, as text."""
    return frozenset(_secrets(plan))


def scalars(value: Json) -> Iterator[str]:
    """The strings and numbers inside a value, as text."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from scalars(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from scalars(inner)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield json.dumps(value)


def _secrets(plan: Raw) -> Iterator[str]:
    changes = [raw["change"] for part in ("resource_changes", "resource_drift") for raw in plan.get(part) or ()]
    for change in [*changes, *(plan.get("output_changes") or {}).values()]:
        for side in ("before", "after"):
            yield from _marked(change.get(side), change.get(f"{side}_sensitive"))
    yield from _variables(plan)
    for values in (plan.get("planned_values"), (plan.get("prior_state") or {}).get("values")):
        for output in ((values or {}).get("outputs") or {}).values():
            yield from _marked(output.get("value"), output.get("sensitive"))
        yield from _resources((values or {}).get("root_module") or {})


def _variables(plan: Raw) -> Iterator[str]:
    declared = ((plan.get("configuration") or {}).get("root_module") or {}).get("variables") or {}
    for name, variable in (plan.get("variables") or {}).items():
        yield from _marked(variable.get("value"), declared.get(name, {}).get("sensitive"))


def _resources(module: Raw) -> Iterator[str]:
    for resource in module.get("resources") or ():
        yield from _marked(resource.get("values"), resource.get("sensitive_values"))
    for child in module.get("child_modules") or ():
        yield from _resources(child)


def _marked(value: Json, mark: Json) -> Iterator[str]:
    """The scalars of `value` that `mark`, a tree of its shape with `true` for what is sensitive, names."""
    if mark is True:
        yield from scalars(value)
    elif isinstance(mark, Mapping) and isinstance(value, Mapping):
        for key, inner in mark.items():
            yield from _marked(value.get(key), inner)
    elif isinstance(mark, list) and isinstance(value, list):
        for item, inner in zip(value, mark, strict=False):
            yield from _marked(item, inner)

"""A state that others made, with every object of it inside the module of a unit's root: nothing else of it changes."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

from reconciler.errors import UnitError
from reconciler.runner.terraform.state import State, parse_state
from reconciler.runner.terraform.workspace import MODULE

INSIDE = f"module.{MODULE}"


def wrap(source: State) -> State:
    """The state as the unit's own, with the next serial of the same lineage; the same bytes for the same bytes.

    Raises:
        UnitError: "AdoptInvalid": it is not what an engine writes, or its objects are in such a module already.
    """
    try:
        wrapped = parse_state(_wrapped(source.raw, source.mark.serial + 1))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnitError(
            "AdoptInvalid", f"it cannot be read as a state ({type(error).__name__}: {str(error)[:200]})"
        ) from error
    if any(one.address.startswith(f"{INSIDE}.{INSIDE}.") for one in wrapped.resources):
        what = f"its objects are in a `{INSIDE}` already, as those of a unit of a reconciler are"
        raise UnitError("AdoptInvalid", f"{what}: use `moved_from` inside an environment, or move them out of it first")
    return wrapped


def _wrapped(raw: bytes, serial: int) -> bytes:
    """Numbers with a fraction stay as they are written: Terraform's have more digits than ours."""
    mark = secrets.token_hex(16)
    document = json.loads(raw, parse_float=lambda text: f"{mark}{text}", parse_constant=_refuse)
    document["serial"] = serial
    document.pop("check_results", None)  # of another root; the engine works them out anew
    document["resources"] = [_moved(one) for one in document.get("resources") or ()]
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return re.sub(rf'"{mark}([-+.0-9eE]+)"', r"\1", text).encode()


def _moved(group: Mapping[str, Any]) -> dict[str, Any]:
    provider, module = str(group["provider"]), group.get("module")
    return {
        **group,
        "module": f"{INSIDE}.{module}" if module else INSIDE,
        "provider": f"{INSIDE}.{provider}" if provider.startswith("module.") else provider,
        "instances": [_instance(one) for one in group["instances"]],
    }


def _instance(one: Mapping[str, Any]) -> dict[str, Any]:
    needs = one.get("dependencies")
    return {**one, "dependencies": [f"{INSIDE}.{name}" for name in needs]} if needs else dict(one)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")

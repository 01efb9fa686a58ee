"""The root that wraps a unit's module: a folder that Terraform can be run in, and in which nothing a user wrote is code.

Terraform's JSON syntax parses strings and object keys of a configuration as templates, and strings and keys of a
`-var-file` as what they are (measured). So every value goes through the var-file, and the root names variables only.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.desired.shape import ADDRESS
from reconciler.errors import HeldError, UnitError
from reconciler.model import Json, Pin, UnitId
from reconciler.runner.terraform.module import ModuleInterface
from reconciler.runner.terraform.packages import address
from reconciler.runner.terraform.providers import Configured, Leaves, plan_providers

ROOT_FILE = "main.tf.json"
VALUES_FILE = "values.tfvars.json"
LOCK_FILE = ".terraform.lock.hcl"
CATALOG = "catalog"
MODULE = "unit"  # the module's name in the root: addresses begin with `module.unit.`
DEEPEST = 100  # levels of a value; Terraform itself recurses
MODULE_PATH = re.compile(r"(\.|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)")
IDENTIFIER = re.compile(r"[^\W\d][\w-]*")


@dataclass(frozen=True, slots=True)
class Value:
    """A value for an input, or of an output, and whether Terraform shall keep it secret."""

    value: Json
    sensitive: bool = False


@dataclass(frozen=True, slots=True)
class RootSpec:
    """Everything that a root is made of.

    `registry` is the host whose hashes of the pin count. `providers` is the environment's configuration by provider
    name, or `name.alias`; `provider_map` the module's provider names -> those. `sensitive_outputs` are marked besides
    those that the module marks. `installation` names this reconciler in the tags of real objects.
    `accounts` are those of AWS that may be worked on; any, if there is none. `imports`: addresses inside the module, and the id of the
    object that each takes over.
    """

    unit: UnitId
    installation: str
    pin: Pin
    registry: str
    interface: ModuleInterface
    inputs: Mapping[str, Value] = field(default_factory=dict)
    providers: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    provider_map: Mapping[str, str] = field(default_factory=dict)
    backend: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    sensitive_outputs: frozenset[str] = frozenset()
    accounts: tuple[str, ...] = ()
    imports: Mapping[str, str] = field(default_factory=dict)


def write_root(folder: Path, spec: RootSpec, catalog_tree: Path) -> dict[str, Any]:
    """Write the root into `folder` (made, 0700), and return it; written again, it replaces what an earlier call wrote.

    `catalog_tree` is the pinned tree of the catalog repository; it is linked, not copied.

    Raises:
        UnitError: "InputUnknown", "InputInvalid", "ImportInvalid", "ProviderMissing" or "ProviderNotLocked".
    """
    leaves = Leaves()
    root = render_root(spec, leaves)
    values = {f"input_{name}": value.value for name, value in spec.inputs.items()} | leaves.values
    values |= {f"import_{number}": spec.imports[address] for number, address in enumerate(sorted(spec.imports))}
    text = _dump(values)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(folder / VALUES_FILE, text)
    # One property a line: a diagnostic's line names the input or output (see `diagnose`).
    _write(folder / ROOT_FILE, json.dumps(root, indent=1))
    _write(folder / LOCK_FILE, render_lock(spec.pin, spec.registry))
    link = folder / CATALOG
    link.unlink(missing_ok=True)
    link.symlink_to(catalog_tree, target_is_directory=True)
    return root


def trust_packages(folder: Path, pin: Pin, registry: str) -> None:
    """Let the engine take the packages as they are, in the root that was written into `folder`: it reads none of them whole.

    After `init`, which wants hashes. Whoever calls this has compared them with the lock.
    """
    _write(folder / LOCK_FILE, render_lock(pin, registry, hashed=False))


def render_root(spec: RootSpec, leaves: Leaves) -> dict[str, Any]:
    """The configuration; the values of the providers' settings are collected into `leaves`."""
    check_inputs(spec.interface, spec.inputs)
    configured = plan_providers(spec.pin, spec.registry, spec.interface, spec.providers, spec.provider_map)
    blocks = configured.blocks(leaves, spec.installation, spec.unit, spec.accounts)
    variables: dict[str, Any] = {
        f"input_{name}": {"type": "any"} | ({"sensitive": True} if value.sensitive else {})
        for name, value in spec.inputs.items()
    }
    variables |= {name: {"type": "any"} for name in leaves.values}
    variables |= {f"import_{number}": {"type": "string"} for number in range(len(spec.imports))}
    settings: dict[str, Any] = {"required_providers": configured.required}
    if spec.backend:
        settings["backend"] = _literal_backend(spec.backend)
    root = {
        "terraform": settings,
        "variable": variables,
        "provider": blocks,
        "module": {MODULE: _module(spec, configured)},
        "output": _outputs(spec),
        "import": _imports(spec.imports),
    }
    return {key: value for key, value in root.items() if value}


def check_inputs(interface: ModuleInterface, given: Iterable[str]) -> None:
    """Refuse names that the module does not declare: `count` or `source` in the module's block would be code."""
    for name in given:
        if name not in interface.variables or not IDENTIFIER.fullmatch(name):
            known = ", ".join(sorted(interface.variables)) or "none"
            raise UnitError("InputUnknown", f"The module has no input {name!r}; it has: {known}.")


def render_lock(pin: Pin, registry: str, *, hashed: bool = True) -> str:
    """Terraform's dependency lock file, from the pins of catalog-lock.yaml; not `hashed`: with versions only.

    Raises:
        HeldError: "ProviderNotLocked": there are no hashes for this registry.
    """
    blocks = []
    for provider in sorted(pin.providers, key=lambda p: p.source):
        host, source = address(provider.source, registry)
        hashes = provider.hashes.get(host)
        if not hashes:
            raise HeldError(
                "ProviderNotLocked",
                f"catalog-lock.yaml has no hashes of {provider.source} {provider.version} from {host}. "
                f"Write them with `reconciler catalog add {pin.module}@{pin.version}` and merge that.",
            )
        lines = "".join(f"    {json.dumps(h)},\n" for h in sorted(hashes))
        listed = f"  hashes = [\n{lines}  ]\n" if hashed else ""
        blocks.append(f'provider "{host}/{source}" {{\n  version = {json.dumps(provider.version)}\n{listed}}}\n')
    return "\n".join(blocks)


def _module(spec: RootSpec, configured: Configured) -> dict[str, Any]:
    path = spec.pin.path or "."
    if not MODULE_PATH.fullmatch(path):
        raise UnitError(
            "CatalogPinInvalid", f"catalog-lock.yaml: {path!r} is no path of a module inside its repository."
        )
    block: dict[str, Any] = {"source": f"./{CATALOG}" if path == "." else f"./{CATALOG}/{path}"}
    if configured.passed:
        block["providers"] = dict(configured.passed)
    return block | {name: f"${{var.input_{name}}}" for name in spec.inputs}


def _outputs(spec: RootSpec) -> dict[str, Any]:
    return {
        name: {"value": f"${{module.{MODULE}.{name}}}"}
        | ({"sensitive": True} if sensitive or name in spec.sensitive_outputs else {})
        for name, sensitive in spec.interface.outputs.items()
    }


def _imports(imports: Mapping[str, str]) -> list[dict[str, str]]:
    """The addresses are code, and so only what was checked as one; the ids are values like any other."""
    for name in imports:
        if not re.fullmatch(ADDRESS, name):
            raise UnitError("ImportInvalid", f"{name!r} is no address inside a module.")
    return [
        {"to": f"module.{MODULE}.{name}", "id": f"${{var.import_{number}}}"}
        for number, name in enumerate(sorted(imports))
    ]


def _literal_backend(backend: Mapping[str, Mapping[str, Json]]) -> Mapping[str, Mapping[str, Json]]:
    """A backend's settings are read before there are variables, so what could be a template is refused."""
    text = json.dumps(backend)
    if "${" in text or "%{" in text:
        raise UnitError("BackendInvalid", "The backend's settings in runner.yaml must not contain `${` or `%{`.")
    return backend


def _dump(values: Mapping[str, Json]) -> str:
    for name, value in values.items():
        check_value(value, name.removeprefix("input_"))
    return json.dumps(values, allow_nan=False)


def check_value(value: Json, name: str, depth: int = 0) -> None:
    """Refuse what JSON cannot say exactly. Integers of any size are fine: Terraform keeps 512 bits.

    Raises:
        UnitError: "InputInvalid".
    """
    if depth > DEEPEST:
        raise UnitError("InputInvalid", f"The value of {name} is nested deeper than {DEEPEST} levels; make it flatter.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_value(key if isinstance(key, str) else object(), name, depth)
            check_value(inner, name, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_value(inner, name, depth + 1)
    elif not _exact(value):
        raise UnitError(
            "InputInvalid", f"The value of {name} holds {value!r}, which JSON cannot say; quote it as a string."
        )


def _exact(scalar: Json) -> bool:
    if isinstance(scalar, str):
        return not any("\ud800" <= character <= "\udfff" for character in scalar)
    if isinstance(scalar, bool) or scalar is None:
        return True
    if isinstance(scalar, int):
        return scalar.bit_length() <= 512
    return isinstance(scalar, float) and math.isfinite(scalar)


def _write(path: Path, text: str) -> None:
    """Readable by this user alone from its first byte on."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)

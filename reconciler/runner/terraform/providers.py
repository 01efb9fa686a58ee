"""Which providers a root requires, configures and hands to the module; and the tags that name the unit on real objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import UnitError
from reconciler.model import Json, Pin, UnitId
from reconciler.runner.terraform.module import ModuleInterface

BUILTIN = "terraform.io/builtin/"
NAME = re.compile(r"[a-z][a-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*)?")
# Keys of a configuration are templates to Terraform, and "//" is a comment; these are neither.
SAFE_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .:/@+=-]*")
AWS = "hashicorp/aws"
OURS = frozenset({"alias", "version"})  # what the root itself says of a provider

Tags = Mapping[str, str]


@dataclass(slots=True)
class Leaves:
    """The scalars of provider configurations: each becomes a variable, so that none is ever parsed."""

    values: dict[str, Json] = field(default_factory=dict)

    def variable(self, value: Json) -> str:
        """A reference to a new variable that holds the value."""
        name = f"setting_{len(self.values)}"
        self.values[name] = value
        return f"${{var.{name}}}"

    def lift(self, value: Json, where: str) -> Any:
        """The same structure with references for scalars.

        Raises:
            UnitError: "ProviderInvalid": a key could be read as code.
        """
        if isinstance(value, Mapping):
            return {_safe(key, where): self.lift(inner, f"{where}.{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.lift(inner, where) for inner in value]
        return self.variable(value)


@dataclass(frozen=True, slots=True)
class Configured:
    """What the root says of providers.

    `required`: local name -> source and version. `settings`: the environment's name -> its settings, for those that
    the module uses. `passed`: the module's name -> the environment's. `sources`: local name -> source.
    """

    required: Mapping[str, Mapping[str, str]]
    settings: Mapping[str, Mapping[str, Json]]
    passed: Mapping[str, str]
    sources: Mapping[str, str]

    def blocks(
        self, leaves: Leaves, installation: str, unit: UnitId, accounts: Sequence[str] = ()
    ) -> dict[str, list[dict[str, Any]]]:
        """The provider blocks, values lifted out, tagged; those of AWS held to the accounts, whatever they are called."""
        found: dict[str, list[dict[str, Any]]] = {}
        for name, settings in self.settings.items():
            local, _, alias = name.partition(".")
            tag = TAGGERS.get(self.sources[local])
            tagged = tag(settings, installation, unit) if tag else settings
            if accounts and self.sources[local] == AWS:
                tagged = {**tagged, "allowed_account_ids": list(accounts)}
            block = leaves.lift(tagged, f"providers.{name}")
            found.setdefault(local, []).append(block | ({"alias": alias} if alias else {}))
        return found


def plan_providers(
    pin: Pin,
    registry: str,
    interface: ModuleInterface,
    environment: Mapping[str, Mapping[str, Json]],
    provider_map: Mapping[str, str],
) -> Configured:
    """Match what the module asks for with what the environment configures and the lock pins.

    Raises:
        UnitError: "ProviderMissing", "ProviderNotLocked" or "ProviderInvalid".
    """
    wanted = _wanted(pin, interface)
    _check_map(wanted, environment, provider_map)
    names = {name: provider_map.get(name, name) for name in wanted}
    sources: dict[str, str] = {}
    for name, target in names.items():
        local = target.partition(".")[0]
        if sources.setdefault(local, wanted[name]) != wanted[name]:
            raise UnitError("ProviderInvalid", f"Two providers of the module, {sources[local]} and {wanted[name]}, would "
                            f"both be {local!r}. Give one of them another name in environment.yaml and map it with `providers:`.")  # fmt: skip
    settings = {t: environment.get(t, {}) for n, t in names.items() if t in environment or wanted[n] in TAGGERS}
    for name, given in settings.items():
        _check_settings(name, given)
    # What only nested modules use cannot be handed over by name; it is inherited.
    passed = {name: target for name, target in names.items() if target in settings and name in interface.providers}
    return Configured(_required(pin, registry, sources), settings, passed, sources)


def _wanted(pin: Pin, interface: ModuleInterface) -> dict[str, str]:
    """Local name -> source: the module's own, and what its nested modules use, by the type's name."""
    wanted = {n: s for n, s in interface.providers.items() if not s.startswith(BUILTIN)}
    for provider in pin.providers:
        if provider.source not in wanted.values():
            wanted.setdefault(provider.source.rpartition("/")[2], provider.source)
    return wanted


def _check_map(
    wanted: Mapping[str, str], environment: Mapping[str, Mapping[str, Json]], provider_map: Mapping[str, str]
) -> None:
    there = ", ".join(sorted(environment)) or "none"
    for name, target in provider_map.items():
        if name not in wanted:
            raise UnitError(
                "ProviderMissing",
                f"The module uses no provider {name!r}; it uses: {', '.join(sorted(wanted)) or 'none'}.",
            )
        if target not in environment:
            raise UnitError("ProviderMissing", f"environment.yaml configures no provider {target!r}; it has: {there}.")
    for name in wanted:
        if "." in name and provider_map.get(name, name) not in environment:
            raise UnitError(
                "ProviderMissing",
                f"The module needs a provider for {name!r}. Configure one in environment.yaml (it has: {there}) and "
                f"write `providers: {{{name}: <its name>}}`.",
            )


def _check_settings(name: str, settings: Mapping[str, Json]) -> None:
    if not NAME.fullmatch(name):
        raise UnitError("ProviderInvalid", f"environment.yaml: {name!r} is no provider; write a name or `name.alias`.")
    if taken := OURS & settings.keys():
        raise UnitError(
            "ProviderInvalid",
            f"environment.yaml: providers.{name} must not set {min(taken)!r}: aliases are written "
            "`name.alias`, and versions come from catalog-lock.yaml.",
        )


def _required(pin: Pin, registry: str, sources: Mapping[str, str]) -> dict[str, dict[str, str]]:
    versions = {provider.source: provider.version for provider in pin.providers}
    for source in sources.values():
        if source not in versions:
            raise UnitError(
                "ProviderNotLocked",
                f"catalog-lock.yaml pins no version of {source} (from {registry}), which {pin.module} {pin.version} uses. "
                f"Write it with `reconciler catalog add {pin.module}@{pin.version}` and merge that.",
            )
    return {local: {"source": source, "version": versions[source]} for local, source in sources.items()}


def _safe(key: object, where: str) -> str:
    if isinstance(key, str) and SAFE_KEY.fullmatch(key):
        return key
    raise UnitError(
        "ProviderInvalid",
        f"environment.yaml: {where}: the key {key!r} could be read as Terraform code. Use letters, digits, spaces "
        "and _ . : / @ + = - (a letter, digit or _ first).",
    )


# --- tags --------------------------------------------------------------------------------------------------------


def _aws(settings: Mapping[str, Json], installation: str, unit: UnitId) -> Mapping[str, Json]:
    """A `default_tags` block, merged with the environment's own."""
    given = settings.get("default_tags")
    given = given[0] if isinstance(given, list) and len(given) == 1 else given
    block = given if isinstance(given, Mapping) else {}
    own = block.get("tags")
    ours: Tags = {"reconciler:installation": installation, "reconciler:unit": unit}
    return {**settings, "default_tags": {**block, "tags": {**(own if isinstance(own, Mapping) else {}), **ours}}}


def _google(settings: Mapping[str, Json], installation: str, unit: UnitId) -> Mapping[str, Json]:
    """`default_labels`; Google takes 63 lower-case letters, digits, _ and -."""
    own = settings.get("default_labels")
    ours: Tags = {"reconciler-installation": _label(installation), "reconciler-unit": _label(unit)}
    return {**settings, "default_labels": {**(own if isinstance(own, Mapping) else {}), **ours}}


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:63]


TAGGERS: Mapping[str, Callable[[Mapping[str, Json], str, UnitId], Mapping[str, Json]]] = {
    AWS: _aws,
    "hashicorp/google": _google,
    "hashicorp/google-beta": _google,
}

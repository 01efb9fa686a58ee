"""Digests of everything that can change a unit's plan, in parts, so that a difference names its cause.

What goes in is canonical JSON; both planes run this code, so that they agree without talking.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from sys import intern

from reconciler.desired.template import spell
from reconciler.errors import UnitError
from reconciler.model import (
    Cause,
    Digest,
    Entry,
    Environment,
    Expression,
    Fingerprint,
    HostPart,
    Json,
    Pin,
    Presence,
    Reference,
    RunnerFacts,
    SecretReference,
    Text,
    Unit,
)

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_WITHOUT = "-"  # the part of a unit that shall not exist and so reads nothing


def digest(value: Json) -> Digest:
    """SHA-256 of the value as canonical JSON: keys sorted, no spaces, ASCII."""
    return Digest(intern("sha256:" + hashlib.sha256(_encode(value).encode()).hexdigest()))


def module_part(pin: Pin) -> Digest:
    """What runs: the content of the module's repository, the folder in it, and the providers."""
    providers = [[one.source, one.version, _hashes(one.hashes)] for one in pin.providers]
    return digest([pin.digest, pin.path, providers])


def inputs_part(entry: Entry) -> Digest:
    """What the entry asks for. Allowances are no part of it: they change what may happen, not what is planned."""
    taken: list[Json] = [["import", dict(entry.imports)]] if entry.imports else []
    taken += [["adopt", entry.adopt]] if entry.adopt else []
    return digest(
        [_tagged(dict(entry.inputs)), entry.providers, entry.presence, sorted(entry.allowances.replace), *taken]
    )


def settings_part(environment: Environment) -> Digest:
    """Where the environment's providers point, and its class."""
    return digest([environment.klass, environment.providers])


def intent(module: Digest, inputs: Digest, settings: Digest, references: Iterable[Reference]) -> Digest:
    """Everything that a commit says about the unit."""
    return digest([module, inputs, settings, sorted(map(spell, references))])


def fingerprint(unit: Unit, facts: RunnerFacts, host: HostPart, upstream: Mapping[Reference, str]) -> Fingerprint:
    """The whole of it. `upstream` has, for each reference, the HMAC of the output that it names.

    A unit that shall not exist reads nothing any more: what its upstream and its host say cannot change it.

    Raises:
        UnitError: an output is not known yet, or the host does not name a secret.
    """
    if unit.presence is not Presence.PRESENT:
        return Fingerprint(unit.module_part, unit.inputs_part, _WITHOUT, _WITHOUT)
    settings = digest([unit.settings_part, host.digest, facts.engine, facts.engine_version])
    read = [[spell(reference), _output(reference, upstream)] for reference in unit.references]
    secrets = [[name, _secret(name, unit, host)] for name in unit.secrets]
    return Fingerprint(unit.module_part, unit.inputs_part, settings, digest([sorted(read), sorted(secrets)]))


def cause_of(old: Fingerprint | None, new: Fingerprint) -> Cause:
    """Why a unit is not as it was: the first part that differs, the entry's own before all others."""
    if old is None or old.inputs != new.inputs:
        return Cause.DESIRED
    if old.module != new.module:
        return Cause.CATALOG
    if old.settings != new.settings:
        return Cause.SETTINGS
    return Cause.UPSTREAM if old.upstream != new.upstream else Cause.DRIFT


def _output(reference: Reference, upstream: Mapping[Reference, str]) -> str:
    if reference not in upstream:
        message = f"{spell(reference)} is not known yet: {reference.unit} has no such output so far; it is awaited"
        raise UnitError("DependencyNotReady", message, transient=True)
    return upstream[reference]


def _secret(name: str, unit: Unit, host: HostPart) -> str:
    if name not in host.secrets:
        place = unit.entry.at(spell(SecretReference(name)))
        known = ", ".join(sorted(host.secrets)) or "none"
        where = f"environments.{unit.environment.name}.secrets of the host's runner.yaml"
        raise UnitError(
            "SecretMissing", f"{place}: {where} has no {name}, but {known}; add it there, or correct the name"
        )
    return host.secrets[name]


def _hashes(hashes: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {host: sorted(found) for host, found in hashes.items()}


def _tagged(expression: Expression) -> Json:
    """The expression as JSON, in which no data can look like a reference: keys with a leading $ get another one."""
    match expression:
        case dict():
            return {f"${k}" if k[:1] == "$" else k: _tagged(v) for k, v in expression.items()}
        case list():
            return [_tagged(value) for value in expression]
        case Reference(unit, output, path):
            return {"$output": [unit, output, *path]}
        case SecretReference(name):
            return {"$secret": name}
        case Text(parts):
            return {"$text": [_tagged(part) for part in parts]}
        case _:
            return expression

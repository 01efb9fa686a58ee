"""The values of a unit's inputs: what it reads of other units' states and of the host's secrets, read here, outside the jail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from reconciler.desired.template import render, spell
from reconciler.errors import HeldError, UnitError
from reconciler.model import (
    Expression,
    HostPart,
    Json,
    Operation,
    Presence,
    Reference,
    SecretReference,
    Text,
    Unit,
    UnitId,
)
from reconciler.runner.access.sts import NOBODY, Errand
from reconciler.runner.access.vault import UNAVAILABLE
from reconciler.runner.host import Host, Hosted
from reconciler.runner.terraform.plan import scalars
from reconciler.runner.terraform.state import State
from reconciler.runner.terraform.workspace import Value

Found = dict[Reference | SecretReference, Value]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Every input's value; `seals` names each output read by an HMAC, `sealed` each of the host's secrets so; `secrets` are
    the texts that no log may show.
    """

    values: Mapping[str, Value]
    seals: Mapping[Reference, str]
    sealed: Mapping[str, str]
    secrets: frozenset[str]

    def part(self, host: HostPart) -> HostPart:
        """The host's part of the fingerprint, with the secrets as they were read for these inputs."""
        return replace(host, secrets={**host.secrets, **self.sealed})


def gather(host: Host, unit: Unit, own: Hosted, errand: Errand = NOBODY) -> Inputs:
    """Read what the unit's inputs need, and render them. `own` is the unit's environment as the job opened it; `errand`:
    what for, as whoever lets us read is told.

    A unit that goes needs nothing of its upstream: what is missing is null then.

    Raises:
        HeldError: an upstream has no state or no such output yet, may not be read, or a secret is not there.
        UnitError: a reference does not fit the value that it points into.
    """
    names = {upstream.partition("/")[0] for upstream in unit.reads}
    hosted = {name: _readable(host, unit, name, errand) for name in sorted(names)}
    states = {up: _state(host, unit, hosted[up.partition("/")[0]], up) for up in sorted(unit.reads)}
    present = unit.presence is Presence.PRESENT
    found: Found = {r: _output(unit, r, states[r.unit]) for r in unit.references if present or _has(states[r.unit], r)}
    read = dict(_secrets(host, unit, own))
    found |= {SecretReference(name): Value(text, sensitive=True) for name, text in read.items()}
    rendered = {name: _input(unit, name, found) for name in unit.entry.inputs}
    seals = {r: host.memory.seal(_whole(states[r.unit], r)) for r in unit.references} if present else {}
    secret = (value for value in (*found.values(), *rendered.values()) if value.sensitive)
    secrets = frozenset(text for value in secret for text in scalars(value.value))
    inside = frozenset(text for one in read.values() for text in _inside(one))
    return Inputs(rendered, seals, {name: host.memory.seal(text) for name, text in read.items()}, secrets | inside)


def _secrets(host: Host, unit: Unit, own: Hosted) -> Iterator[tuple[str, str]]:
    """Every secret that the unit names. What goes can do without one that is not there, not without one that may come."""
    for name in sorted(unit.secrets):
        try:
            yield name, host.secret(own, name)
        except HeldError as held:
            if unit.presence is Presence.PRESENT or held.reason == UNAVAILABLE:
                raise


def _inside(secret: str) -> Iterator[str]:
    """A secret is often a document, of which a module takes a part: each is one."""
    if secret.lstrip()[:1] in ("{", "["):
        with suppress(ValueError, RecursionError):
            yield from scalars(json.loads(secret))


def _readable(host: Host, unit: Unit, environment: str, errand: Errand) -> Hosted:
    """The environment, with what opens it for looking."""
    hosted = host.environment(environment, Operation.PLAN, errand)
    if environment != unit.environment.name and unit.environment.name not in hosted.readable_by:
        remedy = f"add {unit.environment.name} to environments.{environment}.readable_by in runner.yaml"
        raise HeldError("NotReadable", f"{unit.environment.name} may not read {environment}; {remedy}.")
    return hosted


def _state(host: Host, unit: Unit, hosted: Hosted, upstream: UnitId) -> State | None:
    applied = host.memory.unit(upstream).applied
    state = hosted.backend.read(upstream) if applied is not None and applied.presence is Presence.PRESENT else None
    if state is None and unit.presence is Presence.PRESENT:
        raise HeldError("DependencyNotReady", f"{upstream} has not been applied yet; this unit follows it.")
    return state


def _has(state: State | None, reference: Reference) -> bool:
    return state is not None and reference.output in state.outputs


def _output(unit: Unit, reference: Reference, state: State | None) -> Value:
    """The whole output that the reference points into."""
    if state is not None and _has(state, reference):
        return state.outputs[reference.output]
    has = ", ".join(sorted(state.outputs)) if state and state.outputs else "none"
    what = f"{reference.unit} has no output {reference.output!r}; its outputs are: {has}"
    raise HeldError("OutputMissing", f"{unit.entry.at(spell(reference))}: {what}.")


def _whole(state: State | None, reference: Reference) -> Json:
    return state.outputs[reference.output].value if state else None


def _input(unit: Unit, name: str, found: Found) -> Value:
    """One input. It is sensitive as a whole when anything in it is."""
    expression = _without_missing(unit.entry.inputs[name], found)
    try:
        value = render(expression, lambda reference: found[reference].value)
    except UnitError as error:
        raise UnitError(error.reason, f"{unit.entry.at(f'inputs.{name}')}: {error}") from error
    return Value(value, sensitive=any(found[r].sensitive for r in _references(expression)))


def _without_missing(expression: Expression, found: Found) -> Expression:
    """The expression with null for whatever needs something that was not found."""
    match expression:
        case Reference() | SecretReference() | Text():
            return expression if all(reference in found for reference in _references(expression)) else None
        case list():
            return [_without_missing(item, found) for item in expression]
        case dict():
            return {key: _without_missing(item, found) for key, item in expression.items()}
    return expression


def _references(expression: Expression) -> Iterator[Reference | SecretReference]:
    match expression:
        case Reference() | SecretReference():
            yield expression
        case Text(parts):
            yield from (p for p in parts if not isinstance(p, str))
        case list():
            for item in expression:
                yield from _references(item)
        case dict():
            for item in expression.values():
                yield from _references(item)

"""`${{ ... }}`: the only thing in an input that is not literal data, and it can only name a value.

    ${{ dns.zone_id }}                   an output of unit <environment>/dns
    ${{ net/hub.vpcs["a b"][0].id }}     a value inside an output of unit <environment>/net/hub
    ${{ /shared/net/hub.vpc_id }}        a unit of another environment
    ${{ secret.db_password }}            a secret that the host's runner.yaml names
    $${{                                 the text ${{

As a whole value the reference keeps the type of what it names; inside a string it becomes text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from reconciler.desired.packed import Packed
from reconciler.desired.wording import printable
from reconciler.errors import UnitError
from reconciler.model import Expression, Json, Reference, SecretReference, Text, UnitId

OPEN = "${{"
SEGMENT = r"[a-z0-9][a-z0-9_-]{0,62}"  # one part of a unit's id

_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,254}"  # Terraform's identifiers
_INDEX = r"\[(?:0|[1-9][0-9]{0,8})\]"
_KEY = r'\["(?:[^"\\\x00-\x1f]|\\.)*"\]'
_EXPRESSION = re.compile(
    rf"""\$\{{\{{[ \t]*(?:
        secret\.(?P<secret>{_NAME})
      | (?!secret\.)(?P<unit>/?{SEGMENT}(?:/{SEGMENT})*)\.(?P<output>{_NAME})(?P<path>(?:\.{_NAME}|{_INDEX}|{_KEY})*)
    )[ \t]*\}}\}}""",
    re.VERBOSE,
)
_STEP = re.compile(rf"\.({_NAME})|({_INDEX})|({_KEY})")
_NEXT = re.compile(r"\$?\$\{\{")


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with the `number`th `${{` of a string (from 0)."""

    number: int
    message: str


class _Found(NamedTuple):
    """One `${{` of a string: what it stands for, where it ends, and how many there were before."""

    number: int
    start: int
    end: int
    value: str | Reference | SecretReference


def parse(text: str, environment: str) -> Expression | Mistake:
    """What a string of an entry of `environment` means: itself, a reference, or a Text with references inside."""
    return _parse(text, environment) if OPEN in text else text


@lru_cache(maxsize=10_000)  # entries beside each other name the same, and share it then
def _parse(text: str, environment: str) -> Expression | Mistake:
    parts: list[str | Reference | SecretReference] = []
    position = 0
    for found in _find(text, environment):
        if isinstance(found, Mistake):
            return found
        parts += [text[position : found.start], found.value]
        position = found.end
    return _joined([*parts, text[position:]])


def references(text: str, environment: str) -> Iterator[tuple[int, Reference | SecretReference]]:
    """Every reference of a string that parses, with the number of its `${{` (from 0)."""
    for found in _find(text, environment):
        if isinstance(found, _Found) and not isinstance(found.value, str):
            yield found.number, found.value


def spell(reference: Reference | SecretReference) -> str:
    """The reference as it can be written in any entry: `/prod/dns.zones[0].name`, `secret.name`."""
    if isinstance(reference, SecretReference):
        return f"secret.{reference.name}"
    return f"/{reference.unit}.{reference.output}{''.join(map(_spell_step, reference.path))}"


def write(expression: Expression) -> Json:
    """The expression as it can be written in an entry: what `parse` reads back."""
    match expression:
        case Reference() | SecretReference():
            return f"${{{{ {spell(expression)} }}}}"
        case Text(parts):
            return "".join(p.replace(OPEN, "$" + OPEN) if isinstance(p, str) else str(write(p)) for p in parts)
        case dict():
            return {key: write(value) for key, value in expression.items()}
        case list():
            return [write(value) for value in expression]
        case str():
            return expression.replace(OPEN, "$" + OPEN)
        case _:
            return expression


def named(expression: Expression) -> Iterator[Reference | SecretReference]:
    """Every reference in the expression, in the order of the file."""
    match expression:
        case Reference() | SecretReference():
            yield expression
        case Text(parts):
            yield from (p for p in parts if not isinstance(p, str))
        case Packed(names=names):
            for name in names:
                yield from named(name)
        case dict():
            for value in expression.values():
                yield from named(value)
        case list():
            for value in expression:
                yield from named(value)
        case _:
            pass


def render(expression: Expression, values: Callable[[Reference | SecretReference], Json]) -> Json:
    """The expression with values in the place of references.

    `values` answers with the whole output or secret; the reference's path is walked here.

    Raises:
        UnitError: the path leads nowhere, or something that is no string, number or bool stands inside a string.
    """
    match expression:
        case Reference() | SecretReference():
            return _value(expression, values)
        case Text(parts):
            return "".join(p if isinstance(p, str) else _as_text(p, _value(p, values)) for p in parts)
        case dict():
            return {key: render(value, values) for key, value in expression.items()}
        case list():
            return [render(value, values) for value in expression]
        case _:
            return expression


def _find(text: str, environment: str) -> Iterator[_Found | Mistake]:
    position = number = 0
    while opening := _NEXT.search(text, position):
        if opening[0] != OPEN:
            found = _Found(number, opening.start(), opening.end(), OPEN)
        elif match := _EXPRESSION.match(text, opening.start()):
            value = _reference(match, environment)
            if isinstance(value, str):
                yield Mistake(number, value)
                return
            found = _Found(number, match.start(), match.end(), value)
        else:
            yield Mistake(number, _complaint(text, opening.start()))
            return
        yield found
        position = found.end
        number += text.count(OPEN, found.start, found.end)


def _reference(match: re.Match[str], environment: str) -> Reference | SecretReference | str:
    """What a match names, or what is wrong with it."""
    if match["secret"]:
        return SecretReference(match["secret"])
    name: str = match["unit"]
    if name.startswith("/") and name.count("/") == 1:
        return f"{name} names an environment; write /environment/unit.output"
    unit = name[1:] if name.startswith("/") else f"{environment}/{name}"
    try:
        path = tuple(_step(*step) for step in _STEP.findall(match["path"]))
    except ValueError:
        return f'a key in {printable(match["path"])} is not a string as JSON writes it; write ["key"]'
    return Reference(UnitId(unit), match["output"], path)


def _step(name: str, index: str, key: str) -> str | int:
    if name:
        return name
    if index:
        return int(index[1:-1])
    decoded: str = json.loads(key[1:-1])
    return decoded


def _complaint(text: str, start: int) -> str:
    end = text.find("}}", start)
    if end < 0:
        return "${{ is not closed; close it with }}, or write $${{ for the literal text"
    shown = printable(text[start : end + 2])
    return (
        f"{shown} is not a reference; write unit.output, /environment/unit.output or secret.name "
        '(then .attribute, [0] or ["key"]), or $${{ for the literal text'
    )


def _joined(parts: list[str | Reference | SecretReference]) -> Expression:
    """The parts with neighbouring text made one; a single reference or a single text stands for itself."""
    merged: list[str | Reference | SecretReference] = []
    for part in parts:
        if isinstance(part, str) and merged and isinstance(merged[-1], str):
            merged[-1] += part
        elif part != "":
            merged.append(part)
    return merged[0] if len(merged) == 1 else Text(tuple(merged))


def _spell_step(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    return f".{step}" if re.fullmatch(_NAME, step) else f"[{json.dumps(step)}]"


def _value(reference: Reference | SecretReference, values: Callable[[Reference | SecretReference], Json]) -> Json:
    value: Any = values(reference)
    if isinstance(reference, SecretReference):
        return value
    for number, step in enumerate(reference.path):
        if not _holds(value, step):
            raise _missing(reference, number, value)
        value = value[step]
    return value


def _holds(value: Json, step: str | int) -> bool:
    if isinstance(step, str):
        return isinstance(value, dict) and step in value
    return isinstance(value, list) and step < len(value)


def _missing(reference: Reference, number: int, value: Json) -> UnitError:
    """The error for a step that leads nowhere; it names keys, never values."""
    reached = spell(Reference(reference.unit, reference.output, reference.path[:number]))
    step = _spell_step(reference.path[number])
    if isinstance(value, dict):
        has = f"it has {', '.join(sorted(map(str, value))[:20]) or 'no attributes'}"
    elif isinstance(value, list):
        has = f"it is a list of {len(value)}"
    else:
        has = f"it is {_kind(value)}"
    return UnitError("ReferenceMissing", f"{spell(reference)}: {reached} has no {step}; {has}")


def _as_text(reference: Reference | SecretReference, value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    message = f"{spell(reference)} is {_kind(value)}; inside a string only a string, a number or a bool can stand"
    raise UnitError("TemplateInvalid", f"{message}; name one of its parts, or make it the whole value")


def _kind(value: Json) -> str:
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a bool"}
    return kinds.get(type(value), "a number")

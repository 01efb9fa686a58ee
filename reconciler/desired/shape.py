"""What the models of every file share: closed shapes, the small types, and mistakes told with their place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from reconciler.desired.document import Document, Node
from reconciler.desired.template import SEGMENT
from reconciler.desired.wording import close_to, printable
from reconciler.errors import Place
from reconciler.model import Problem

M = TypeVar("M", bound=BaseModel)

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 366 * 86400  # seconds


class Closed(BaseModel):
    """A mapping in a file: unknown fields are errors, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)


def duration(value: object) -> timedelta:
    """`30s`, `15m`, `6h` or `7d`. Raises PydanticCustomError."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", value) if isinstance(value, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise PydanticCustomError("duration", "a duration is a number and s, m, h or d, at most 366d; write 30s or 6h")
    return timedelta(seconds=seconds)


def short(value: timedelta) -> str:
    """The duration as it is written in a file."""
    seconds = int(value.total_seconds())
    unit = next(unit for unit in reversed(_UNITS) if seconds % _UNITS[unit] == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


Duration = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(short),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]*[smhd]$", "examples": ["30s", "15m", "6h"]}),
]


_FORMS: dict[str, str] = {}  # pattern -> what a person calls it


def matching(pattern: str, form: str) -> Any:
    """A string that as a whole matches the pattern, which people know as `form`."""
    whole = f"^(?:{pattern})$"
    _FORMS[whole] = form
    return StringConstraints(pattern=whole)


_PART = r"(?:0|[1-9][0-9]*)"
_LETTERS = r"[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*"
SEMVER = rf"{_PART}\.{_PART}\.{_PART}(?:-{_LETTERS})?(?:\+{_LETTERS})?"
MODULE_NAME = r"[a-z0-9][a-z0-9_-]{0,62}/[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_PROVIDER = r"[a-z0-9][a-z0-9_-]{0,62}(?:\.[A-Za-z_][A-Za-z0-9_-]{0,62})?"
_REF = r"[A-Za-z0-9_][A-Za-z0-9_+-]*(?:[./][A-Za-z0-9_+-]+)*"


# An address inside a module. Keys without `$`, `%` and escapes: no engine can read one as a template.
_KEY = r"(?:\[(?:0|[1-9][0-9]{0,8})\]|\[\"[^\"\\$%\x00-\x1f\x7f]{1,200}\"\])?"
_WORD = r"[A-Za-z_][A-Za-z0-9_-]{0,127}"
ADDRESS = rf"(?:module\.{_WORD}{_KEY}\.){{0,20}}{_WORD}\.{_WORD}{_KEY}"
STATE_SOURCE = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00-\x1f\x7f]{1,900}|/[^\x00-\x1f\x7f]{1,900}"


def _plain_way(source: str) -> str:
    """One spelling for one state, and no way out of the folder that a host allows."""
    if {"", ".", ".."} & set(source.removeprefix("s3:/").split("/")[1:]):
        raise PydanticCustomError(
            "source", "write the address of the state without `..`, `.`, `//` and a `/` at its end"
        )
    return source


def _no_lock(ref: str) -> str:
    """Git takes no ref of which a part ends so."""
    if any(part.endswith(".lock") for part in ref.split("/")):
        raise PydanticCustomError("ref", "git has no branch or tag whose name ends in .lock; rename it")
    return ref


Name = Annotated[str, matching(SEGMENT, "a name (lower-case letters, digits, - and _)")]
UnitName = Annotated[str, matching(rf"/?{SEGMENT}(?:/{SEGMENT})*", "a unit (dns, net/hub or /shared/net/hub)")]
ModuleName = Annotated[str, matching(MODULE_NAME, "<catalog repository>/<module>")]
Version = Annotated[str, matching(SEMVER, "a version like 1.4.2")]
Variable = Annotated[str, matching(r"[A-Za-z_][A-Za-z0-9_-]{0,254}", "a name (letters, digits, _ and -)")]
ProviderName = Annotated[str, matching(_PROVIDER, "a provider (aws or aws.alias)")]
GitRef = Annotated[str, matching(_REF, "a branch or tag"), AfterValidator(_no_lock)]
Sha = Annotated[str, matching(r"[0-9a-f]{40}", "a commit (40 hexadecimal digits)")]
Sha256 = Annotated[str, matching(r"sha256:[0-9a-f]{64}", "a digest (sha256: and 64 hexadecimal digits)")]
Address = Annotated[
    str, matching(ADDRESS, 'an address inside the module (aws_vpc.this or module.net.aws_subnet.a["x"])')
]
StateSource = Annotated[
    str, matching(STATE_SOURCE, "a state (s3://bucket/key, or a path on the runner's host)"), AfterValidator(_plain_way)
]
Line = Annotated[str, matching(r"[^\x00-\x1f\x7f]{1,1000}", "one line of text")]


def check(
    model: type[M],
    document: Document,
    data: Any = None,
    context: Any = None,
    elsewhere: Mapping[tuple[str | int, ...], Place] | None = None,
) -> M | list[Problem]:
    """The document's content as `model`, or everything that is wrong with it, in the order of the file.

    `data` stands in for the content when some of it comes from elsewhere; `elsewhere` says of what from where.
    """
    try:
        return model.model_validate(document.root.plain() if data is None else data, context=context)
    except ValidationError as error:
        found = [problem_of(model, document, detail, elsewhere or {}) for detail in error.errors(include_url=False)]
        return sorted(found, key=lambda problem: (problem.place.line, problem.place.column))


def problem_of(
    model: type[BaseModel],
    document: Document,
    detail: ErrorDetails,
    elsewhere: Mapping[tuple[str | int, ...], Place] = MappingProxyType({}),
) -> Problem:
    """One of pydantic's errors, with its place and in this project's words."""
    location = detail["loc"]
    kind = detail["type"]
    if kind == "extra_forbidden":
        place = document.place_of(location, key=True)
        message = (
            f'unknown field "{printable(str(location[-1]))}"{close_to(str(location[-1]), _known(model, location))}'
        )
    elif kind == "missing":
        place = document.place_of(location[:-1])
        message = f'the field "{location[-1]}" is missing; add it'
    else:
        key = location[-1:] == ("[key]",)
        place = document.place_of(location, key=key)
        message = f"{field_name(location)}: {_say(document, document.find(location), detail)}"
    return Problem(elsewhere.get(location, place), "SchemaInvalid", message)


def field_name(location: tuple[str | int, ...]) -> str:
    """`limits.free_replace[0]`, without what pydantic adds."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isprintable() and not step.startswith(("[", "<")):
            text += f".{step}" if text else step
    return text or "the file"


_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
}


_BOUNDS = {"greater_than_equal": "at least", "less_than_equal": "at most"}


def _say(document: Document, node: Node, detail: ErrorDetails) -> str:
    kind = detail["type"]
    value = detail["input"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    if kind == "string_type" and isinstance(value, bool | int | float):
        raw = document.raw(node)
        return f'{raw} is {"true or false" if isinstance(value, bool) else "a number"} here; quote it: "{raw}"'
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, not {_what(value)}"
    if kind == "literal_error":
        known = re.findall(r"[\w.]+", str(context["expected"]).replace(" or ", " "))
        hint = close_to(str(value), known)
        return f"expected {' or '.join(known)}, not {_what(value)}{hint if 'did you mean' in hint else ''}"
    if kind == "string_pattern_mismatch":
        return f'"{printable(str(value))}" is not {_FORMS[context["pattern"]]}'
    if kind in _BOUNDS:
        return f"{_what(value)} is out of bounds; write {_BOUNDS[kind]} {next(iter(context.values()))}"
    if kind == "too_short":
        return "expected at least one, and this is empty"
    return detail["msg"]


def _what(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the string "{printable(value)}"'
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "a mapping"


def _known(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The fields that may stand beside the unknown one at `location`."""
    models = {model}
    for step in location[:-1]:
        inner = {found for one in models for found in _below(one, step)}
        models = inner or models
    return [field.alias or name for one in models for name, field in one.model_fields.items()]


def _below(model: type[BaseModel], step: str | int) -> Iterator[type[BaseModel]]:
    """The models that the field `step` of the model can hold."""
    for name, field in model.model_fields.items():
        if step == (field.alias or name):
            yield from models_in(field.annotation)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)

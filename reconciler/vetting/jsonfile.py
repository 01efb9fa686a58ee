"""The JSON form of a module's files, turned into the blocks and tokens of the native one.

Which property is a block and which an argument only a schema tells; the one below is that of Terraform's own blocks.
Every string elsewhere, keys too, is read as the template that the engine takes it for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from reconciler.vetting.bodies import Argument, Block
from reconciler.vetting.facts import DEEPEST, Refused
from reconciler.vetting.tokens import Token, scan

_TOKEN = re.compile(
    r'[ \t\r\n]*(?:(?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")'
    r"|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)|(?P<word>true|false|null)|(?P<mark>[{}\[\],:]))"
)
_BLANK = re.compile(r"[ \t\r\n]*")

# Block types, and how many labels they have, by the type of the block that they stand in ("": the file).
_META = {"lifecycle": 0, "dynamic": 1}
SCHEMA: Mapping[str, Mapping[str, int]] = {
    "": {
        "variable": 1, "output": 1, "locals": 0, "resource": 2, "data": 2, "ephemeral": 2, "module": 1, "provider": 1,
        "terraform": 0, "moved": 0, "removed": 0, "import": 0, "check": 1,
    },
    "terraform": {"backend": 1, "cloud": 0, "required_providers": 0, "provider_meta": 1, "encryption": 0},
    "resource": {"provisioner": 1, "connection": 0, **_META},
    "data": {"provisioner": 1, "connection": 0, **_META},
    "ephemeral": {"provisioner": 1, "connection": 0, **_META},
    "removed": {"lifecycle": 0, "provisioner": 1, "connection": 0},
    "provisioner": {"connection": 0},
    "lifecycle": {"precondition": 0, "postcondition": 0, "action_trigger": 0},
    "variable": {"validation": 0},
    "output": {"precondition": 0},
    "check": {"data": 2, "assert": 0},
}  # fmt: skip
# What holds references, which JSON spells as strings that are parsed as expressions.
_REFERENCES = frozenset(("depends_on", "provider", "providers", "ignore_changes", "replace_triggered_by", "from", "to"))


@dataclass(frozen=True, slots=True)
class _String:
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class _Scalar:
    at: int
    text: str


@dataclass(frozen=True, slots=True)
class _List:
    at: int
    items: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Object:
    at: int
    members: tuple[tuple[_String, _Node], ...]


_Node = _String | _Scalar | _List | _Object


def parse_json(text: str, limit: int) -> Block:
    """The whole file, of at most `limit` marks and values, as a block without a name.

    Raises:
        Refused: not strictly JSON, not of the form of a configuration, or too much.
    """
    return _Shape(limit).block("", (), 0, _Reader(text, limit).whole())


class _Reader:
    """JSON with places and without doubled keys. Recurses at most DEEPEST levels."""

    def __init__(self, text: str, limit: int) -> None:
        self._text, self._at, self._left = text, 0, limit

    def whole(self) -> _Node:
        node = self._value(0)
        rest = _BLANK.match(self._text, self._at)
        if rest is None or rest.end() != len(self._text):
            raise Refused("invalid-syntax", self._at, "there is something after the JSON value: take it out")
        return node

    def _token(self) -> tuple[str, str, int]:
        """Kind (a mark is its own kind), text and offset."""
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise Refused("invalid-syntax", self._at, "this is not JSON: correct the line")
        kind = str(found.lastgroup)
        self._at, self._left = found.end(), self._left - 1
        if self._left < 0:
            raise Refused("too-large", found.start(kind), "the module has more than is read: make it smaller")
        return (found[kind] if kind == "mark" else kind), found[kind], found.start(kind)

    def _value(self, depth: int) -> _Node:
        kind, text, at = self._token()
        if depth > DEEPEST:
            raise Refused("too-large", at, f"nested deeper than {DEEPEST} levels: make it flatter")
        if kind == "string":
            return _string(text, at)
        if kind in ("number", "word"):
            return _Scalar(at, text)
        if kind == "[":
            return _List(at, tuple(self._items(depth)))
        if kind == "{":
            return _Object(at, tuple(self._members(depth)))
        raise Refused("invalid-syntax", at, f"{text!r} cannot stand here: correct the line")

    def _items(self, depth: int) -> Iterator[_Node]:
        if not self._closed("]"):
            yield self._value(depth + 1)
            while self._more("]"):
                yield self._value(depth + 1)

    def _members(self, depth: int) -> Iterator[tuple[_String, _Node]]:
        seen: set[str] = set()
        more = not self._closed("}")
        while more:
            kind, text, at = self._token()
            if kind != "string":
                raise Refused("invalid-syntax", at, "a key is missing: write it in quotes")
            key = _string(text, at)
            if key.text in seen:
                raise Refused("ambiguous-syntax", at, f"the key {key.text!r} stands twice in this object: keep one")
            seen.add(key.text)
            if (colon := self._token())[0] != ":":
                raise Refused("invalid-syntax", colon[2], "':' is missing after a key: add it")
            yield key, self._value(depth + 1)
            more = self._more("}")

    def _closed(self, mark: str) -> bool:
        before = self._at
        if self._token()[0] == mark:
            return True
        self._at = before
        return False

    def _more(self, mark: str) -> bool:
        kind, text, at = self._token()
        if kind not in (",", mark):
            raise Refused("invalid-syntax", at, f"{text!r} stands where ',' or {mark!r} belongs: correct the line")
        return kind == ","


def _string(text: str, at: int) -> _String:
    value = json.loads(text)
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise Refused("ambiguous-syntax", at, "half of a surrogate pair: readers differ; write the character itself")
    return _String(at, value)


# --- blocks -------------------------------------------------------------------------------------------------------


class _Shape:
    """Blocks out of nodes, with at most `limit` tokens in them."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def block(self, kind: str, labels: tuple[str, ...], at: int, body: _Node) -> Block:
        """One block, whose body is an object or a list of objects."""
        schema = SCHEMA.get(kind, {})
        arguments: list[Argument] = []
        blocks: list[Block] = []
        for key, value in _flat(body):
            if key.text == "//":
                _check_comment(value)
            elif key.text in schema:
                blocks += self._blocks(key.text, key, value, schema[key.text])
            else:
                arguments.append(self._argument(key, value))
        if len({one.name for one in arguments}) != len(arguments):
            raise Refused("ambiguous-syntax", at, "an argument is set twice in a list of objects: keep one")
        return Block(kind, labels, at, tuple(arguments), tuple(blocks))

    def _blocks(
        self, kind: str, key: _String, value: _Node, left: int, labels: tuple[str, ...] = ()
    ) -> Iterator[Block]:
        """Every block that a property stands for. `key` is the innermost label so far: what a finding points at."""
        if left:
            for label, inner in _flat(value):
                if re.search(r"[^A-Za-z0-9_-]", label.text):
                    what = f"{label.text!r} is no name: letters, digits, '_' and '-'"
                    raise Refused("ambiguous-syntax", label.at, what)
                yield from self._blocks(kind, label, inner, left - 1, (*labels, label.text))
        elif isinstance(value, _List):
            yield from (self.block(kind, labels, key.at, item) for item in value.items)
        else:
            yield self.block(kind, labels, key.at, value)

    def _argument(self, key: _String, value: _Node) -> Argument:
        if key.text in _REFERENCES and any("(" in text.text for text in _strings(value)):
            raise Refused(
                "ambiguous-syntax", value.at, f"{key.text} holds references, and they have no parentheses: correct it"
            )
        tokens = [*islice(_expression(value), self._left + 1)]
        self._left -= len(tokens)
        if self._left < 0:
            raise Refused("too-large", key.at, "the module has more than is read: make it smaller")
        return Argument(key.text, key.at, tokens)


def _flat(value: _Node) -> Iterator[tuple[_String, _Node]]:
    """The members of an object, or of all objects in a list; nothing of null: as HCL collects them."""
    if isinstance(value, _Object):
        yield from value.members
    elif isinstance(value, _List):
        for item in value.items:
            if not isinstance(item, _Object):
                raise Refused("invalid-syntax", item.at, "an object is needed here: correct the line")
            yield from item.members
    elif value != _Scalar(value.at, "null"):
        raise Refused("invalid-syntax", value.at, "an object is needed here: correct the line")


def _check_comment(value: _Node) -> None:
    if not isinstance(value, _String):
        raise Refused("ambiguous-syntax", value.at, 'a comment ("//") that is no string: write text, or take it out')


# --- expressions --------------------------------------------------------------------------------------------------


def _strings(value: _Node) -> Iterator[_String]:
    if isinstance(value, _String):
        yield value
    elif isinstance(value, _List):
        for item in value.items:
            yield from _strings(item)
    elif isinstance(value, _Object):
        for key, inner in value.members:
            yield key
            yield from _strings(inner)


def _expression(value: _Node) -> Iterator[Token]:
    """The tokens of the native form: a string is a quoted template, an object and a list are what they look like."""
    if isinstance(value, _String):
        yield from _template(value)
    elif isinstance(value, _Scalar):
        yield Token("id" if value.text.isalpha() else "num", value.text, value.at)
    elif isinstance(value, _List):
        yield Token("[", "[", value.at)
        for item in value.items:
            yield from _expression(item)
            yield Token(",", ",", item.at)
        yield Token("]", "]", value.at)
    else:
        yield from _object(value)


def _object(value: _Object) -> Iterator[Token]:
    yield Token("{", "{", value.at)
    for key, inner in value.members:
        yield from _template(key)
        yield Token("=", "=", key.at)
        yield from _expression(inner)
        yield Token(",", ",", inner.at)
    yield Token("}", "}", value.at)


def _template(value: _String) -> Iterator[Token]:
    yield Token("oq", '"', value.at)
    try:
        for token in scan(value.text, template=True):
            yield token._replace(at=value.at + 1 + token.at)
    except Refused as refused:
        raise Refused(refused.rule, value.at + 1 + refused.at, str(refused)) from None
    yield Token("cq", '"', value.at)

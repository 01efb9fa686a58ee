"""Blocks and arguments out of tokens: all that the rules need of HCL's structure. Expressions stay tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.vetting.facts import Refused
from reconciler.vetting.tokens import CLOSES, OPENS, Token

_END = Token("eof", "", -1)


@dataclass(frozen=True, slots=True)
class Argument:
    """`name = expression`."""

    name: str
    at: int
    tokens: Sequence[Token]


@dataclass(frozen=True, slots=True)
class Block:
    """`kind "label" { ... }`. Two with the same text are two."""

    kind: str
    labels: tuple[str, ...]
    at: int
    arguments: tuple[Argument, ...]
    blocks: tuple[Block, ...]

    def argument(self, name: str) -> Argument | None:
        """The argument of that name."""
        return next((one for one in self.arguments if one.name == name), None)

    def everything(self) -> Iterator[Argument]:
        """Every argument in it, however deep."""
        yield from self.arguments
        for block in self.blocks:
            yield from block.everything()


def parse(tokens: Sequence[Token]) -> Block:
    """The whole file as a block without a name.

    Raises:
        Refused: not strictly HCL.
    """
    return _Parser(tokens).whole()


class _Parser:
    """Depth is bounded by the scanner: it counts the braces of blocks as well."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens, self._next = tokens, 0

    def whole(self) -> Block:
        return self._body("", (), 0)

    def _peek(self) -> Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else _END

    def _take(self, *kinds: str) -> Token:
        token = self._peek()
        if token.kind not in kinds:
            last = self._tokens[min(self._next, len(self._tokens) - 1)]
            raise Refused("invalid-syntax", last.at, f"{last.text!r} cannot stand here: correct the line")
        self._next += 1
        return token

    def _body(self, kind: str, labels: tuple[str, ...], at: int) -> Block:
        arguments: list[Argument] = []
        blocks: list[Block] = []
        end = "}" if kind else "eof"
        while self._peek().kind != end:
            if self._peek().kind == "nl":
                self._next += 1
                continue
            name = self._take("id")
            if self._peek().kind == "=":
                arguments.append(self._argument(name))
            else:
                blocks.append(self._block(name))
            if self._peek().kind not in ("}", "eof"):
                self._take("nl")
        _no_doubles(arguments)
        return Block(kind, labels, at, tuple(arguments), tuple(blocks))

    def _block(self, name: Token) -> Block:
        labels: list[str] = []
        while self._peek().kind != "{":
            token = self._take("id", "oq")
            labels.append(token.text if token.kind == "id" else self._label())
        self._take("{")
        block = self._body(name.text, tuple(labels), name.at)
        self._take("}")
        return block

    def _label(self) -> str:
        text = self._take("lit", "cq", "esc", "${", "%{")
        if text.kind == "cq":
            return ""
        if text.kind != "lit" or self._peek().kind != "cq":
            raise Refused("ambiguous-syntax", text.at, "a label with escapes or templates: write it as it is meant")
        self._next += 1
        return text.text

    def _argument(self, name: Token) -> Argument:
        self._take("=")
        start, depth = self._next, 0
        while (kind := self._peek().kind) != "eof" and (depth or kind not in ("nl", "}")):
            depth += (kind in OPENS) - (kind in CLOSES)
            self._next += 1
        if start == self._next:
            raise Refused("invalid-syntax", name.at, f"{name.text} has no value: write one")
        return Argument(name.text, name.at, self._tokens[start : self._next])


def _no_doubles(arguments: Sequence[Argument]) -> None:
    seen: set[str] = set()
    for one in arguments:
        if one.name in seen:
            raise Refused("ambiguous-syntax", one.at, f"{one.name} is set twice in this block: keep one")
        seen.add(one.name)


def literal(tokens: Sequence[Token]) -> str | None:
    """The text of a quoted string without escapes and templates; None for every other expression."""
    match [token.kind for token in tokens]:
        case ["oq", "lit", "cq"]:
            return tokens[1].text
        case ["oq", "cq"]:
            return ""
        case _:
            return None

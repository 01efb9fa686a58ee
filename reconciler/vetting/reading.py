"""One file of a module as blocks, for those who ask what it says and not whether it may: the audit's own reading."""

from __future__ import annotations

from itertools import islice

from reconciler.vetting.bodies import Block, parse
from reconciler.vetting.facts import TOKENS, Refused
from reconciler.vetting.jsonfile import parse_json
from reconciler.vetting.source import Source
from reconciler.vetting.tokens import scan


class Unreadable(Exception):
    """What the audit refuses to read. `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column = line, column


def read(path: str, data: bytes) -> Block:
    """The file as a block without a name. Pure, and bounded: `FILE_BYTES`, `TOKENS`.

    Raises:
        Unreadable: it is not strictly HCL (JSON, where its name says so), or too much.
    """
    source = Source(path, data)
    try:
        source.check()
        return parse_json(source.text, TOKENS) if path.endswith(".json") else _native(source.text)
    except Refused as refused:
        raise Unreadable(*source.place(refused.at), str(refused)) from None


def _native(text: str) -> Block:
    tokens = [*islice(scan(text), TOKENS + 1)]
    if len(tokens) > TOKENS:
        raise Refused("too-large", tokens[-1].at, f"more than {TOKENS} words: make it smaller")
    return parse(tokens)

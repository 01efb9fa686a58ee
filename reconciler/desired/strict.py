"""YAML as this project reads it: one document, small, shallow, and with JSON's idea of what a plain scalar means.

The parser's events are read one by one, so that nothing recurses (PyYAML's composer recurses in C and takes the
process with it) and every limit is enforced while the file is still only events.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from reconciler.desired.document import Document, Mark, Node
from reconciler.desired.wording import printable
from reconciler.errors import Place
from reconciler.model import Json, Problem

FILE_LIMIT = 64 * 1024  # bytes
LOCK_LIMIT = 8 * 1024 * 1024  # bytes
DEPTH_LIMIT = 20
VALUES_LIMIT = 100_000  # scalars, lists and mappings of one file, keys not counted: what reading one may cost
MOST_TOLD = 1000  # mistakes of one file, and no more is read
DIGITS_LIMIT = 100  # a longer number is an identifier that lacks its quotes

# With get_event() alone, libyaml's parser (ten times faster) and PyYAML's own behave alike; either is iterative.
PARSER: Callable[[bytes], Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS: dict[str, Json] = {"null": None, "true": True, "false": False}
_FIRST = frozenset("-0123456789ntf")
# Control characters, line breaks that only YAML knows, a byte order mark, and the marks that turn the direction of
# text, with which a line can be made to read differently in a review.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


def parse(path: str, data: bytes, limit: int = FILE_LIMIT) -> Document | list[Problem]:
    """Read one file. `limit` is in bytes. Never raises: what is wrong with the file is in the problems."""
    text = _text(path, data, limit)
    if isinstance(text, Problem):
        return [text]
    builder = _Builder(path, text)
    try:
        builder.read(PARSER(data))
    except _Stop:
        pass
    except yaml.YAMLError as error:
        builder.problems.append(_syntax(path, text, error))
    if builder.problems or builder.root is None:
        return builder.problems or [_problem(Place(path), "the file is empty; remove it or fill it in")]
    if type(builder.root.value) is not dict:
        return [_problem(Place(path, 1, 1), "the file must be a mapping of fields; write `field: value` lines")]
    return Document(path, text, builder.root)


def too_many_bytes(path: str, size: int, limit: float) -> Problem:
    """A file that is not looked into: its size alone says that it is none of ours."""
    return _problem(Place(path), f"the file has {size} bytes and may have {limit}; split it")


class _Stop(Exception):
    """Reading on would make no sense."""


def _problem(place: Place, message: str) -> Problem:
    return Problem(place, "YamlInvalid", message)


def _text(path: str, data: bytes, limit: int) -> str | Problem:
    """The file's characters, or why they are not even looked at."""
    if len(data) > limit:
        return too_many_bytes(path, len(data), limit)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _problem(Place(path, line, 1), "this line is not UTF-8; save the file as UTF-8")
    # "\r\n" ends a line like "\n" does; alone, "\r" ends one for YAML and for no editor.
    if found := _FORBIDDEN.search(text.replace("\r\n", " \n")):
        name = f"U+{ord(found[0]):04X}"
        message = f'the character {name} may not stand here; remove it, or write it as an escape in "double quotes"'
        return _problem(_at(path, text, found.start()), message)
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        return _not_nfc(path, text)
    return text


def _at(path: str, text: str, index: int) -> Place:
    return Place(path, text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _not_nfc(path: str, text: str) -> Problem:
    # Normal forms are closed under taking lines, so one of the lines is to blame.
    lines = text.split("\n")
    number = next(n for n, line in enumerate(lines) if not unicodedata.is_normalized("NFC", line))
    composed = unicodedata.normalize("NFC", lines[number])
    pairs = enumerate(zip(lines[number], composed, strict=False))
    column = next((n for n, (have, want) in pairs if have != want), len(composed))
    return _problem(Place(path, number + 1, column + 1), "the text is not in Unicode's normal form C; save it as NFC")


def _place(path: str, text: str, mark: Mark) -> Place:
    """The mark, and where the parser is beyond the end of the file, the end of its last line."""
    if mark.index < len(text):
        return Place(path, mark.line + 1, mark.column + 1)
    return _at(path, text, len(text.rstrip()))


def _syntax(path: str, text: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None)
    place = _place(path, text, mark) if mark else Place(path)
    detail = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    return _problem(place, f"this is not YAML: {detail}; check the indentation and the quotes around here")


@dataclass(slots=True)
class _Frame:
    """A collection that is being read."""

    node: Node
    key: str | None = None
    key_mark: Mark | None = None


class _Builder:
    """Makes the tree of nodes from the parser's events."""

    __slots__ = ("_documents", "_frame", "_left", "_path", "_stack", "_text", "problems", "root")

    def __init__(self, path: str, text: str) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self._path = path
        self._text = text
        self._documents = 0
        self._left = VALUES_LIMIT
        self._stack: list[_Frame] = []
        self._frame: _Frame | None = None

    def read(self, parser: Any) -> None:
        """Take every event. Raises _Stop when there is no point in going on, and what the parser raises."""
        steps = {kind: getattr(self, name) for kind, name in _STEPS.items()}
        try:
            while (event := parser.get_event()) is not None:
                steps[type(event)](event)
        finally:
            parser.dispose()

    def ignore(self, event: Any) -> None:
        """The stream and the end of a document say nothing."""

    def document(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(event.start_mark, "a second document begins here; one file holds one")
        if event.version or event.tags:
            self._note(event.start_mark, "directives (%YAML, %TAG) are not allowed; remove them")

    def alias(self, event: Any) -> None:
        self._note(event.start_mark, f"aliases (*{printable(event.anchor)}) are not allowed; write the value out")
        self._put(Node(None, event.start_mark, event.end_mark))

    def scalar(self, event: Any) -> None:
        self._refuse_marks(event)
        frame = self._frame
        if frame is not None and type(frame.node.value) is dict and frame.key is None:
            self._key(event, frame)
        else:
            value = event.value if event.style else self._plain(event)
            self._put(Node(value, event.start_mark, event.end_mark))

    def mapping(self, event: Any) -> None:
        self._open(event, {})

    def sequence(self, event: Any) -> None:
        self._open(event, [])

    def close(self, event: Any) -> None:
        frame = self._stack.pop()
        frame.node.end = event.end_mark
        self._frame = self._stack[-1] if self._stack else None

    def _open(self, event: Any, value: dict[str, Node] | list[Node]) -> None:
        self._refuse_marks(event)
        if len(self._stack) == DEPTH_LIMIT:
            self._stop(event.start_mark, f"nested deeper than {DEPTH_LIMIT} levels; make it flatter")
        frame = self._frame
        if frame is not None and type(frame.node.value) is dict and frame.key is None:
            self._stop(event.start_mark, "a key must be a string, not a list or a mapping")
        node = Node(value, event.start_mark, event.end_mark)
        self._put(node)
        self._frame = _Frame(node)
        self._stack.append(self._frame)

    def _key(self, event: Any, frame: _Frame) -> None:
        key: str = event.value
        message = _wrong_key(key, quoted=bool(event.style))
        if message is None and key in frame.node.value:
            first = frame.node.value[key].key.line + 1
            message = f'"{printable(key)}" stands here a second time, after line {first}; keep one of the two'
        if message:
            self._note(event.start_mark, message)
        frame.key = key
        frame.key_mark = event.start_mark

    def _put(self, node: Node) -> None:
        self._left -= 1
        if self._left < 0:
            self._stop(node.start, f"more than {VALUES_LIMIT} values; take out what nothing uses any more")
        frame = self._frame
        if frame is None:
            self.root = node
        elif type(frame.node.value) is list:
            frame.node.value.append(node)
        elif frame.key is None:  # an alias stands for the key; it is noted already
            frame.key = ""
            frame.key_mark = node.start
        else:
            node.key = frame.key_mark
            frame.node.value[frame.key] = node
            frame.key = None

    def _plain(self, event: Any) -> Json:
        value: str = event.value
        if not value:
            self._note(event.start_mark, 'the value is missing; write one, "" or null, or remove the key')
            return None
        if value[0] not in _FIRST:
            return value
        if value in _WORDS:
            return _WORDS[value]
        number = _NUMBER.fullmatch(value)
        return self._number(event, number) if number else value

    def _number(self, event: Any, number: re.Match[str]) -> Json:
        if len(number[0]) > DIGITS_LIMIT:
            self._note(event.start_mark, f"a number of more than {DIGITS_LIMIT} digits; quote it if it is a name")
            return None
        if number[1] is None and number[2] is None:
            return int(number[0])
        value = float(number[0])
        if value in {float("inf"), float("-inf")}:
            self._note(event.start_mark, f"{number[0]} is too large a number; quote it if it is a name")
            return None
        return value

    def _refuse_marks(self, event: Any) -> None:
        if event.anchor is not None:
            self._note(event.start_mark, f"anchors (&{printable(event.anchor)}) are not allowed; remove it")
        if event.tag is not None:
            self._note(event.start_mark, f"tags ({printable(event.tag)}) are not allowed; remove it")

    def _note(self, mark: Mark, message: str) -> None:
        if len(self.problems) >= MOST_TOLD:
            raise _Stop
        self.problems.append(_problem(_place(self._path, self._text, mark), message))

    def _stop(self, mark: Mark, message: str) -> NoReturn:
        self._note(mark, message)
        raise _Stop


_STEPS: dict[type, str] = {
    yaml.StreamStartEvent: "ignore",
    yaml.StreamEndEvent: "ignore",
    yaml.DocumentStartEvent: "document",
    yaml.DocumentEndEvent: "ignore",
    yaml.AliasEvent: "alias",
    yaml.ScalarEvent: "scalar",
    yaml.MappingStartEvent: "mapping",
    yaml.MappingEndEvent: "close",
    yaml.SequenceStartEvent: "sequence",
    yaml.SequenceEndEvent: "close",
}


def _wrong_key(key: str, *, quoted: bool) -> str | None:
    """Why a key may not be one."""
    if not quoted and (key in _WORDS or _NUMBER.fullmatch(key)):
        return f'the key {key} is not a string; quote it: "{key}"'
    if not quoted and key == "<<":
        return "merge keys (<<) are not allowed; write the fields out"
    if not quoted and not key:
        return "the key is missing; write one before the colon"
    if not key.isascii() and not unicodedata.is_normalized("NFC", key):
        return "the key is not in Unicode's normal form C; write it as NFC"
    return None

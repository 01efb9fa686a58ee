"""HCL's tokens, as hashicorp/hcl's scan_tokens.rl cuts them, for the part of the language that cannot be misread.

Iterative: what nests is on a list of bounded length. What HCL's own scanner calls invalid is refused here, and so is
what it reads in surprising ways: non-ASCII names, an end of a heredoc with odd blanks, `$$$`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.vetting.facts import DEEPEST, Refused


class Token(NamedTuple):
    """`kind` is the operator itself, or one of: id, num, lit, esc, nl, oq, cq, oh, ch, ${, %{, end.

    lit is literal text, esc text that is not what it looks like (an escape, a lone `$`); oq and cq are quotes, oh and
    ch the ends of a heredoc, `end` ends a `${` or `%{`.
    """

    kind: str
    text: str
    at: int


OPENS = frozenset(("(", "[", "{", "oq", "oh", "${", "%{"))
CLOSES = frozenset((")", "]", "}", "cq", "ch", "end"))
_PAIRS = {")": "(", "]": "[", "}": "{"}

_MAIN = re.compile(
    r"""(?P<skip>[ \t]+|(?:\#|//)[^\n]*|/\*[\s\S]*?\*/)
    |(?P<nl>\r?\n)
    |(?P<id>[A-Za-z_][A-Za-z0-9_-]*)
    |(?P<num>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
    |<<-?(?P<oh>[A-Za-z_][A-Za-z0-9_-]*)\r?\n
    |(?P<oq>")
    |(?P<op>==|!=|>=|<=|&&|\|\||::|\.\.\.|=>|~\}|[\[\](){}.,*%+\-=>!?:]|/(?![*/])|<(?!<))""",
    re.VERBOSE,
)
_QUOTED = re.compile(r'[^"\\$%\r\n]+')
_LINE = re.compile(r"[^$%\n]+")
_ESCAPE = re.compile(r'\\(?:[nrt"\\]|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})')
_SIGNS = re.compile(r"[$%]+(\{~?)?")
_MARK = re.compile(r"[^\n]*")


@dataclass(slots=True)
class _Open:
    """Something that has begun: a bracket, a quoted string, a heredoc (with its mark), a template."""

    kind: str
    at: int
    mark: str = ""
    fresh: bool = True  # of a heredoc: whether nothing of the line has been read yet


def scan(text: str, *, template: bool = False) -> Iterator[Token]:
    """The tokens of a file, or of a template without quotes around it. Lazy, so that whoever counts can stop.

    Raises:
        Refused: not strictly HCL.
    """
    return _Scanner(text, template).tokens()


class _Scanner:
    def __init__(self, text: str, template: bool) -> None:
        self._text, self._at, self._template = text, 0, template
        self._open: list[_Open] = []

    def tokens(self) -> Iterator[Token]:
        while self._at < len(self._text):
            inside = self._open[-1].kind if self._open else ("bare" if self._template else "")
            if inside == "oq":
                yield from self._quoted()
            elif inside == "oh":
                yield from self._heredoc()
            elif inside == "bare":
                yield from self._run(_LINE)
            else:
                yield from self._main()
        if self._open:
            raise Refused("invalid-syntax", self._open[-1].at, "what begins here never ends: close it")

    def _main(self) -> Iterator[Token]:
        found = _MAIN.match(self._text, self._at)
        if found is None:
            raise Refused("invalid-syntax", self._at, f"{self._text[self._at]!r} means nothing here: correct the line")
        at, self._at = self._at, found.end()
        kind = str(found.lastgroup)
        if kind == "skip":
            return
        if kind == "oh":
            self._push(_Open("oh", at, found["oh"]))
            yield Token("oh", found["oh"], at)
        elif kind == "oq":
            self._push(_Open("oq", at))
            yield Token("oq", '"', at)
        elif kind == "op":
            yield self._operator(found[0], at)
        else:
            yield Token(kind, found[0], at)

    def _operator(self, text: str, at: int) -> Token:
        if text in ("(", "[", "{"):
            self._push(_Open(text, at))
        elif text in (")", "]", "}", "~}"):
            last = self._open.pop().kind if self._open else ""
            if last in ("${", "%{") and text in ("}", "~}"):
                return Token("end", text, at)
            if _PAIRS.get(text) != last:
                raise Refused("invalid-syntax", at, f"{text!r} closes nothing: correct the brackets")
        return Token(text, text, at)

    def _push(self, opened: _Open) -> None:
        if len(self._open) >= DEEPEST:
            raise Refused("too-large", opened.at, f"nested deeper than {DEEPEST} levels: make it flatter")
        self._open.append(opened)

    def _quoted(self) -> Iterator[Token]:
        at, first = self._at, self._text[self._at]
        if first == '"':
            self._at += 1
            self._open.pop()
            yield Token("cq", '"', at)
        elif first == "\\":
            escape = _ESCAPE.match(self._text, at)
            if escape is None:
                raise Refused("invalid-syntax", at, "no escape of HCL: write \\\\ for a backslash")
            self._at = escape.end()
            yield Token("esc", escape[0], at)
        elif first in "\r\n":
            raise Refused("invalid-syntax", at, "a quoted string ends on its line: close it, or use a heredoc")
        else:
            yield from self._run(_QUOTED)

    def _heredoc(self) -> Iterator[Token]:
        opened = self._open[-1]
        if opened.fresh and self._ends(opened.mark):
            self._open.pop()
            at = self._text.index(opened.mark, self._at)
            self._at = at + len(opened.mark)
            yield Token("ch", opened.mark, at)
            return
        opened.fresh = self._text[self._at] == "\n"
        yield from self._run(_LINE)

    def _ends(self, mark: str) -> bool:
        """Whether the line is the heredoc's end. Go trims more blanks than anyone sees: those are refused."""
        found = _MARK.match(self._text, self._at)
        line = found[0] if found else ""
        if line.strip() != mark:
            return False
        if line.strip(" \t").removesuffix("\r") != mark or line.rstrip("\r").endswith((" ", "\t")):
            raise Refused("ambiguous-syntax", self._at, f"the end of the heredoc has odd blanks: write {mark} alone")
        if self._at + len(line) == len(self._text):
            raise Refused("invalid-syntax", self._at, "the end of a heredoc needs a line end: add one")
        return True

    def _run(self, plain: re.Pattern[str]) -> Iterator[Token]:
        """Literal text, a line end, or one of `$` and `%` with what follows it."""
        at = self._at
        if found := plain.match(self._text, at):
            self._at = found.end()
            yield Token("lit", found[0], at)
        elif self._text[at] == "\n":
            self._at += 1
            yield Token("lit", "\n", at)
        else:
            yield self._signs(at)

    def _signs(self, at: int) -> Token:
        found = _SIGNS.match(self._text, at)
        assert found is not None  # noqa: S101 - there is a sign
        signs = found[0].rstrip("{~")
        self._at = found.end()
        if not found[1]:
            return Token("esc", signs, at)
        if signs in ("$$", "%%"):
            return Token("esc", found[0], at)
        if len(signs) > 1:
            raise Refused("ambiguous-syntax", at, f"readers disagree whether {found[0]} begins a template: rewrite it")
        self._push(_Open(f"{signs}{{", at))
        return Token(f"{signs}{{", found[0], at)

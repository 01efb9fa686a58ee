"""Hiding secrets in text that leaves the runner."""

from __future__ import annotations

import base64
import re
import string
import textwrap
from collections.abc import Iterable, Iterator
from functools import lru_cache, reduce
from html.entities import codepoint2name
from itertools import groupby
from typing import AnyStr

HIDDEN = "(sensitive)"
SHORTEST = 4  # characters; hiding shorter ones would hide half the text and tell what they are
SHORTEST_LINE = 8  # of a secret of several lines: each line is hidden by itself too
SHORTEST_IN_OURS = 8  # characters; a shorter one may be a word of a sentence that the runner itself wrote
COMMON = frozenset({"true", "false", "null", "none"})
PLAIN = frozenset(f"{string.ascii_letters}{string.digits}-_.~")  # nobody writes these in any other way
BLANK = re.compile(r"[\s\u2502]")  # an engine wraps lines at blanks, and draws a bar before each
KEY = re.compile(r'\["(?:[^"\\]|\\.)*"\]')
SLASH = r"(?:\\|%(?:25)*5[cC])"


class Veil:
    """What one job has learned and nobody outside may read; it is hidden in whatever leaves."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Hide these too, from now on."""
        self._secrets |= frozenset(secrets)

    def hide(self, text: str) -> str:
        """Text of an engine, without the secrets."""
        return mask(text, self._secrets)

    def hide_in_ours(self, text: str) -> str:
        """A sentence of the runner's own, which names addresses and quotes an engine at most.

        In it a short secret is hidden where it is the key of an address; elsewhere it may be a word of the sentence.
        """
        long = frozenset(secret for secret in self._secrets if len(secret) >= SHORTEST_IN_OURS)
        return mask(self.hide_in_address(text), long)

    def hide_in_address(self, address: str) -> str:
        """An object's address: all of it but the keys stands in the module's code."""
        return KEY.sub(lambda found: self.hide(found[0]), address)


def mask(text: AnyStr, secrets: frozenset[str]) -> AnyStr:
    """The text without the secrets, in any of the forms in which they are written. Bytes may be of any encoding."""
    search = _search(secrets)
    if search is None:
        return text
    if isinstance(text, bytes):
        return search.hide(text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return search.hide(text)


@lru_cache(maxsize=4)
def _search(secrets: frozenset[str]) -> _Search | None:
    forms = {form for secret in secrets for form in _forms(secret) if form.lower() not in COMMON}
    return _Search(forms) if forms else None


class _Search:
    """Finds any of thousands of forms: the first, and of those that begin there the longest, so that none shows a rest of another.

    Most are looked for by how they begin, and only then in all the ways in which they may be written: one pattern of them
    all would take seconds to compile where a state holds a thousand secrets.
    """

    def __init__(self, forms: Iterable[str]) -> None:
        self._by_start: dict[str, list[str]] = {}
        self._blank: list[str] = []  # too little in them but blanks to stand for anything but themselves
        loose: list[str] = []
        for form in sorted(forms, key=lambda form: (-len(form), form)):
            start = form[:SHORTEST]
            if PLAIN.issuperset(start):
                self._by_start.setdefault(start, []).append(form)
            elif len(_atoms(form)) >= SHORTEST:
                loose.append("".join(_atoms(form)))
            else:
                self._blank.append(form)
        self._starts = re.compile(_any_of([list(map(re.escape, start)) for start in self._by_start]) or "(?!)")
        self._loose = re.compile("|".join(loose) or "(?!)")

    def hide(self, text: str) -> str:
        kept: list[str] = []
        done = 0
        while place := min(
            filter(None, (self._plain(text, done), _span(self._loose.search(text, done)))), default=None
        ):
            begin, end = place[0], -place[1]
            kept += (text[done:begin], HIDDEN)
            done = end
        hidden = "".join((*kept, text[done:]))
        return reduce(lambda shown, form: shown.replace(form, HIDDEN), self._blank, hidden)

    def _plain(self, text: str, position: int) -> tuple[int, int] | None:
        """Where the next form stands that begins as it would anywhere: see `_span`."""
        while start := self._starts.search(text, position):
            for form in self._by_start[start[0]]:
                if found := _pattern(form).match(text, start.start()):
                    return _span(found)
            position = start.start() + 1
        return None


def _span(found: re.Match[str] | None) -> tuple[int, int] | None:
    """Begin and end; so that of two the first is less, and the longer of two that begin together."""
    return (found.start(), -found.end()) if found else None


@lru_cache(maxsize=4096)
def _pattern(form: str) -> re.Pattern[str]:
    return re.compile("".join(_atoms(form)))


def _any_of(forms: list[list[str]]) -> str:
    """Any of the forms; those that begin alike are tried together."""
    groups: dict[str, list[list[str]]] = {}
    for first, *rest in filter(None, forms):
        groups.setdefault(first, []).append(rest)
    inner = "|".join(first + _any_of(rest) for first, rest in groups.items())
    return f"(?:{inner})" if inner else ""


def _atoms(form: str) -> list[str]:
    """The pattern of a form, character by character, however often and by whomever it was quoted."""
    found: list[str] = []
    for character, run in groupby(BLANK.sub(" ", form)):
        number = len([*run])
        found += [_atom(character)] if character in " \\" else [_atom(character)] * number
    return found


@lru_cache(maxsize=1024)
def _atom(character: str) -> str:
    """A character as it is, as a string of JSON, HCL, Go, Python or a shell has it, as part of an address, or of a page."""
    if character in PLAIN:
        return re.escape(character)
    if character == " ":
        return rf"(?:{BLANK.pattern}|{SLASH}+(?:[nrtvf]|(?i:u00|x)(?i:20|0[9a-d]))|\+|%(?:25)*(?i:20|0[9a-d]))+"
    if character == "\\":
        return rf"(?:{SLASH}+|{_entity(character)})"
    doubled = {"$": r"\$\$?", "%": "%%?"}.get(character, re.escape(character))
    octets = character.encode("utf-8", "surrogatepass")
    wide = character.encode("utf-16-be", "surrogatepass")
    address = "".join(f"%(?:25)*{octet:02x}" for octet in octets)
    escaped = "".join(f"{SLASH}+x{octet:02x}" for octet in octets)
    units = "".join(f"{SLASH}+u{wide[at : at + 2].hex()}" for at in range(0, len(wide), 2))
    return f"(?:{SLASH}*(?:{doubled}|{_entity(character)}|(?i:{address}))|(?i:{escaped}|{units}))"


def _entity(character: str) -> str:
    name = codepoint2name.get(ord(character), "apos")
    return rf"(?i:&(?:amp;)*(?:#0*{ord(character)}|#x0*{ord(character):x}|{name});)"


def _forms(secret: str) -> Iterator[str]:
    """As it may be written; blanks at its ends count where there is little else."""
    if len(secret) < SHORTEST:
        return
    stripped = secret.strip()
    yield stripped if len(_atoms(stripped)) >= SHORTEST else secret
    for text in dict.fromkeys((secret, stripped)):
        raw = text.encode("utf-8", "surrogatepass")
        yield from (raw.hex(), raw.hex().upper())
        yield from _base64(raw)
    lines = secret.splitlines()
    yield from (line.strip() for line in lines if len(lines) > 1 and len(line.strip()) >= SHORTEST_LINE)


def _base64(raw: bytes) -> Iterator[str]:
    """The whole, also in lines, and what shows of it inside a longer text, such as `user:password`."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        if len(whole.rstrip("=")) >= SHORTEST:
            yield whole.rstrip("=")
        yield from ("\n".join(textwrap.wrap(whole, width)) for width in (64, 76) if len(whole) > width)
        for before in range(3):
            shown = encode(bytes(before) + raw).decode().rstrip("=")[(0, 2, 3)[before] :]
            inside = shown[:-1] if (before + len(raw)) % 3 else shown
            if len(inside) >= SHORTEST_LINE:
                yield inside

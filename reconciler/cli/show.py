"""How commands print: tables for people, JSON for programs. What comes from outside reaches no terminal as control codes."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reconciler.web import sentences

WORDS = {
    "Synced": "green",
    "Healthy": "green",
    "OutOfSync": "yellow",
    "Progressing": "cyan",
    "Missing": "yellow",
    "Suspended": "magenta",
    "Degraded": "red",
}
when, short = sentences.when, sentences.short

_UNBOUNDED = 10_000  # columns: a pipe has no width, and data is never cut


def as_json_text(data: object) -> None:
    """Print data for programs."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def plain(text: object) -> str:
    """The text without control characters: an engine's message may hold anything."""
    return "".join(" " if unicodedata.category(c).startswith("C") else c for c in str(text))


def printable(data: bytes) -> str:
    """Engine output for a terminal: lines stay lines, and nothing else is interpreted."""
    text = data.decode(errors="replace").replace("\r\n", "\n")
    return "".join(c if c in "\n\t" or not unicodedata.category(c).startswith("C") else "�" for c in text)


def console() -> Console:
    """Stdout: colours on a terminal only, and never with NO_COLOR."""
    return Console(
        width=None if sys.stdout.isatty() else _UNBOUNDED, highlight=False, soft_wrap=not sys.stdout.isatty()
    )


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; words of status have their colour."""
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(plain(cell), style=WORDS.get(str(cell), "")) for cell in row))
    out = console()
    if out.is_terminal:
        out.print(grid)
        return
    with out.capture() as captured:
        out.print(grid)
    for line in captured.get().splitlines():
        print(line.rstrip())


def line(label: str, *parts: object) -> None:
    """Print one fact of a list of facts: a label and what it is."""
    words = [part for part in parts if part not in (None, "")]
    text = Text(f"{label + ':':<14}", style="bold")
    for part in words:
        text.append(plain(part) + " ", style=WORDS.get(str(part), ""))
    text.rstrip()
    console().print(text, soft_wrap=True)


def named_pull(pull: Mapping[str, Any]) -> str:
    """A pull request, and where to look at it."""
    return " ".join(filter(None, (f"pull request #{pull['number']}", pull["url"])))


def progress(text: str) -> None:
    """Say what is going on, on stderr."""
    print(plain(text), file=sys.stderr, flush=True)

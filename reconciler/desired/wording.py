"""Words from outside, for messages: what was meant, and nothing that moves a cursor."""

from __future__ import annotations

from difflib import get_close_matches


def close_to(word: str, known: list[str]) -> str:
    """`; did you mean "x"?` when one of the known words looks like it, else a list of them."""
    close = get_close_matches(word, known, 1, 0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known are {', '.join(sorted(known)[:20])}" if known else ""


def printable(text: str, limit: int = 80) -> str:
    """Text from outside, for a message: one line, nothing that moves the cursor, not endless."""
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:limit])
    return shown if len(text) <= limit else shown + "..."

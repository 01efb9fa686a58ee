"""Hiding secrets in text that leaves the runner."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import AnyStr
from urllib.parse import quote, quote_plus

HIDDEN = "(sensitive)"
SHORTEST = 4  # characters; hiding shorter ones would hide half the text and tell what they are
SHORTEST_LINE = 8  # of a secret of several lines: each line is hidden by itself too
COMMON = frozenset({"true", "false", "null", "none"})


def mask(text: AnyStr, secrets: frozenset[str]) -> AnyStr:
    """The text without the secrets, in any of the forms in which they are written. Bytes may be of any encoding."""
    pattern = _pattern(secrets)
    if pattern is None:
        return text
    if isinstance(text, bytes):
        return pattern.sub(HIDDEN, text.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return pattern.sub(HIDDEN, text)


@lru_cache(maxsize=4)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    """One pattern for all forms of all secrets, the longest first, so that none shows a rest of another."""
    forms = {
        form for secret in secrets for form in _forms(secret) if len(form) >= SHORTEST and form.lower() not in COMMON
    }
    if not forms:
        return None
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=lambda f: (-len(f), f))))


def _forms(secret: str) -> Iterator[str]:
    if len(secret) < SHORTEST:
        return
    yield from (secret, secret.strip())
    yield from _encoded(secret)
    lines = secret.splitlines()
    yield from (line.strip() for line in lines if len(lines) > 1 and len(line.strip()) >= SHORTEST_LINE)


def _encoded(secret: str) -> Iterator[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    # Terraform's JSON escapes these three as well.
    yield json.dumps(secret, ensure_ascii=False)[1:-1].translate({ord(c): f"\\u{ord(c):04x}" for c in "<>&"})
    yield from (quote(raw), quote(raw, safe=""), quote_plus(raw))
    yield from (form.decode().rstrip("=") for form in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)))

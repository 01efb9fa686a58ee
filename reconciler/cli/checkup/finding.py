"""What a look found, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from reconciler.errors import ReconcilerError

Level = Literal["ok", "warning", "problem"]
Look = Callable[[], Iterable["Finding"]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `fix` is one line that says what to do; empty where all is well."""

    check: str
    level: Level
    message: str
    fix: str = ""


def ok(check: str, message: str) -> Finding:
    """It is as it should be."""
    return Finding(check, "ok", message)


def warning(check: str, message: str, fix: str) -> Finding:
    """It works, and something is missing."""
    return Finding(check, "warning", message, fix)


def problem(check: str, message: str, fix: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(check, "problem", message, fix)


def attempt(check: str, fix: str, look: Look) -> Iterator[Finding]:
    """What the look finds; an error of any kind is a problem, and ends this look alone."""
    try:
        yield from look()
    except ReconcilerError as error:
        yield problem(check, str(error), fix)
    except Exception as error:  # noqa: BLE001 - a library's error is an answer, too: this one could not be looked at
        yield problem(check, f"cannot be looked at: {type(error).__name__}: {error}", fix)

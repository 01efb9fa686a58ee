"""The allow-list: which operation, on which folder of the environments repository, this runner will do at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from reconciler.model import Operation


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of `allow:` in runner.yaml. `folders` are globs over paths of the repository; `**` crosses folders.

    `pulls`: it is for open pull requests, and not for what was merged.
    """

    operations: frozenset[Operation]
    folders: tuple[str, ...]
    pulls: bool = False


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    regex = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    return re.compile("".join(regex.get(p, re.escape(p)) for p in parts))


def allowed(rules: Sequence[Rule], operation: Operation, path: str, *, pulls: bool = False) -> bool:
    """Whether any rule lets the runner do `operation` for the entry at `path`, as it was merged or as a pull request has it."""
    return any(any(_pattern(f).fullmatch(path) for f in rule.folders) for rule in _able(rules, operation, pulls))


def why_not(rules: Sequence[Rule], operation: Operation, path: str, *, pulls: bool = False) -> str:
    """The sentence for a caller who was refused."""
    able = sorted({f for rule in _able(rules, operation, pulls) for f in rule.folders})
    folders = ", ".join(able) if able else "none"
    what = f"{operation} of pull requests" if pulls else str(operation)
    return f"{what} of {path} is not on this runner's allow-list; folders where {what} is allowed: {folders}."


def _able(rules: Sequence[Rule], operation: Operation, pulls: bool) -> list[Rule]:
    return [rule for rule in rules if rule.pulls is pulls and operation in rule.operations]

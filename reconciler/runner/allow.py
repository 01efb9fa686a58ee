"""The allow-list: which operation, on which folder of the environments repository, this runner will do at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from reconciler.model import Operation


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of `allow:` in runner.yaml. `folders` are globs over paths of the repository; `**` crosses folders."""

    operations: frozenset[Operation]
    folders: tuple[str, ...]


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    regex = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    return re.compile("".join(regex.get(p, re.escape(p)) for p in parts))


def allowed(rules: Sequence[Rule], operation: Operation, path: str) -> bool:
    """Whether any rule lets the runner do `operation` for the entry at `path`."""
    return any(operation in r.operations and any(_pattern(f).fullmatch(path) for f in r.folders) for r in rules)


def why_not(rules: Sequence[Rule], operation: Operation, path: str) -> str:
    """The sentence for a caller who was refused."""
    able = sorted({f for r in rules if operation in r.operations for f in r.folders})
    folders = ", ".join(able) if able else "none"
    return f"{operation} of {path} is not on this runner's allow-list; folders where {operation} is allowed: {folders}."

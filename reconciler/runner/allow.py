"""The allow-list: which operation, in which folder of the environments repository, on which module, this runner will do at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from reconciler.config.runner import Allow
from reconciler.model import Operation


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of `allow:` in runner.yaml. `folders` are globs over paths of the repository, `modules` over `<catalog>/<module>`.

    `**` crosses folders. `pulls`: it is for open pull requests, and not for what was merged.
    """

    operations: frozenset[Operation]
    folders: tuple[str, ...]
    pulls: bool = False
    modules: tuple[str, ...] = ("**",)


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody would have the runner do for the entry at `path`; `module` may be open."""

    operation: Operation
    path: str
    module: str | None = None
    pulls: bool = False

    def __str__(self) -> str:
        """As a sentence has it."""
        what = f"{self.operation} of pull requests for" if self.pulls else f"{self.operation} of"
        return f"{what} {self.module} at {self.path}" if self.module else f"{what} {self.path}"


def rule_of(line: Allow) -> Rule:
    """A line of the configuration as a rule."""
    return Rule(line.operation_set, tuple(line.folders), line.refs == "pulls", tuple(line.modules))


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    regex = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}
    return re.compile("".join(regex.get(p, re.escape(p)) for p in parts))


def allowed(rules: Sequence[Rule], wish: Wish) -> bool:
    """Whether any rule has all of it: the operation, merged or not, the folder and, where it is known, the module."""
    module = wish.module
    return any(module is None or _one_of(rule.modules, module) for rule in _there(rules, wish))


def why_not(rules: Sequence[Rule], wish: Wish) -> str:
    """The sentence for a caller who was refused."""
    of_pulls = " of pull requests" if wish.pulls else ""
    if _there(rules, wish):
        found = sorted({glob for rule in _there(rules, wish) for glob in rule.modules})
        where = f"modules for which {wish.operation}{of_pulls} is allowed there"
    else:
        found = sorted({glob for rule in _able(rules, wish) for glob in rule.folders})
        where = f"folders where {wish.operation}{of_pulls} is allowed"
        wish = replace(wish, module=None)  # it makes no difference
    return f"{wish} is not on this runner's allow-list; {where}: {', '.join(found) or 'none'}."


def _able(rules: Sequence[Rule], wish: Wish) -> list[Rule]:
    return [rule for rule in rules if rule.pulls is wish.pulls and wish.operation in rule.operations]


def _there(rules: Sequence[Rule], wish: Wish) -> list[Rule]:
    return [rule for rule in _able(rules, wish) if _one_of(rule.folders, wish.path)]


def _one_of(globs: Sequence[str], name: str) -> bool:
    return any(_pattern(glob).fullmatch(name) for glob in globs)

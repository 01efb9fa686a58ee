"""Who calls, and what they may wake."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

ALL = "all"


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller who has proven to be one.

    `proof` names what proved it, in no way that could be used again. The same request by the same proof before `until` is a
    repetition.
    """

    name: str
    scopes: tuple[str, ...]
    proof: str
    until: datetime

    def may(self, scope: str) -> bool:
        """Whether the scope is one that it may wake, and read."""
        return any(covers(pattern, scope) for pattern in self.scopes)


class RefusedError(Exception):
    """A request that nothing is done for.

    `result` is one of `observe.TRIGGER_RESULTS` and `said` what the caller is told; `str(error)` is for the log, and holds
    no part of a token that is not proven.
    """

    def __init__(self, code: int, result: str, message: str, said: str | None = None, caller: str = "") -> None:
        super().__init__(message)
        self.code, self.result, self.caller = code, result, caller
        self.said = message if said is None else said


def unproven(message: str) -> RefusedError:
    """The refusal of whoever has not proven who they are: they are not told what was wrong."""
    said = "who calls is not proven: a token of a configured issuer, or a certificate; the controller's log says what is wrong"
    return RefusedError(401, "unauthenticated", message, said)


def covers(pattern: str, scope: str) -> bool:
    """Whether a pattern of scopes covers a scope: `prod` is all in it, `prod/net/**` all below, `*` any name or part of one."""
    if pattern == ALL:
        return True
    if scope == ALL:
        return False
    steps, names = pattern.split("/"), scope.split("/")
    if len(steps) == 1:
        names = names[:1]
    elif steps[-1] == "**":
        steps = steps[:-1]
        if len(names) <= len(steps):
            return False
        names = names[: len(steps)]
    return len(steps) == len(names) and all(map(fnmatchcase, names, steps))


def within(scope: str, units: Iterable[str]) -> list[str]:
    """The units that are in the scope."""
    return [unit for unit in units if scope in (ALL, unit, unit.partition("/")[0])]

"""What may go wrong, in three families; anything else is a bug and is allowed to crash.

Every message names the place and says what to do next, because it is shown as it stands: in a hold, on the
status page, in a pull request check.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass

INTERNAL = "InternalError"


@dataclass(frozen=True, slots=True)
class Place:
    """A position in a file that a user wrote. Lines and columns count from 1; 0 means the whole file."""

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.path
        return f"{self.path}:{self.line}:{self.column}"


class ReconcilerError(Exception):
    """The root of every error that this project raises on purpose.

    `reason` is a CamelCase word from the published list; `str(error)` is the sentence for a person.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PassError(ReconcilerError):
    """This tick ends; the last good state stays in force (a forge is down, history was rewritten)."""


class UnitError(ReconcilerError):
    """One unit cannot go on; its dependents wait and the rest goes on.

    `transient` tells back-off whether the same input may succeed later.
    """

    def __init__(self, reason: str, message: str, *, transient: bool = False) -> None:
        super().__init__(reason, message)
        self.transient = transient


class ConfigError(ReconcilerError):
    """The host's configuration is wrong: said at start, then exit."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__("ConfigInvalid", f"{place}: {message}" if place else message)
        self.place = place


class HeldError(UnitError):
    """The runner will not do it as things stand: no proof, or a limit. Not a failure; a person decides."""


class SupersededError(UnitError):
    """The job no longer means anything at the newest head. Not a failure; the unit is decided afresh."""

    def __init__(self, message: str) -> None:
        super().__init__("Superseded", message, transient=True)


def bug(error: Exception) -> str:
    """What to say of an error that nobody foresaw: what it is and where it arose, for whoever mends this program."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    what = f"{type(error).__name__}{where}: {error}"[:500]
    return f"This is a bug of reconciler, and everything else goes on ({what}); please report it. Other input may avoid it."

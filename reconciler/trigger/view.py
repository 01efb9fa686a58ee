"""What the trigger looks at, and what it can do: wake. The daemon is one, and so is every test's world."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from reconciler.model import Commit, JobId, Phase
from reconciler.ports import HistoryEvent
from reconciler.status import Picture
from reconciler.trigger.outcome import Passed
from reconciler.trust import Standing


class Sight(Protocol):
    """Everything is read-only, and safe to call from any thread."""

    def picture(self) -> Picture:
        """How everything fares now."""

    def standing(self) -> Standing:
        """How the controller stands to the protected branch."""

    def passed(self) -> Passed | None:
        """What the loop's last whole pass decided on."""

    def accepted(self, commit: Commit) -> bool:
        """Whether the commit is part of the accepted history."""

    def history(self, scope: str, limit: int) -> Sequence[HistoryEvent]:
        """The newest journaled events of a scope, newest first."""

    def log(self, job: JobId, offset: int) -> bytes:
        """The job's masked engine output from a byte offset on; empty at its end so far. Raises PassError."""

    def phase(self, job: JobId) -> Phase | None:
        """Where a running job was last seen."""


class Bell(Protocol):
    """What wakes."""

    def poll_now(self) -> None:
        """Look at the protected branch soon."""

    def wake(self) -> None:
        """Run the loop soon."""

"""What the pages show, asked of whoever knows: the daemon makes one, and so does every test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from reconciler.git.proofs import Proof
from reconciler.model import Commit, JobId, Phase, UnitId
from reconciler.observe import Place
from reconciler.ports import ALL, Chosen, HistoryEvent
from reconciler.reviewing import PullStatus
from reconciler.status import Picture
from reconciler.trust import Standing


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold before the daemon is ready. `message` says what to do where it does not, or may soon."""

    ok: bool
    message: str = ""


class View(Protocol):
    """Everything is read-only, and safe to call from any thread. A PassError becomes a 503 with its message."""

    def picture(self) -> Picture:
        """How everything fares now."""

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        """The newest journaled events of a unit, an environment or `all`, newest first; of them the chosen ones."""

    def accepted(self, commit: Commit) -> bool:
        """Whether the commit was ever part of what the daemon accepted."""

    def log(self, job: JobId, offset: int) -> bytes:
        """The job's masked engine output from a byte offset on; empty at its end so far."""

    def phase(self, job: JobId) -> Phase | None:
        """Where a running job was last seen; None where that is unknown."""

    def phases(self, job: JobId) -> Sequence[tuple[Phase, datetime]]:
        """The phases that the job went through, and when each began; empty where the runner no longer knows."""

    def proof(self, commit: Commit) -> Proof | None:
        """Why a commit of the environments counts: who signed it, by which pull request it came, who approved."""

    def pull_page(self, number: int) -> str | None:
        """The forge's page of a pull request; None where no forge is configured."""

    def waiting(self) -> Mapping[UnitId, datetime]:
        """The units that wait for their turn, and since when."""

    def place(self, unit: UnitId) -> Place | None:
        """What a unit waits for; None: it does not wait."""

    def heartbeat(self) -> datetime | None:
        """When the loop last finished a pass."""

    def checks(self) -> Mapping[str, Check]:
        """Readiness, by name: git fresh, store open, runner answering."""

    def standing(self) -> Standing:
        """How the controller stands to the protected branch."""

    def undoing(self, unit: UnitId) -> str | None:
        """The `git revert` that takes back what changed the unit's entry last; None: nothing did, as far as it was accepted."""

    def pulls(self) -> Sequence[PullStatus]:
        """The open pull requests, as the forge last told them, and what each would do."""

    def metrics(self) -> bytes:
        """Prometheus' text format."""

"""What a plan would change, and what was applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.model.words import Commit, JobId, Presence, UnitId


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that can change a unit's plan, in four digests, so that a difference names its cause."""

    module: str
    inputs: str
    settings: str
    upstream: str


@dataclass(frozen=True, slots=True)
class StateMark:
    """Which state it is: Terraform's lineage, and the serial that grows with every write."""

    lineage: str
    serial: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What a unit's last successful apply left behind.

    `reads` are the units that must not go before this one. `outputs` maps each output to an HMAC of its value.
    """

    job: JobId
    commit: Commit
    at: datetime
    fingerprint: Fingerprint
    module: str
    version: str
    presence: Presence
    reads: frozenset[UnitId]
    outputs: Mapping[str, str]
    state: StateMark | None


@dataclass(frozen=True, slots=True)
class Change:
    """One object that a plan would change: Terraform's address and actions, no values."""

    address: str
    type: str
    actions: tuple[str, ...]  # of create, read, update, delete, forget; two of them make a replacement
    reason: str = ""  # Terraform's action_reason, or "import"

    @property
    def destroys(self) -> bool:
        """Whether the object as it is now ceases to exist."""
        return "delete" in self.actions

    @property
    def replaces(self) -> bool:
        """Whether another object takes the place of this one."""
        return "delete" in self.actions and "create" in self.actions


MOST_TOLD = 1000  # changes, and missing objects, of one plan that leave the runner


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a plan would do, free of values. `digest` names the change set, values included (an HMAC).

    `more`: how many further changes were left out, where there are too many to tell.
    """

    changes: tuple[Change, ...]
    missing: tuple[str, ...]  # addresses in the state that refresh no longer found
    outputs_changed: bool
    digest: str
    more: int = 0

    @property
    def empty(self) -> bool:
        """Whether the real world is as desired."""
        return not self.changes and not self.outputs_changed

    def told(self) -> PlanSummary:
        """What is told of it outside of the runner: nobody reads thousands of addresses, and an answer has an end."""
        more = self.more + max(len(self.changes) - MOST_TOLD, 0)
        return replace(self, changes=self.changes[:MOST_TOLD], missing=self.missing[:MOST_TOLD], more=more)

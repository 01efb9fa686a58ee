"""What is known of a job while it goes on: of it the result is made, however the job ends."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from reconciler.model import (
    MOST_STRAYS,
    Applied,
    Cause,
    Commit,
    Fingerprint,
    Job,
    Outcome,
    PlanSummary,
    Result,
    Stray,
    Unexplained,
    UnitId,
)
from reconciler.runner.terraform.masking import Veil


@dataclass(frozen=True, slots=True)
class Said:
    """How a job that did its work sums it up."""

    reason: str
    message: str


@dataclass(slots=True)
class Progress:
    """What is known of the job so far; the result is made of it however the job ends."""

    job: Job
    started_at: datetime
    commit: Commit | None = None
    fingerprint: Fingerprint | None = None
    cause: Cause | None = None
    plan: PlanSummary | None = None
    applied: Applied | None = None
    moved_from: UnitId | None = None
    unexplained: Unexplained | None = None
    strays: tuple[Stray, ...] | None = None
    veil: Veil = field(default_factory=Veil)

    def result(self, outcome: Outcome, reason: str, message: str, *, transient: bool = True) -> Result:
        """The job's result as of now, without the secrets that the job came to know."""
        return Result(
            job=self.job,
            outcome=outcome,
            reason=reason,
            message=self.veil.hide_in_ours(message),
            started_at=self.started_at,
            ended_at=datetime.now(UTC),
            commit=self.commit,
            fingerprint=self.fingerprint,
            cause=self.cause,
            plan=self._told(self.plan) if self.plan else None,
            applied=self.applied,
            transient=transient,
            moved_from=self.moved_from,
            unexplained=self.unexplained,
            strays=self.strays and tuple(map(self._stray, self.strays[:MOST_STRAYS])),
        )

    def _stray(self, stray: Stray) -> Stray:
        hide = self.veil.hide_in_address
        remedy = self.veil.hide_in_ours(stray.remedy)
        return replace(stray, address=hide(stray.address), id=hide(stray.id), remedy=remedy)

    def _told(self, plan: PlanSummary) -> PlanSummary:
        """What is told of the plan. A module can make a secret the key of an object."""
        told, hide = plan.told(), self.veil.hide_in_address
        changes = tuple(replace(change, address=hide(change.address)) for change in told.changes)
        return replace(told, changes=changes, missing=tuple(map(hide, told.missing)))

"""What open pull requests would do, as far as it is known: which units wait to be planned, run, or were.

Nothing of it is part of the ledger: a controller that starts again finds out anew what it does not know, and only time is
lost. Plans of pull requests have a few places of their own, and none while anything that was merged waits for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from reconciler.actual.ledger import PullShown
from reconciler.branch.pulls import Proposal
from reconciler.deciding.decide import expected
from reconciler.deciding.schedule import retry_after
from reconciler.errors import PassError
from reconciler.forge.facts import Pull
from reconciler.model import (
    Commit,
    Desired,
    Job,
    JobId,
    Ledger,
    Operation,
    Outcome,
    PlanSummary,
    Result,
    RunnerFacts,
    Unit,
    UnitId,
)
from reconciler.ports import Executor, Lost, Running, Store

AT_ONCE = 2  # plans of pull requests
AGAIN = timedelta(days=7)  # until what was shown is looked at once more, though nothing changed
SOON = timedelta(seconds=5)  # between two looks at running jobs, should the runner's word of an end be lost


class PullWatcher(Protocol):
    """Who is told what happened. Nothing depends on it."""

    def pull_shown(self, shown: PullShown) -> None:
        """What a pull request would do to a unit was found out, or why it cannot be."""


class Desk(Protocol):
    """What a turn works with: the controller's runtime."""

    @property
    def store(self) -> Store: ...
    @property
    def executor(self) -> Executor: ...
    @property
    def watcher(self) -> PullWatcher: ...
    @property
    def facts(self) -> RunnerFacts | None: ...
    @property
    def fence(self) -> int: ...
    @property
    def new_id(self) -> Callable[[datetime], JobId]: ...


@dataclass(frozen=True, slots=True)
class UnitShown:
    """One unit of a pull request. `state`: waiting, running, planned, follows, failed or not planned.

    `reason` of what is planned: "Planned", or what would hold it once it is merged.
    """

    unit: UnitId
    state: str
    reason: str = ""
    message: str = ""
    plan: PlanSummary | None = None
    job: JobId | None = None
    at: datetime | None = None

    @property
    def would_be_held(self) -> bool:
        """Whether it is known by now that merging it as it is changes nothing, and why."""
        return self.state == "planned" and self.reason not in ("", "Planned")


@dataclass(frozen=True, slots=True)
class PullStatus:
    """One open pull request. `reason` and `message` say why none of it is planned, if so."""

    pull: Pull
    base: Commit
    reason: str
    message: str
    units: tuple[UnitShown, ...]


@dataclass(slots=True)
class _Look:
    """A unit of a pull request: what its plan depends on, and how far it came."""

    pull: Pull
    unit: Unit
    basis: tuple[object, ...] = ()
    job: Job | None = None
    since: datetime | None = None
    result: Result | None = None
    told: tuple[object, ...] = ()
    failures: int = 0
    due: datetime | None = None


@dataclass(slots=True)
class Reviewing:
    """The plans of open pull requests. `offer` may come from any thread; `turn` is the loop's alone.

    `began`: a job was handed over.
    """

    offered: tuple[Proposal, ...] = ()
    shown: tuple[PullStatus, ...] = ()
    began: bool = False
    _looks: dict[tuple[int, UnitId], _Look] = field(default_factory=dict)
    _leaving: set[JobId] = field(default_factory=set)  # cancelled, and not yet ended
    _seen: tuple[object, ...] = ()

    def offer(self, proposals: Sequence[Proposal]) -> None:
        """The open pull requests are these now."""
        self.offered = tuple(proposals)

    def turn(self, desk: Desk, now: datetime, *, idle: bool) -> datetime | None:
        """Do what can be done now; return when the next thing falls due by itself. `idle`: nothing merged waits for a place.

        A runner that does not answer ends the turn; the next one goes on from there.
        """
        offered = self.offered
        if not offered and not self._looks and not self._leaving:
            self.shown = ()
            return None
        try:
            self._take_in(desk, offered)
            self._collect(desk, now)
            if idle and desk.facts is not None:
                self._start(desk, now, desk.facts)
        except PassError:
            pass  # the loop finds out by itself, and says so
        self.shown = tuple(self._status(one) for one in offered)
        return self._due(now)

    def _take_in(self, desk: Desk, offered: tuple[Proposal, ...]) -> None:
        """Bring the looks to what is open now; what runs for nothing is asked to stop."""
        wanted = {(p.pull.number, unit.id): (p.pull, unit) for p in offered for unit in p.units.values()}
        for key in [key for key in self._looks if key not in wanted]:
            self._cancel(desk, self._looks.pop(key))
        for key, (pull, unit) in wanted.items():
            look = self._looks.setdefault(key, _Look(pull, unit))
            if (look.pull.head, look.unit.intent) != (pull.head, unit.intent):
                self._cancel(desk, look)
                self._looks[key] = look = _Look(pull, unit)
            look.pull, look.unit = pull, unit

    def _cancel(self, desk: Desk, look: _Look) -> None:
        if look.job is not None:
            self._leaving.add(look.job.id)
            desk.executor.cancel(look.job.id)

    def _collect(self, desk: Desk, now: datetime) -> None:
        for job_id in list(self._leaving):
            if not isinstance(desk.executor.poll(job_id), Running):
                self._leaving.discard(job_id)
        for look in self._looks.values():
            if look.job is None:
                continue
            state = desk.executor.poll(look.job.id)
            if not isinstance(state, Running):
                self._end(desk, look, state if isinstance(state, Result) else _lost(look, state, now), now)

    def _end(self, desk: Desk, look: _Look, result: Result, now: datetime) -> None:
        """A failure is tried again after a while; it is none of the unit's own."""
        look.job, look.result = None, result
        if result.outcome is Outcome.SUCCEEDED:
            look.failures, look.due = 0, now + AGAIN
        else:
            look.due = now + retry_after(result, look.failures)
            look.failures += 1
        told = (result.outcome, result.reason, result.message, result.plan)
        if told != look.told:
            look.told = told
            shown = _event(look, result)
            desk.store.append(shown, actor=f"pull request {look.pull.number}")
            desk.watcher.pull_shown(shown)

    def _start(self, desk: Desk, now: datetime, facts: RunnerFacts) -> None:
        running = len(self._leaving) + sum(look.job is not None for look in self._looks.values())
        ledger = desk.store.ledger()
        for look in sorted(self._looks.values(), key=lambda one: (one.failures, one.pull.number)):
            if running >= AT_ONCE:
                return
            if look.job is None and self._wanted(look, ledger, facts, now):
                running += 1
                job = Job(desk.new_id(now), Operation.PLAN, look.unit.id, look.pull.head, desk.fence, look.pull.number)
                look.job, look.since, self.began = job, now, True
                desk.executor.start(job)

    def _wanted(self, look: _Look, ledger: Ledger, facts: RunnerFacts, now: datetime) -> bool:
        """Whether anything that its plan depends on has changed since, or it is time to try again."""
        unit = look.unit
        want = expected(Desired(look.pull.head, {unit.id: unit}), ledger, facts)[unit.id]
        record = ledger.units.get(unit.id)
        basis = (want, record.applied.fingerprint if record and record.applied else None)
        changed, look.basis = look.basis != basis, basis
        return changed or (look.due is not None and now >= look.due)

    def _due(self, now: datetime) -> datetime | None:
        times = [look.due for look in self._looks.values() if look.job is None and look.due and look.due > now]
        busy = bool(self._leaving) or any(look.job is not None for look in self._looks.values())
        return min([*times, *([now + SOON] if busy else [])], default=None)

    def _status(self, proposal: Proposal) -> PullStatus:
        pull, refused = proposal.pull, proposal.refused
        found = [self._looks.get((pull.number, unit)) for unit in proposal.units]
        units = [_unit_shown(look) for look in found if look is not None]
        units += [UnitShown(unit, "not planned", why.reason, why.message) for unit, why in proposal.untold.items()]
        reason, message = (refused.reason, refused.message) if refused else ("", "")
        return PullStatus(pull, proposal.base, reason, message, tuple(sorted(units, key=lambda one: one.unit)))


def _unit_shown(look: _Look) -> UnitShown:
    unit, result = look.unit.id, look.result
    if result is None:
        return UnitShown(unit, "running" if look.job else "waiting", job=look.job.id if look.job else None)
    state = "failed"
    if result.outcome is Outcome.SUCCEEDED:
        state = "follows" if result.reason == "FollowsUpstream" else "planned"
    return UnitShown(unit, state, result.reason, result.message, result.plan, result.job.id, result.ended_at)


def _event(look: _Look, result: Result) -> PullShown:
    pull = look.pull
    return PullShown(
        pull.number, pull.head, pull.author, look.unit.id, result.job.id, result.outcome, result.reason, result.message,
        result.plan,
    )  # fmt: skip


def _lost(look: _Look, state: Lost, now: datetime) -> Result:  # noqa: ARG001 - a plan is lost in one way only
    assert look.job is not None  # noqa: S101 - only a running one is lost
    message = "The job ended without a word; it is planned again."
    return Result(look.job, Outcome.FAILED, "JobLost", message, look.since or now, now)

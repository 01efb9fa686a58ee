"""A simulated world: a repository, a runner with a memory of its own, and real objects with a log of every call.

The runner keeps to what the real one promises (reconciler/runner/case.py): it resolves at its own newest head, journals
before it applies, and its memory outlives its jobs. Every step of a job is taken by the test, which may let it fail or die.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from reconciler.actual.ledger import Event, PullShown
from reconciler.deciding.budgets import Capacity, Cut
from reconciler.deciding.decide import Held, corrects
from reconciler.deciding.passes import Waiting
from reconciler.desired.fingerprint import cause_of, fingerprint
from reconciler.desired.freeze import outlook
from reconciler.errors import HeldError, PassError, SupersededError, UnitError
from reconciler.model import (
    Applied,
    AuditFacts,
    BreakGlass,
    Cause,
    Change,
    Commit,
    Desired,
    Dispatched,
    Fingerprint,
    Job,
    JobId,
    Ledger,
    Load,
    Operation,
    Outcome,
    Phase,
    PlanSummary,
    Presence,
    Reference,
    Result,
    RunnerFacts,
    TrustFacts,
    Unexplained,
    Unit,
    UnitId,
)
from reconciler.ports import Lost, Running
from reconciler.store.projection import Projection, project


@dataclass
class FakeClock:
    """The time, as the test says."""

    time: datetime

    def now(self) -> datetime:
        return self.time


class MemoryStore:
    """`ports.Store` on the projection alone."""

    def __init__(self) -> None:
        self._projection = Projection(Ledger())
        self._fence = 0
        self._commits: set[Commit] = set()

    def ledger(self) -> Ledger:
        return self._projection.ledger()

    def accepted(self, commit: Commit) -> bool:
        return commit in self._commits

    def append(self, *events: Event, actor: str = "controller") -> None:
        delta = project(self._projection.ledger(), events)
        self._commits = (self._commits | delta.commits.keys()) - {c for c, kept in delta.commits.items() if not kept}
        self._projection.advance(delta)

    def next_fence(self, above: int = 0) -> int:
        self._fence = max(self._fence, above) + 1
        return self._fence


@dataclass
class Repository:
    """Every commit's meaning, oldest first. `polled` is how far the controller has looked."""

    commits: list[Desired] = field(default_factory=list)
    polled: int = 0

    def latest(self) -> Desired | None:
        return self.commits[self.polled - 1] if self.polled else None

    @property
    def head(self) -> Desired:
        return self.commits[-1]

    def has(self, commit: Commit) -> bool:
        return any(one.commit == commit for one in self.commits)

    def poll(self) -> None:
        self.polled = len(self.commits)


@dataclass
class Thing:
    """The objects of one unit: an identity that a creation gives and a destruction ends, and what they were made from.

    `made_from` is None while they are half done, or were changed behind the runner's back.
    """

    identity: int
    made_from: Fingerprint | None


@dataclass(frozen=True)
class Remembered:
    """What the runner remembers of one unit. `applying`: an apply was begun and did not end well; what it read."""

    applied: Applied | None = None
    applying: frozenset[UnitId] | None = None
    moved_to: UnitId | None = None


@dataclass
class LiveJob:
    """One job on the runner."""

    job: Job
    started_at: datetime
    phase: Phase = Phase.VERIFYING
    unit: Unit | None = None
    fingerprint: Fingerprint | None = None
    cause: Cause | None = None
    plan: PlanSummary | None = None
    commit: Commit | None = None
    moved_from: UnitId | None = None
    cancelled: bool = False
    ended: Result | Lost | None = None


class Runner:
    """`ports.Executor` over the simulated world."""

    def __init__(self, clock: FakeClock, repository: Repository, facts: RunnerFacts) -> None:
        self.clock, self.repository, self.facts = clock, repository, facts
        self.jobs: dict[JobId, LiveJob] = {}
        self.memory: dict[UnitId, Remembered] = {}
        self.things: dict[UnitId, Thing] = {}
        self.created: list[UnitId] = []
        self.destroyed: list[UnitId] = []
        self.sick: set[UnitId] = set()
        self.answers = True
        self.fence = 0

    # --- Executor

    def start(self, job: Job) -> None:
        self._answer()
        known = self.jobs.get(job.id)
        assert known is None or known.job == job, f"{job.id} names two jobs"
        if known is None:
            self.jobs[job.id] = LiveJob(job, self.clock.now())

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        self._answer()
        live = self.jobs.get(job_id)
        if live is None:
            return Lost(applying=False)
        return live.ended if live.ended is not None else Running(live.phase)

    def cancel(self, job_id: JobId) -> None:
        self._answer()
        if job_id in self.jobs:
            self.jobs[job_id].cancelled = True

    def lead(self, fence: int) -> None:
        self._answer()
        if fence < self.fence:
            raise PassError("FenceStale", "A higher one leads.")
        self.fence = fence

    def describe(self) -> RunnerFacts:
        self._answer()
        return replace(self.facts, fence=self.fence)

    def log(self, job_id: JobId, offset: int) -> bytes:
        self._answer()
        return b""

    def _answer(self) -> None:
        if not self.answers:
            raise PassError("RunnerUnavailable", "The simulated runner is down; bring it back.")

    # --- what the test lets happen

    def live(self) -> list[LiveJob]:
        return [one for one in self.jobs.values() if one.ended is None]

    def kill(self, live: LiveJob) -> None:
        """The job's process dies where it is; when applying, half of it may be done."""
        if live.phase is Phase.APPLYING:
            self._half(live)
        live.ended = Lost(applying=live.phase is Phase.APPLYING)

    def fail(self, live: LiveJob) -> None:
        """The job's current phase goes wrong."""
        if live.phase is Phase.APPLYING:
            self._half(live)
        live.ended = self._result(live, Outcome.FAILED, "EngineFailed", "It went wrong.")

    def step(self, live: LiveJob) -> None:
        """Finish the current phase and begin the next, or end."""
        if live.job.unit in self.sick and live.phase is not Phase.VERIFYING:
            self.fail(live)
            return
        try:
            {Phase.VERIFYING: self._verify, Phase.PLANNING: self._judge, Phase.APPLYING: self._apply}[live.phase](live)
        except SupersededError as error:
            live.ended = self._result(live, Outcome.SUPERSEDED, error.reason, str(error))
        except HeldError as error:
            live.ended = self._result(live, Outcome.HELD, error.reason, str(error))
        except UnitError as error:
            live.ended = self._result(live, Outcome.FAILED, error.reason, str(error))

    def drift(self, unit: UnitId) -> None:
        """Somebody changes the unit's objects behind everyone's back."""
        self.things[unit].made_from = None

    def remembered(self, unit: UnitId) -> Remembered:
        """What is known of the unit; of a name whose state went to another, nothing."""
        known = self.memory.get(unit, Remembered())
        return known if known.moved_to is None else Remembered()

    def expected(self, desired: Desired, unit_id: UnitId) -> Fingerprint | None:
        """The fingerprint that the unit shall have by what the runner knows; None where an output does not exist."""
        unit = desired.units[unit_id]
        seals: dict[Reference, str] = {}
        for reference in unit.references if unit.presence is Presence.PRESENT else ():
            known = self.remembered(reference.unit).applied
            if known is None or reference.output not in known.outputs:
                return None
            seals[reference] = known.outputs[reference.output]
        return fingerprint(unit, self.facts, self.facts.environments[unit.environment.name], seals)

    def not_frozen(self, unit: Unit) -> None:
        """Right before anything is changed."""
        if outlook(unit.environment.freeze, self.clock.now()).window is not None:
            raise HeldError("FreezeWindow", "A window is open.")

    # --- a job's phases

    def _verify(self, live: LiveJob) -> None:
        if live.job.fence < self.fence:
            raise UnitError("FenceStale", "Another controller has taken over.")
        self.fence = live.job.fence
        head = self.repository.head
        live.commit = head.commit
        if live.job.unit in head.broken:
            raise HeldError("Broken", "The entry is broken at the newest commit.")
        unit = head.units.get(live.job.unit)
        if unit is None:
            raise SupersededError("No entry any more.")
        live.unit = unit
        known = self._take_over(live, unit)
        self._still_unread(unit)
        wanted = self.expected(head, unit.id)
        if wanted is None or self._upstream_gone(unit):
            raise HeldError("DependencyNotReady", "An upstream has no outputs.")
        live.fingerprint = wanted
        live.cause = cause_of(known.applied.fingerprint if known.applied else None, wanted)
        if unit.presence is Presence.FORGOTTEN or (unit.entry.moved_from and known.applied is None):
            self._forget(live, unit)
        elif unit.presence is Presence.ABSENT and unit.id not in self.things:
            self._settle(live, unit)
        else:
            live.phase = Phase.PLANNING

    def _take_over(self, live: LiveJob, unit: Unit) -> Remembered:
        known, old = self.remembered(unit.id), unit.entry.moved_from
        if old is not None and known.applied is None and live.job.operation is Operation.APPLY:
            source = self.memory.get(old, Remembered())
            exists = source.applied is not None and source.applied.presence is Presence.PRESENT
            if not exists or source.moved_to not in (None, unit.id):
                raise HeldError("MoveBlocked", "The old unit has no state to move.")
            self.not_frozen(unit)
            self.memory[old] = replace(source, moved_to=unit.id)
            if old in self.things:
                self.things[unit.id] = self.things.pop(old)
            known = self.memory[unit.id] = replace(source, moved_to=None)
        if old is not None and self.memory.get(old, Remembered()).moved_to == unit.id:
            live.moved_from = old
        return known

    def _still_unread(self, unit: Unit) -> None:
        if unit.presence is Presence.PRESENT:
            return
        for other, known in self.memory.items():
            present = known.applied is not None and known.applied.presence is Presence.PRESENT
            if present and known.moved_to is None and other != unit.id and unit.id in known.applied.reads:  # type: ignore[union-attr]
                raise HeldError("StillReferenced", f"{other} still reads it.")

    def _upstream_gone(self, unit: Unit) -> bool:
        return unit.presence is Presence.PRESENT and any(upstream not in self.things for upstream in unit.reads)

    def _plan(self, live: LiveJob, unit: Unit) -> PlanSummary:
        thing = self.things.get(unit.id)
        if unit.presence is Presence.ABSENT:
            changes = [Change("module.unit.thing", "thing", ("delete",))] if thing else []
        elif thing is None:
            changes = [Change("module.unit.thing", "thing", ("create",))]
        else:
            changes = [] if thing.made_from == live.fingerprint else [Change("module.unit.thing", "thing", ("update",))]
        return PlanSummary(tuple(changes), (), outputs_changed=False, digest=str(live.fingerprint))

    def _judge(self, live: LiveJob) -> None:
        unit = self._unit(live)
        live.plan = self._plan(live, unit)
        known = self.remembered(unit.id)
        drifted = live.cause is Cause.DRIFT
        report = live.job.operation is Operation.PLAN or (drifted and known.applying is None and not corrects(unit))
        if live.plan.empty and (not report or drifted):
            self._settle(live, unit)
            return
        if report:
            live.ended = self._result(live, Outcome.SUCCEEDED, "Planned", "It would change.")
            return
        if live.cancelled:
            raise SupersededError("Cancelled.")
        if live.job.fence < self.fence:
            raise SupersededError("Another controller has taken over.")
        newest = self.repository.head.units.get(unit.id)
        if newest is None or newest.intent != unit.intent:
            raise SupersededError("A newer commit changes this unit.")
        self.not_frozen(newest)
        reads = unit.reads if unit.presence is Presence.PRESENT and live.commit == live.job.commit else frozenset()
        self.memory[unit.id] = replace(known, applying=reads | (known.applying or frozenset()))
        live.phase = Phase.APPLYING

    def _apply(self, live: LiveJob) -> None:
        unit = self._unit(live)
        if unit.presence is Presence.ABSENT:
            del self.things[unit.id]
            self.destroyed.append(unit.id)
        else:
            self._make(unit.id).made_from = live.fingerprint
        self._settle(live, unit)

    def _half(self, live: LiveJob) -> None:
        """What an apply leaves that did not get to its end."""
        unit = self._unit(live)
        if unit.presence is Presence.PRESENT or unit.id in self.things:
            self._make(unit.id).made_from = None

    def _make(self, unit: UnitId) -> Thing:
        if unit not in self.things:
            self.created.append(unit)
            self.things[unit] = Thing(len(self.created), None)
        return self.things[unit]

    def _forget(self, live: LiveJob, unit: Unit) -> None:
        """Let the objects go. A plan of that, or of a move, is one that changes nothing."""
        if live.job.operation is Operation.PLAN:
            live.plan = PlanSummary((), (), outputs_changed=False, digest="")
            live.ended = self._result(live, Outcome.SUCCEEDED, "Planned", "It would be let go, or moved.")
            return
        self.not_frozen(unit)
        self.things.pop(unit.id, None)
        self._settle(live, unit)

    def _settle(self, live: LiveJob, unit: Unit) -> None:
        assert live.fingerprint is not None
        assert live.commit is not None
        reads = unit.reads | frozenset(unit.entry.depends_on)
        thing = self.things.get(unit.id)
        outputs = {"id": f"{thing.identity}-{live.fingerprint.inputs}"} if thing else {}
        now = self.clock.now()
        applied = Applied(
            live.job.id,
            live.commit,
            now,
            live.fingerprint,
            unit.pin.module,
            unit.pin.version,
            unit.presence,
            reads,
            outputs,
            None,
        )
        self.memory[unit.id] = Remembered(applied)
        live.ended = replace(self._result(live, Outcome.SUCCEEDED, "Applied", "Done."), applied=applied)

    def _result(self, live: LiveJob, outcome: Outcome, reason: str, message: str) -> Result:
        return Result(
            live.job,
            outcome,
            reason,
            message,
            live.started_at,
            self.clock.now(),
            commit=live.commit,
            fingerprint=live.fingerprint,
            cause=live.cause,
            plan=live.plan,
            moved_from=live.moved_from,
        )

    @staticmethod
    def _unit(live: LiveJob) -> Unit:
        assert live.unit is not None
        return live.unit


class Bystander:
    """A watcher that looks away."""

    def job_started(self, dispatched: Dispatched) -> None: ...

    def job_phase(self, dispatched: Dispatched, phase: Phase, load: Load) -> None: ...

    def job_ended(self, dispatched: Dispatched, result: Result) -> None: ...

    def unit_held(self, held: Held) -> None: ...

    def queued(self, waiting: Waiting, capacity: Capacity) -> None: ...

    def eased(self, dispatched: Dispatched, cuts: Mapping[str, Cut]) -> None: ...

    def serial_unexplained(self, dispatched: Dispatched, found: Unexplained) -> None: ...

    def audit_seen(self, facts: AuditFacts) -> None: ...

    def trust_seen(self, facts: TrustFacts) -> None: ...

    def pull_shown(self, shown: PullShown) -> None: ...

    def session_ended(self, session: BreakGlass) -> None: ...

    def runner_silent(self, error: PassError) -> None: ...

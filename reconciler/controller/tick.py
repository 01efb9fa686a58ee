"""One tick: collect what ended, decide, journal, act. It never waits for an apply and never touches git itself."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from reconciler.actual import breakglass
from reconciler.actual.ledger import (
    BreakGlassClosed,
    HoldChanged,
    JobDispatched,
    JobEnded,
    PullShown,
    Resumed,
    SkipSeen,
    is_pausing,
)
from reconciler.deciding.budgets import Capacity, Cut, Cuts, Limit, Pressure, accounts_of, cut
from reconciler.deciding.decide import Dispatch, Held, Known
from reconciler.deciding.gates import World, policy
from reconciler.deciding.passes import Jobs, Passes, Waiting
from reconciler.deciding.promotion import unseen
from reconciler.deciding.schedule import schedule
from reconciler.deciding.turns import Served
from reconciler.errors import INTERNAL, PassError, bug
from reconciler.model import (
    THROTTLED,
    AuditFacts,
    BreakGlass,
    Desired,
    Dispatched,
    Hold,
    Job,
    JobId,
    Ledger,
    Load,
    Operation,
    Outcome,
    Phase,
    Presence,
    Result,
    RunnerFacts,
    Skip,
    TrustFacts,
    Unexplained,
    UnitId,
    UnitRecord,
)
from reconciler.ports import Clock, Executor, Lost, Running, Source, Store
from reconciler.reviewing import Reviewing

FACTS_MAX_AGE = timedelta(seconds=15)
ASK_AGAIN = timedelta(seconds=5)  # when the runner did not answer
AFRESH = timedelta(
    minutes=10
)  # after which the next pass looks at everything again, whatever the ones before may have overlooked
OF_THE_RUNNER = ("RunnerUnavailable", "NotAllowed")  # it would say so whatever it is asked; all else is of one job


class Watcher(Protocol):
    """Who is told what happened, for logs and metrics. Nothing depends on it."""

    def job_started(self, dispatched: Dispatched) -> None:
        """A job was handed to the runner."""

    def job_phase(self, dispatched: Dispatched, phase: Phase, load: Load) -> None:
        """A running job was seen in the phase, and takes so much."""

    def job_ended(self, dispatched: Dispatched, result: Result) -> None:
        """A job has a result."""

    def unit_held(self, held: Held) -> None:
        """The reason why a unit is not being changed is another now."""

    def queued(self, waiting: Waiting, capacity: Capacity) -> None:
        """The units that would start, and what they wait for."""

    def eased(self, dispatched: Dispatched, cuts: Mapping[str, Cut]) -> None:
        """A job was throttled, so that fewer are let into these environments' accounts for a while."""

    def serial_unexplained(self, dispatched: Dispatched, found: Unexplained) -> None:
        """The unit's state is one that no job of ours made."""

    def audit_seen(self, facts: AuditFacts) -> None:
        """How far the runner's audit log and its anchor are."""

    def trust_seen(self, facts: TrustFacts) -> None:
        """How the runner stands to the protected branch."""

    def pull_shown(self, shown: PullShown) -> None:
        """What a pull request would do to a unit was found out, or why it cannot be."""

    def session_ended(self, session: BreakGlass) -> None:
        """The time of a break-glass session was up."""

    def runner_silent(self, error: PassError) -> None:
        """The runner did not answer."""


def new_job_id(now: datetime) -> JobId:
    """A name that sorts by time and never comes twice."""
    return JobId(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(5)}")


@dataclass(slots=True)
class Runtime:
    """What a tick works with. `facts` is what the runner last said of itself; `silent`: it does not answer now.

    `fence` is in every job: a runner that saw a higher one refuses. `led` is the one that the runner knows of: until that is
    ours, what it says of a job is not final. `still_leads` raises PassError once another process may lead in our place.
    `began`: this process has handed over a job.
    `known`, `passes` and `decided` are what the last pass found out, so that one costs what has changed; `jobs` those that run;
    `afresh`: when one last looked at everything. `served` and `pressure` are of this process alone: whose turn it was, and what is measured.
    """

    source: Source
    store: Store
    executor: Executor
    clock: Clock
    watcher: Watcher
    capacity: Capacity
    fence: int
    new_id: Callable[[datetime], JobId] = new_job_id
    still_leads: Callable[[], None] = lambda: None
    led: int | None = None
    facts: RunnerFacts | None = None
    facts_at: datetime | None = None
    silent: bool = False
    began: bool = False
    cancelled: set[JobId] = field(default_factory=set)
    reviewing: Reviewing = field(default_factory=Reviewing)
    known: Known = field(default_factory=dict)
    passes: Passes | None = None
    afresh: datetime | None = None
    jobs: Jobs = field(default_factory=Jobs)
    served: Served = field(default_factory=Served)
    pressure: Pressure = field(default_factory=Pressure)
    decided: Decided | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What the last pass looked at, when the clock alone will change what it decided, and which units wait for their turn."""

    world: World
    due: datetime | None
    waiting: Waiting
    pressure: Pressure

    @property
    def queued(self) -> bool:
        """Whether any unit waits."""
        return bool(self.waiting.units)

    def stands(self, rt: Runtime, desired: Desired, now: datetime) -> bool:
        """Whether deciding again would give the same again. By identity: a journaled event makes another ledger."""
        world = self.world
        same = world.desired is desired and world.ledger is rt.store.ledger() and world.facts is rt.facts
        same = same and (self.pressure is rt.pressure or not self.queued)
        in_time = world.now <= now and (self.due is None or now < self.due)
        return same and in_time and world.answers is not rt.silent


def tick(rt: Runtime) -> datetime | None:
    """Do everything that can be done now; return when the next thing falls due by itself.

    Raises:
        PassError: the journal takes nothing, or this process may not lead any more. What was begun is in the journal.
    """
    rt.still_leads()
    now = rt.clock.now()
    _end_pauses(rt, now)
    _end_sessions(rt, now)
    desired = rt.source.latest()
    _refresh_facts(rt, now)
    if rt.led == rt.fence:
        collect(rt, desired)
    _cancel_paused(rt, desired, now)
    due = _decide_and_act(rt, desired, now) if desired is not None else None
    due = _earlier(_next_end(rt), _earlier(due, _review(rt, now)))
    if rt.silent:
        return min(due or now + ASK_AGAIN, now + ASK_AGAIN)
    return due


def _decide_and_act(rt: Runtime, desired: Desired, now: datetime) -> datetime | None:
    """Journal what holds which unit, all of it at once, then start what can start."""
    if rt.decided is not None and rt.decided.stands(rt, desired, now):
        return rt.decided.due
    passes = rt.passes
    if passes is None or rt.afresh is None or not timedelta(0) <= now - rt.afresh < AFRESH:
        passes, rt.afresh = Passes(rt.known, rt.served), now
    rt.passes = None  # until all of this is journaled: what is not is decided again, by a look at everything
    if seen := [SkipSeen(unit, skip) for unit, skip in _unseen(rt, passes, desired, now)]:
        rt.store.append(*seen)
    turn = passes.turn(
        desired, rt.store.ledger(), rt.facts, now, rt.capacity, answers=not rt.silent, pressure=rt.pressure
    )
    _hold(rt, [d for d in turn.decisions if isinstance(d, Held)])
    for decision in turn.decisions:
        if isinstance(decision, Dispatch):
            _dispatch(rt, desired, decision)
    rt.watcher.queued(turn.waiting, rt.capacity.on(rt.facts))
    due = _earlier(turn.due, _more_let_in(rt, turn.waiting, now))
    rt.passes, rt.decided = passes, Decided(turn.world, due, turn.waiting, rt.pressure)
    return due


def _more_let_in(rt: Runtime, waiting: Waiting, now: datetime) -> datetime | None:
    """When an account that throttled takes one more job, where any waits for that."""
    if Limit.THROTTLED not in waiting.limits.values():
        return None
    return min((one.next(now) for one in rt.pressure.cuts.values()), default=None)


def _unseen(rt: Runtime, passes: Passes, desired: Desired, now: datetime) -> Iterator[tuple[UnitId, Skip | None]]:
    ledger = rt.store.ledger()
    return unseen(desired, ledger, now, passes.unlike(desired, ledger))


def _review(rt: Runtime, now: datetime) -> datetime | None:
    """Plans of open pull requests, where nothing that was merged waits for a place."""
    due = rt.reviewing.turn(rt, now, idle=not rt.silent and rt.decided is not None and not rt.decided.queued)
    rt.began = rt.began or rt.reviewing.began
    return due


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(filter(None, (one, other)), default=None)


def _end_pauses(rt: Runtime, now: datetime) -> None:
    for pause in rt.store.ledger().pauses:
        if now >= pause.until:
            rt.store.append(Resumed(pause.scope, "clock"), actor="clock")


def _end_sessions(rt: Runtime, now: datetime) -> None:
    """What is over ends before anything else is decided, whatever the runner, git or a job does meanwhile."""
    for session in rt.store.ledger().sessions:
        if breakglass.is_over(session, now):
            rt.store.append(BreakGlassClosed(session, now, "clock"), actor="clock")
            rt.watcher.session_ended(session)


def _next_end(rt: Runtime) -> datetime | None:
    """When the first of the pauses and sessions ends; also while no commit was ever read."""
    ledger = rt.store.ledger()
    ends = [pause.until for pause in ledger.pauses] + [session.until for session in ledger.sessions]
    return min(ends, default=None)


def _refresh_facts(rt: Runtime, now: datetime) -> None:
    if not rt.silent and rt.facts_at is not None and abs(now - rt.facts_at) < FACTS_MAX_AGE:
        return
    try:
        said = rt.executor.describe()
    except PassError as error:
        _fell_silent(rt, error)
        return
    _raise_fence(rt, said.fence)
    if not _lead(rt, said.fence):
        return
    if said.audit is not None:
        rt.watcher.audit_seen(said.audit)
    if said.trust is not None:
        rt.watcher.trust_seen(said.trust)
    rt.facts, rt.facts_at, rt.silent = rt.facts if rt.facts == said else said, now, False


def _lead(rt: Runtime, seen: int) -> bool:
    """Let the runner know who leads, before anything that it says of a job is believed; False: it does not answer.

    A controller before this one may have been stopped right before it handed a job over: once the runner knows our
    fence that job cannot begin, and not until then is "lost" the last word.
    """
    try:
        if seen < rt.fence:
            rt.executor.lead(rt.fence)
    except PassError as error:
        _fell_silent(rt, error)
        return False
    rt.led = rt.fence
    return True


def _raise_fence(rt: Runtime, seen: int) -> None:
    """A store that was lost or restored has forgotten fences that the runner knows: a controller that begins goes beyond.

    One that has begun already does not: there, a higher fence is another controller's, which has taken over.
    """
    if seen >= rt.fence and not rt.began:
        rt.fence = rt.store.next_fence(seen)


def _fell_silent(rt: Runtime, error: PassError) -> None:
    rt.silent = True
    rt.watcher.runner_silent(error)


def collect(rt: Runtime, desired: Desired | None) -> None:
    """Journal the result of every job that ended, or was lost, since the last tick; and note what the others take."""
    loads: dict[JobId, Load] = {}
    for record, dispatched in list(_running(rt)):
        state: Running | Result | Lost
        try:
            state = rt.executor.poll(dispatched.job.id)
        except PassError as error:
            if error.reason in OF_THE_RUNNER:
                _fell_silent(rt, error)
                return
            state = _unreadable(dispatched, error, rt.clock.now())
        if isinstance(state, Running):
            rt.watcher.job_phase(dispatched, state.phase, state.load)
            loads[dispatched.job.id] = state.load
            continue
        result = _of_this_term(rt, state) if isinstance(state, Result) else _lost(dispatched, state, rt.clock.now())
        _end_or_fault(rt, desired, record, dispatched, result)
    _press(rt, loads, rt.pressure.cuts)


def _press(rt: Runtime, loads: Mapping[JobId, Load], cuts: Cuts) -> None:
    """What is measured is this now; the same object for as long as it is the same."""
    if (loads, cuts) != (rt.pressure.loads, rt.pressure.cuts):
        rt.pressure = Pressure(loads, cuts)


def _ease(rt: Runtime, dispatched: Dispatched) -> None:
    """An account throttled the job: fewer at a time go there from now on. This one, which has just ended, is counted, too."""
    asked = accounts_of(dispatched.job.unit.partition("/")[0], rt.facts)
    jobs = Counter(asked)
    for record in rt.jobs.of(rt.store.ledger()):
        jobs.update(accounts_of(record.unit.partition("/")[0], rt.facts))
    cuts = cut(rt.pressure.cuts, asked, jobs, dispatched.at, rt.clock.now())
    _press(rt, rt.pressure.loads, cuts)
    names = {*(rt.facts.environments if rt.facts is not None else ()), dispatched.job.unit.partition("/")[0]}
    shared = {name: set(accounts_of(name, rt.facts)) & set(asked) for name in names}
    told = {name: min((cuts[one] for one in both), key=lambda one: one.jobs) for name, both in shared.items() if both}
    rt.watcher.eased(dispatched, told)


def _running(rt: Runtime) -> Iterator[tuple[UnitRecord, Dispatched]]:
    for record in rt.jobs.of(rt.store.ledger()):
        if record.job is not None:
            yield record, record.job


def _of_this_term(rt: Runtime, result: Result) -> Result:
    """A job of a term before ours that the runner refused has not failed: it is decided afresh."""
    before = result.reason == "FenceStale" and result.job.fence < rt.fence
    return replace(result, outcome=Outcome.SUPERSEDED) if before else result


def _lost(dispatched: Dispatched, state: Lost, now: datetime) -> Result:
    """The result of a job that left none. Its plan is never applied again: the next job plans afresh."""
    if state.died and not state.applying:
        hint = " `dmesg` says whether memory was short." if state.died.startswith("killed by ") else ""
        message = f"The job's process was {state.died} before it changed anything.{hint}"
        return Result(dispatched.job, Outcome.FAILED, "JobDied", message, dispatched.at, now)
    outcome = Outcome.UNCERTAIN if state.applying else Outcome.SUPERSEDED
    reason = "UncertainApply" if state.applying else "JobLost"
    message = (
        "The job died while it may have been applying; the next one refreshes and plans afresh."
        if state.applying
        else "The job never began to apply; it is decided afresh."
    )
    return Result(dispatched.job, outcome, reason, message, dispatched.at, now)


def _unreadable(dispatched: Dispatched, error: PassError, now: datetime) -> Result:
    """The result of a job of which the runner can say nothing that makes sense. Should it still run, it keeps its unit."""
    where = f"Look at the runner's log and at spool/{dispatched.job.id} in its memory folder"
    message = f"What became of the job cannot be read: {error} {where}; the unit is decided afresh."
    return Result(dispatched.job, Outcome.UNCERTAIN, "ResultUnreadable", message, dispatched.at, now)


def _end_or_fault(
    rt: Runtime, desired: Desired | None, record: UnitRecord, dispatched: Dispatched, result: Result
) -> None:
    """As `_end`. A result in which this program finds a bug of its own ends its job, and keeps no other from its end."""
    try:
        _end(rt, desired, record, dispatched, result)
    except PassError:
        raise
    except Exception as error:  # noqa: BLE001 - logged whole below; the job has ended, whatever is made of it
        rt.watcher.unit_held(Held(record.unit, Hold(INTERNAL, bug(error)), error))
        _end(rt, None, record, dispatched, _unreadable(dispatched, PassError(INTERNAL, bug(error)), rt.clock.now()))


def _end(rt: Runtime, desired: Desired | None, record: UnitRecord, dispatched: Dispatched, result: Result) -> None:
    unit = desired.units.get(record.unit) if desired else None
    plan = schedule(unit, record, result, rt.clock.now())
    seen = rt.pressure.loads.get(dispatched.job.id, Load()).memory
    memory = max(seen, result.used.memory if result.used is not None else 0)
    rt.store.append(JobEnded(dispatched, result, plan.retry_at, plan.next_check, memory))
    if result.reason == THROTTLED:
        _ease(rt, dispatched)
    rt.cancelled.discard(dispatched.job.id)
    rt.watcher.job_ended(dispatched, result)
    if result.unexplained is not None and result.unexplained != record.unexplained:
        rt.watcher.serial_unexplained(dispatched, result.unexplained)
    if result.outcome is Outcome.SUCCEEDED and plan.retry_at is not None:
        rt.facts_at = None  # the runner's host may be another than we thought: ask again


def _cancel_paused(rt: Runtime, desired: Desired | None, now: datetime) -> None:
    """A job that has not begun its apply when its unit is paused, or changed by hand, shall not begin it."""
    ledger = rt.store.ledger()
    for record, dispatched in list(_running(rt)):
        stopped = ledger.frozen or any(is_pausing(p, record.unit, now) for p in ledger.pauses)
        stopped = stopped or _by_hand(ledger, desired, record, dispatched)
        if not stopped or dispatched.job.operation is Operation.PLAN or dispatched.job.id in rt.cancelled:
            continue
        try:
            rt.executor.cancel(dispatched.job.id)
        except PassError as error:
            _fell_silent(rt, error)
            return
        rt.cancelled.add(dispatched.job.id)


def _by_hand(ledger: Ledger, desired: Desired | None, record: UnitRecord, dispatched: Dispatched) -> bool:
    """Whether somebody works by hand on what the job is about, or did since it was started."""
    names = breakglass.names_of(desired.units.get(record.unit) if desired else None, record)
    before = record.aftermath is not None and record.aftermath.job == dispatched.job.id
    return before or breakglass.session_over(ledger.sessions, names) is not None


def _hold(rt: Runtime, held: list[Held]) -> None:
    if held:
        rt.store.append(*(HoldChanged(h.unit, h.hold) for h in held))
    for one in held:
        rt.watcher.unit_held(one)


def _dispatch(rt: Runtime, desired: Desired, decision: Dispatch) -> None:
    """Journal the job, then hand it over."""
    now, unit = rt.clock.now(), decision.unit
    job = Job(rt.new_id(now), decision.operation, unit.id, desired.commit, rt.fence)
    builds = decision.operation is Operation.APPLY and unit.presence is Presence.PRESENT
    reads = unit.reads | frozenset(unit.entry.depends_on) if builds else frozenset()
    dispatched = Dispatched(job, decision.fingerprint, policy(unit), decision.cause, now, reads)
    rt.store.append(JobDispatched(dispatched))
    rt.began = True
    rt.watcher.job_started(dispatched)
    rt.still_leads()
    try:
        rt.executor.start(job)
    except PassError as error:
        _fell_silent(rt, error)  # a later tick finds that the runner never heard of it

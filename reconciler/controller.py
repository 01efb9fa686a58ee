"""One tick: collect what ended, decide, journal, act. It never waits for an apply and never touches git itself."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from reconciler.decide import Capacity, Decision, Dispatch, Held, Queued, decide, next_due, schedule, survey
from reconciler.errors import PassError
from reconciler.gates import World, policy
from reconciler.ledger import HoldChanged, JobDispatched, JobEnded, Resumed, is_pausing
from reconciler.model import (
    Desired,
    Dispatched,
    Job,
    JobId,
    Operation,
    Outcome,
    Result,
    RunnerFacts,
    UnitRecord,
)
from reconciler.ports import Clock, Executor, Lost, Running, Source, Store

FACTS_MAX_AGE = timedelta(seconds=15)


class Watcher(Protocol):
    """Who is told what happened, for logs and metrics. Nothing depends on it."""

    def job_started(self, dispatched: Dispatched) -> None:
        """A job was handed to the runner."""

    def job_ended(self, dispatched: Dispatched, result: Result) -> None:
        """A job has a result."""

    def unit_held(self, held: Held) -> None:
        """The reason why a unit is not being changed is another now."""

    def queued(self, waiting: list[Queued]) -> None:
        """The units that would start, had they a slot."""

    def runner_silent(self, error: PassError) -> None:
        """The runner did not answer."""


def new_job_id(now: datetime) -> JobId:
    """A name that sorts by time and never comes twice."""
    return JobId(f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(5)}")


@dataclass(slots=True)
class Runtime:
    """What a tick works with. `facts` is what the runner last said of itself; None while it does not answer."""

    source: Source
    store: Store
    executor: Executor
    clock: Clock
    watcher: Watcher
    capacity: Capacity
    fence: int
    new_id: Callable[[datetime], JobId] = new_job_id
    facts: RunnerFacts | None = None
    facts_at: datetime | None = None
    cancelled: set[JobId] = field(default_factory=set)


def tick(rt: Runtime) -> datetime | None:
    """Do everything that can be done now; return when the next thing falls due by itself."""
    now = rt.clock.now()
    _end_pauses(rt, now)
    desired = rt.source.latest()
    _refresh_facts(rt, now)
    collect(rt, desired)
    if desired is None:
        return None
    world = survey(desired, rt.store.ledger(), rt.facts, now)
    _cancel_paused(rt, world)
    waiting: list[Queued] = []
    for decision in list(decide(world, rt.capacity)):
        act(rt, desired, decision, waiting)
    rt.watcher.queued(waiting)
    return next_due(world)


def _end_pauses(rt: Runtime, now: datetime) -> None:
    for pause in rt.store.ledger().pauses:
        if now >= pause.until:
            rt.store.append(Resumed(pause.scope, "clock"), actor="clock")


def _refresh_facts(rt: Runtime, now: datetime) -> None:
    if rt.facts is not None and rt.facts_at is not None and now - rt.facts_at < FACTS_MAX_AGE:
        return
    try:
        rt.facts, rt.facts_at = rt.executor.describe(), now
    except PassError as error:
        rt.facts = None
        rt.watcher.runner_silent(error)


def collect(rt: Runtime, desired: Desired | None) -> None:
    """Journal the result of every job that ended, or was lost, since the last tick."""
    for record, dispatched in list(_running(rt)):
        try:
            state = rt.executor.poll(dispatched.job.id)
        except PassError as error:
            rt.watcher.runner_silent(error)
            return
        if isinstance(state, Running):
            continue
        result = state if isinstance(state, Result) else _lost(dispatched, state, rt.clock.now())
        _end(rt, desired, record, dispatched, result)


def _running(rt: Runtime) -> Iterator[tuple[UnitRecord, Dispatched]]:
    for record in list(rt.store.ledger().units.values()):
        if record.job is not None:
            yield record, record.job


def _lost(dispatched: Dispatched, state: Lost, now: datetime) -> Result:
    """The result of a job that left none. Its plan is never applied again: the next job plans afresh."""
    outcome = Outcome.UNCERTAIN if state.applying else Outcome.SUPERSEDED
    reason = "UncertainApply" if state.applying else "JobLost"
    message = (
        "The job died while it may have been applying; the next one refreshes and plans afresh."
        if state.applying
        else "The job never began to apply; it is decided afresh."
    )
    return Result(dispatched.job, outcome, reason, message, dispatched.at, now)


def _end(rt: Runtime, desired: Desired | None, record: UnitRecord, dispatched: Dispatched, result: Result) -> None:
    unit = desired.units.get(record.unit) if desired else None
    plan = schedule(unit, record, result)
    rt.store.append(JobEnded(dispatched, result, plan.retry_at, plan.next_check))
    rt.cancelled.discard(dispatched.job.id)
    rt.watcher.job_ended(dispatched, result)
    if result.applied is not None and plan.retry_at is not None:
        rt.facts_at = None  # the runner's host is another than we thought: ask again


def _cancel_paused(rt: Runtime, world: World) -> None:
    """A job that has not begun its apply when its unit is paused shall not begin it."""
    for record, dispatched in list(_running(rt)):
        stopped = world.ledger.frozen or any(is_pausing(p, record.unit, world.now) for p in world.ledger.pauses)
        if not stopped or dispatched.job.operation is Operation.PLAN or dispatched.job.id in rt.cancelled:
            continue
        try:
            rt.executor.cancel(dispatched.job.id)
        except PassError as error:
            rt.watcher.runner_silent(error)
            return
        rt.cancelled.add(dispatched.job.id)


def act(rt: Runtime, desired: Desired, decision: Decision, waiting: list[Queued]) -> None:
    """Carry out one decision: journal first."""
    match decision:
        case Dispatch():
            _dispatch(rt, desired, decision)
        case Held(unit, hold):
            rt.store.append(HoldChanged(unit, hold))
            rt.watcher.unit_held(decision)
        case Queued():
            waiting.append(decision)


def _dispatch(rt: Runtime, desired: Desired, decision: Dispatch) -> None:
    now = rt.clock.now()
    job = Job(rt.new_id(now), decision.operation, decision.unit.id, desired.commit, rt.fence)
    dispatched = Dispatched(job, decision.fingerprint, policy(decision.unit), decision.cause, now)
    rt.store.append(JobDispatched(dispatched))
    rt.watcher.job_started(dispatched)
    try:
        rt.executor.start(job)
    except PassError as error:
        rt.watcher.runner_silent(error)  # the next tick finds that the runner never heard of it

"""One job is one conversation: verify, plan, judge, check again that nothing has changed, apply exactly that plan.

It believes nothing but the names in the job. Whatever happens, it leaves a result, or a phase from which the next job
can tell what may have happened.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reconciler.decide import corrects
from reconciler.desired.fingerprint import cause_of, fingerprint
from reconciler.durable import FileLock
from reconciler.errors import HeldError, PassError, ReconcilerError, SupersededError, UnitError
from reconciler.judge import Bounds, judge, stricter
from reconciler.model import (
    Applied,
    Cause,
    Commit,
    Desired,
    Fingerprint,
    Job,
    Operation,
    Outcome,
    Phase,
    PlanSummary,
    Presence,
    Result,
    Unit,
    UnitId,
)
from reconciler.runner import checks, values
from reconciler.runner.allowances import open_now
from reconciler.runner.carry import name_again, recover, tainted, take_over
from reconciler.runner.engine import SensitiveOutputs
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Applying, UnitMemory, finished
from reconciler.runner.spool import JobFolder
from reconciler.runner.state import State
from reconciler.runner.talk import Talk


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

    def result(self, outcome: Outcome, reason: str, message: str, *, transient: bool = True) -> Result:
        """The job's result as of now."""
        return Result(
            job=self.job,
            outcome=outcome,
            reason=reason,
            message=message,
            started_at=self.started_at,
            ended_at=_now(),
            commit=self.commit,
            fingerprint=self.fingerprint,
            cause=self.cause,
            plan=self.plan,
            applied=self.applied,
            transient=transient,
            moved_from=self.moved_from,
        )


def run_job(host: Host, job: Job, folder: JobFolder, life: FileLock) -> None:
    """Carry the job out and journal its result. `life` is the folder's lock; the engine comes to hold it too."""
    progress = Progress(job, _now())
    try:
        result = _guarded(host, job, folder, progress, life)
    except _Uncertain as error:
        result = progress.result(Outcome.UNCERTAIN, "UncertainApply", str(error))
    folder.end(result)
    unfinished = host.memory.unit(job.unit).applying
    if unfinished is None or unfinished.job != job.id:  # else the workspace may hold the only good state
        folder.clean()


class _Uncertain(Exception):
    """The engine was killed in the middle of an apply."""


def _guarded(host: Host, job: Job, folder: JobFolder, progress: Progress, life: FileLock) -> Result:
    """The result, whatever is raised on the way."""
    try:
        with host.memory.unit_lock(job.unit) as lock:
            reason, message = _converse(host, job, folder, progress, (life, lock))
    except SupersededError as error:
        return progress.result(Outcome.SUPERSEDED, error.reason, str(error))
    except HeldError as error:
        return progress.result(Outcome.HELD, error.reason, str(error))
    except UnitError as error:
        return progress.result(Outcome.FAILED, error.reason, str(error), transient=error.transient)
    except ReconcilerError as error:
        return progress.result(Outcome.FAILED, error.reason, str(error))
    except OSError as error:
        return progress.result(Outcome.FAILED, "HostFault", f"The runner's host: {error}.")
    except _Uncertain:
        raise
    except Exception as error:  # a bug ends this job, and is logged whole; the unit's journal makes the next one safe
        traceback.print_exc()
        return progress.result(Outcome.FAILED, "InternalError", f"{type(error).__name__} in the runner; see its log.")
    return progress.result(Outcome.SUCCEEDED, reason, message)


def _converse(
    host: Host, job: Job, folder: JobFolder, progress: Progress, locks: tuple[FileLock, FileLock]
) -> tuple[str, str]:
    """The straight line. Returns reason and message of a success."""
    folder.begin(Phase.VERIFYING)
    host.memory.check_fence(job)
    desired = host.history.newest(job.commit, job.operation)
    unit = _resolve(desired, job, progress)
    hosted = checks.permitted(host, job.operation, unit)
    memory = _carry_over(host, hosted, unit, desired, progress)
    checks.still_unread(host.memory, unit)
    inputs = values.gather(host, unit)
    progress.fingerprint = fingerprint(unit, host.facts_of(hosted), hosted.part, inputs.seals)
    progress.cause = cause_of(memory.applied.fingerprint if memory.applied else None, progress.fingerprint)
    if unit.entry.moved_from is not None and memory.applied is None:
        return _only_shown(progress, f"The state of {unit.entry.moved_from} would move here.")
    if unit.presence is Presence.FORGOTTEN:
        return _forget(host, unit, memory, job, progress)
    state = hosted.backend.read(unit.id)
    checks.state_is_ours(memory, state)
    if unit.presence is Presence.ABSENT and (state is None or not state.resources):
        return _settle(host, unit, memory, state, progress, "Absent", "There is nothing to destroy.")
    memory = replace(memory, mark=state.mark if state else memory.mark)
    allowances = open_now(host.memory.trust().allowances.get(unit.id), _now())
    checks.no_downgrade(unit, memory, allowances)
    folder.begin(Phase.PLANNING)
    talk = Talk(host, unit, hosted, folder, inputs, state, locks)
    progress.plan = _plan(host, talk, memory, unit, allowances.replace)
    return _act(host, unit, memory, job, progress, talk)


def _resolve(desired: Desired, job: Job, progress: Progress) -> Unit:
    """The unit as it is desired now."""
    progress.commit = desired.commit
    problem = desired.broken.get(job.unit)
    if problem is not None:
        raise HeldError(problem.reason, str(problem))
    unit = desired.units.get(job.unit)
    if unit is None:
        raise SupersededError(f"{job.unit} has no entry at {desired.commit[:12]}.")
    return unit


def _carry_over(host: Host, hosted: Hosted, unit: Unit, desired: Desired, progress: Progress) -> UnitMemory:
    """The unit's memory, after an unfinished apply left its state behind and a rename was carried out."""
    memory = host.memory.unit(unit.id)
    if memory.moved_to is not None:
        memory = name_again(host, hosted, unit, memory, desired, progress.job.operation)
    old = unit.entry.moved_from
    if old is not None and memory.applied is None and progress.job.operation is Operation.APPLY:
        memory = take_over(host, hosted, unit, old, desired)
    if old is not None and old not in desired.units and host.memory.unit(old).moved_to == unit.id:
        progress.moved_from = old
    return recover(host, hosted, memory)


def _plan(host: Host, talk: Talk, memory: UnitMemory, unit: Unit, targets: tuple[str, ...]) -> PlanSummary:
    """Plan; once more if the module's outputs turn out to be sensitive, which the generated root must then say."""
    sensitive = memory.sensitive_outputs
    destroy = unit.presence is Presence.ABSENT
    try:
        return talk.plan(sensitive, destroy=destroy, targets=targets)
    except SensitiveOutputs as found:
        sensitive |= found.names
        host.memory.save(replace(host.memory.unit(unit.id), sensitive_outputs=sensitive))
        return talk.plan(sensitive, destroy=destroy, targets=targets)


def _act(host: Host, unit: Unit, memory: UnitMemory, job: Job, progress: Progress, talk: Talk) -> tuple[str, str]:
    """What follows from the plan."""
    plan, cause = progress.plan, progress.cause
    assert plan is not None and cause is not None  # noqa: S101 - set on the line before
    memory = replace(memory, sensitive_outputs=host.memory.unit(unit.id).sensitive_outputs)
    drifted = cause is Cause.DRIFT and memory.unfinished is None
    report = job.operation is Operation.PLAN or (drifted and not corrects(unit))
    if plan.empty and (not report or cause is Cause.DRIFT):
        state = talk.hosted.backend.read(unit.id)
        memory = replace(memory, corrected=None)
        if memory.applying is not None:  # an apply whose end nobody saw did all that it was allowed to
            host.history.spend(unit.id)
        return _settle(host, unit, memory, state, progress, "InSync", "The real world is as desired.")
    _judged(plan, _bounds(host, unit, memory), cause, unit)
    if report:
        return "Planned", f"{len(plan.changes)} objects would change."
    _check_again(host, unit, job, talk.folder)
    return _apply(host, unit, memory, job, progress, talk)


def _judged(plan: PlanSummary, bounds: Bounds, cause: Cause, unit: Unit) -> None:
    """Go on only with a plan that is within bounds. A looser limit cannot arrive together with what it lets through."""
    path, environment = unit.entry.place.path, unit.environment
    hold = judge(plan, bounds, cause, path)
    if hold is None:
        return
    soon = judge(plan, replace(bounds, limits=environment.limits), cause, path) is None
    hint = f" What {environment.place} says since this merge counts from the next one on." if soon else ""
    raise HeldError(hold.reason, hold.message + hint)


def _bounds(host: Host, unit: Unit, memory: UnitMemory) -> Bounds:
    trust, limits = host.memory.trust(), unit.environment.limits
    allowances = open_now(trust.allowances.get(unit.id), _now())
    return Bounds(
        limits=stricter(limits, trust.limits_before.get(unit.environment.name, limits)),
        open=allowances,
        presence=unit.presence,
        max_destroy=host.environment(unit.environment.name).max_destroy,
        tainted=memory.tainted,
        corrected=memory.corrected,
    )


def _check_again(host: Host, unit: Unit, job: Job, folder: JobFolder) -> None:
    """Right before the apply: nothing that allowed it has changed."""
    why = host.memory.paused()
    if why is not None:
        raise HeldError("Paused", f"The runner is paused on its host: {why}")
    if folder.cancelled():
        raise SupersededError("The job was cancelled before its apply began.")
    try:
        host.memory.check_fence(job)
    except PassError as error:
        raise SupersededError(str(error)) from error
    newest = host.history.newest(job.commit, job.operation).units.get(unit.id)
    if newest is None or newest.intent != unit.intent or newest.environment != unit.environment:
        raise SupersededError("A newer commit changes this unit.")


def _apply(host: Host, unit: Unit, memory: UnitMemory, job: Job, progress: Progress, talk: Talk) -> tuple[str, str]:
    """Apply exactly the plan that was judged. The intent is on disk before Terraform starts."""
    plan = progress.plan
    assert plan is not None  # noqa: S101 - there is no apply without one
    memory = replace(memory, unfinished=(memory.unfinished or frozenset()) | _reads(unit))
    host.memory.save(replace(memory, applying=Applying(job.id, _now(), plan.digest)))
    talk.folder.begin(Phase.APPLYING)
    ended = talk.apply()
    if ended.unsure is not None:
        raise _Uncertain(ended.unsure)
    state = talk.hosted.backend.read(unit.id)
    if ended.error is not None:
        mark = state.mark if state else memory.mark
        left = memory.tainted | tainted(state)
        host.memory.save(replace(memory, mark=mark, applying=None, tainted=left, corrected=None))
        raise ended.error
    corrected = plan.digest if progress.cause is Cause.DRIFT else None
    memory = replace(memory, corrected=corrected)
    host.history.spend(unit.id)
    return _settle(host, unit, memory, state, progress, "Applied", f"{len(plan.changes)} objects changed.")


def _settle(
    host: Host, unit: Unit, memory: UnitMemory, state: State | None, progress: Progress, reason: str, message: str
) -> tuple[str, str]:
    """Remember that the unit is as its fingerprint says."""
    assert progress.fingerprint is not None and progress.commit is not None  # noqa: S101 - resolved above
    progress.applied = Applied(
        job=progress.job.id,
        commit=progress.commit,
        at=_now(),
        fingerprint=progress.fingerprint,
        module=unit.pin.module,
        version=unit.pin.version,
        presence=unit.presence,
        reads=_reads(unit),
        outputs={name: host.memory.seal(v.value) for name, v in state.outputs.items()} if state else {},
        state=state.mark if state else None,
    )
    host.memory.save(finished(memory, progress.applied, memory.corrected))
    return reason, message


def _reads(unit: Unit) -> frozenset[UnitId]:
    """The units that must not go before this one."""
    return unit.reads | frozenset(unit.entry.depends_on)


def _forget(host: Host, unit: Unit, memory: UnitMemory, job: Job, progress: Progress) -> tuple[str, str]:
    """Let the objects go: the state is kept aside, nothing is destroyed."""
    if job.operation is Operation.PLAN:
        return _only_shown(progress, "The unit's objects would be let go.")
    _check_again(host, unit, job, host.spool.job(job.id))
    host.environment(unit.environment.name).backend.retire(unit.id)
    memory = replace(memory, mark=None)
    return _settle(
        host, unit, memory, None, progress, "Forgotten", "The objects are on their own; their state is kept aside."
    )


def _only_shown(progress: Progress, message: str) -> tuple[str, str]:
    """A plan of something that Terraform has no part in: no object changes."""
    progress.plan = PlanSummary((), (), outputs_changed=False, digest="")
    return "Planned", message


def _now() -> datetime:
    return datetime.now(UTC)

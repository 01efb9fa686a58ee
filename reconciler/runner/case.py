"""What one job does, step by step: verify, plan, judge, check again that nothing has changed, apply exactly that plan.

It believes nothing but the names in the job, and writes down what it is about to do before it does it.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.deciding.decide import corrects
from reconciler.deciding.judge import Bounds, Shown, judge, judge_letting_go, judge_review
from reconciler.desired.fingerprint import cause_of, fingerprint
from reconciler.desired.policy import LIMITS, from_the_next_merge_on
from reconciler.durable import FileLock
from reconciler.errors import HeldError, PassError, ReconcilerError, SupersededError, UnitError
from reconciler.model import (
    Allowances,
    Applied,
    Cause,
    Desired,
    Job,
    Operation,
    Phase,
    PlanSummary,
    Presence,
    ReviewMode,
    Unit,
    UnitId,
)
from reconciler.runner import adoption, caution, checks, claims, overdue, room, values, versions
from reconciler.runner.access.sts import Errand
from reconciler.runner.allowances import Allowed, open_now
from reconciler.runner.brought import Brought
from reconciler.runner.carry import name_again, recover, tainted, take_over
from reconciler.runner.holding import Hold, held
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Applying, UnitMemory, finished
from reconciler.runner.origin import origin
from reconciler.runner.progress import Progress, Said
from reconciler.runner.record import Change, Origin
from reconciler.runner.rules import judge_rules
from reconciler.runner.spool import JobFolder
from reconciler.runner.talk import Talk
from reconciler.runner.terraform.begun import boot
from reconciler.runner.terraform.engine import SensitiveOutputs
from reconciler.runner.terraform.state import State
from reconciler.runner.uncertain import look


class UncertainError(Exception):
    """The engine was killed in the middle of an apply, or could not write its state: nobody knows what it did."""


class Case:
    """One job's conversation about one unit. `progress` is what there is to tell, however it ends."""

    def __init__(
        self, host: Host, job: Job, folder: JobFolder, locks: tuple[FileLock, ...], progress: Progress
    ) -> None:
        """`locks`: those that any process of this job holds; the engine comes to hold them too.

        Raises:
            ReconcilerError: the job is not to be done at all: stale, unmerged, not allowed, or of a broken entry.
        """
        folder.begin(Phase.VERIFYING)
        host.memory.check_fence(job)
        desired = host.history.newest(job.commit, job.operation)
        self._host, self._job, self._folder, self._locks, self._progress = host, job, folder, locks, progress
        self._desired, self._unit = desired, _resolve(desired, job, progress)
        self._errand = Errand(self._unit.id, desired.commit, job.id)
        self._adopting: str | None = None  # the state that is planned before it is the unit's
        self._hosted: Hosted = checks.permitted(host, job.operation, self._unit, self._errand)

    def carry_out(self) -> Said:
        """Hold the state, and go on from where the last job ended.

        Raises:
            UncertainError: an apply was begun, and nobody knows what it did.
            ReconcilerError: a step refuses, or fails.
        """
        with self._held(self._unit.id) as self._hold:
            self._memory = self._carry_over(self._desired)
            self._allowed = self._open_lines()
            return self._converge()

    def _held(self, state: UnitId) -> AbstractContextManager[Hold]:
        return held(self._host, self._hosted.backend, state, self._job, unwanted=self._folder.cancelled)

    def _converge(self) -> Said:
        """The straight line. Raises as `carry_out`."""
        unit, memory, progress = self._unit, self._memory, self._progress
        checks.still_unread(self._host.memory, unit)
        caution.none_doubted(self._host, self._hosted, unit, self._desired)
        inputs = values.gather(self._host, unit, self._hosted, self._errand)
        progress.veil.learn(inputs.secrets)
        self._host.remember_secrets(self._hosted.name, inputs.sealed)
        part = inputs.part(self._hosted.part)
        progress.fingerprint = fingerprint(unit, self._host.facts_of(self._hosted), part, inputs.seals)
        progress.cause = cause_of(memory.applied.fingerprint if memory.applied else None, progress.fingerprint)
        if unit.entry.moved_from is not None and memory.applied is None:
            return self._only_shown(f"The state of {unit.entry.moved_from} would move here.")
        if unit.presence is Presence.FORGOTTEN:
            return self._forget(progress.cause)
        source = adoption.wanted(unit, memory)
        if source is not None and (shown := self._adopt(source, inputs)) is not None:
            return shown
        memory = self._memory
        state = self._ours(memory)
        progress.unexplained = self._host.record.seen(unit.id, state.mark if state else None, memory.mark, self._job.id)
        versions.engine_fits(self._host.engine, memory, state, self._host.accepted_engines)
        if unit.presence is Presence.ABSENT and (state is None or not state.resources):
            return self._settle(state, Said("Absent", "There is nothing to destroy."))
        self._memory = replace(memory, mark=state.mark if state else memory.mark)
        checks.no_downgrade(unit, memory, self._allowances())
        versions.not_yanked(unit, memory)
        room.enough(self._host, self._hosted, self._folder, state)
        overdue.extend(overdue.planning(unit.environment.timeouts.plan))
        self._folder.begin(Phase.PLANNING)
        with Talk(self._host, unit, self._hosted, self._folder, inputs, state, self._locks, progress.veil) as talk:
            progress.plan = plan = self._plan(talk)
            return self._act(talk, plan, progress.cause, state)

    # --- before the plan

    def _ours(self, memory: UnitMemory) -> State | None:
        """The unit's state, as this memory left it (`checks.state_is_ours`); where none is this memory's, that is what to say."""
        backend = self._hosted.backend
        try:
            state = backend.read(self._unit.id)
            checks.state_is_ours(memory, state)
        except UnitError as error:
            if error.reason not in ("StateLost", "StateInvalid"):
                raise
            held = claims.lost(self._host, self._hosted) if isinstance(error, HeldError) else None
            how = None if held else backend.restoring(self._unit.id)
            copy = f" The last good state was kept aside; this puts it back: `{how}`." if how else ""
            raise held or type(error)(error.reason, f"{error}{copy}") from None
        return state

    def _carry_over(self, desired: Desired) -> UnitMemory:
        """The unit's memory, after an unfinished apply left its state behind, maybe more, and a rename was carried out."""
        host, hosted, unit, operation = self._host, self._hosted, self._unit, self._job.operation
        memory = host.memory.unit(unit.id)
        old = unit.entry.moved_from
        if old is not None and memory.applied is None:
            checks.may_take(host, operation, host.memory.unit(old))
        if operation is Operation.APPLY and (memory.moved_to or (old and memory.applied is None)):
            self._still_allowed()
        if memory.moved_to is not None:
            memory = name_again(host, hosted, unit, memory, desired, operation, self._held, self._job.id)
        if old is not None and memory.applied is None and operation is Operation.APPLY:
            memory = take_over(host, hosted, unit, old, desired, self._held, self._job.id)
        if old is not None and old not in desired.units and host.memory.unit(old).moved_to == unit.id:
            self._progress.moved_from = old
        memory = recover(host, hosted, caution.since_restored(host, hosted, memory), self._hold)
        memory = look(host, hosted, unit, memory, self._progress, self._errand)
        memory = adoption.finish(host, hosted, memory, self._origin)
        return caution.newest_release(host, unit, memory, desired.commit)

    def _adopt(self, address: str, inputs: values.Inputs) -> Said | None:
        """Make a state that others made the unit's own, if a plan of a copy of it does no harm. None: go on with it.

        Raises:
            HeldError: see `adoption`; or the plan is not within bounds. UnitError: not now.
        """
        host, unit, folder, progress = self._host, self._unit, self._folder, self._progress
        source = adoption.read(host, self._hosted, unit, address)
        versions.engine_fits(host.engine, self._memory, source.found, host.accepted_engines)
        versions.not_yanked(unit, self._memory)
        room.enough(host, self._hosted, folder, source.wrapped)
        overdue.extend(overdue.planning(unit.environment.timeouts.plan))
        folder.begin(Phase.PLANNING)
        self._adopting = address
        veil = progress.veil
        with Talk(host, unit, self._hosted, folder, inputs, source.wrapped, self._locks, veil, copied=True) as talk:
            progress.plan = plan = self._plan(talk)
            self._judge(talk, plan, Cause.DESIRED)
            if not plan.empty:
                self._judge_rules(talk)
        if self._job.operation is Operation.PLAN:
            return Said("Planned", f"{source.told} would be adopted; {len(plan.changes)} objects would change.")
        self._check_again()
        if adoption.read(host, self._hosted, unit, address).says != source.says:
            what = f"{address} has changed since it was planned, so somebody still applies to it"
            raise UnitError("AdoptChanged", f"{what}. Stop that first; it is planned afresh by itself.", transient=True)
        self._hold.check()
        self._memory = adoption.take(host, self._hosted, unit, self._memory, source, self._origin(plan))
        folder.clean()
        return None

    def _forget(self, cause: Cause) -> Said:
        """Let the objects go: the state is kept aside, nothing is destroyed."""
        if self._job.operation is Operation.PLAN:
            return self._only_shown("The unit's objects would be let go.")
        shown = self._shown()
        hold = judge_letting_go(shown, self._review_mode(shown), cause, self._unit.entry.place.path)
        if hold is not None:
            raise HeldError(hold.reason, hold.message)
        self._check_again()
        self._hold.check()
        overdue.end()
        self._hosted.backend.retire(self._unit.id)
        self._host.record.forgotten(self._unit.id, self._memory.mark, self._origin())
        self._memory = replace(self._memory, mark=None, adopted=None)
        return self._settle(None, Said("Forgotten", "The objects are on their own; their state is kept aside."))

    def _only_shown(self, message: str) -> Said:
        """A plan of something that Terraform has no part in: no object changes."""
        self._progress.plan = PlanSummary((), (), outputs_changed=False, digest="")
        return Said("Planned", message)

    # --- the plan, and what follows from it

    def _plan(self, talk: Talk) -> PlanSummary:
        """Plan; once more if the module's outputs turn out to be sensitive, which the generated root must then say."""
        destroy = self._unit.presence is Presence.ABSENT
        sensitive, targets = self._memory.sensitive_outputs, self._allowances().replace
        settled = self._memory.unfinished is None and self._memory.applying is None
        look = settled and self._progress.cause is Cause.DRIFT
        try:
            return talk.plan(sensitive, destroy=destroy, targets=targets, look=look)
        except SensitiveOutputs as found:
            self._memory = replace(self._memory, sensitive_outputs=sensitive | found.names)
            known = self._host.memory.unit(self._unit.id)
            self._host.memory.save(replace(known, sensitive_outputs=self._memory.sensitive_outputs))
            return talk.plan(self._memory.sensitive_outputs, destroy=destroy, targets=targets, look=look)

    def _act(self, talk: Talk, plan: PlanSummary, cause: Cause, state: State | None) -> Said:
        """Nothing to do, a hold, a report, or an apply."""
        drifted = cause is Cause.DRIFT and self._memory.unfinished is None
        report = self._job.operation is Operation.PLAN or (drifted and not corrects(self._unit))
        if plan.empty and (not report or cause is Cause.DRIFT):
            return self._in_order()
        self._judge(talk, plan, cause)
        self._judge_rules(talk)
        if report:
            return Said("Planned", f"{len(plan.changes)} objects would change.")
        self._check_again()
        talk.check_packages()
        self._allowed = self._open_lines()  # what a newer commit took back does not count any more
        checks.no_downgrade(self._unit, self._memory, self._allowances())
        self._judge(talk, plan, cause)
        makes, progress = talk.creations, self._progress
        self._memory = caution.nothing_left(
            self._host, self._hosted, self._unit, self._memory, makes, progress, self._errand
        )
        room.enough(self._host, self._hosted, self._folder, state)
        self._hold.check()
        self._hosted.backend.keep(self._unit.id)
        return self._apply(talk, plan, cause)

    def _in_order(self) -> Said:
        self._memory = replace(self._memory, corrected=None)
        if self._memory.applying is not None:  # an apply whose end nobody saw did all that it was allowed to
            self._host.history.spend(self._unit.id, self._memory.applying.opened)
        state = self._hosted.backend.read(self._unit.id)
        return self._settle(state, self._adopted(0) or Said("InSync", "The real world is as desired."))

    def _adopted(self, changed: int) -> Said | None:
        """How the job that brings an adoption to its end sums it up; None: there is none."""
        source = adoption.unsettled(self._unit, self._memory)
        return Said("Adopted", f"{source} is adopted; {changed} objects changed.") if source else None

    def _judge(self, talk: Talk, plan: PlanSummary, cause: Cause) -> None:
        """Go on only with a plan that is within bounds. A looser limit cannot arrive together with what it lets through.

        Raises:
            HeldError: it is not.
        """
        path, environment, bounds = self._unit.entry.place.path, self._unit.environment, self._bounds()
        hold = judge(plan, bounds, cause, path)
        if hold is None:
            return self._judge_review(talk, plan, cause)
        says = environment.says.limits if environment.says else environment.limits
        soon = judge(plan, replace(bounds, limits=says), cause, path) is None
        raise HeldError(hold.reason, hold.message + (from_the_next_merge_on(environment, *LIMITS) if soon else ""))

    def _judge_review(self, talk: Talk, plan: PlanSummary, cause: Cause) -> None:
        """What nobody was shown before it was merged does not happen. Raises HeldError."""
        shown = self._shown()
        hold = judge_review(
            plan,
            shown,
            self._review_mode(shown),
            cause,
            self._unit.entry.place.path,
            drifted=talk.drifted,
            tainted=self._memory.tainted,
        )
        if hold is not None:
            raise HeldError(hold.reason, hold.message)

    def _judge_rules(self, talk: Talk) -> None:
        """The host's rules and the environment's let the plan pass; neither changes while a job lasts. Raises HeldError."""
        hold = judge_rules(talk.said, self._unit, self._hosted.rules)
        if hold is not None:
            raise HeldError(hold.reason, hold.message)

    def _brought(self) -> Brought:
        progress, applied = self._progress, self._memory.applied
        assert progress.commit is not None  # noqa: S101 - every job has one since it was resolved
        return Brought(self._host, self._unit, progress.commit, applied.commit if applied else None)

    def _shown(self) -> Shown | None:
        found = self._progress.fingerprint
        return self._brought().shown(found.upstream if found else "")

    def _review_mode(self, shown: Shown | None) -> ReviewMode:
        assert self._progress.commit is not None  # noqa: S101 - as above
        known = shown is not None
        return caution.review_mode(self._host, self._unit, self._memory, self._progress.commit, shown=known)

    def _open_lines(self) -> Allowed:
        return self._host.memory.trust().allowances.get(self._unit.id, Allowed())

    def _allowances(self) -> Allowances:
        return open_now(self._allowed, _now())

    def _bounds(self) -> Bounds:
        return Bounds(
            limits=self._unit.environment.limits,
            open=self._allowances(),
            presence=self._unit.presence,
            max_destroy=self._hosted.max_destroy,
            tainted=self._memory.tainted,
            corrected=self._memory.corrected,
            adopting=self._adopting or adoption.unsettled(self._unit, self._memory),
        )

    def _still_allowed(self) -> None:
        """Right before anything is changed: nobody has said stop.

        Raises:
            HeldError: the runner was paused. SupersededError: the job was cancelled, or its controller replaced.
        """
        why = self._host.memory.paused()
        if why is not None:
            raise HeldError("Paused", f"The runner is paused on its host: {why}")
        checks.not_frozen(self._unit.environment, _now())
        claims.ensure(self._host, self._hosted)
        if self._folder.cancelled():
            raise SupersededError("The job was cancelled before its apply began.")
        try:
            self._host.memory.check_fence(self._job)
        except PassError as error:
            raise SupersededError(str(error)) from error

    def _check_again(self) -> None:
        """Right before the world is changed: nothing that allowed it has changed.

        Raises:
            HeldError: see `_still_allowed`. SupersededError: that, or a newer commit changes the unit.
        """
        self._still_allowed()
        versions.engine_unchanged(self._host.engine)
        host, job, unit = self._host, self._job, self._unit
        newest = host.history.newest(job.commit, job.operation, since=time.time()).units.get(unit.id)
        if newest is None or newest.intent != unit.intent or newest.environment != unit.environment:
            raise SupersededError("A newer commit changes this unit.")

    # --- the apply

    def _apply(self, talk: Talk, plan: PlanSummary, cause: Cause) -> Said:
        """Apply exactly the plan that was judged. The intent is on disk before Terraform starts."""
        overdue.end()
        unfinished = (self._memory.unfinished or frozenset()) | _reads(self._unit)
        self._memory = replace(self._memory, unfinished=unfinished, engine=versions.mark_of(self._host.engine))
        begun = self._host.record.intent(self._unit.id, self._memory.mark, self._origin(plan))
        applying = Applying(self._job.id, _now(), plan.digest, self._allowed.opened, begun, talk.creations, boot())
        self._host.memory.save(replace(self._memory, applying=applying))
        try:
            self._folder.begin(Phase.APPLYING, secured=talk.secured)
        except ReconcilerError:  # nothing was applied: no job need look for what might have been made
            self._host.record.ended(self._unit.id, begun, self._job.id, self._memory.mark, Change.FAILED)
            self._host.memory.save(self._memory)
            raise
        ended = talk.apply(self._hold.alone)
        if ended.unsure is not None:
            self._hold.keep()  # nobody shall write before the next job has brought back what this one left
            raise UncertainError(ended.unsure)
        state = self._hosted.backend.read(self._unit.id)
        change = Change.FAILED if ended.error is not None else Change.APPLIED
        self._host.record.ended(self._unit.id, begun, self._job.id, state.mark if state else None, change)
        if ended.error is not None:
            self._remember_half(state)
            raise ended.error
        self._memory = replace(self._memory, corrected=plan.digest if cause is Cause.DRIFT else None)
        self._host.history.spend(self._unit.id, self._allowed.opened)
        with suppress(UnitError, OSError):  # the one of before is there
            self._hosted.backend.keep(self._unit.id)
        changed = len(plan.changes)
        return self._settle(state, self._adopted(changed) or Said("Applied", f"{changed} objects changed."))

    def _origin(self, plan: PlanSummary | None = None) -> Origin:
        """What leads to the change that is about to be made."""
        progress = self._progress
        assert progress.commit is not None  # noqa: S101 - every job has one since it was resolved
        bounds = self._bounds() if plan else None
        return origin(self._host, self._job, self._unit, progress.commit, progress.cause, plan, bounds)

    def _remember_half(self, state: State | None) -> None:
        """An apply that failed half way: its state is known, and what it left tainted is its own to replace."""
        memory = self._memory
        mark, left = state.mark if state else memory.mark, memory.tainted | tainted(state)
        self._host.memory.save(replace(memory, mark=mark, applying=None, tainted=left, corrected=None))

    def _settle(self, state: State | None, said: Said) -> Said:
        """Remember that the unit is as its fingerprint says."""
        unit, progress = self._unit, self._progress
        assert progress.fingerprint is not None  # noqa: S101 - every way here leads past it
        assert progress.commit is not None  # noqa: S101
        seal = self._host.memory.seal
        progress.applied = Applied(
            job=self._job.id,
            commit=progress.commit,
            at=_now(),
            fingerprint=progress.fingerprint,
            module=unit.pin.module,
            version=unit.pin.version,
            presence=unit.presence,
            reads=_reads(unit),
            outputs={name: seal(output.value) for name, output in state.outputs.items()} if state else {},
            state=state.mark if state else None,
        )
        self._memory = replace(self._memory, release=versions.release_of(unit.pin, self._memory.release))
        merged = self._brought().merged()
        self._host.memory.save(finished(self._memory, progress.applied, self._memory.corrected))
        self._host.reviews.applied(unit.id, merged)  # the old name may be another unit's by now
        return said


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


def _reads(unit: Unit) -> frozenset[UnitId]:
    """The units that must not go before this one."""
    return unit.reads | frozenset(unit.entry.depends_on)


def _now() -> datetime:
    return datetime.now(UTC)

"""The job of a pull request: shows what it would do to one unit, and remembers it. It changes nothing, and holds nobody up.

It believes nothing but the names in the job: the forge, the heads, the merge and the unit are all looked up here. It does
not hold the unit, takes no lock of the state and writes no memory but the review's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from reconciler.branch.protected import Basis
from reconciler.branch.pulls import Proposal, ineligible
from reconciler.deciding.judge import Bounds, judge
from reconciler.desired.fingerprint import fingerprint
from reconciler.durable import FileLock
from reconciler.errors import HeldError, PassError, SupersededError, UnitError
from reconciler.forge.facts import Pull
from reconciler.model import Allowances, Cause, Fingerprint, Hold, Job, Operation, Phase, PlanSummary, Presence, Unit
from reconciler.runner import adoption, caution, checks, overdue, values, versions
from reconciler.runner.access.sts import Errand
from reconciler.runner.allowances import Lines, fold, open_now
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import UnitMemory
from reconciler.runner.progress import Progress, Said
from reconciler.runner.reviews import Review, Scope
from reconciler.runner.rules import judge_rules
from reconciler.runner.spool import JobFolder
from reconciler.runner.talk import Talk
from reconciler.runner.terraform.engine import SensitiveOutputs
from reconciler.runner.terraform.state import State

PLANNED = "Planned"  # the reason of a plan that nothing would hold; else it is what would
AWAITED = ("DependencyNotReady", "OutputMissing")  # what a value that is not there yet is called
FOLLOWS = "Its plan follows the units that it reads: they change, or do not exist yet. It may only create and update."


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the unit's objects are now: its memory, and the name that its state has. `adopted`: what the state is from, if it is not
    the unit's yet.
    """

    memory: UnitMemory
    state: State | None
    adopted: adoption.Source | None = None


class Showing:
    """One job's look at one unit of one open pull request."""

    def __init__(self, host: Host, job: Job, folder: JobFolder, life: FileLock, progress: Progress) -> None:
        """`life`: the job's lock, which the engine comes to hold too. Raises ReconcilerError: it is not to be done."""
        folder.begin(Phase.VERIFYING)
        host.memory.check_fence(job)
        if job.operation is not Operation.PLAN or job.pull is None:
            raise HeldError("NotAllowed", "A pull request is planned and never applied: merge it first.")
        self._host, self._job, self._folder, self._life, self._progress = host, job, folder, life, progress
        self._number = job.pull
        self._pull = self._open_pull()
        self._basis = _basis(host)
        progress.commit = self._basis.desired.commit
        self._proposal = host.proposals.of(self._pull, host.forge.head_ref(self._number), self._basis)
        self._look_at_all()
        self._unit = _planned(self._proposal, job)
        self._errand = Errand(self._unit.id, self._pull.head, job.id)
        self._hosted: Hosted = checks.permitted(host, job.operation, self._unit, self._errand, pulls=True)

    def carry_out(self) -> Said:
        """Plan, and remember what was shown. Raises ReconcilerError: a step refuses, or fails."""
        unit = self._unit
        if unit.presence is Presence.FORGOTTEN:
            return self._keep(_nothing(), None, "The unit's objects would be let go.")
        checks.still_unread(self._host.memory, unit)
        try:
            inputs = values.gather(self._host, unit, self._hosted, self._errand)
        except UnitError as error:
            if error.reason in AWAITED and unit.id in self._proposal.follows:
                return self._keep(None, None, f"{FOLLOWS} ({error})")
            raise
        self._progress.veil.learn(inputs.secrets)
        facts = self._host.facts_of(self._hosted)
        found = fingerprint(unit, facts, inputs.part(self._hosted.part), inputs.seals)
        plan, message, hold = self._plan(inputs)
        self._progress.plan = plan
        said = self._keep(
            plan, found, f"{message} It would be held ({hold.reason}): {hold.message}" if hold else message
        )
        return replace(said, reason=hold.reason) if hold and said.reason == PLANNED else said

    # --- verifying

    def _look_at_all(self) -> None:
        """Remember which units the pull request touches: a last push must not bring another along."""
        proposal = self._proposal
        if proposal.refused is None:
            touched = frozenset(proposal.units) | frozenset(proposal.untold)
            self._host.reviews.looked(Scope(self._number, self._basis.desired.commit, touched))

    def _open_pull(self) -> Pull:
        """The pull request as this plane's own forge describes it now."""
        pulls = self._host.forge.open_pulls()
        self._open = frozenset(one.number for one in pulls)
        pull = next((one for one in pulls if one.number == self._number), None)
        if pull is None:
            raise SupersededError(f"Pull request #{self._number} is not open, or is a draft.")
        refused = ineligible(pull, self._host.config.environments_repo.branch)
        if refused is not None:
            raise HeldError(refused.reason, refused.message)
        if pull.head != self._job.commit:
            raise SupersededError(f"Pull request #{self._number} is at {pull.head[:12]} by now.")
        return pull

    def _source(self) -> _Source:
        """The objects that the plan is of: its own, or those of the unit whose state would move here."""
        host, unit = self._host, self._unit
        memory = host.memory.unit(unit.id)
        if memory.moved_to is not None:  # the state that once had this name has another
            memory = UnitMemory(unit.id)
        old = unit.entry.moved_from
        if old is not None and memory.applied is None:
            memory = host.memory.unit(old)
            checks.may_take(host, Operation.PLAN, memory, pulls=True)
        if memory.applying is not None:
            raise UnitError(
                "UnitBusy", f"{memory.unit} is being changed; its plan is shown afterwards.", transient=True
            )
        memory = caution.since_restored(host, self._hosted, memory)
        if (address := adoption.wanted(unit, memory)) is not None:
            source = adoption.read(host, self._hosted, unit, address)
            versions.engine_fits(host.engine, memory, source.found, host.accepted_engines)
            return _Source(memory, source.wrapped, source)
        state = self._hosted.backend.read(memory.unit)
        checks.state_is_ours(memory, state)
        versions.engine_fits(host.engine, memory, state, host.accepted_engines)
        return _Source(memory, state)

    def _would_open(self) -> Allowances:
        """The allowances as they are once the pull request is merged."""
        unit, now = self._unit, _now()
        known = self._host.memory.trust().allowances
        lines = {unit.id: Lines(unit.entry.allowances, unit.entry.moved_from)}
        return open_now(fold(known, lines, now).get(unit.id), now)

    # --- planning

    def _plan(self, inputs: values.Inputs) -> tuple[PlanSummary, str, Hold | None]:
        """The plan, what is said of it, and what would hold it after the merge: what is known of that by now."""
        source = self._source()
        if self._unit.presence is Presence.ABSENT and (source.state is None or not source.state.resources):
            return _nothing(), "There is nothing to destroy.", None
        allowed = self._would_open()
        checks.no_downgrade(self._unit, source.memory, allowed)
        versions.not_yanked(self._unit, source.memory)
        self._still_wanted()
        overdue.extend(overdue.planning(self._unit.environment.timeouts.plan))
        self._folder.begin(Phase.PLANNING)
        with Talk(
            self._host, self._unit, self._hosted, self._folder, inputs, source.state, (self._life,),
            self._progress.veil, stored_as=source.memory.unit, copied=source.adopted is not None, merged=False,
        ) as talk:  # fmt: skip
            plan = self._converse(talk, source.memory.sensitive_outputs, allowed)
            hold = judge(plan, self._bounds(source, allowed), Cause.DESIRED, self._unit.entry.place.path)
            hold = hold or (judge_rules(talk.said, self._unit, self._hosted.rules) if not plan.empty else None)
        first = f"{source.adopted.told} would be adopted; " if source.adopted else ""
        return plan, f"{first}{len(plan.changes)} objects would change.", hold

    def _bounds(self, source: _Source, allowed: Allowances) -> Bounds:
        return Bounds(
            limits=self._unit.environment.limits,
            open=allowed,
            presence=self._unit.presence,
            max_destroy=self._hosted.max_destroy,
            tainted=source.memory.tainted,
            adopting=source.adopted.address if source.adopted else None,
        )

    def _converse(self, talk: Talk, sensitive: frozenset[str], allowed: Allowances) -> PlanSummary:
        destroy = self._unit.presence is Presence.ABSENT
        try:
            return talk.plan(sensitive, destroy=destroy, targets=allowed.replace)
        except SensitiveOutputs as found:
            return talk.plan(sensitive | found.names, destroy=destroy, targets=allowed.replace)

    def _still_wanted(self) -> None:
        if self._folder.cancelled():
            raise SupersededError("The pull request was closed, merged or pushed to; its plan is not wanted any more.")

    # --- remembering

    def _keep(self, plan: PlanSummary | None, found: Fingerprint | None, message: str) -> Said:
        """Remember what is shown. `plan` is None where nothing can be known yet."""
        self._still_wanted()
        host, unit, pull = self._host, self._unit, self._open_pull()
        applied = host.memory.unit(unit.id).applied
        follows = plan is None or unit.id in self._proposal.follows
        review = Review(
            unit=unit.id,
            pull=pull.number,
            head=pull.head,
            base=self._basis.desired.commit,
            intent=unit.intent,
            at=_now(),
            changes=plan.changes if plan else (),
            follows=follows,
            upstream=found.upstream if found else "",
        )
        known = host.reviews.of(unit.id)
        since = applied.commit if applied else min(known, key=lambda r: r.at).base if known else review.base
        host.reviews.add(review, self._open, host.history.merged_since(since, review.base))
        self._progress.plan = self._progress.plan or _nothing()
        if follows and plan is not None:
            message = f"{message} {FOLLOWS}"
        return Said("FollowsUpstream" if follows else PLANNED, message)


def _basis(host: Host) -> Basis:
    """This plane's own accepted head, fetched a moment ago."""
    known = host.memory.trust().commit
    if known is None:
        raise PassError(
            "NothingAccepted", "This runner has not accepted any commit yet: merge, or wait for its first job."
        )
    return host.history.basis(host.history.newest(known, Operation.PLAN, since=time.time()).commit)


def _planned(proposal: Proposal, job: Job) -> Unit:
    """The unit, as the pull request would make it."""
    if proposal.refused is not None:
        raise HeldError(proposal.refused.reason, proposal.refused.message)
    why = proposal.untold.get(job.unit)
    if why is not None:
        raise HeldError(why.reason, why.message)
    unit = proposal.units.get(job.unit)
    if unit is None:
        raise SupersededError(f"Pull request #{job.pull} does not change {job.unit}.")
    return unit


def _nothing() -> PlanSummary:
    return PlanSummary((), (), outputs_changed=False, digest="")


def _now() -> datetime:
    return datetime.now(UTC)

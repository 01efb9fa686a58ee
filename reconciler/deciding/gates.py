"""The gates: small pure functions that may hold one unit back, each with a reason a person can act on.

The order of `GATES` is the order in which they are asked; the first hold is the one that is shown. Absence of proof is a hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.actual import breakglass
from reconciler.actual.ledger import is_pausing
from reconciler.deciding import promotion as promotion_rules
from reconciler.deciding.judge import REVIEW
from reconciler.desired import freeze
from reconciler.desired.policy import class_mismatch, class_of, from_the_next_merge_on
from reconciler.desired.template import spell
from reconciler.model import (
    Aftermath,
    Cause,
    Desired,
    Failure,
    Fingerprint,
    Hold,
    Ledger,
    Operation,
    Presence,
    RunnerFacts,
    SecretReference,
    Unit,
    UnitId,
    UnitRecord,
)


@dataclass(frozen=True, slots=True)
class World:
    """All that a decision may look at, fixed for one pass.

    `facts` is what the runner said last, and `answers` whether it does now. `expected` is the fingerprint that each unit shall have; None where an input does not exist yet. `readers` maps a
    unit to those that, as applied, must go before it. `users` says who runs which code, for promotions. `holds` is what this pass has decided so far, upstream first; of the
    others the ledger has what the last one did. `faults` are bugs that were found in working out what a unit shall be.
    """

    desired: Desired
    ledger: Ledger
    facts: RunnerFacts | None
    expected: Mapping[UnitId, Fingerprint | None]
    readers: Mapping[UnitId, Collection[UnitId]]
    now: datetime
    answers: bool = True
    users: promotion_rules.Users = field(default_factory=dict)
    holds: Mapping[UnitId, Hold | None] = field(default_factory=dict)
    faults: Mapping[UnitId, Exception] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Need:
    """What a unit needs, were no gate in the way. `fingerprint` is None where it cannot be known yet."""

    operation: Operation
    fingerprint: Fingerprint | None
    cause: Cause


EVERY_UNIT = UnitId("*")  # no unit is called so

Gate = Callable[[World, Unit, UnitRecord, Need], Hold | None]


def policy(unit: Unit) -> str:
    """Digest of what a plan is judged by and a fingerprint does not hold: the environment's policy, and allowances.

    A held unit is tried again as soon as either changes: so also with the merge from which on a looser limit counts.
    """
    environment, allow = unit.environment, unit.entry.allowances
    limits, modes = environment.limits, (class_of(environment), environment.drift.value, environment.review.value)
    facts: tuple[object, ...] = (
        limits.destroy, limits.recreate, sorted(limits.free_replace), modes, allow.destroy, allow.downgrade
    )  # fmt: skip
    if environment.rules:  # without rules the digest is what it was before there were any
        facts += (environment.rules,)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def history(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """A rewritten history stops every apply; plans go on at the last good commit."""
    return world.ledger.frozen


def paused(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """An admin said stop."""
    for pause in world.ledger.pauses:
        if is_pausing(pause, unit.id, world.now):
            until = pause.until.strftime("%Y-%m-%d %H:%M UTC")
            what = f"{pause.owner} paused {pause.scope} until {until}: {pause.reason}"
            return Hold("Paused", f"{what}. `reconciler resume {pause.scope}` ends it sooner.", plans=True)
    return None


def break_glass(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """Somebody works by hand: nothing is put back under their hands."""
    session = breakglass.session_over(world.ledger.sessions, breakglass.names_of(unit, record))
    if session is None:
        return None
    what = (
        f"{session.owner} works by hand in {session.scope} until {session.until:%Y-%m-%d %H:%M UTC}: {session.reason}"
    )
    how = f"`reconciler break-glass close {session.scope}` ends it sooner"
    return Hold(breakglass.OPEN, f"{what}. {how}; what differs then is not put back by itself.", plans=True)


def after_break_glass(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """What was done by hand stays until it is merged, or put back by hand, or an admin gives it up."""
    source = world.ledger.units.get(unit.entry.moved_from) if unit.entry.moved_from and record.applied is None else None
    mark = record.aftermath or (source.aftermath if source is not None else None)
    if mark is None or (mark.accepted and record.aftermath is None):
        return None  # a state that is yet to move is looked at where it comes to
    session = mark.session
    by = f"{session.owner}'s break-glass session of {session.scope} ended at {mark.ended_at:%Y-%m-%d %H:%M UTC}"
    return Hold(breakglass.AFTER, f"{by} ({session.reason}){_what_then(unit, mark)}", plans=True)


def _what_then(unit: Unit, mark: Aftermath) -> str:
    if not mark.looked and unit.entry.moved_from is None:
        return "; no plan since then has come to its end, and nothing is applied before one has."
    codify = f"merge what was done by hand, or put it back and run `reconciler reconcile {unit.id}`"
    accept = f"`reconciler break-glass close {unit.id} --accept-loss --reason R` lets the next apply put it back"
    if unit.presence is not Presence.PRESENT:
        return f", and an entry that goes is never in sync: {accept}."
    return f", and the unit is not in sync since (`reconciler diff {unit.id}`): {codify}; or {accept}."


def frozen(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """Nothing is applied inside a freeze window; a look, or a plan, is no apply."""
    environment = unit.environment
    if not environment.freeze or need.operation is Operation.PLAN:
        return None
    look = freeze.outlook(environment.freeze, world.now)
    if look.window is None:
        return None
    return Hold("FreezeWindow", freeze.told(look) + from_the_next_merge_on(environment, "freeze"), plans=True)


def hosted(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """The runner answers, knows the environment, and agrees on its class."""
    if world.facts is None or not world.answers:
        return Hold("RunnerUnavailable", "The runner does not answer. Start it, or see executor in reconciler.yaml.")
    name = unit.environment.name
    host = world.facts.environments.get(name)
    if host is None:
        return Hold("EnvironmentNotHosted", f"The runner's runner.yaml does not list {name}; add it there.")
    if its := class_mismatch(unit.environment, host.klass):
        what = f"environment.yaml says class {its}, the runner's host says {host.klass}; the host wins."
        return Hold("PolicyMismatch", what + from_the_next_merge_on(unit.environment, "class"))
    return None


def yanked(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """A yanked version is not put to new use. What already runs on it stays, and may be destroyed with it."""
    pin = unit.pin
    source = world.ledger.units.get(unit.entry.moved_from) if unit.entry.moved_from else None
    applied = record.applied or (source.applied if source is not None else None)  # a new name is no new use
    exists = applied is not None and applied.presence is Presence.PRESENT
    in_use = exists and applied is not None and (applied.module, applied.version) == (pin.module, pin.version)
    if pin.yanked is None or in_use or unit.presence is not Presence.PRESENT:
        return None
    return Hold("Yanked", f"{pin.module} {pin.version} was yanked: {pin.yanked}. Use another version.")


def moving(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """A unit that takes over another's state waits for the other's job to end."""
    source = world.ledger.units.get(unit.entry.moved_from) if unit.entry.moved_from else None
    if record.applied is None and source is not None and source.job is not None:
        return Hold("DependencyNotReady", f"{source.unit}, whose state moves here, has a job running.")
    return None


def dependency(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """What the unit reads, or must come after, is as it shall be. Nothing is ever mocked."""
    if unit.presence is not Presence.PRESENT or (need.cause.is_look and need.fingerprint is not None):
        return None
    for upstream in sorted(unit.upstream):
        if _goes(world, upstream):
            continue  # the end of an environment's unit is no start of another's: that one may still be in its way
        why = _unready(world, upstream)
        if why:
            message = f"{upstream} {why}; this unit follows it."
            known = need.fingerprint is not None
            return Hold("DependencyNotReady", message, plans=known and _stuck(world, upstream))
    return None if need.fingerprint is not None else _missing_output(world, unit)


def _stuck(world: World, upstream: UnitId) -> bool:
    """Whether the upstream unit waits for a person, so that a plan of what follows it is worth a slot meanwhile."""
    if upstream in world.desired.broken:
        return True
    record = world.ledger.units.get(upstream) or UnitRecord(upstream)
    hold = world.holds.get(upstream, record.hold)
    return record.failure is not None or (hold is not None and hold.reason != "DependencyNotReady")


def _goes(world: World, upstream: UnitId) -> bool:
    unit = world.desired.units.get(upstream)
    return unit is not None and unit.presence is not Presence.PRESENT


def _unready(world: World, upstream: UnitId) -> str | None:
    """Why an upstream unit is not in order, as the end of a sentence that starts with its name."""
    problem = world.desired.broken.get(upstream)
    if problem is not None:
        return f"is broken ({problem.place}: {problem.message})"
    record = world.ledger.units.get(upstream)
    if record is None or record.applied is None:
        return _failed(record) or "has not been applied yet"
    if record.applied.fingerprint != world.expected.get(upstream):
        return _failed(record) or "has a change of its own to apply first"
    if _turning(record):
        return "is being changed to what another commit said"
    return (_failed(record) or "is half done") if record.unfinished is not None else None


def _turning(record: UnitRecord) -> bool:
    """Whether the unit is as it shall be, and a job is at work that was started for something else."""
    job, applied = record.job, record.applied
    if job is None or applied is None or job.job.operation is Operation.PLAN:
        return False
    return job.fingerprint != applied.fingerprint


def _failed(record: UnitRecord | None) -> str | None:
    if record is None or record.failure is None:
        return None
    return f"failed ({record.failure.reason}: {record.failure.message})"


def _missing_output(world: World, unit: Unit) -> Hold:
    for reference in sorted(unit.references, key=lambda r: (r.unit, r.output)):
        record = world.ledger.units.get(reference.unit)
        applied = record.applied if record else None
        if applied is None or reference.output not in applied.outputs:
            has = ", ".join(sorted(applied.outputs)) if applied and applied.outputs else "none"
            what = f"{reference.unit} has no output {reference.output!r}; its outputs are: {has}."
            return Hold("OutputMissing", f"{unit.entry.at(spell(reference))}: {what}")
    host = world.facts.environments.get(unit.environment.name) if world.facts else None
    names = sorted(unit.secrets - host.secrets.keys() if host else unit.secrets)
    place = unit.entry.at(spell(SecretReference(names[0])))
    what = f"the host's runner.yaml lists no secret of these names: {', '.join(names)}; add them there."
    return Hold("SecretMissing", f"{place}: {what}")


def still_referenced(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """Nothing goes while something that is applied still reads it."""
    if unit.presence is Presence.PRESENT:
        return None
    names = {unit.id, unit.entry.moved_from or unit.id, EVERY_UNIT}  # what read it under its former name reads it still
    readers = {reader for name in names for reader in world.readers.get(name, ())} - names
    if not readers:
        return None
    who = ", ".join(sorted(readers))
    return Hold("StillReferenced", f"{who} still reads this unit; remove the reference, or destroy the reader, first.")


def promotion(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """Code enters only after it was in order where it comes from. Changes of inputs are not held by this."""
    if need.operation is Operation.PLAN or not unit.environment.promotion:
        return None
    sight = promotion_rules.Sight(world.ledger, world.expected, world.users, world.now)
    why = promotion_rules.why_not(sight, unit, record)
    if why is None:
        return None
    how = f" `promotion_skip: <reason>` in {unit.entry.place.path} lets it in now."
    return Hold("PromotionPending", f"{why}{how}{from_the_next_merge_on(unit.environment, 'promotion')}", plans=True)


def back_off(world: World, unit: Unit, record: UnitRecord, need: Need) -> Hold | None:
    """The same thing that failed is not tried again at once. New input is."""
    failure = record.failure
    if failure is None or not failure.waits(world.now):
        return None
    if (failure.fingerprint, failure.policy) != (need.fingerprint, policy(unit)):
        return None
    if failure.reason in REVIEW and failure.commit not in (None, world.desired.commit):
        return None  # what was merged since may have been shown, and a comment changes no fingerprint
    return Hold(failure.reason, f"{failure.message} ({_next_try(unit, failure)})")


def _next_try(unit: Unit, failure: Failure) -> str:
    if failure.retry_at is not None:
        return f"attempt {failure.count}; next at {failure.retry_at:%H:%M:%S UTC}"
    what = "the entry, its module, environment.yaml, the engine, the host or what it reads"
    return f"it waits for a change of {what}; `reconciler reconcile {unit.id}` tries it now"


GATES: tuple[Gate, ...] = (
    history,
    paused,
    break_glass,
    after_break_glass,
    frozen,
    hosted,
    yanked,
    moving,
    dependency,
    still_referenced,
    promotion,
    back_off,
)

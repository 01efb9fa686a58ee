"""What to do about every unit now: pure, so that the same facts always give the same answer."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

import semver

from reconciler.deciding.gates import GATES, Need, World
from reconciler.desired.fingerprint import cause_of, fingerprint
from reconciler.errors import INTERNAL, bug
from reconciler.model import (
    LONGEST_REST,
    Applied,
    Cause,
    Desired,
    DriftMode,
    EnvironmentClass,
    Fingerprint,
    Hold,
    Ledger,
    Operation,
    Presence,
    Problem,
    Reference,
    RunnerFacts,
    Unit,
    UnitId,
    UnitRecord,
    has_come,
)

A_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Start a job."""

    unit: Unit
    operation: Operation
    fingerprint: Fingerprint
    cause: Cause


@dataclass(frozen=True, slots=True)
class Held:
    """Do not change the unit, for this reason; None: there is no reason any more. `fault`: a bug found in deciding."""

    unit: UnitId
    hold: Hold | None
    fault: Exception | None = field(default=None, compare=False)


# What a fingerprint was worked out from, and the fingerprint: by identity where that is cheaper than looking inside.
Known = dict[UnitId, tuple[Unit, RunnerFacts, Mapping[Reference, str], Fingerprint]]


def expected(
    desired: Desired,
    ledger: Ledger,
    facts: RunnerFacts | None,
    known: Known | None = None,
    faults: dict[UnitId, Exception] | None = None,
) -> dict[UnitId, Fingerprint | None]:
    """The fingerprint that each unit shall have; None where an output or a secret that it reads does not exist yet.

    `known` saves time, and changes no answer: what earlier calls put there is not worked out again. `faults` gets what
    nobody foresaw: such a unit has none either, and no other is the worse for it.
    """
    known, faults = {} if known is None else known, {} if faults is None else faults
    if len(known) > len(desired.units):
        known.clear()  # units went: nothing may pile up
    found: dict[UnitId, Fingerprint | None] = {}
    for unit_id, unit in desired.units.items():
        try:
            found[unit_id] = fingerprint_of(unit, ledger, facts, known)
        except Exception as error:  # noqa: BLE001 - `decide` holds the unit for it
            found[unit_id], faults[unit_id] = None, error
    return found


def fingerprint_of(unit: Unit, ledger: Ledger, facts: RunnerFacts | None, known: Known) -> Fingerprint | None:
    """As `expected`, of one unit."""
    host = facts.environments.get(unit.environment.name) if facts else None
    if facts is None or host is None:
        return None
    if unit.presence is Presence.PRESENT and not unit.secrets <= host.secrets.keys():
        return None
    outputs = _outputs(unit, ledger)
    if outputs is None:
        return None
    last = known.get(unit.id)
    if last is None or last[0] is not unit or last[1] is not facts or last[2] != outputs:
        last = known[unit.id] = (unit, facts, outputs, fingerprint(unit, facts, host, outputs))
    return last[3]


def _outputs(unit: Unit, ledger: Ledger) -> dict[Reference, str] | None:
    """The HMAC of every output that the unit reads; None where one is missing. An absent unit depends on none."""
    if unit.presence is not Presence.PRESENT:
        return {}
    found: dict[Reference, str] = {}
    for reference in unit.references:
        record = ledger.units.get(reference.unit)
        value = record.applied.outputs.get(reference.output) if record and record.applied else None
        if value is None:
            return None
        found[reference] = value
    return found


def record_of(world: World, unit: UnitId) -> UnitRecord:
    """What the ledger knows of the unit; nothing, if it never heard of it."""
    return world.ledger.units.get(unit) or UnitRecord(unit)


@dataclass(frozen=True, slots=True)
class View:
    """Whether a unit is held, and the job that it wants. A held unit may want a plan, so that people see what waits.

    `needs`: it needs something, so that what others do may decide otherwise for it. `fault`: a bug found in deciding.
    """

    hold: Hold | None = None
    dispatch: Dispatch | None = None
    needs: bool = True
    fault: Exception | None = None


_CONTENT = View(needs=False)


def look(world: World, unit: Unit, record: UnitRecord) -> View:
    """What is to become of a unit. One in which this program finds a bug of its own is held for that, and no other is."""
    fault = world.faults.get(unit.id)
    if fault is None:
        try:
            return _look(world, unit, record)
        except Exception as error:  # noqa: BLE001 - the one place where it is caught; whoever acts on the decision logs it whole
            fault = error
    return View(Hold(INTERNAL, bug(fault)), fault=fault)


def _look(world: World, unit: Unit, record: UnitRecord) -> View:
    need = need_of(world, unit, record)
    if need is None or record.job is not None:
        return _CONTENT
    hold = next((h for gate in GATES if (h := gate(world, unit, record, need))), None)
    if hold is None and need.fingerprint is not None:
        return View(None, Dispatch(unit, need.operation, need.fingerprint, need.cause))
    if hold is None or need.fingerprint is None:
        return View(hold)
    if hold.plans and _unseen(unit, record, need, world.now):
        return View(hold, Dispatch(unit, Operation.PLAN, need.fingerprint, need.cause))
    return View(hold)


def _unseen(unit: Unit, record: UnitRecord, need: Need, now: datetime) -> bool:
    """Whether what waits has not been planned yet, and no such plan has just failed."""
    failure = record.failure
    if failure is not None and failure.fingerprint == need.fingerprint and failure.waits(now):
        return False
    mark = record.aftermath
    if (mark is not None and not mark.looked) or _is_unknown(record):
        return True
    due = (need.cause.is_look or mark is not None) and _check_is_due(unit, record, now)
    return due or record.planned is None or record.planned.fingerprint != need.fingerprint


def need_of(world: World, unit: Unit, record: UnitRecord) -> Need | None:
    """What the unit needs, were no gate in the way: to be applied, to be tried again, to be looked at, or nothing."""
    wanted = world.expected.get(unit.id)
    applied = record.applied
    stays = unit.presence is Presence.PRESENT
    if wanted is None and not stays and applied is not None and applied.presence is unit.presence:
        return None  # it is gone; the runner need not be there to say so
    if wanted is None or applied is None or applied.fingerprint != wanted:
        cause = cause_of(applied.fingerprint if applied else None, wanted) if wanted else Cause.DESIRED
        return Need(Operation.APPLY, wanted, cause)
    # What another commit began, and failed, may have left the unit neither as it was nor as that commit said.
    failed = record.failure is not None or record.unfinished is not None
    if not stays or record.unfinished is not None:
        return Need(Operation.APPLY, wanted, Cause.DRIFT) if failed else None
    found = record.drift_since is not None and corrects(unit)
    due = _check_is_due(unit, record, world.now)
    if _is_unknown(record):
        return Need(_checking(unit), wanted, Cause.OUT_OF_BAND)
    by_hand = record.aftermath is not None
    return Need(_checking(unit), wanted, Cause.DRIFT) if failed or found or due or by_hand else None


def _is_unknown(record: UnitRecord) -> bool:
    """Whether somebody else may have changed the unit, and no job has looked since."""
    return record.outside is not None and not record.outside.looked


def _check_is_due(unit: Unit, record: UnitRecord, now: datetime) -> bool:
    """Whether it is time to look for drift; an interval that was made shorter counts from the next look on."""
    at = record.next_check
    return at is None or has_come(at, now, _longest_interval(unit))


def clock_of(unit: Unit, record: UnitRecord) -> Iterator[datetime]:
    """Until when the unit's times are further away than they can have been set, so that they count as come: see `has_come`."""
    if record.next_check is not None:
        yield record.next_check - _longest_interval(unit)
    if record.failure is not None and record.failure.retry_at is not None:
        yield record.failure.retry_at - LONGEST_REST


def _longest_interval(unit: Unit) -> timedelta:
    return A_DAY + 2 * unit.environment.drift_interval


def _checking(unit: Unit) -> Operation:
    """How a unit is looked at: a plan where drift is reported, a plan and its apply where it is corrected."""
    return Operation.APPLY if corrects(unit) else Operation.PLAN


def corrects(unit: Unit) -> bool:
    """Whether drift of the unit is put back. In a sandbox people may write directly, so there it never is."""
    environment = unit.environment
    return environment.drift is DriftMode.CORRECT and environment.klass is EnvironmentClass.PROTECTED


def unwanted(world: World, unit: UnitId, claimed: Container[UnitId]) -> Iterator[Held]:
    """The hold of a unit that is none, where it is another now. `claimed` are the names whose states are yet to move."""
    problem, record = world.desired.broken.get(unit), record_of(world, unit)
    if problem is not None:
        yield from _held_or_fault(world, record, partial(_broken, problem))
    elif unit not in world.desired.units and unit not in claimed:
        yield from _held_or_fault(world, record, partial(_orphaned, record, world.desired))


def _held_or_fault(world: World, record: UnitRecord, find: Callable[[], Hold | None]) -> Iterator[Held]:
    """The unit's hold, where it is another now. What nobody foresaw in one of them keeps no other from its decision."""
    fault = world.faults.get(record.unit)
    try:
        hold = find() if fault is None else Hold(INTERNAL, bug(fault))
    except Exception as error:  # noqa: BLE001 - as in `_one_or_fault`
        hold, fault = Hold(INTERNAL, bug(error)), error
    if record.hold != hold:
        yield Held(record.unit, hold, fault)


def _broken(problem: Problem) -> Hold:
    return Hold(problem.reason, str(problem))


def _orphaned(record: UnitRecord, desired: Desired) -> Hold | None:
    applied = record.applied
    exists = applied is not None and applied.presence is Presence.PRESENT
    if not exists and record.unfinished is None:
        return None
    if exists and applied is not None and _unlocked(applied, desired):
        what = (
            f"The entry's file is gone, and so is {applied.module} {applied.version}, by which its objects exist, from"
        )
        how = "bring that line back: without it nothing can destroy them. What uses a version, an orphan too, keeps it"
        return Hold("CatalogPinMissing", f"{what} catalog-lock.yaml: {how}.")
    message = (
        "The entry's file is gone and its objects are still there. Bring the file back with `state: absent` to destroy "
        "them, or `state: forgotten` to let them go."
    )
    return Hold("Orphaned", message)


def _unlocked(applied: Applied, desired: Desired) -> bool:
    """Whether the lock has lost the version. A sandbox's branch was never in it."""
    is_version = semver.Version.is_valid(applied.version)
    return is_version and (applied.module, applied.version) not in desired.locked


def waits_for(desired: Desired, expected_by_unit: Mapping[UnitId, Fingerprint | None], ledger: Ledger) -> list[UnitId]:
    """The units that are not yet as the commit says."""
    waiting = []
    for unit_id in desired.order:
        record = ledger.units.get(unit_id)
        wanted = expected_by_unit.get(unit_id)
        if wanted is None or record is None or record.applied is None or record.applied.fingerprint != wanted:
            waiting.append(unit_id)
    return waiting

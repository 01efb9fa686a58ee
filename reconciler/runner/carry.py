"""What survives a job: a state that a dead job left in its workspace, and a state that moves to a renamed unit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reconciler.errors import HeldError, UnitError
from reconciler.model import Desired, JobId, Operation, Phase, Presence, Unit, UnitId
from reconciler.runner.holding import Hold
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Applying, Memory, Suspicion, UnitMemory
from reconciler.runner.record import Change
from reconciler.runner.spool import JobFolder
from reconciler.runner.terraform.begun import boot, started, suspects
from reconciler.runner.terraform.rescue import ERRORED_STATE, bring_back
from reconciler.runner.terraform.state import WORK_STATE, State

LOOK_FOR = timedelta(hours=1)  # after a dead apply was found: what lists objects by their tags may be late
Holding = Callable[[UnitId], AbstractContextManager[Hold]]  # holds the state of that name: see `holding`


def recover(host: Host, hosted: Hosted, memory: UnitMemory, hold: Hold) -> UnitMemory:
    """Bring back the state that an apply without an end left in its workspace, and note what it may have made besides.

    The job is dead, and so is its engine: both held the unit's lock, which this job has now.

    Raises:
        HeldError: the only copy of a state lies there, and only a person can put it where it belongs.
    """
    unfinished = memory.applying
    if unfinished is None:
        return memory
    folder = host.spool.job(unfinished.job)
    if folder.work.exists():
        _take_back(host, hosted, memory, folder, alone=hold.after == unfinished.job)
    state = hosted.backend.read(memory.unit)
    found = state.mark if state else None
    host.record.ended(memory.unit, unfinished.record, unfinished.job, found, Change.RECOVERED)
    memory = replace(memory, tainted=memory.tainted | tainted(state), corrected=None)
    memory = _suspect(memory, unfinished, folder, state)
    host.memory.save(memory)
    folder.clean()
    return memory


def _suspect(memory: UnitMemory, dead: Applying, folder: JobFolder, state: State | None) -> UnitMemory:
    """The memory with what the dead apply may have made besides the state: looked at once, as its workspace goes."""
    began = started(folder.work) if dead.boot and dead.boot == boot() else None
    found, before = suspects(dead.creates, began, state), memory.suspicion
    memory = replace(memory, applying=replace(dead, creates=()))
    if not found:
        return memory
    since, known = (before.since, before.suspects) if before else (dead.at, ())
    tags, until = before.unit if before else memory.unit, datetime.now(UTC) + LOOK_FOR
    return replace(memory, suspicion=Suspicion(tags, since, until, tuple(dict.fromkeys((*known, *found)))))


def _take_back(host: Host, hosted: Hosted, memory: UnitMemory, folder: JobFolder, *, alone: bool) -> None:
    """Make what the apply left the state. `alone`: nobody else can have had it since."""
    unwritten = folder.work / ERRORED_STATE
    try:
        bring_back(hosted.backend, memory.unit, folder.work, memory.mark, alone=alone)
    except OSError as error:
        what = f"the last apply could not write its state, and the only copy is in {folder.work}"
        raise UnitError(
            "StateUnwritten", f"{what}: {error}. Make room; it is brought back then.", transient=True
        ) from error
    except UnitError as error:
        if error.transient:
            raise
        if unwritten.exists():
            push = f"push it (`{host.engine.binary} state push {unwritten}` in {folder.work}), then remove that file"
            how = f"{push}; or remove it, if it is of no use"
            what = "the last apply could not write its state to the backend, and the runner cannot prove that it may"
            raise HeldError("StateUnwritten", f"{what}: {error} If it is the right one, {how}.") from error
        how = f"The unfinished apply left it in {folder.work}; if it is of no use, remove that folder"
        raise HeldError(error.reason, f"{error} {how}.") from error


def take_over(
    host: Host, hosted: Hosted, unit: Unit, old: UnitId, desired: Desired, hold: Holding, job: JobId | None = None
) -> UnitMemory:
    """Move the state of a renamed unit, and what is remembered of it. Each step can be repeated.

    Raises:
        HeldError: the old entry is still there, or the old unit has no state.
        UnitError: "UnitBusy": a job of the old unit is still running. "StateLocked": see `holding`.
    """
    if old in desired.units or old in desired.broken:
        raise HeldError("MoveBlocked", f"{old} still has an entry; remove it in the commit that moves its state here.")
    with host.memory.unit_lock(old), hold(old) as its:
        return _take_over(host, hosted, unit, old, its, job)


def _take_over(host: Host, hosted: Hosted, unit: Unit, old: UnitId, hold: Hold, job: JobId | None) -> UnitMemory:
    source = host.memory.unit(old)
    if source.moved_to not in (None, unit.id):
        raise HeldError("MoveBlocked", f"the state of {old} has moved to {source.moved_to} already.")
    if source.applied is None or source.applied.presence is not Presence.PRESENT:
        raise HeldError("MoveBlocked", f"{old} has no state to move; remove `moved_from` from {unit.entry.place.path}.")
    source = recover(host, hosted, source, hold)
    host.memory.save(replace(source, moved_to=unit.id))
    try:
        hosted.backend.move(old, unit.id)
    except UnitError:  # nothing has moved, and the old unit is what it was
        host.memory.save(source)
        raise
    host.record.moved(old, unit.id, source.mark, job)
    moved = replace(source, unit=unit.id, moved_to=None)
    host.memory.save(moved)
    return moved


def name_again(
    host: Host,
    hosted: Hosted,
    unit: Unit,
    gone: UnitMemory,
    desired: Desired,
    operation: Operation,
    hold: Holding,
    job: JobId | None = None,
) -> UnitMemory:
    """The memory of a unit under whose name another one's state was before it moved: nothing, if that one lives on.

    A rename that is merely taken back (`git revert`) would otherwise make everything a second time.

    Raises:
        HeldError: the state is still where it moved to, and no entry stands for it.
    """
    holder = _holder(host.memory, gone)
    if holder.unit in desired.units or holder.unit in desired.broken or holder.unit == unit.entry.moved_from:
        return UnitMemory(unit.id)
    if holder.applied is None and operation is Operation.APPLY:  # the move did not come to its end
        with host.memory.unit_lock(holder.unit), hold(holder.unit):
            hosted.backend.move(holder.unit, unit.id)
            host.record.moved_back(holder.unit, unit.id, job)
        back = replace(gone, moved_to=None)
        host.memory.save(back)
        return back
    if holder.applied is not None and holder.applied.presence is not Presence.PRESENT:
        return UnitMemory(unit.id)
    what = f"the state of {unit.id} has moved to {holder.unit}, which has no entry any more"
    short = holder.unit.partition("/")[2]
    raise HeldError("MoveBlocked", f"{what}; write `moved_from: {short}` in {unit.entry.place.path} to move it back.")


def _holder(memory: Memory, gone: UnitMemory) -> UnitMemory:
    """Who has the state now: it may have moved on."""
    seen = {gone.unit}
    while gone.moved_to is not None and gone.moved_to not in seen:
        seen.add(gone.moved_to)
        gone = memory.unit(gone.moved_to)
    return gone


def tidy(memory: Memory, folder: JobFolder) -> None:
    """Remove the workspace of a dead job, unless its unit's next job has to look there first."""
    if not folder.work.exists() or folder.alive():
        return
    folder.clean_temporary()
    job = folder.job()
    if job is None:
        _tidy_nobodys(folder)
        return
    unfinished = memory.unit(job.unit).applying
    if unfinished is None or unfinished.job != job.id:
        folder.clean()


def _tidy_nobodys(folder: JobFolder) -> None:
    """Nobody can say which unit's job this was: what may be the only copy of a state is left to a person."""
    left = any((folder.work / name).exists() for name in (WORK_STATE, ERRORED_STATE))
    if left or folder.phase() is Phase.APPLYING:
        what = "its job.json cannot be read, and its work folder may hold the only copy of a state"
        how = "look there, and remove the folder when nothing in it is needed"
        sys.stderr.write(f"runner: {folder.path}: {what}; {how}.\n")
    else:
        folder.clean()


def tainted(state: State | None) -> frozenset[str]:
    """The objects that the state marks as tainted."""
    return frozenset(r.address for r in state.resources if r.tainted) if state else frozenset()

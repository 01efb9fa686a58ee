"""How a job works with a memory that was put back to a backup: what it cannot know counts against the change, until it is known again.

Of a memory that was never restored every answer here is the memory's own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from reconciler.desired.paths import entry_path
from reconciler.errors import HeldError, UnitError
from reconciler.model import Commit, Desired, Presence, ReviewMode, StateMark, Unit, UnitId
from reconciler.runner import claims, uncertain, versions
from reconciler.runner.access.sts import Errand
from reconciler.runner.carry import LOOK_FOR
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Suspicion, UnitMemory
from reconciler.runner.progress import Progress
from reconciler.runner.terraform.creation import Creation

MOST_NAMED = 5


def since_restored(host: Host, hosted: Hosted, memory: UnitMemory) -> UnitMemory:
    """What is remembered of a unit, with the state that came about since the backup, if one did.

    Raises:
        UnitError: the states cannot be read.
    """
    restored = host.memory.restored()
    if restored is None:
        return memory
    found = restored.found.get(hosted.name)
    mark = (_take_stock(host, hosted) if found is None else found).get(memory.unit)
    explained = mark is None or (memory.mark is not None and memory.mark.lineage == mark.lineage)
    return memory if explained else replace(memory, mark=mark)


def newest_release(host: Host, unit: Unit, memory: UnitMemory, commit: Commit) -> UnitMemory:
    """With the highest version that the entry named since the backup as the one that the unit had last: it may be applied.

    Raises:
        PassError: the mirror cannot be read.
    """
    restored = host.memory.restored()
    if restored is None or unit.pin.floating or not restored.doubts(memory.applied):
        return memory
    since = restored.head or host.memory.trust().base
    said = host.history.said_since(since, commit, entry_path(unit.id)) if since else ()
    named = {entry.version for entry in said if entry.module == unit.pin.module and entry.version}
    return replace(memory, release=versions.at_least(unit.pin, memory, named))


def review_mode(host: Host, unit: Unit, memory: UnitMemory, commit: Commit, *, shown: bool) -> ReviewMode:
    """What the plan is bound to. What was shown since the backup is forgotten: nothing is no sign that there was no review."""
    mode, restored = unit.environment.review, host.memory.restored()
    if shown or mode is not ReviewMode.WHEN_AVAILABLE or restored is None or not restored.doubts(memory.applied):
        return mode
    brought = restored.head is not None and host.history.merged_since(restored.head, commit)
    return ReviewMode.REQUIRED if brought else mode


def none_doubted(host: Host, hosted: Hosted, unit: Unit, desired: Desired) -> None:
    """Nothing goes while a unit that may have come to read it since the backup was not looked at again.

    Raises:
        HeldError: there is one.
    """
    restored = host.memory.restored()
    if unit.presence is Presence.PRESENT or restored is None:
        return
    near = {hosted.name, *hosted.readable_by}
    doubted = sorted(
        one.id
        for one in desired.units.values()
        if one.id != unit.id and one.presence is Presence.PRESENT and one.environment.name in near
        if restored.doubts(host.memory.unit(one.id).applied)
    )
    if doubted:
        names = ", ".join(doubted[:MOST_NAMED]) + (
            f" and {len(doubted) - MOST_NAMED} more" if doubted[MOST_NAMED:] else ""
        )
        what = f"This runner's memory was restored from a backup of {restored.taken_at:%Y-%m-%d %H:%M UTC}, and since then nobody"
        how = f"`reconciler reconcile {hosted.name}` has them looked at now"
        raise HeldError("StillReferenced", f"{what} has looked at {names}, which may read {unit.id}; {how}.")


def nothing_left(
    host: Host,
    hosted: Hosted,
    unit: Unit,
    memory: UnitMemory,
    makes: Iterable[Creation],
    progress: Progress,
    errand: Errand,
) -> UnitMemory:
    """Right before an apply: an apply since the backup, of which nobody knows that it died, may have made the same already.

    It is suspected of that once, and then as any that died: `uncertain.look`, and `runner settle`. What nobody can look for is not.

    Raises:
        HeldError: "Uncertain": something is there, or nobody can say. UnitError: see `uncertain.look`.
    """
    restored, providers = host.memory.restored(), unit.environment.providers
    if restored is None or not restored.doubts(memory.applied) or unit.id in restored.searched or memory.suspicion:
        return memory
    suspects = tuple(one for one in makes if uncertain.searchable(one, providers))
    if not suspects:
        return memory
    suspicion = Suspicion(unit.id, restored.taken_at, datetime.now(UTC) + LOOK_FOR, suspects)
    host.memory.save(replace(host.memory.unit(unit.id), suspicion=suspicion))
    with host.memory.restoring():
        now = host.memory.restored() or restored
        host.memory.save_restored(replace(now, searched=now.searched | {unit.id}))
    return uncertain.look(host, hosted, unit, replace(memory, suspicion=suspicion), progress, errand)


def _take_stock(host: Host, hosted: Hosted) -> Mapping[UnitId, StateMark]:
    """Once per environment and restore: the states that the memory cannot explain, though the claim says that they are its own.

    A state that has another unit's name now was moved since: that is remembered too.
    """
    with host.memory.restoring():
        restored = host.memory.restored()
        assert restored is not None  # noqa: S101 - the caller has looked
        if (known := restored.found.get(hosted.name)) is not None:
            return known
        ours = hosted.backend.claim(hosted.name) is not None and claims.lost(host, hosted) is None
        states = {unit: hosted.backend.read(unit) for unit in hosted.backend.units(hosted.name)} if ours else {}
        marks = {unit: state.mark for unit, state in states.items() if state is not None}
        found = {unit: mark for unit, mark in marks.items() if not _explained(host.memory.unit(unit), mark)}
        _note_moves(host, hosted.name, marks, {mark.lineage: unit for unit, mark in found.items()})
        host.memory.save_restored(replace(restored, found={**restored.found, hosted.name: found}))
        return found


def _explained(memory: UnitMemory, mark: StateMark) -> bool:
    return memory.moved_to is None and memory.mark is not None and memory.mark.lineage == mark.lineage


def _note_moves(host: Host, environment: str, there: Collection[UnitId], by_lineage: Mapping[str, UnitId]) -> None:
    """Units whose states have new names by now stand in nobody's way under the old ones."""
    for memory in list(host.memory.units()):
        its = memory.unit.startswith(f"{environment}/") and memory.unit not in there and memory.moved_to is None
        new = by_lineage.get(memory.mark.lineage) if its and memory.mark else None
        if new is None:
            continue
        with suppress(UnitError), host.memory.unit_lock(memory.unit):  # a job of its own finds out by itself
            host.memory.save(replace(host.memory.unit(memory.unit), moved_to=new))

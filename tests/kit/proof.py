"""What must hold once everything has converged, whatever happened before: read from disk, in the words of what broke.

Each function returns what is wrong, a line each; nothing, where nothing is. They are for planes that have ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from reconciler.controller.daemon import SystemClock
from reconciler.demo.playground import Playground
from reconciler.durable import is_locked
from reconciler.model import Presence, UnitId
from reconciler.runner.audit.chain import read
from reconciler.runner.audit.log import AuditLog
from reconciler.runner.audit.verify import segments_of, verify
from reconciler.runner.memory import Memory
from reconciler.store.sqlite import SqliteStore
from tests.provider.log import doubled

Json = dict[str, Any]
EXPECTED = frozenset({"applied", "failed", "recovered", "moved"})  # nothing of these is unexplained


def wrongs(ground: Playground, units: Iterable[str]) -> list[str]:
    """All of it. `units` are those that exist."""
    wanted = sorted(units)
    return [
        *(f"created twice: {path}" for path in doubled(ground.world)),
        *wrong_states(ground, wanted),
        *wrong_audit(ground),
        *wrong_journal(ground),
        *leftovers(ground),
    ]


def wrong_states(ground: Playground, units: Iterable[str]) -> Iterator[str]:
    """Each unit has one state, of one lineage, and the memory knows its serial; nobody else has any object."""
    memory, known = Memory(ground.folder / "runner"), set(units)
    for unit in sorted(known):
        yield from _wrong_state(ground, memory, unit)
    for path in sorted((ground.folder / "states").rglob("*.tfstate")):
        unit = str(path.relative_to(ground.folder / "states").with_suffix(""))
        if unit not in known and state_of(path)["resources"]:
            yield f"{unit} has no entry, and its state has objects"


def _wrong_state(ground: Playground, memory: Memory, unit: str) -> Iterator[str]:
    path, mine = ground.state(unit), memory.unit(UnitId(unit))
    if not path.exists():
        yield f"{unit} has no state"
        return
    state = state_of(path)
    if mine.mark is None or (mine.mark.lineage, mine.mark.serial) != (state["lineage"], state["serial"]):
        yield f"{unit}: the memory knows {mine.mark}, the state is {state['lineage']} {state['serial']}"
    if mine.applied is None or mine.applied.presence is not Presence.PRESENT:
        yield f"{unit}: the memory does not know that it was applied"
    if mine.applying is not None:
        yield f"{unit}: an apply without an end: {mine.applying.job}"
    others = {state_of(p)["lineage"] for p in path.parent.glob(f"{path.name}*")} - {state["lineage"]}
    if others:
        yield f"{unit}: a state of another lineage: {others}"


def state_of(path: Path) -> Json:
    """A state file."""
    found: Json = json.loads(path.read_bytes())
    return found


def wrong_audit(ground: Playground) -> Iterator[str]:
    """The chain fits; every serial of every state has one record, every apply's intent at most one end."""
    folder = ground.folder / "runner" / "audit"
    verdict = verify(segments_of(folder), least=AuditLog(folder).mark().count)
    if verdict.wrong is not None or verdict.torn:
        yield f"audit log: {verdict}"
    lines = [line for _, data in segments_of(folder) for line in data.splitlines()]
    states = [record.body for record in map(read, lines) if record.kind == "state"]
    yield from (f"audit log: {one['unit']} {one['change']}" for one in states if one["change"] not in EXPECTED)
    ends = [one["intent"] for one in states if one["intent"] is not None]
    yield from (f"audit log: intent {one} has {ends.count(one)} ends" for one in set(ends) if ends.count(one) > 1)
    made = _serials(states)
    for path in (ground.folder / "states").rglob("*.tfstate"):
        state = state_of(path)
        if made.get(state["lineage"]) != [*range(state["serial"] + 1)]:
            yield f"audit log: {path.name} is at serial {state['serial']}, recorded are {made.get(state['lineage'])}"


def _serials(states: Iterable[Json]) -> dict[str, list[int]]:
    """Which serials of which lineage have a record, in the records' order."""
    made: dict[str, list[int]] = {}
    for one in states:
        if one["change"] != "moved" and one["after"]:
            before = one["before"]["serial"] if one["before"] else -1
            made.setdefault(one["after"]["lineage"], []).extend(range(before + 1, one["after"]["serial"] + 1))
    return made


def wrong_journal(ground: Playground) -> Iterator[str]:
    """The controller's chain of events fits."""
    store = SqliteStore(ground.folder / "controller" / "reconciler.db", SystemClock())
    try:
        if store.verify() == 0:
            yield "journal: it is empty"
    finally:
        store.close()


def leftovers(ground: Playground) -> Iterator[str]:
    """Workspaces, locks that somebody holds, and processes in a job's folder."""
    runner = ground.folder / "runner"
    yield from (f"left behind: {path.relative_to(runner)}" for path in (runner / "spool").glob("*/work"))
    for path in sorted([*(runner / "locks").glob("*"), *(runner / "spool").glob("*/lock"), *runner.glob("*.lock")]):
        if is_locked(path):
            yield f"still locked: {path.relative_to(runner)}"
    yield from (f"still running: process {pid}" for pid in processes_in(runner / "spool"))


def processes_in(folder: Path) -> list[int]:
    """Who works in the folder or below: engines, providers, and what they started."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                where = str((process / "cwd").readlink())
            except OSError:
                continue  # it has ended, or is somebody else's
            if where.startswith(f"{folder}/"):
                found.append(int(process.name))
    return found

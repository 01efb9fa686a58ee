"""Which version may follow which: of a module, and of the engine that writes the state."""

from __future__ import annotations

from collections.abc import Collection

import semver

from reconciler.errors import HeldError
from reconciler.model import Pin, Presence, Unit
from reconciler.runner.memory import EngineMark, Release, UnitMemory
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.state import State


def release_of(pin: Pin, before: Release | None) -> Release | None:
    """What to remember of a unit that is in order with this pin; a branch is no release and changes nothing."""
    return before if pin.floating else Release(pin.repository, pin.path, pin.module, pin.version)


def predecessor(pin: Pin, memory: UnitMemory) -> str | None:
    """The version that the unit had last of the module that the pin means, by whichever name; None: it had another."""
    last, applied = memory.release, memory.applied
    if last is not None:
        same = last.module == pin.module or (last.catalog, last.path) == (pin.repository, pin.path)
        return last.version if same else None
    return applied.version if applied is not None and applied.module == pin.module else None


def at_least(pin: Pin, memory: UnitMemory, named: Collection[str]) -> Release | None:
    """The release that the unit had last, if any of the versions of its module that were named since may be in place."""
    last = predecessor(pin, memory)
    for version in named:
        if last is None or older(last, version):
            last = version
    before = predecessor(pin, memory)
    return memory.release if last is None or last == before else Release(pin.repository, pin.path, pin.module, last)


def older(wanted: str, before: str) -> bool:
    """Whether `wanted` comes before, in the order of the lock: builds of one version by their text.

    A branch of a sandbox is no version, and never does.
    """
    try:
        return (semver.Version.parse(wanted), wanted) < (semver.Version.parse(before), before)
    except ValueError:
        return False


def not_yanked(unit: Unit, memory: UnitMemory) -> None:
    """A yanked version is not put to new use. What exists by it stays, and may be changed and destroyed with it.

    Raises:
        HeldError: it would be put to new use.
    """
    pin, applied = unit.pin, memory.applied
    if pin.yanked is None or unit.presence is not Presence.PRESENT:
        return
    in_use = applied is not None and applied.presence is Presence.PRESENT
    if in_use and applied is not None and (applied.module, applied.version) == (pin.module, pin.version):
        return
    raise HeldError("Yanked", f"{pin.module} {pin.version} was yanked: {pin.yanked}. Use another version.")


def mark_of(engine: Engine) -> EngineMark:
    """What is remembered of the engine that writes a state."""
    return EngineMark(engine.product, engine.version, engine.sha256)


def engine_unchanged(engine: Engine) -> None:
    """The engine is, byte for byte, the one that this runner found when it looked last.

    Raises:
        HeldError: it is another one.
    """
    changed = engine.changed()
    if changed is not None:
        what = f"{changed} is not what it was when the runner looked: find out who replaced it"
        how = "if it was upgraded on purpose, write engine.version and engine.sha256 in runner.yaml and restart the runner"
        raise HeldError("EngineChanged", f"{what}; {how}.")


def engine_fits(engine: Engine, memory: UnitMemory, state: State | None, accepted: Collection[str]) -> None:
    """The state was written by this kind of engine, and by no newer one. `accepted`: what the host says in spite of that.

    Raises:
        HeldError: "EngineChanged", "EngineSwitched" or "EngineOlder".
    """
    engine_unchanged(engine)
    if state is None or not state.resources:
        return
    wrote = memory.engine.product if memory.engine else engine.product
    version = state.engine_version or (memory.engine.version if memory.engine else "")
    if accepted and {wrote, f"{wrote} {version}"} & set(accepted):
        return
    here, there = f"{engine.product} {engine.version}", f"{wrote} {version}".strip()
    remedy = (
        f"Pin that one again, or, if the change is meant, write `accepts_states_of: [{there}]` beside it in runner.yaml"
    )
    if wrote != engine.product:
        raise HeldError("EngineSwitched", f"the state was written by {there}, and engine is {here} now. {remedy}.")
    if older(engine.version, version):
        raise HeldError("EngineOlder", f"the state was written by {there}, and engine is {here}. {remedy}.")

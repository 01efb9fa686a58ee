"""What must hold before Terraform is started at all. Absence of proof is a hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from reconciler.desired import freeze
from reconciler.desired.paths import entry_path
from reconciler.desired.policy import class_mismatch, from_the_next_merge_on
from reconciler.errors import HeldError
from reconciler.model import Allowances, Environment, Operation, Presence, Unit, UnitId
from reconciler.runner.access.sts import NOBODY, Errand
from reconciler.runner.allow import Wish, allowed, why_not
from reconciler.runner.host import Host, Hosted
from reconciler.runner.memory import Memory, UnitMemory, built_on
from reconciler.runner.terraform.state import State
from reconciler.runner.versions import older, predecessor


def permitted(host: Host, operation: Operation, unit: Unit, errand: Errand = NOBODY, *, pulls: bool = False) -> Hosted:
    """The environment as this host knows it, once the allow-list and the host's class let the job in.

    `errand`: what the credentials are for. `pulls`: the unit is as an open pull request would have it.

    Raises:
        HeldError: they do not.
    """
    _on_the_list(host, Wish(operation, unit.entry.place.path, unit.pin.module, pulls))
    hosted = host.environment(unit.environment.name, operation, errand)
    if its := class_mismatch(unit.environment, hosted.part.klass):
        what = f"runner.yaml says class {hosted.part.klass}, environment.yaml says {its}; the host wins."
        raise HeldError("PolicyMismatch", what + from_the_next_merge_on(unit.environment, "class"))
    return hosted


def may_take(host: Host, operation: Operation, old: UnitMemory, *, pulls: bool = False) -> None:
    """The allow-list lets the job in where a state is to come from, too. Raises HeldError: it does not."""
    module = old.applied.module if old.applied else None
    _on_the_list(host, Wish(operation, entry_path(old.unit), module, pulls))


def _on_the_list(host: Host, wish: Wish) -> None:
    if not allowed(host.rules, wish):
        raise HeldError("NotAllowed", why_not(host.rules, wish))


def not_frozen(environment: Environment, now: datetime) -> None:
    """No freeze window is open, neither of before the last merge nor of since.

    Raises:
        HeldError: one is (`FreezeWindow`).
    """
    look = freeze.outlook(environment.freeze, now)
    if look.window is not None:
        raise HeldError("FreezeWindow", freeze.told(look) + from_the_next_merge_on(environment, "freeze"))


def still_unread(memory: Memory, unit: Unit) -> None:
    """Nothing goes while something that is applied, or half applied, still reads it, under whichever name it had then.

    Raises:
        HeldError: something does.
    """
    if unit.presence is Presence.PRESENT:
        return
    known = {other.unit: other for other in memory.units()}
    names = {unit.id} | {name for name in known if _now_called(name, known) == unit.id}
    readers = [n for n, other in known.items() if n not in names and not other.moved_to and names & built_on(other)]
    if readers:
        raise HeldError("StillReferenced", f"{', '.join(sorted(readers))} still reads {unit.id}.")


def _now_called(name: UnitId, known: Mapping[UnitId, UnitMemory]) -> UnitId:
    """Where the state went that a unit had, however often it was renamed."""
    seen = {name}
    while (there := known.get(name)) is not None and there.moved_to is not None and there.moved_to not in seen:
        name = there.moved_to
        seen.add(name)
    return name


def state_is_ours(memory: UnitMemory, state: State | None) -> None:
    """The state is the one that this runner left behind: same lineage, not older. First deploys have none.

    Raises:
        HeldError: it is missing, foreign or older (`StateLost`).
    """
    mark = memory.mark
    if mark is None:
        if state is not None and memory.applying is None and state.resources:
            raise _lost(f"there is a state (lineage {state.mark.lineage}) that this runner never wrote")
        return
    if state is None:
        raise _lost(f"the state (lineage {mark.lineage}, serial {mark.serial}) is gone")
    if state.mark.lineage != mark.lineage:
        raise _lost(f"the state's lineage is {state.mark.lineage}, and {mark.lineage} was left there")
    if state.mark.serial < mark.serial:
        raise _lost(f"the state's serial is {state.mark.serial}, and {mark.serial} was left there")


def _lost(what: str) -> HeldError:
    return HeldError("StateLost", f"{what}. Bring the right state back (a backup, an older version of the object).")


def no_downgrade(unit: Unit, memory: UnitMemory, allowances: Allowances) -> None:
    """An older version of the same module needs a reviewed line, also by another name and after a sandbox's branch.

    Raises:
        HeldError: there is none.
    """
    pin, before = unit.pin, predecessor(unit.pin, memory)
    if before is None or pin.floating or allowances.downgrade or not older(pin.version, before):
        return
    what = f"{pin.module} {pin.version} is older than {before}, which is applied"
    raise HeldError("Downgrade", f"{what}; if that is meant, write `allow_downgrade: true` in {unit.entry.place.path}.")

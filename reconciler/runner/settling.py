"""An admin's word that what a dead apply may have made was looked for: the end of a suspicion."""

from __future__ import annotations

from dataclasses import replace

from reconciler.errors import UnitError
from reconciler.model import UnitId
from reconciler.runner.memory import Memory, Suspicion


def settle(memory: Memory, unit: UnitId) -> Suspicion:
    """End what is suspected of the unit; what it was.

    Raises:
        UnitError: "NothingSuspected"; "UnitBusy": a job of the unit is running.
    """
    with memory.unit_lock(unit):
        known = memory.unit(unit)
        if known.suspicion is None:
            what = f"nothing is suspected of {unit}"
            how = "an apply that died a moment ago is looked at by the unit's next job first: `reconciler explain` says so"
            raise UnitError("NothingSuspected", f"{what}; {how}.")
        memory.save(replace(known, suspicion=None))
        return known.suspicion

"""Units that wait for their turn, in few words."""

from __future__ import annotations

from reconciler.deciding.budgets import Limit
from reconciler.deciding.decide import Dispatch
from reconciler.deciding.passes import Waiting
from reconciler.deciding.turns import wanted
from reconciler.layered import layered
from reconciler.model import Cause, Operation, UnitId, UnitRecord
from tests.kit import facts as make


def waiting(*units: str, limit: Limit = Limit.WORKERS) -> Waiting:
    """These wait, all for that."""
    found = {}
    for place, name in enumerate(units):
        one = Dispatch(make.unit(name), Operation.APPLY, make.fingerprint(), Cause.DESIRED)
        found[UnitId(name)] = wanted(one, UnitRecord(UnitId(name)), place)
    return Waiting(layered(found), dict.fromkeys((name.partition("/")[0] for name in units), limit))

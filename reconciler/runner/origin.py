"""Where a change of a state comes from: the commit, who vouches for it, and digests of all that it was made of."""

from __future__ import annotations

import hashlib

from reconciler import codec
from reconciler.deciding.judge import Bounds
from reconciler.desired.paths import LOCK_PATH
from reconciler.model import Cause, Commit, Job, PlanSummary, Unit
from reconciler.runner.host import Host
from reconciler.runner.record import Origin
from reconciler.runner.versions import mark_of


def origin(
    host: Host,
    job: Job,
    unit: Unit,
    commit: Commit,
    cause: Cause | None,
    plan: PlanSummary | None = None,
    bounds: Bounds | None = None,
) -> Origin:
    """What is known right before the state is changed.

    Raises:
        PassError: the mirror cannot be read.
    """
    path = unit.environment.place.path if cause is Cause.SETTINGS else unit.entry.place.path
    change = host.history.last_change(commit, path)
    return Origin(
        job=job.id,
        fence=job.fence,
        commit=host.vouched(commit),
        change=host.vouched(change) if change else None,
        cause=cause,
        lock=host.history.digest(commit, LOCK_PATH),
        module=unit.pin.module,
        version=unit.pin.version,
        tree=unit.pin.digest,
        plan=plan.digest if plan else None,
        policy=hashlib.sha256(codec.encode(bounds)).hexdigest() if bounds else None,
        engine=mark_of(host.engine),
    )

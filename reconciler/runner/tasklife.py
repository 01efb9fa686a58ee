"""What ECS proves of a task that has a unit's lock: where jobs are tasks, nobody else can say whether its holder lives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.errors import PassError, UnitError
from reconciler.remote.calls import open_client
from reconciler.remote.ecs import ended, region_of
from reconciler.runner.unitlock import LockHolder


@dataclass(frozen=True, slots=True)
class TaskLife:
    """A `Liveness`: asks ECS about the task of a holder. `me`: the ARN of the task that asks; `endpoint`: of ECS, if not its region's."""

    me: str
    endpoint: str | None = None

    def __call__(self, holder: LockHolder) -> str | None:
        """See `Liveness`. It is asked for only when a lock is in the way, so no client is kept for it.

        Raises:
            UnitError: "UnitBusy": ECS does not answer, or does not let us; nothing is proven.
        """
        region = region_of(holder.task)
        if region is None or holder.task == self.me:
            return None
        known_for = datetime.now(UTC) - holder.at
        try:
            client = open_client("ecs", region, self.endpoint)
            return ended(client, holder.task, known_for, self.me) or None
        except PassError as error:
            what = f"{holder.name} is being worked on by task {holder.task}, or was: ECS did not say whether it lives"
            raise UnitError("UnitBusy", f"{what}: {error} It is tried again by itself.", transient=True) from error

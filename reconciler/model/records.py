"""What is known of the actual side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from reconciler.model.jobs import Dispatched, Planned, Stray, Unexplained
from reconciler.model.plans import Applied, Fingerprint
from reconciler.model.words import Commit, JobId, Outcome, UnitId


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a unit is not being changed, and what would open it. `plans`: it may still be planned meanwhile."""

    reason: str
    message: str
    plans: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """An admin's stop of a scope: `all`, an environment or a unit."""

    scope: str
    owner: str
    reason: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """A session in which people work by hand in a scope: nothing is applied there, and nothing of theirs is put back."""

    scope: str
    owner: str
    reason: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Aftermath:
    """What a break-glass session leaves of a unit: it may differ by hand, until it is found or made to be in order.

    `job` is what ran when the session ended, and proves nothing. `looked`: a plan since then says how the unit is.
    `accepted`: an admin lets the next apply put back what was done by hand, once it was looked at.
    """

    session: BreakGlass
    ended_at: datetime
    job: JobId | None = None
    looked: bool = False
    accepted: bool = False


@dataclass(frozen=True, slots=True)
class OutsideChange:
    """What one principal, who is none of those that may, wrote in one environment's account: folded, whatever their number.

    `calls` and `objects` are the first of many; `event` is the id of the newest in the account's trail. `units` are those
    that the writes name, if any does. `break_glass`: the principal is the emergency role.
    `since` and `until` are the trail's times, `seen_at` is ours.
    """

    environment: str
    account: str
    principal: str
    calls: tuple[str, ...]
    objects: tuple[str, ...]
    since: datetime
    until: datetime
    count: int
    event: str
    units: frozenset[UnitId] = frozenset()
    break_glass: bool = False
    seen_at: datetime | None = None

    @property
    def key(self) -> str:
        """Under which it is folded."""
        return f"{self.environment} {self.principal}"


@dataclass(frozen=True, slots=True)
class Outside:
    """Somebody else may have changed the unit: how it is nobody knows until a look that began after that.

    `named`: a write names this very unit. `job` is what ran when it was last heard of, and proves nothing. `looked`: a job
    since then says how the unit is, and that is not in order.
    """

    since: datetime
    named: bool = False
    job: JobId | None = None
    looked: bool = False


# Before another try: the longest interval of drift checks that an environment may have, with its jitter.
LONGEST_REST = timedelta(days=403)


def has_come(at: datetime, now: datetime, longest: timedelta) -> bool:
    """Whether it is time. So it is where the time is further away than it can have been set: the clock was put back since."""
    return now >= at or at - now > longest


@dataclass(frozen=True, slots=True)
class Failure:
    """The last job's failure or hold, for as long as it stands; `count` in a row at this fingerprint and policy.

    `retry_at` is None where no clock ends it: it waits for new input. `commit` is where the runner resolved the unit, if it
    came so far. `deaths` of the jobs died in a row, without a word of their own.
    """

    job: JobId
    outcome: Outcome
    reason: str
    message: str
    fingerprint: Fingerprint
    policy: str
    count: int
    at: datetime
    retry_at: datetime | None
    commit: Commit | None = None
    deaths: int = 0

    def waits(self, now: datetime) -> bool:
        """Whether the same is not to be tried again yet."""
        return self.retry_at is None or not has_come(self.retry_at, now, LONGEST_REST)


@dataclass(frozen=True, slots=True)
class Skip:
    """A `promotion_skip` as it was seen last, and when. `spent`: an apply has used it, or it was there before everything."""

    reason: str
    at: datetime | None
    spent: bool = False


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """What the ledger knows of one unit.

    `steady_since` is since when it has been in order with the code that it runs, without a failure and without drift.

    `unfinished` is set while an apply that may have begun has not been made good: the units that it read. `unexplained` is
    set while the state is one that no job of ours made. `strays` are what applies that died may have made besides the state.
    `aftermath` is set while nobody knows whether what was done by hand in a break-glass session is still there.
    `outside` is set while nobody knows whether what somebody else wrote in the unit's account changed it.
    `memory` is what its last job took, in MiB; 0: that is not known.
    """

    unit: UnitId
    applied: Applied | None = None
    planned: Planned | None = None
    job: Dispatched | None = None
    failure: Failure | None = None
    hold: Hold | None = None
    drift_since: datetime | None = None
    next_check: datetime | None = None
    unfinished: frozenset[UnitId] | None = None
    unexplained: Unexplained | None = None
    steady_since: datetime | None = None
    skip: Skip | None = None
    strays: tuple[Stray, ...] = ()
    aftermath: Aftermath | None = None
    outside: Outside | None = None
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is known of the actual side. `frozen` is why no apply may start at all, if so, and `frozen_at` since when.

    `base` is where trust in the head's history starts: the genesis, or what an admin last accepted another history at.
    `sessions` are the break-glass sessions that are open. `outside` is what others wrote in the environments' accounts lately,
    and `told` are digests of the newest events that said so, the oldest first.
    """

    head: Commit | None = None
    units: Mapping[UnitId, UnitRecord] = field(default_factory=dict)
    pauses: tuple[Pause, ...] = ()
    frozen: Hold | None = None
    base: Commit | None = None
    frozen_at: datetime | None = None
    sessions: tuple[BreakGlass, ...] = ()
    outside: tuple[OutsideChange, ...] = ()
    told: tuple[str, ...] = ()

"""The facts that everything else passes around: frozen, comparable, free of behaviour and of I/O.

Words are those of docs/architecture.md. Times are timezone-aware UTC; durations are `timedelta`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from reconciler.errors import Place

Commit = NewType("Commit", str)  # 40 lower-case hex digits
Digest = NewType("Digest", str)  # "sha256:" and 64 hex digits
UnitId = NewType("UnitId", str)  # "prod/network": the entry's path under environments/ without its suffix
JobId = NewType("JobId", str)

# What JSON can say: the values of inputs, outputs and provider configuration.
Json = object


class EnvironmentClass(StrEnum):
    """Whether people may write to an environment directly."""

    PROTECTED = "protected"
    SANDBOX = "sandbox"


class DriftMode(StrEnum):
    """What happens when the real world differs although nothing was merged."""

    CORRECT = "correct"
    REPORT = "report"


class ReviewMode(StrEnum):
    """Whether an apply is bound to the plan that the review showed."""

    REQUIRED = "required"
    WHEN_AVAILABLE = "when_available"
    OFF = "off"


class Presence(StrEnum):
    """What an entry says of its own existence."""

    PRESENT = "present"
    ABSENT = "absent"
    FORGOTTEN = "forgotten"


class Operation(StrEnum):
    """The only two things that a runner can be asked to do."""

    PLAN = "plan"
    APPLY = "apply"


class Outcome(StrEnum):
    """How a job ended. `UNCERTAIN`: it died while it may have been applying."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    HELD = "Held"
    SUPERSEDED = "Superseded"
    UNCERTAIN = "Uncertain"


class Phase(StrEnum):
    """Where a running job is."""

    QUEUED = "Queued"
    VERIFYING = "Verifying"
    PLANNING = "Planning"
    APPLYING = "Applying"


class Cause(StrEnum):
    """Why a unit is planned or changed: the first part of its fingerprint that differs, drift, or that somebody else wrote."""

    DESIRED = "desired"
    CATALOG = "catalog"
    SETTINGS = "settings"
    UPSTREAM = "upstream"
    DRIFT = "drift"
    OUT_OF_BAND = "out-of-band"

    @property
    def is_look(self) -> bool:
        """Whether nothing was merged: the unit is looked at."""
        return self in (Cause.DRIFT, Cause.OUT_OF_BAND)


class Sync(StrEnum):
    """Whether the unit's applied fingerprint is its desired one and its last plan was empty."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


class Health(StrEnum):
    """How the unit fares."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    MISSING = "Missing"
    UNKNOWN = "Unknown"


# --- what users write --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file: where, what, and what to write instead."""

    place: Place
    reason: str
    message: str
    unit: UnitId | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Reference:
    """`${{ unit.output.path }}`: a value inside an output of another unit."""

    unit: UnitId
    output: str
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretReference:
    """`${{ secret.name }}`: a value that only the runner can read."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string with values inside it; each part is literal text or something that becomes text."""

    parts: tuple[str | Reference | SecretReference, ...]


# An input: JSON in which `Reference`, `SecretReference` and `Text` may stand for values.
Expression = object


@dataclass(frozen=True, slots=True)
class Limits:
    """What one apply may do without an allowance. Counts are objects."""

    destroy: int = 0
    recreate: int = 3
    free_replace: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one plan and one apply may take."""

    plan: timedelta = timedelta(minutes=15)
    apply: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which nothing is applied: it opens whenever `cron` says so in `timezone`, and lasts `duration` of real time."""

    cron: str
    duration: timedelta
    timezone: str
    reason: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """Code enters an environment only once everything in `after` that uses it was in order for `soak`, without a break."""

    after: str
    soak: timedelta


class Over(StrEnum):
    """What a rule is asked of: the whole plan, or each resource that it changes."""

    PLAN = "plan"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must be true of a plan before it is applied, and what is said where it is not."""

    name: str
    over: Over
    expression: str
    message: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What an environment.yaml lets through; all else in it says what is wanted."""

    klass: EnvironmentClass
    drift: DriftMode = DriftMode.CORRECT
    review: ReviewMode = ReviewMode.WHEN_AVAILABLE
    limits: Limits = field(default_factory=Limits)
    freeze: tuple[Window, ...] = ()
    promotion: tuple[Promotion, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """`environments/<name>/environment.yaml`, as jobs are judged by it.

    Where the merge that changed it made it looser, `drift`, `review`, `limits`, `freeze`, `promotion` and `rules` are the stricter of before
    and now, `strict_class` is the class of before, and `says` is what the file says: it counts from the next merge on.
    """

    name: str
    place: Place
    klass: EnvironmentClass
    providers: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    drift: DriftMode = DriftMode.CORRECT
    drift_interval: timedelta = timedelta(hours=1)
    depends_on: tuple[str, ...] = ()
    review: ReviewMode = ReviewMode.WHEN_AVAILABLE
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    freeze: tuple[Window, ...] = ()
    promotion: tuple[Promotion, ...] = ()
    rules: tuple[Rule, ...] = ()
    strict_class: EnvironmentClass | None = None
    says: Policy | None = None


@dataclass(frozen=True, slots=True)
class Allowances:
    """The lines of an entry that let one apply do more than the limits say; each has a life of its own."""

    destroy: int = 0
    downgrade: bool = False
    replace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry file, parsed and checked for itself alone. `places` gives the position of each field and input.

    `imports`: addresses inside the module, and the id of the existing object that each takes over. `adopt`: the state that
    others made and that becomes the unit's, `s3://<bucket>/<key>` or a path on the runner's host.
    """

    unit: UnitId
    place: Place
    module: str
    version: str | None
    ref: str | None = None
    inputs: Mapping[str, Expression] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[UnitId, ...] = ()
    presence: Presence = Presence.PRESENT
    allowances: Allowances = field(default_factory=Allowances)
    moved_from: UnitId | None = None
    promotion_skip: str | None = None
    imports: Mapping[str, str] = field(default_factory=dict)
    adopt: str | None = None
    places: Mapping[str, Place] = field(default_factory=dict)

    def at(self, name: str) -> Place:
        """Where the field `name`, or the input `inputs.<name>`, stands; the file where it does not."""
        return self.places.get(name, self.place)


@dataclass(frozen=True, slots=True)
class ProviderPin:
    """One provider of a locked version. `hashes` maps a registry's host to its `h1:`/`zh:` hashes."""

    source: str
    version: str
    hashes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pin:
    """A module and version of `catalog-lock.yaml`: everything needed to get exactly that code."""

    module: str
    version: str
    path: str
    ref: str
    commit: Commit
    digest: Digest
    providers: tuple[ProviderPin, ...] = ()
    yanked: str | None = None
    floating: bool = False  # a branch that a sandbox names, not a version of the lock

    @property
    def repository(self) -> str:
        """The name of the catalog repository, as the host's configuration knows it."""
        return self.module.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Lock:
    """`catalog-lock.yaml`: module -> version -> pin."""

    modules: Mapping[str, Mapping[str, Pin]] = field(default_factory=dict)

    def pins(self) -> Iterator[Pin]:
        """Every pin there is."""
        for versions in self.modules.values():
            yield from versions.values()


# --- what one commit means ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Unit:
    """An entry resolved: a pinned module, its inputs and references. It has exactly one Terraform state.

    `intent` digests everything that one commit says about the unit: equal intents, equal review.
    """

    id: UnitId
    entry: Entry
    environment: Environment
    pin: Pin
    references: frozenset[Reference]
    secrets: frozenset[str]
    upstream: AbstractSet[UnitId]  # units that must be in order first: references, depends_on, environments
    module_part: Digest
    inputs_part: Digest
    settings_part: Digest
    intent: Digest

    @property
    def presence(self) -> Presence:
        """Whether the unit shall exist."""
        return self.entry.presence

    @property
    def reads(self) -> frozenset[UnitId]:
        """The units whose outputs this unit reads."""
        return frozenset(r.unit for r in self.references)


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that one commit of the environments repository means. A broken entry is in `broken` only.

    `locked` is every (module, version) of the lock that could be read.
    """

    commit: Commit
    units: Mapping[UnitId, Unit] = field(default_factory=dict)
    broken: Mapping[UnitId, Problem] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    order: tuple[UnitId, ...] = ()  # every unit of `units`, upstream first
    locked: frozenset[tuple[str, str]] = frozenset()


# --- what is known of the actual side ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that can change a unit's plan, in four digests, so that a difference names its cause."""

    module: str
    inputs: str
    settings: str
    upstream: str


@dataclass(frozen=True, slots=True)
class StateMark:
    """Which state it is: Terraform's lineage, and the serial that grows with every write."""

    lineage: str
    serial: int


@dataclass(frozen=True, slots=True)
class Applied:
    """What a unit's last successful apply left behind.

    `reads` are the units that must not go before this one. `outputs` maps each output to an HMAC of its value.
    """

    job: JobId
    commit: Commit
    at: datetime
    fingerprint: Fingerprint
    module: str
    version: str
    presence: Presence
    reads: frozenset[UnitId]
    outputs: Mapping[str, str]
    state: StateMark | None


@dataclass(frozen=True, slots=True)
class Change:
    """One object that a plan would change: Terraform's address and actions, no values."""

    address: str
    type: str
    actions: tuple[str, ...]  # of create, read, update, delete, forget; two of them make a replacement
    reason: str = ""  # Terraform's action_reason, or "import"

    @property
    def destroys(self) -> bool:
        """Whether the object as it is now ceases to exist."""
        return "delete" in self.actions

    @property
    def replaces(self) -> bool:
        """Whether another object takes the place of this one."""
        return "delete" in self.actions and "create" in self.actions


MOST_TOLD = 1000  # changes, and missing objects, of one plan that leave the runner


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """What a plan would do, free of values. `digest` names the change set, values included (an HMAC).

    `more`: how many further changes were left out, where there are too many to tell.
    """

    changes: tuple[Change, ...]
    missing: tuple[str, ...]  # addresses in the state that refresh no longer found
    outputs_changed: bool
    digest: str
    more: int = 0

    @property
    def empty(self) -> bool:
        """Whether the real world is as desired."""
        return not self.changes and not self.outputs_changed

    def told(self) -> PlanSummary:
        """What is told of it outside of the runner: nobody reads thousands of addresses, and an answer has an end."""
        more = self.more + max(len(self.changes) - MOST_TOLD, 0)
        return replace(self, changes=self.changes[:MOST_TOLD], missing=self.missing[:MOST_TOLD], more=more)


@dataclass(frozen=True, slots=True)
class Job:
    """All that ever crosses to a runner.

    With `pull` it shows what the open pull request of that number would do: then `commit` is the request's head, and the
    operation a plan.
    """

    id: JobId
    operation: Operation
    unit: UnitId
    commit: Commit
    fence: int
    pull: int | None = None


SERIAL_UNEXPLAINED = "SerialUnexplained"


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A state that no job of ours made what it is: somebody ran Terraform by hand, or pushed a state.

    `recorded` is the last one that the runner's audit log explains.
    """

    found: StateMark
    recorded: StateMark | None = None

    def __str__(self) -> str:
        what = f"serial {self.recorded.serial} was the last that was recorded" if self.recorded else "none was recorded"
        return (
            f"The state has serial {self.found.serial}, and {what}: somebody ran Terraform by hand, or pushed a state. Find "
            "out who; the next plan shows what it changed."
        )


@dataclass(frozen=True, slots=True)
class Used:
    """What a job took of its host: seconds of CPU, and MiB that its processes had at most at a time, as far as that was seen."""

    cpu: float
    memory: int


THROTTLED = "Throttled"  # why a job failed: a cloud wants to be asked less
UNCERTAIN = "Uncertain"
MOST_STRAYS = 50  # of one unit that leave the runner


@dataclass(frozen=True, slots=True)
class Stray:
    """An object that no state knows, or that may be there without one: an apply whose end nobody saw made it.

    `id` is its ARN or name; empty where nobody can say. `found` is how it came to be known, `remedy` what an admin does about it.
    """

    type: str
    address: str = ""
    id: str = ""
    region: str = ""
    found: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What a runner says of a job that ended.

    `applied` is set when the unit is now as `fingerprint` says (an empty plan included); `plan` when there was one.
    """

    job: Job
    outcome: Outcome
    reason: str
    message: str
    started_at: datetime
    ended_at: datetime
    commit: Commit | None = None  # where the runner resolved the unit
    fingerprint: Fingerprint | None = None
    cause: Cause | None = None
    plan: PlanSummary | None = None
    applied: Applied | None = None
    transient: bool = True
    moved_from: UnitId | None = None
    unexplained: Unexplained | None = None
    refused: int = 0  # connections that the jail did not let its engine make, up to a bound
    strays: tuple[Stray, ...] | None = None  # None: the job did not come so far as to look
    used: Used | None = None


@dataclass(frozen=True, slots=True)
class HostPart:
    """What an environment's host says of itself, opaque: `digest` of its settings, an HMAC for each secret and each account."""

    klass: EnvironmentClass
    digest: str
    secrets: Mapping[str, str]
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """How far the runner's audit log, and its anchor, are. `anchored` is None where there is no anchor.

    `waiting_since`: when the first record that is not anchored was first seen so; `failure`: why the anchor was not reached.
    """

    records: int
    anchored: int | None = None
    waiting_since: datetime | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """How the runner stands to the protected branch: why it applies nothing at all, and why it waits with a commit, if so."""

    frozen: str = ""
    frozen_at: datetime | None = None
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """What a runner publishes (`runner describe`): the other half of every fingerprint.

    `fence` is the highest that any job had, and no part of what the runner is: facts that differ in it alone are equal.
    `sandbox` is the tier of the jail that its jobs run in. `memory` is what its host has, in MiB; 0: nobody knows.
    """

    engine: str
    engine_version: str
    environments: Mapping[str, HostPart]
    fence: int = field(default=0, compare=False)
    audit: AuditFacts | None = field(default=None, compare=False)
    sandbox: str = field(default="none", compare=False)
    trust: TrustFacts | None = field(default=None, compare=False)
    memory: int = 0


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


@dataclass(frozen=True, slots=True)
class Dispatched:
    """A job that was journaled and handed over, and what it was meant to do.

    `reads` are the units that an apply builds on, from the moment it is handed over.
    """

    job: Job
    fingerprint: Fingerprint
    policy: str  # digest of the limits and allowances that the job is judged by; see `gates.policy`
    cause: Cause
    at: datetime
    reads: frozenset[UnitId] = frozenset()


@dataclass(frozen=True, slots=True)
class Load:
    """What a running job takes now, measured: whether it waits instead of computing, and to how much memory it came so far (MiB)."""

    waits: bool = False
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Planned:
    """The last plan of a unit."""

    job: JobId
    fingerprint: Fingerprint
    cause: Cause
    summary: PlanSummary
    at: datetime


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

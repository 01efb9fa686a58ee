"""Facts in few words: units, records, ledgers and results for tests of the decision core.

A unit is named by its id and described by what differs from the plain one; everything else has a good default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from reconciler.deciding.decide import expected
from reconciler.deciding.gates import policy
from reconciler.desired.lock import LockFile
from reconciler.desired.resolve import resolve
from reconciler.errors import Place
from reconciler.model import (
    Aftermath,
    Allowances,
    Applied,
    BreakGlass,
    Cause,
    Change,
    Commit,
    Desired,
    Digest,
    Dispatched,
    DriftMode,
    Entry,
    Environment,
    EnvironmentClass,
    Expression,
    Failure,
    Fingerprint,
    HostPart,
    Job,
    JobId,
    Ledger,
    Limits,
    Lock,
    Operation,
    Outcome,
    Pause,
    Pin,
    PlanSummary,
    Presence,
    Reference,
    Result,
    RunnerFacts,
    SecretReference,
    Unit,
    UnitId,
    UnitRecord,
)

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
HEAD = Commit("c" * 40)
MODULE = "acme/vpc"
VERSIONS = ("1.0.0", "1.1.0", "2.0.0")


def pin(version: str = "1.0.0", module: str = MODULE, yanked: str | None = None) -> Pin:
    """A locked version; its commit and digest follow from its name."""
    commit = Commit(f"{sum(map(ord, module + version)):040x}")
    return Pin(module, version, "modules/vpc", f"v{version}", commit, Digest(f"sha256:{commit:0>64}"), yanked=yanked)


def lock(*pins: Pin) -> LockFile:
    """A lock with these pins, or with three versions of one module."""
    modules: dict[str, dict[str, Pin]] = {}
    for one in pins or tuple(pin(version) for version in VERSIONS):
        modules.setdefault(one.module, {})[one.version] = one
    return LockFile(Lock(modules))


def environment(
    name: str = "prod",
    *,
    klass: EnvironmentClass = EnvironmentClass.PROTECTED,
    drift: DriftMode = DriftMode.CORRECT,
    depends_on: Iterable[str] = (),
    destroy: int = 0,
    interval: timedelta = HOUR,
) -> Environment:
    """`environments/<name>/environment.yaml`."""
    return Environment(
        name,
        Place(f"environments/{name}/environment.yaml"),
        klass,
        drift=drift,
        drift_interval=interval,
        depends_on=tuple(depends_on),
        limits=Limits(destroy=destroy),
    )


def entry(
    name: str,
    *,
    reads: Iterable[str] = (),
    after: Iterable[str] = (),
    size: int = 1,
    version: str = "1.0.0",
    module: str = MODULE,
    presence: Presence = Presence.PRESENT,
    moved_from: str | None = None,
    secret: str | None = None,
    allow: Allowances | None = None,
) -> Entry:
    """An entry file. It reads the output `id` of each unit of `reads`; `after` is its depends_on."""
    inputs: dict[str, Expression] = {"size": size}
    inputs |= {f"in{n}": Reference(UnitId(unit), "id") for n, unit in enumerate(reads)}
    if secret is not None:
        inputs["secret"] = SecretReference(secret)
    return Entry(
        UnitId(name),
        Place(f"environments/{name}.yaml"),
        module,
        version,
        inputs=inputs,
        depends_on=tuple(map(UnitId, after)),
        presence=presence,
        moved_from=UnitId(moved_from) if moved_from else None,
        allowances=allow or Allowances(),
    )


def desired(
    *entries: Entry, environments: Iterable[Environment] = (), locked: LockFile | None = None, commit: Commit = HEAD
) -> Desired:
    """What a commit with these entries means, resolved by the real thing."""
    known = {one.name: one for one in environments}
    for one in entries:
        name = one.unit.partition("/")[0]
        known.setdefault(name, environment(name))
    return resolve(commit, known, {one.unit: one for one in entries}, locked or lock(), ()).desired


def unit(name: str = "prod/net", *, environments: Iterable[Environment] = (), **words: object) -> Unit:
    """One unit, with whatever it reads beside it."""
    one = entry(name, **words)  # type: ignore[arg-type]
    read = [v.unit for v in one.inputs.values() if isinstance(v, Reference)]
    others = [entry(other) for other in {*read, *one.depends_on}]
    return desired(one, *others, environments=environments, locked=lock(pin(str(one.version), one.module))).units[
        one.unit
    ]


def facts(*environments: str, host: str = "h1", secrets: Mapping[str, str] | None = None) -> RunnerFacts:
    """What the runner says of itself: it hosts these environments, or prod, stage and dev."""
    part = HostPart(EnvironmentClass.PROTECTED, host, secrets or {})
    return RunnerFacts("tofu", "1.12.3", dict.fromkeys(environments or ("prod", "stage", "dev"), part))


def fingerprint(word: str = "a") -> Fingerprint:
    """A fingerprint like no other word's."""
    return Fingerprint(f"m-{word}", f"i-{word}", f"s-{word}", f"u-{word}")


def applied(
    one: Unit,
    fp: Fingerprint,
    *,
    at: datetime = NOW,
    reads: Iterable[str] | None = None,
    outputs: Iterable[str] = ("id",),
) -> Applied:
    """What a successful apply of the unit left behind. Its outputs' seals follow from its id."""
    known = one.reads | frozenset(one.entry.depends_on) if reads is None else frozenset(map(UnitId, reads))
    seals = {name: f"seal-{one.id}-{name}" for name in outputs} if one.presence is Presence.PRESENT else {}
    return Applied(JobId("job-0"), HEAD, at, fp, one.pin.module, one.pin.version, one.presence, known, seals, None)


def in_order(
    want: Desired, host: RunnerFacts, *, but: Iterable[str] = (), next_check: datetime | None = NOW + HOUR
) -> Ledger:
    """A ledger in which every unit is as the commit says; nothing is known of those in `but`."""
    ledger = Ledger(head=want.commit)
    for name in want.order:
        if name in but:
            continue
        fp = expected(want, ledger, host)[name]
        if fp is None:
            continue
        record = UnitRecord(name, applied=applied(want.units[name], fp), next_check=next_check)
        ledger = replace(ledger, units={**ledger.units, name: record})
    return ledger


def with_record(ledger: Ledger, name: str, **changes: object) -> Ledger:
    """The ledger with something else known of one unit."""
    record = ledger.units.get(UnitId(name)) or UnitRecord(UnitId(name))
    return replace(ledger, units={**ledger.units, UnitId(name): replace(record, **changes)})  # type: ignore[arg-type]


def dispatched(
    name: str = "prod/net",
    fp: Fingerprint | None = None,
    *,
    operation: Operation = Operation.APPLY,
    cause: Cause = Cause.DESIRED,
    judged_by: str = "policy",
    reads: Iterable[str] = (),
    job: str = "job-1",
) -> Dispatched:
    """A job that was handed over."""
    made = Job(JobId(job), operation, UnitId(name), HEAD, 1)
    return Dispatched(made, fp or fingerprint(), judged_by, cause, NOW, frozenset(map(UnitId, reads)))


def result(asked: Dispatched, outcome: Outcome = Outcome.SUCCEEDED, **words: object) -> Result:
    """How the job ended, a minute after it began."""
    told: dict[str, object] = {"reason": "Because", "message": "It is so."} | words
    return Result(asked.job, outcome, started_at=NOW, ended_at=NOW + timedelta(minutes=1), **told)  # type: ignore[arg-type]


def failure(
    fp: Fingerprint,
    one: Unit | None = None,
    *,
    count: int = 1,
    retry_at: datetime | None = NOW + timedelta(seconds=5),
    outcome: Outcome = Outcome.FAILED,
) -> Failure:
    """A failure that stands, of the unit's policy as it is now."""
    judged_by = policy(one) if one else "policy"
    return Failure(JobId("job-1"), outcome, "ApplyFailed", "It broke.", fp, judged_by, count, NOW, retry_at)


def plan(
    *changes: Change, missing: Iterable[str] = (), outputs_changed: bool = False, digest: str = "d"
) -> PlanSummary:
    """What a plan would do."""
    return PlanSummary(changes, tuple(missing), outputs_changed, digest)


def change(address: str, *actions: str, kind: str = "file", reason: str = "") -> Change:
    """One object that a plan would change."""
    return Change(address, kind, actions or ("update",), reason)


def pause(scope: str = "prod", until: datetime = NOW + HOUR) -> Pause:
    """An admin's stop."""
    return Pause(scope, "ann", "migration", NOW - HOUR, until)


def session(scope: str = "prod", until: datetime = NOW + HOUR) -> BreakGlass:
    """Somebody works by hand."""
    return BreakGlass(scope, "ann", "the site is down", NOW, until)


def aftermath(scope: str = "prod", **words: object) -> Aftermath:
    """What a session that has just ended left of a unit."""
    return Aftermath(session(scope, NOW), NOW, **words)  # type: ignore[arg-type]

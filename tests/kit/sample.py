"""A sample installation for tests of what is shown: facts built by hand, whatever the resolver would make of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from reconciler.errors import Place
from reconciler.model import (
    Applied,
    Cause,
    Change,
    Commit,
    Desired,
    Digest,
    Dispatched,
    Entry,
    Environment,
    EnvironmentClass,
    Failure,
    Fingerprint,
    Job,
    JobId,
    Operation,
    Outcome,
    OutsideChange,
    Pause,
    Pin,
    Planned,
    PlanSummary,
    Presence,
    Problem,
    Reference,
    Result,
    StateMark,
    Unit,
    UnitId,
)

NOW = datetime(2026, 11, 24, 10, 0, tzinfo=UTC)
HEAD = Commit("4b1d" * 10)
FINGERPRINT = Fingerprint("m", "i", "s", "u")
OTHER = Fingerprint("m", "changed", "s", "u")
NETWORK = UnitId("prod/network")
APP = UnitId("prod/app")


@dataclass
class FixedClock:
    """A clock that a test moves."""

    time: datetime = NOW

    def now(self) -> datetime:
        return self.time


def environment(name: str) -> Environment:
    return Environment(name, Place(f"environments/{name}/environment.yaml"), EnvironmentClass.PROTECTED)


def unit(name: str, presence: Presence = Presence.PRESENT, *, reads: Iterable[str] = (), moved_from: str = "") -> Unit:
    unit_id = UnitId(name)
    place = Place(f"environments/{name}.yaml", 1, 1)
    entry = Entry(
        unit_id, place, "acme/vpc", "1.4.2", presence=presence, moved_from=UnitId(moved_from) if moved_from else None
    )
    digest = Digest("sha256:" + "0" * 64)
    references = frozenset(Reference(UnitId(upstream), "id") for upstream in reads)
    return Unit(
        id=unit_id,
        entry=entry,
        environment=environment(name.partition("/")[0]),
        pin=Pin("acme/vpc", "1.4.2", "modules/vpc", "v1.4.2", HEAD, digest),
        references=references,
        secrets=frozenset(),
        upstream=frozenset(reference.unit for reference in references),
        module_part=digest,
        inputs_part=digest,
        settings_part=digest,
        intent=digest,
    )


def desired(*units: Unit, broken: Iterable[str] = ()) -> Desired:
    wrong = {UnitId(name): Problem(Place(f"environments/{name}.yaml", 3, 10), "UnknownField", "no") for name in broken}
    names = {str(name).partition("/")[0] for name in [*wrong, *(one.id for one in units)]}
    return Desired(
        HEAD,
        {one.id: one for one in units},
        wrong,
        {name: environment(name) for name in names},
        tuple(wrong.values()),
        tuple(one.id for one in units),
    )


def applied(fingerprint: Fingerprint = FINGERPRINT, presence: Presence = Presence.PRESENT, job: str = "j1") -> Applied:
    return Applied(
        job=JobId(job),
        commit=HEAD,
        at=NOW,
        fingerprint=fingerprint,
        module="acme/vpc",
        version="1.4.2",
        presence=presence,
        reads=frozenset(),
        outputs={"id": "hmac:1"},
        state=StateMark("lineage", 3),
    )


def plan(*changes: tuple[str, tuple[str, ...]]) -> PlanSummary:
    return PlanSummary(tuple(Change(address, "file", actions) for address, actions in changes), (), False, "hmac:2")


def planned(summary: PlanSummary, job: str = "j2", at: datetime = NOW + timedelta(minutes=1)) -> Planned:
    return Planned(JobId(job), FINGERPRINT, Cause.DRIFT, summary, at)


def dispatched(
    name: str = "prod/network",
    fingerprint: Fingerprint = FINGERPRINT,
    cause: Cause = Cause.DESIRED,
    job: str = "j1",
    operation: Operation = Operation.APPLY,
) -> Dispatched:
    return Dispatched(Job(JobId(job), operation, UnitId(name), HEAD, 1), fingerprint, "policy", cause, NOW)


def failure(
    outcome: Outcome = Outcome.FAILED, reason: str = "EngineFailed", fingerprint: Fingerprint = OTHER
) -> Failure:
    later = NOW + timedelta(minutes=5)
    return Failure(JobId("j9"), outcome, reason, "it went wrong", fingerprint, "policy", 2, NOW, later)


def pause(scope: str = "prod", hours: float = 1) -> Pause:
    return Pause(scope, "ann", "migration", NOW, NOW + timedelta(hours=hours))


def outsider(**changes: object) -> OutsideChange:
    """What somebody wrote in prod's account."""
    calls = ("ec2:RunInstances",)
    plain = OutsideChange("prod", "111111111111", "mallory", calls, ("i-1",), NOW, NOW, 7, "e-1", seen_at=NOW)
    return replace(plain, **changes)  # type: ignore[arg-type]


def result(asked: Dispatched, outcome: Outcome = Outcome.SUCCEEDED, summary: PlanSummary | None = None) -> Result:
    good = outcome is Outcome.SUCCEEDED
    return Result(
        asked.job,
        outcome,
        "" if good else "EngineFailed",
        "3 objects created" if good else "it went wrong",
        NOW + timedelta(seconds=1),
        NOW + timedelta(seconds=8),
        commit=HEAD,
        fingerprint=asked.fingerprint,
        cause=asked.cause,
        plan=summary,
        applied=applied(asked.fingerprint, job=asked.job.id) if good else None,
    )

"""Many units in several environments, in a store that is filled by the events of jobs, with a bit of everything among them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from reconciler.actual.ledger import Event, HeadAccepted, HoldChanged, JobDispatched, JobEnded, Paused
from reconciler.git.proofs import Proof
from reconciler.model import (
    Cause,
    Change,
    Desired,
    Entry,
    Hold,
    JobId,
    Load,
    Operation,
    Outcome,
    Pause,
    Phase,
    PlanSummary,
    Reference,
    Result,
    UnitId,
    Window,
)
from tests.kit import facts
from tests.kit.served import Installation
from tests.kit.synced import record_synced

ENVIRONMENTS = ("dev", "prod", "shared", "stage")
FACTS = facts.facts(*ENVIRONMENTS)
KINDS = ("network", "service", "database", "queue", "bucket", "cluster")
TEAMS = ("billing", "checkout", "search", "identity", "media", "risk", "mail", "pricing")


@dataclass(frozen=True, slots=True)
class Crowd:
    """What the commit means, and the units that something is the matter with."""

    desired: Desired
    failing: UnitId
    waiting: UnitId
    running: UnitId
    drifting: UnitId
    orphaned: UnitId


def crowd(units: int) -> Desired:
    """So many entries: in each environment a network, and services of teams that read it or each other."""
    entries = [*_entries(units)]
    wrong = facts.entry("stage/search-broken", version="9.9.9")
    freezing = Window("0 16 * * FRI", timedelta(hours=64), "Europe/Berlin", "weekend")
    environments = [
        replace(facts.environment(name), freeze=(freezing,) if name == "prod" else ()) for name in ENVIRONMENTS
    ]
    return facts.desired(*entries, wrong, environments=environments)


def _entries(units: int) -> Iterator[Entry]:
    for number in range(units):
        environment = ENVIRONMENTS[number % len(ENVIRONMENTS)]
        place = number // len(ENVIRONMENTS)
        if place == 0:
            yield facts.entry(f"{environment}/network")
            continue
        team, kind = TEAMS[place % len(TEAMS)], KINDS[1 + place % (len(KINDS) - 1)]
        name = f"{environment}/{team}/{kind}-{place}"
        above = f"{environment}/network" if place < 60 or place % 7 else _name(environment, place - 7)
        one = facts.entry(name, version=facts.VERSIONS[place % 2])
        yield replace(one, inputs={**one.inputs, "network_id": Reference(UnitId(above), "value")})


def _name(environment: str, place: int) -> str:
    return f"{environment}/{TEAMS[place % len(TEAMS)]}/{KINDS[1 + place % (len(KINDS) - 1)]}-{place}"


def fill(installation: Installation, units: int) -> Crowd:
    """Let everything be applied, and then some of it not be as it should."""
    now = installation.clock.now()
    gone = facts.entry("dev/media/left-behind")
    wanted = crowd(units)
    with_gone = replace(
        wanted, units={**wanted.units, gone.unit: facts.unit(gone.unit)}, order=(*wanted.order, gone.unit)
    )
    installation.facts, installation.desired = FACTS, wanted
    store = installation.store
    store.append(HeadAccepted(wanted.commit, (), wanted.commit))
    record_synced(store, with_gone, FACTS, now - timedelta(hours=30))
    names = [UnitId(_name("prod", place)) for place in (8, 9, 10, 11)]
    failing, waiting, running, drifting = names
    store.append(*_failed(failing, now), HoldChanged(waiting, _waits(failing)), *_drifted(drifting, now))
    store.append(HoldChanged(gone.unit, Hold("Orphaned", "The entry's file is gone and its objects are still there.")))
    dispatched = facts.dispatched(
        running, facts.fingerprint("new"), cause=Cause.CATALOG, job="20261124T095730-00000000aa"
    )
    store.append(JobDispatched(replace(dispatched, at=now - timedelta(seconds=95))))
    installation.observer.job_phase(dispatched, Phase.APPLYING, Load())
    installation.observer.beat()
    store.append(Paused(Pause("stage", "ann", "migration of the database", now, now + timedelta(hours=3))), actor="ann")
    marks = [(Phase.VERIFYING, 94), (Phase.PLANNING, 88), (Phase.APPLYING, 41)]
    installation.ran[dispatched.job.id] = [(phase, now - timedelta(seconds=seconds)) for phase, seconds in marks]
    installation.proofs[wanted.commit] = Proof(
        wanted.commit, now - timedelta(hours=31), "ann@example.com", "SHA256:3xQm", 412, "bo", ("ann", "cy")
    )
    return Crowd(wanted, failing, waiting, running, drifting, gone.unit)


def _failed(unit: UnitId, now: datetime) -> list[Event]:
    asked = facts.dispatched(unit, facts.fingerprint("new"), cause=Cause.DESIRED, job="20261124T094000-00000000bb")
    summary = facts.plan(
        facts.change(
            "aws_db_instance.main", "delete", "create", kind="aws_db_instance", reason="replace_because_cannot_update"
        ),
        facts.change("aws_db_parameter_group.main", "update", kind="aws_db_parameter_group"),
        facts.change('aws_security_group_rule.in["10.0.0.0/16"]', "create", kind="aws_security_group_rule"),
        facts.change("aws_cloudwatch_metric_alarm.cpu", "delete", kind="aws_cloudwatch_metric_alarm"),
    )
    why = (
        "The plan destroys 2 objects (aws_db_instance.main, aws_cloudwatch_metric_alarm.cpu), and limits.destroy lets 0 be "
        "destroyed. If that is meant, merge `allow_destroy: 2` in the entry."
    )
    ended = facts.result(
        asked, Outcome.HELD, reason="DestroyLimit", message=why, plan=summary, fingerprint=asked.fingerprint
    )
    ended = replace(ended, started_at=now - timedelta(minutes=19), ended_at=now - timedelta(minutes=18))
    return [
        JobDispatched(replace(asked, at=now - timedelta(minutes=20))),
        JobEnded(asked, ended, now + timedelta(minutes=40), None),
    ]


def _waits(on: UnitId) -> Hold:
    return Hold("DependencyNotReady", f"{on} failed (DestroyLimit: The plan destroys 2 objects); this unit follows it.")


def _drifted(unit: UnitId, now: datetime) -> list[Event]:
    asked = facts.dispatched(unit, cause=Cause.DRIFT, operation=Operation.PLAN, job="20261124T093000-00000000cc")
    changed: tuple[Change, ...] = (facts.change("aws_security_group.this", "update", kind="aws_security_group"),)
    summary = PlanSummary(changed, (), outputs_changed=False, digest="hmac:drift")
    ended: Result = facts.result(asked, reason="Drifted", message="1 object differs.", plan=summary, cause=Cause.DRIFT)
    ended = replace(ended, fingerprint=asked.fingerprint, ended_at=now - timedelta(minutes=29))
    return [JobDispatched(asked), JobEnded(asked, ended, None, now + timedelta(minutes=31))]


JOB = JobId("20261124T095730-00000000aa")

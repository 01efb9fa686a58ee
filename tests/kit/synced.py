"""A ledger in which every unit is in order, recorded as the daemon would have: by the results of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from reconciler.actual.ledger import Event, JobDispatched, JobEnded
from reconciler.deciding.decide import expected
from reconciler.deciding.gates import policy
from reconciler.model import (
    Applied,
    Cause,
    Desired,
    Dispatched,
    Fingerprint,
    Job,
    JobId,
    Ledger,
    Operation,
    Outcome,
    PlanSummary,
    Result,
    RunnerFacts,
    StateMark,
    Unit,
    UnitId,
    UnitRecord,
)
from reconciler.ports import Store

NOTHING = PlanSummary((), (), outputs_changed=False, digest="hmac:0")
FAR = timedelta(days=1)  # until the first drift check: no test waits for it


def record_synced(store: Store, desired: Desired, facts: RunnerFacts, now: datetime) -> None:
    """Journal one successful job for each unit. What a unit reads of another is named by that one's id."""
    store.append(*_events(desired, facts, now))


def _events(desired: Desired, facts: RunnerFacts, now: datetime) -> Iterator[Event]:
    records: dict[UnitId, UnitRecord] = {}
    for number, id_ in enumerate(desired.order):
        unit = desired.units[id_]
        wanted = expected(replace(desired, units={id_: unit}), Ledger(desired.commit, records), facts)[id_]
        assert wanted is not None, f"{id_} reads what no unit before it gives"
        asked = _dispatched(unit, wanted, number, now)
        applied = _applied(unit, asked, now)
        records[id_] = UnitRecord(id_, applied=applied)
        result = Result(
            asked.job, Outcome.SUCCEEDED, "InSync", "The real world is as desired.", now, now,
            commit=desired.commit, fingerprint=wanted, cause=Cause.DESIRED, plan=NOTHING, applied=applied,
        )  # fmt: skip
        yield JobDispatched(asked)
        yield JobEnded(asked, result, None, now + FAR)


def _dispatched(unit: Unit, wanted: Fingerprint, number: int, now: datetime) -> Dispatched:
    job = Job(JobId(f"{now:%Y%m%dT%H%M%S}-{number:010x}"), Operation.APPLY, unit.id, unit.pin.commit, 1)
    return Dispatched(job, wanted, policy(unit), Cause.DESIRED, now, unit.reads)


def _applied(unit: Unit, asked: Dispatched, now: datetime) -> Applied:
    return Applied(
        job=asked.job.id,
        commit=asked.job.commit,
        at=now,
        fingerprint=asked.fingerprint,
        module=unit.pin.module,
        version=unit.pin.version,
        presence=unit.presence,
        reads=unit.reads,
        outputs={"value": f"hmac:{unit.id}"},
        state=StateMark("lineage", 1),
    )

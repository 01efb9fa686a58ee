"""A job's life: where it was, for how long, and how it ended. From the journal, and from the runner as long as that knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from reconciler.actual.ledger import JobDispatched, JobEnded, PullShown
from reconciler.codec import decode_event, encode
from reconciler.errors import PassError
from reconciler.model import Dispatched, JobId, Phase, Result, UnitId, UnitRecord
from reconciler.ports import Chosen, HistoryEvent
from reconciler.status import Picture
from reconciler.web.sentences import job_of
from reconciler.web.view import View

PAGE, PAGES = 200, 25  # events of a unit that are looked through for a job


@dataclass(frozen=True, slots=True)
class JobSeen:
    """What the journal has of a job. One for a pull request leaves no more than what it showed."""

    id: JobId
    unit: UnitId
    dispatched: Dispatched | None = None
    result: Result | None = None
    shown: PullShown | None = None
    at: datetime | None = None

    @property
    def running(self) -> bool:
        """Whether it has no end yet."""
        return self.result is None and self.shown is None


@dataclass(frozen=True, slots=True)
class Step:
    """A part of its life. `share`: of all of it, in percent; `last`: it goes on."""

    name: str
    start: datetime
    end: datetime
    share: float
    before: float
    last: bool = False

    @property
    def seconds(self) -> float:
        """How long it took, or takes so far."""
        return (self.end - self.start).total_seconds()


def find_job(view: View, picture: Picture, name: str, unit: str) -> JobSeen | None:
    """The job of that name; without its unit only where the ledger still names it."""
    job = JobId(name)
    unit_id = UnitId(unit) if unit else _unit_of(picture, job)
    if unit_id is None:
        return None
    found = JobSeen(job, unit_id)
    for event in _events(view, unit_id):
        if job_of(event.action, event.body) != job:
            continue
        match decode_event(event.action, encode(event.body)):
            case JobEnded(dispatched, result):
                return JobSeen(job, unit_id, dispatched, result, at=event.at)
            case JobDispatched(dispatched):
                return JobSeen(job, unit_id, dispatched, at=event.at)
            case PullShown() as shown:
                return JobSeen(job, unit_id, shown=shown, at=event.at)
    return None if found.at is None else found


def _unit_of(picture: Picture, job: JobId) -> UnitId | None:
    return next((record.unit for record in picture.ledger.units.values() if job in _jobs(record)), None)


def _jobs(record: UnitRecord) -> Iterator[JobId]:
    if record.job is not None:
        yield record.job.job.id
    for fact in (record.applied, record.planned, record.failure):
        if fact is not None:
            yield fact.job


def _events(view: View, unit: UnitId) -> Iterator[HistoryEvent]:
    """The unit's newest events, as many as are worth looking through."""
    before: int | None = None
    for _ in range(PAGES):
        events = view.history(unit, PAGE, Chosen(before))
        yield from events
        if len(events) < PAGE:
            return
        before = events[-1].seq


def timeline(view: View, job: JobSeen, now: datetime) -> list[Step]:
    """Its phases in order; of what the runner has forgotten, as much as the journal has."""
    if job.dispatched is None:
        return []
    end = job.result.ended_at if job.result else now
    marks: list[tuple[str, datetime]] = [(Phase.QUEUED.value, job.dispatched.at)]
    with suppress(PassError):
        marks += [(phase.value, at) for phase, at in view.phases(job.id)]
    if len(marks) == 1 and job.result is not None:
        marks.append(("Running", job.result.started_at))
    return _steps(marks, max(end, marks[-1][1]), running=job.running)


def _steps(marks: list[tuple[str, datetime]], end: datetime, *, running: bool) -> list[Step]:
    start = marks[0][1]
    whole = max((end - start).total_seconds(), 0.001)
    ends = [(name, at, max(after, at)) for (name, at), (_, after) in pairwise([*marks, ("", end)])]
    return [
        Step(
            name,
            at,
            after,
            100 * (after - at).total_seconds() / whole,
            100 * max((at - start).total_seconds(), 0) / whole,
            running and index == len(ends) - 1,
        )
        for index, (name, at, after) in enumerate(ends)
    ]


def first_log(view: View, job: JobSeen) -> tuple[bytes, str]:
    """The beginning of the log, and why there is none, if so. The page's script fetches what follows."""
    try:
        return view.log(job.id, 0), ""
    except PassError as error:
        return b"", str(error)

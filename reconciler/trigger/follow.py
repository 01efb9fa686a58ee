"""What happens after a wake-up, told as it happens: how units fare, phases of jobs, and their masked output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.errors import PassError
from reconciler.model import JobId
from reconciler.ports import HistoryEvent
from reconciler.trigger.callers import ALL, within
from reconciler.trigger.outcome import Outcome, UnitOutcome, Verdict
from reconciler.trigger.view import Sight
from reconciler.trigger.wakings import Waking, Wakings
from reconciler.web.shape import Shape, row

MOST_EVENTS = 500  # of the journal, between two looks
MOST_LOG = 4 * 1024 * 1024  # bytes of one job
MOST_UNITS = 500  # told in one answer
_CHUNK = 64 * 1024


def told(waking: Waking, seen: Outcome) -> Shape:
    """The outcome so far, as it is answered. Of many units those come first that are not in order."""
    units = sorted(seen.units, key=lambda unit: (unit.good, unit.status.unit))[:MOST_UNITS]
    return {
        "id": waking.id,
        "scope": waking.wanted.scope,
        "commit": waking.wanted.commit,
        "at": waking.wanted.at,
        "head": seen.head,
        "result": seen.verdict,
        "reason": seen.reason,
        "message": seen.message,
        "units": [shape(unit) for unit in units],
        "total": len(seen.units),
        "settled": sum(unit.settled for unit in seen.units),
    }


def shape(unit: UnitOutcome, phase: str | None = None) -> Shape:
    """A unit, in the words of the read-only API."""
    return {**row(unit.status), "phase": phase or unit.status.phase, "settled": unit.settled}


@dataclass(slots=True)
class _Log:
    """How far one job's output was told. `offset` is where the next byte is, `rest` a line that has not ended."""

    unit: str
    offset: int = 0
    rest: bytes = b""
    cut: bool = False


@dataclass(slots=True)
class Follow:
    """One reader's place in what happens. `look` is called again and again, by one thread at a time."""

    sight: Sight
    wakings: Wakings
    waking: Waking
    ended: bool = False
    _seq: int | None = None
    _ledger: object = None
    _said: dict[str, object] = field(default_factory=dict)
    _logs: dict[JobId, _Log] = field(default_factory=dict)

    def look(self) -> Iterator[Shape]:
        """What is new, oldest first. After the last of it `ended` is true."""
        seen = self.wakings.outcome(self.waking)
        yield from self._early(seen)
        yield from self._journaled(seen)
        yield from self._units(seen)
        yield from self._running()
        if seen.verdict is not Verdict.WAITING:
            for job in list(self._logs):
                yield from self._log(job, ended=True)
            self.ended = True
            yield {"event": "end", **told(self.waking, seen)}

    def _new(self, key: str, value: object) -> bool:
        new = self._said.get(key) != value
        self._said[key] = value
        return new

    def _early(self, seen: Outcome) -> Iterator[Shape]:
        if self._new("", (seen.reason, seen.head)):
            yield {"event": "commit", "head": seen.head, "reason": seen.reason, "message": seen.message}

    def _units(self, seen: Outcome) -> Iterator[Shape]:
        """Units that fare otherwise than before; of those that were in order from the start, nothing is said."""
        records = self.sight.picture().ledger.units
        for unit in seen.units:
            record = records.get(unit.status.unit)
            job = record.job.job if record and record.job else None
            phase = self.sight.phase(job.id) if job else None
            known = unit.status.unit in self._said or not (unit.settled and unit.good)
            if known and self._new(unit.status.unit, (unit, phase, job)):
                yield {"event": "unit", **shape(unit, phase), "job": job and job.id}
            if job is not None and job.pull is None:
                self._logs.setdefault(job.id, _Log(unit.status.unit))

    def _journaled(self, seen: Outcome) -> Iterator[Shape]:
        """Jobs that began and ended since, also those that did so between two looks."""
        ledger = self.sight.picture().ledger
        if not seen.units or ledger is self._ledger:
            return
        self._ledger = ledger
        wanted = self.waking.wanted
        if self._seq is None:
            self._seq = self._since()
        seq = self._seq
        news = [event for event in self.sight.history(wanted.scope, MOST_EVENTS) if event.seq > seq]
        self._seq = max((event.seq for event in news), default=seq)
        for event in reversed(news):
            if event.unit is not None and within(wanted.scope, [event.unit]):
                yield from self._job(event.unit, event)

    def _since(self) -> int:
        """The event from which on jobs are told: the wanted commit's acceptance, though it was before anybody asked.

        Without a commit, or where that is long ago, it is the wake-up.
        """
        wanted, events = self.waking.wanted, self.sight.history(ALL, MOST_EVENTS)
        came = (event.seq for event in events if wanted.commit is not None and _brings(event, wanted.commit))
        before = (event.seq for event in events if event.at < wanted.at)
        return max(came, default=max(before, default=0))

    def _job(self, unit: str, event: HistoryEvent) -> Iterator[Shape]:
        if event.action not in ("job-dispatched", "job-ended"):
            return
        dispatched = event.body["dispatched"]
        job = dispatched["job"] if isinstance(dispatched, dict) else {}
        name = JobId(job["id"])
        shown: Shape = {"unit": unit, "job": name, "operation": job["operation"], "commit": job["commit"]}
        result = event.body.get("result")
        self._logs.setdefault(name, _Log(unit))
        if not isinstance(result, dict):
            if self._new(f"job {name}", True):
                yield {"event": "job", **shown}
            return
        yield from self._log(name, ended=True)
        words = {word: result[word] for word in ("outcome", "reason", "message")}
        yield {"event": "result", **shown, **words}

    def _running(self) -> Iterator[Shape]:
        for job in list(self._logs):
            yield from self._log(job, ended=False)

    def _log(self, job: JobId, *, ended: bool) -> Iterator[Shape]:
        """What is new of the job's output, in whole lines."""
        log = self._logs[job]
        while not log.cut:
            try:
                data = self.sight.log(job, log.offset)
            except PassError:
                break  # it is asked for again with the next look
            log.offset += len(data)
            log.rest += data
            log.cut = log.offset > MOST_LOG
            yield from _lines(job, log, ended=ended and not data)
            if not data:
                break
        if ended:
            self._logs.pop(job)
            if log.cut:
                yield {
                    "event": "log",
                    "unit": log.unit,
                    "job": job,
                    "offset": log.offset,
                    "text": "(the rest is cut)\n",
                }


def _brings(event: HistoryEvent, commit: str) -> bool:
    if event.action not in ("head-accepted", "history-accepted"):
        return False
    chain = event.body.get("chain")
    return commit in (event.body.get("commit"), event.body.get("new")) or (isinstance(chain, list) and commit in chain)


def _lines(job: JobId, log: _Log, *, ended: bool) -> Iterator[Shape]:
    end = len(log.rest) if ended or len(log.rest) > _CHUNK else log.rest.rfind(b"\n") + 1
    start = log.offset - len(log.rest)
    for place in range(0, end, _CHUNK):
        text = log.rest[place : min(place + _CHUNK, end)].decode(errors="replace")
        yield {"event": "log", "unit": log.unit, "job": job, "offset": start + place, "text": text}
    log.rest = log.rest[end:]

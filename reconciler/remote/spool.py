"""A job's life in S3: a folder of objects per job, as the local spool has a folder of files. What is in them is codec's, too.

jobs/<id>/job.json     what is asked                          written once, by the controller
jobs/<id>/cancel       begin no apply; if it is not taken yet: do not take it       the controller
jobs/<id>/task.json    which task carries it out: of several one     written once, by the task
jobs/<id>/phases       its phases as they began, a line each         the task
jobs/<id>/log/<n>      the masked output of the engine from byte n on    the task
jobs/<id>/died         how its process was ended, while the task lived on     the task
jobs/<id>/result.json  how it ended                                  the task
lead.json              the highest fence that a controller leads with      the controller; only ever raised
facts.json             what the runner publishes of its host         the task
queue/<environment>/<operation>/<id>   which jobs a task that idles may take    the controller; removed by the task

Whoever may write job.json and `cancel` can ask for what is merged, and no more: a task believes of a job nothing but its names. A
false result can be written by whoever writes for the task, or deceives itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from reconciler import codec
from reconciler.errors import PassError
from reconciler.model import Job, JobId, Operation, Phase, Result, RunnerFacts
from reconciler.remote.bucket import Bucket, Stored

T = TypeVar("T")

DIGITS = 16  # of a byte's number in the name of a part of the log, so that names sort as numbers do
LEAD_TRIES = 5
_TAKEN_OVER = (
    "Another controller works with this spool: stop it. If there is none, restart this one: it takes a higher."
)


@dataclass(frozen=True, slots=True)
class Warm:
    """Of what a task that idles may take further jobs: it has the credentials of nothing else."""

    environment: str
    operation: Operation

    @property
    def folder(self) -> str:
        """Where they are announced."""
        return f"queue/{self.environment}/{self.operation.value}/"


def warm_of(job: Job) -> Warm:
    """Where the job is announced."""
    return Warm(job.unit.partition("/")[0], job.operation)


@dataclass(frozen=True, slots=True)
class Claim:
    """The task that carries a job out, by its ARN."""

    task: str


class Spooled:
    """What both planes read. Raises PassError "RunnerUnavailable" when S3 does not answer, "AnswerInvalid" for nonsense."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def asked(self, job_id: JobId) -> Stored | None:
        """The words of the job, unchecked; None: nobody asked for it."""
        return self.bucket.read(_of(job_id, "job.json"))

    def cancelled(self, job_id: JobId) -> bool:
        """Whether it is not wanted any more."""
        return self.bucket.read(_of(job_id, "cancel")) is not None

    def claim(self, job_id: JobId) -> Claim | None:
        """Who carries it out; None: nobody has begun."""
        return self._kept(Claim, _of(job_id, "task.json"))

    def result(self, job_id: JobId) -> Result | None:
        """How it ended; None: it has not, or nobody could write it."""
        return self._kept(Result, _of(job_id, "result.json"))

    def died(self, job_id: JobId) -> str:
        """How the job's process was ended by a signal while its task lived on; empty: it was not."""
        found = self.bucket.read(_of(job_id, "died"))
        return found.data.decode(errors="replace") if found else ""

    def phases(self, job_id: JobId) -> Sequence[tuple[Phase, datetime]]:
        """The phases that began, and when."""
        name = _of(job_id, "phases")
        found = self.bucket.read(name)
        try:
            lines = [json.loads(line) for line in found.data.splitlines()] if found else []
            return [(Phase(line["phase"]), datetime.fromisoformat(line["at"])) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise self._nonsense(name, error) from error

    def facts(self) -> tuple[RunnerFacts, datetime] | None:
        """What the runner published last, and when; None before the first task."""
        found = self.bucket.read("facts.json")
        return (self._decoded(RunnerFacts, "facts.json", found.data), found.at) if found else None

    def fence(self) -> int:
        """The highest that a controller leads with; 0 before the first."""
        return self._lead()[0]

    def _lead(self) -> tuple[int, str]:
        found = self.bucket.read("lead.json")
        if found is None:
            return 0, ""
        try:
            return int(json.loads(found.data)["fence"]), found.tag
        except (ValueError, KeyError, TypeError) as error:
            raise self._nonsense("lead.json", error) from error

    def _kept(self, kind: type[T], name: str) -> T | None:
        found = self.bucket.read(name)
        return self._decoded(kind, name, found.data) if found else None

    def _decoded(self, kind: type[T], name: str, data: bytes) -> T:
        try:
            return codec.decode(kind, data)
        except ValueError as error:
            raise self._nonsense(name, error) from error

    def _nonsense(self, name: str, error: Exception) -> PassError:
        what = f"{self.bucket.place}/{name} is not understood: {error!r}"
        return PassError("AnswerInvalid", f"{what}; let the tasks and the controller be of one version.")


class Asking(Spooled):
    """The controller's side."""

    def ask(self, job: Job) -> None:
        """Write what is asked for, once. Raises PassError, too, where another job has the name."""
        data, name = codec.encode(job), _of(job.id, "job.json")
        if not self.bucket.write_new(name, data) and (found := self.bucket.read(name)) and found.data != data:
            raise PassError("BadRequest", f"{self.bucket.place}/{name} is another job; nothing was asked for.")

    def announce(self, job: Job) -> None:
        """Let a task that idles take it."""
        self.bucket.write(f"{warm_of(job).folder}{job.id}", b"")

    def cancel(self, job_id: JobId) -> None:
        """It shall begin no apply; and nobody who has not taken it yet shall."""
        self.bucket.write(_of(job_id, "cancel"), b"")

    def lead(self, fence: int) -> None:
        """Raise the fence: from then on no task begins, nor applies, for a lower one.

        Raises:
            PassError: "FenceStale": a higher one leads. "FenceBusy": others raise it just now.
        """
        data = json.dumps({"fence": fence}).encode()
        for _ in range(LEAD_TRIES):
            highest, tag = self._lead()
            if highest == fence:
                return
            if highest > fence:
                raise PassError("FenceStale", f"{highest} leads already, and not {fence}. {_TAKEN_OVER}")
            done = self.bucket.replace("lead.json", data, tag) if tag else self.bucket.write_new("lead.json", data)
            if done:
                return
        raise PassError("FenceBusy", "Others are raising the fence right now; it is asked again by itself.")

    def log_from(self, job_id: JobId, offset: int) -> bytes:
        """The log from a byte on, as far as one part of it goes; empty at its end so far."""
        folder = _of(job_id, "log/")
        found = self.bucket.read(f"{folder}{offset:0{DIGITS}}")
        if found is not None:
            return found.data
        before = [name for name in self.bucket.names(folder) if name.isdigit() and int(name) < offset]
        part = self.bucket.read(folder + before[-1]) if before else None
        return part.data[offset - int(before[-1]) :] if part else b""


class Answering(Spooled):
    """The task's side."""

    def take(self, job_id: JobId, task: str) -> bool:
        """Be the one that carries the job out. False: another task is.

        Ask `cancelled` after this, and not before: the controller writes that a job is not wanted before it looks for a claim. So of the two
        at least one sees the other, and no job that counts as lost is begun.
        """
        claim = Claim(task)
        return self.bucket.write_new(_of(job_id, "task.json"), codec.encode(claim)) or self.claim(job_id) == claim

    def announced(self, warm: Warm) -> list[JobId]:
        """The jobs that a task of this kind may take, oldest first."""
        return [JobId(name) for name in self.bucket.names(warm.folder)]

    def taken_down(self, warm: Warm, job_id: JobId) -> None:
        """It need not be announced any more."""
        self.bucket.remove(f"{warm.folder}{job_id}")

    def put_phases(self, job_id: JobId, lines: bytes) -> None:
        """The journal of phases, as the local spool has it."""
        self.bucket.write(_of(job_id, "phases"), lines)

    def put_log(self, job_id: JobId, offset: int, part: bytes) -> None:
        """A part of the log, from that byte on."""
        self.bucket.write(f"{_of(job_id, 'log/')}{offset:0{DIGITS}}", part)

    def put_died(self, job_id: JobId, how: str) -> None:
        """How the job's process was ended by a signal."""
        self.bucket.write(_of(job_id, "died"), how.encode())

    def put_result(self, job_id: JobId, result: Result) -> None:
        """How it ended."""
        self.bucket.write(_of(job_id, "result.json"), codec.encode(result))

    def put_facts(self, facts: RunnerFacts) -> None:
        """What the runner publishes of its host."""
        self.bucket.write("facts.json", codec.encode(facts))


def _of(job_id: JobId, name: str) -> str:
    return f"jobs/{job_id}/{name}"

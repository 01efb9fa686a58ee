"""A job's life on disk: a folder per job, so that it is found again whoever dies.

`job.json` what was asked; `events.jsonl` its phases as they began; `log.txt` the masked engine output; `result.json`
how it ended; `lock` is held while any process of the job lives, the engine's own included; `work/` is the workspace.
Outside of it is only `temporary`, which is there no longer than `work/`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reconciler import codec
from reconciler.durable import FileLock, append, is_locked, sync_folder, write_atomic
from reconciler.model import Job, JobId, Phase, Result
from reconciler.ports import Lost, Running
from reconciler.runner.terraform.engine import discard

KEPT = 2000  # ended jobs whose logs are kept


@dataclass(frozen=True, slots=True)
class JobFolder:
    """One job's folder."""

    path: Path

    @property
    def work(self) -> Path:
        """The workspace; it holds secrets and goes when the job has ended well or failed."""
        return self.path / "work"

    @property
    def temporary(self) -> Path:
        """For the engine's temporary files, if the workspace's path is too long for them."""
        return Path(tempfile.gettempdir()) / f"engine-{self.path.name}"

    @property
    def log(self) -> Path:
        """The masked engine output."""
        return self.path / "log.txt"

    @property
    def note(self) -> Path:
        """How the engine is to be ended, should the job die: outside of the workspace, where the engine writes."""
        return self.path / "engine.json"

    @property
    def refusals(self) -> Path:
        """What the engine was not let connect to."""
        return self.path / "egress.jsonl"

    @property
    def lock(self) -> Path:
        """Held while any process of the job lives."""
        return self.path / "lock"

    def create(self, job: Job) -> FileLock | None:
        """Make the folder and take its lock; None when it is there already: the job was started before.

        Not yet on disk: a job that a loss of power takes before its apply has changed nothing, and is decided afresh.
        """
        try:
            self.path.mkdir(mode=0o700)
        except FileExistsError:
            return None
        lock = FileLock(self.lock)
        lock.take()
        try:
            write_atomic(self.path / "job.json", codec.encode(job), durable=False)
        except BaseException:
            lock.release()  # nobody will carry it out: it is lost, and decided afresh
            raise
        return lock

    def secure(self) -> None:
        """Bring to disk whose job it is, and that there is such a folder: whoever finds the phase of an apply must find that."""
        _sync(self.path / "job.json")
        sync_folder(self.path)
        sync_folder(self.path.parent)

    def begin(self, phase: Phase, *, secured: bool = False) -> None:
        """Journal that a phase begins. That of the apply is on disk when this returns, folder and all; `secured`: see there."""
        line = json.dumps({"at": datetime.now(UTC).isoformat(), "phase": phase.value})
        applies, events = phase is Phase.APPLYING, self.path / "events.jsonl"
        if applies and not secured:
            self.secure()
        keep = append if events.exists() else write_atomic  # never there without a line: that would mean the worst
        keep(events, line.encode() + b"\n", durable=applies)

    def end(self, result: Result) -> None:
        """Journal the result. A loss of power right now may take it; then the job counts as lost, and what it did is in the memory."""
        write_atomic(self.path / "result.json", codec.encode(result), durable=False)

    def cancel(self) -> None:
        """Ask that no apply be begun."""
        if self.path.exists():
            write_atomic(self.path / "cancel", b"")

    def cancelled(self) -> bool:
        """Whether that was asked."""
        return self.told()

    def told(self) -> bool:
        """Whether that was asked, as far as this folder has it: for who looks all the time."""
        return (self.path / "cancel").exists()

    def note_death(self, how: str) -> None:
        """Journal how the job's process was ended by a signal."""
        if self.path.exists():
            write_atomic(self.path / "died", how.encode(), durable=False)

    def died(self) -> str:
        """How it was, if so."""
        path = self.path / "died"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def alive(self) -> bool:
        """Whether any process of the job lives, its engine's included."""
        return is_locked(self.lock)

    def job(self) -> Job | None:
        """What was asked; None where that cannot be read: the job, or the host, died before it was on disk."""
        try:
            return codec.decode(Job, (self.path / "job.json").read_bytes())
        except (OSError, ValueError):
            return None

    def state(self) -> Running | Result | Lost:
        """Where the job is. The lock is asked before the result: a job that ends in between has one."""
        alive = self.alive()
        with suppress(FileNotFoundError, ValueError):  # none yet, or what a loss of power left of one
            return codec.decode(Result, (self.path / "result.json").read_bytes())
        return Running(self.phase()) if alive else Lost(self.phase() is Phase.APPLYING, self.died())

    def phase(self) -> Phase:
        """The phase that began last, as far as a loss of power left it to be read; where nothing is left, the worst."""
        if not (self.path / "events.jsonl").exists():
            return Phase.QUEUED
        readable = (_phase(line) for line in reversed(self._events().splitlines()))
        return next((phase for phase in readable if phase is not None), Phase.APPLYING)

    def phases(self) -> list[tuple[Phase, datetime]]:
        """The phases that began, and when, as far as they can be read."""
        return [found for line in self._events().splitlines() if (found := _began(line)) is not None]

    def clean(self) -> None:
        """Remove the workspace, and every secret in it."""
        self.clean_temporary()
        self.note.unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def clean_temporary(self) -> None:
        """Remove the engine's temporary files that are outside, and only those: the workspace may have the only good state."""
        discard(self.temporary)

    def _events(self) -> bytes:
        path = self.path / "events.jsonl"
        return path.read_bytes() if path.exists() else b""


def _phase(line: bytes) -> Phase | None:
    """The phase in a line of the journal; None: the line is torn."""
    try:
        return Phase(json.loads(line)["phase"])
    except (ValueError, KeyError, TypeError):
        return None


def _began(line: bytes) -> tuple[Phase, datetime] | None:
    """The phase in a line of the journal, and when it began; None: the line is torn."""
    phase = _phase(line)
    try:
        return (phase, datetime.fromisoformat(json.loads(line)["at"])) if phase is not None else None
    except (ValueError, KeyError, TypeError):
        return None


def _sync(path: Path) -> None:
    """Make what the file holds durable; its name is, when its folder is."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


class Spool:
    """Every job's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def job(self, job_id: JobId) -> JobFolder:
        """The folder of a job, existing or not. The id was checked where it came in."""
        return JobFolder(self.folder / job_id)

    def jobs(self) -> list[JobFolder]:
        """Every folder, oldest first: a job id sorts by time."""
        return [JobFolder(path) for path in sorted(self.folder.iterdir()) if path.is_dir()]

    def prune(self) -> None:
        """Forget the oldest dead jobs beyond those that are kept; never one whose workspace somebody may need."""
        for folder in self.jobs()[:-KEPT]:
            if not folder.alive() and not folder.work.exists():
                shutil.rmtree(folder.path, ignore_errors=True)

"""What a house does and holds, from outside: its journal, followed event by event, and its processes."""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.house import House, Json
from tests.soak.gauge import look

TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Follower:
    """The jobs that were started and ended since `begin`. Each look reads only what is new."""

    path: Path
    seq: int = 0
    started: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    order: list[str] = field(default_factory=list)  # as they were started
    heads: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Forget what was."""
        self.read()
        for one in (self.started, self.ended, self.reasons, self.order):
            one.clear()

    def read(self) -> None:
        """Take in what is new."""
        query = (
            "SELECT seq, action, unit, body FROM events WHERE seq > ? AND action IN "
            "('job-dispatched', 'job-ended', 'head-accepted') ORDER BY seq"
        )
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as db:
            for seq, action, unit, body in db.execute(query, (self.seq,)):
                self.seq = seq
                self._take(action, unit, json.loads(body))

    def _take(self, action: str, unit: str, body: Json) -> None:
        if action == "head-accepted":
            self.heads.append(body["commit"])
        elif action == "job-dispatched":
            self.started[unit] += 1
            self.order.append(unit)
        else:
            self.ended[unit] += 1
            self.reasons[f"{body['result']['outcome']} {body['result']['reason']}"] += 1

    @property
    def idle(self) -> bool:
        """Whether every job that was started has ended."""
        return self.started.total() == self.ended.total()


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds since the planes began: the controller with its gits, the runner's service alone, and all jobs with their engines."""

    controller: float
    runner: float
    jobs: float

    def since(self, before: Cost) -> Cost:
        """What came after that."""
        return Cost(self.controller - before.controller, self.runner - before.runner, self.jobs - before.jobs)


def cost(house: House) -> Cost:
    """What both planes have taken. Jobs that have ended are their parent's: the service's."""
    (own, children), (service, jobs) = (_cpu(process.pid) for process in (house.controller, house.runner) if process)
    return Cost(own + children, service, jobs)


def _cpu(pid: int) -> tuple[float, float]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICK, sum(map(int, fields[13:15])) / TICK


def held(house: House) -> Json:
    """Memory of their own in KiB, descriptors and threads of both; and the journal."""
    planes = {"controller": house.controller, "runner": house.runner}
    found: Json = {}
    for name, process in planes.items():
        assert process is not None
        seen = look(process.pid, 0)
        found[name] = {"memory_kib": seen.memory, "descriptors": seen.descriptors, "threads": seen.threads}
    folder = house.ground.folder / "controller"
    found["journal_bytes"] = sum(path.stat().st_size for path in folder.glob("reconciler.db*"))
    return found

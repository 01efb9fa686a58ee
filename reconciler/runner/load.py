"""What jobs take of this host, measured from outside: whether a job computes or waits, and its memory.

All processes are looked at in one go, at most once a second, whatever the number of jobs: a job's are those that descend from its own.
Where that cannot be seen, a job counts as one that computes.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.model import JobId, Load, Used
from reconciler.runner.warm.loan import STANDS_IN

PERIOD = 1.0  # seconds between two looks
IDLE = 0.2  # of a core: what takes less waits. An engine that waits for a cloud takes some hundredths
STEP = 64  # MiB in which memory is told, so that it is not another at each look
_TICK, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its parent, the CPU that it and its ended children took, in seconds, and its memory in bytes.

    `elsewhere`: what it waits for computes, in a warm worker.
    """

    parent: int
    cpu: float
    memory: int
    elsewhere: bool = False


@dataclass(slots=True)
class _Seen:
    """What was seen of a job last. `peak`: bytes."""

    at: float
    cpu: float
    load: Load
    peak: int = 0


class Meter:
    """Follows the jobs that are its caller's children."""

    def __init__(self, steady: Callable[[], float] = time.monotonic, proc: Path = PROC) -> None:
        self._steady, self._proc = steady, proc
        self._seen: dict[int, _Seen] = {}
        self._looked = float("-inf")

    def load(self, jobs: Mapping[int, JobId], job: JobId) -> Load:
        """What the job takes. `jobs`: all that run, by process; one that is not among them counts as one that computes."""
        pid = next((pid for pid, name in jobs.items() if name == job), None)
        if pid is None:
            return Load()
        if self._steady() - self._looked >= PERIOD:
            self._look(jobs)
        seen = self._seen.get(pid)
        return seen.load if seen is not None else Load()

    def _look(self, jobs: Mapping[int, JobId]) -> None:
        self._looked = now = self._steady()
        processes = survey(self._proc)
        children: dict[int, list[int]] = {}
        for pid, one in processes.items():
            children.setdefault(one.parent, []).append(pid)
        self._seen = {pid: self._judge(pid, _tree(pid, processes, children), now) for pid in jobs if pid in processes}

    def _judge(self, pid: int, tree: Sequence[Process], now: float) -> _Seen:
        before, cpu = self._seen.get(pid), sum(one.cpu for one in tree)
        peak = max(sum(one.memory for one in tree), before.peak if before else 0)
        # A process that left the tree takes its past along: what then looks like less than nothing is no proof of waiting.
        idle = before is not None and 0 <= cpu - before.cpu < IDLE * (now - before.at)
        waits = idle and not any(one.elsewhere for one in tree)
        return _Seen(now, cpu, Load(waits, -(-peak // (STEP << 20)) * STEP), peak)


def survey(proc: Path = PROC) -> dict[int, Process]:
    """Every process of this host that can be seen."""
    found = {}
    for name in os.listdir(proc) if proc.exists() else ():  # noqa: PTH208 - hundreds of them, once a second
        if name.isdigit() and (one := _process(f"{proc}/{name}/stat")) is not None:
            found[int(name)] = one
    return found


def _process(path: str) -> Process | None:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            head, _, tail = file.read(4096).rpartition(b")")
        fields = tail.split()
        return Process(
            int(fields[1]),
            sum(map(int, fields[11:15])) / _TICK,
            int(fields[21]) * _PAGE,
            head.endswith(b"(" + STANDS_IN),
        )
    except (OSError, ValueError, IndexError):  # it has ended meanwhile
        return None


def _tree(pid: int, processes: Mapping[int, Process], children: Mapping[int, Sequence[int]]) -> list[Process]:
    """The process and all that descend from it."""
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(processes[one])
        left += children.get(one, ())
    return found


def used() -> Used:
    """What this process and those that it waited for took. Of memory: its own, and the largest of theirs."""
    mine, theirs = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
    return Used(round(cpu, 3), (mine.ru_maxrss + theirs.ru_maxrss) >> 10)


def host_memory(proc: Path = PROC, groups: Path = Path("/sys/fs/cgroup")) -> int:
    """What this host has, in MiB, or the control group that this process is in, if that has less; 0: nobody knows."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        line = next(line for line in (proc / "meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
        found.append(int(line.split()[1]) >> 10)
    with suppress(OSError):
        mine = next(
            (line[3:] for line in (proc / "self/cgroup").read_text().splitlines() if line.startswith("0::")), "/"
        )
        folder = groups / mine.lstrip("/")
        for one in (folder, *folder.parents):
            if one.is_relative_to(groups):
                with suppress(OSError, ValueError):
                    found.append(int((one / "memory.max").read_text()) >> 20)
    return min(found, default=0)

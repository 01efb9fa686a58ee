"""What a process holds, seen from outside, over its life."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. Memory in KiB: of its own (pages of files come and go with what the machine needs), and its share of all."""

    at: float
    memory: int
    pss: int
    descriptors: int
    threads: int


def look(pid: int, at: float) -> Sample:
    """How much the process holds now. Raises OSError when it is gone."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    shares = (proc / "smaps_rollup").read_text().splitlines()
    return Sample(
        at,
        sum(int(status[name].split()[0]) for name in ("RssAnon", "VmSwap")),
        next(int(line.split()[1]) for line in shares if line.startswith("Pss:")),
        len(list((proc / "fd").iterdir())),
        int(status["Threads"]),
    )


def least(samples: list[Sample]) -> dict[str, int]:
    """Of each number the least: what a moment needs comes and goes, what leaks is there in the least as well."""
    rows = [asdict(sample) for sample in samples]
    return {name: min(row[name] for row in rows) for name in ("memory", "pss", "descriptors", "threads")}


def growth(samples: list[Sample], begin: float, end: float) -> dict[str, dict[str, int]]:
    """The least of the window's first and of its last quarter."""
    quarter = (end - begin) / 4
    first = [s for s in samples if begin <= s.at < begin + quarter]
    last = [s for s in samples if end - quarter <= s.at <= end]
    return {"before": least(first), "after": least(last)}

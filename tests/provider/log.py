"""The provider's log of calls: the oracle for what really happened, and how often."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Call:
    """One line of the log. `path` begins with the region, if there is one; `at` is seconds since the epoch.

    Outcomes of a create: started, then one of created, adopted, exists, failed (files_flaky), interrupted (files_slow;
    waiting comes before). Of the others: found, absent, updated, deleted, failed.
    """

    at: float
    pid: int
    op: str
    type: str
    path: str
    outcome: str


def calls(root: Path, *, op: str | None = None, outcome: str | None = None) -> list[Call]:
    """The calls so far, oldest first; a line that is still being written is not there yet."""
    log = root / "calls.log"
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    parsed = (Call(**json.loads(line)) for line in lines if line.endswith(b"\n"))
    return [call for call in parsed if op in (None, call.op) and outcome in (None, call.outcome)]


def doubled(root: Path) -> list[str]:
    """Paths that were created a second time while the object was there: what an apply that ran twice does."""
    return [call.path for call in calls(root, op="create") if call.outcome in ("adopted", "exists")]

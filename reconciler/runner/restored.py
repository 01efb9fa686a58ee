"""What a memory that was put back to a backup does not know, and how long it is treated as not knowing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.model import Applied, Commit, StateMark, UnitId


@dataclass(frozen=True, slots=True)
class Restored:
    """When the memory was put back, and to what.

    `backup` is the archive's SHA-256, made at `taken_at` with the accepted head `head`. `found`: by environment, the states that
    were there at the first look after it and that the memory cannot explain: they came about since. `searched`: the units for which
    it was begun to look for what an apply since then, which nobody remembers, may have left when it died.
    """

    at: datetime
    backup: str
    taken_at: datetime
    head: Commit | None = None
    found: Mapping[str, Mapping[UnitId, StateMark]] = field(default_factory=dict)
    searched: frozenset[UnitId] = frozenset()

    def doubts(self, applied: Applied | None) -> bool:
        """Whether what is remembered as applied may be less than what was: no job has seen to it since."""
        return applied is None or applied.at <= self.at

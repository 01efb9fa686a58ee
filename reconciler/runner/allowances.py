"""The life of an allowance: it opens when its line changes and ends with the next successful apply, or after a week.

Pure. The runner folds every newly accepted commit into what it remembers, in order, so that a line which was taken
out and put back in between counts as changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta

from reconciler.model import Allowances, UnitId

LIFE = timedelta(days=7)
NONE = Allowances()
NAMES = tuple(f.name for f in fields(Allowances))


@dataclass(frozen=True, slots=True)
class Allowed:
    """What one entry's lines said last, and since when each changed line is open."""

    seen: Allowances = field(default_factory=Allowances)
    opened: Mapping[str, datetime] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lines:
    """What an entry says now. An entry that is renamed goes on with what its old name said."""

    said: Allowances = NONE
    moved_from: UnitId | None = None


def fold(known: Mapping[UnitId, Allowed], lines: Mapping[UnitId, Lines], at: datetime | None) -> dict[UnitId, Allowed]:
    """What is known after a commit in which the entries of `lines` were added, changed or (no allowance) removed.

    An entry that cannot be read is not among them: what it said last stays seen, and spent. `at` is when the commit was
    accepted; None where trust starts: its lines are seen, and open nothing.
    """
    after = dict(known)
    for unit, now in lines.items():
        before = known.get(unit) or (known.get(now.moved_from) if now.moved_from else None)
        allowed = _fold_one(before or Allowed(), now.said, at)
        after[unit] = allowed
        if allowed.seen == NONE:
            del after[unit]
    return after


def _fold_one(allowed: Allowed, said: Allowances, at: datetime | None) -> Allowed:
    opened = dict(allowed.opened)
    for name in NAMES:
        if getattr(said, name) == getattr(allowed.seen, name):
            continue
        opened.pop(name, None)
        if at is not None and getattr(said, name) != getattr(NONE, name):
            opened[name] = at
    return Allowed(said, opened)


def open_now(allowed: Allowed | None, now: datetime) -> Allowances:
    """The allowances that count now."""
    if allowed is None:
        return NONE
    live = {name: getattr(allowed.seen, name) for name, at in allowed.opened.items() if now - at < LIFE}
    return Allowances(**live)


def spend(known: Mapping[UnitId, Allowed], unit: UnitId, opened: Mapping[str, datetime]) -> dict[UnitId, Allowed]:
    """What is known after a successful apply of the unit that was judged with `opened`. What opened later stays open."""
    return {u: _spent(a, opened) if u == unit else a for u, a in known.items()}


def _spent(allowed: Allowed, opened: Mapping[str, datetime]) -> Allowed:
    left = {name: at for name, at in allowed.opened.items() if opened.get(name) != at}
    return Allowed(allowed.seen, left)

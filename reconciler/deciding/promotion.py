"""Whether a module's code may enter an environment: only after it was in order in another one for a while. Pure.

What is promoted is the digest of what runs (module, folder, providers), so a version that only has another number, and a
change of inputs, need no proof. The proof is in the ledger: since when each unit has been in order with that digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.desired.shape import short
from reconciler.model import (
    Applied,
    Desired,
    Fingerprint,
    Ledger,
    Presence,
    Promotion,
    Skip,
    Unit,
    UnitId,
    UnitRecord,
)

SKIP_LIFE = timedelta(days=7)  # as that of every line that lets one apply do more
MOST_NAMED = 5  # units that a message names


Users = Mapping[tuple[str, str], tuple[UnitId, ...]]  # environment and module digest -> the units that run it, or shall


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see: what is known, the fingerprints that units shall have, and who uses which code (`users_of`)."""

    ledger: Ledger
    expected: Mapping[UnitId, Fingerprint | None]
    users: Users
    now: datetime


def why_not(sight: Sight, unit: Unit, record: UnitRecord) -> str | None:
    """Why the unit's module may not enter yet, as a sentence; None: it may, or is there already."""
    if unit.presence is not Presence.PRESENT or not unit.environment.promotion:
        return None
    if _runs(_applied(sight, unit, record), unit.module_part) or is_open(
        unit.entry.promotion_skip, record.skip, sight.now
    ):
        return None
    return next((why for one in unit.environment.promotion if (why := _unproven(sight, unit, one))), None)


def _applied(sight: Sight, unit: Unit, record: UnitRecord) -> Applied | None:
    """What runs under the unit's name, or did under the one that it had: a new name brings no new code."""
    source = sight.ledger.units.get(unit.entry.moved_from) if unit.entry.moved_from else None
    return record.applied or (source.applied if source is not None else None)


def _runs(applied: Applied | None, module_part: str) -> bool:
    return applied is not None and applied.presence is Presence.PRESENT and applied.fingerprint.module == module_part


def _unproven(sight: Sight, unit: Unit, rule: Promotion) -> str | None:
    users = [
        sight.ledger.units.get(name) or UnitRecord(name) for name in sight.users.get((rule.after, unit.module_part), ())
    ]
    what = f"{unit.pin.module} {unit.pin.version} enters {unit.environment.name} once everything in {rule.after} that uses it"
    needs = f"{what} has been in order for {short(rule.soak)} without a break"
    if not users:
        return f"{needs}; nothing there uses this code yet."
    late = [said for record in users if (said := _late(sight, record, unit.module_part, rule.soak))]
    if not late:
        return None
    more = f" and {len(late) - MOST_NAMED} more" if len(late) > MOST_NAMED else ""
    return f"{needs}: {'; '.join(late[:MOST_NAMED])}{more}."


def users_of(desired: Desired, ledger: Ledger) -> Users:
    """Who runs, or shall run, which code, broken entries and orphans included; empty where no environment asks for it."""
    origins = {rule.after for one in desired.environments.values() for rule in one.promotion}
    found: dict[tuple[str, str], set[UnitId]] = {}
    for unit in desired.units.values() if origins else ():
        if unit.environment.name in origins and unit.presence is Presence.PRESENT:
            found.setdefault((unit.environment.name, unit.module_part), set()).add(unit.id)
    for record in ledger.units.values() if origins else ():
        name, applied = record.unit.partition("/")[0], record.applied
        if name in origins and applied is not None and applied.presence is Presence.PRESENT:
            found.setdefault((name, applied.fingerprint.module), set()).add(record.unit)
    return {key: tuple(sorted(units)) for key, units in found.items()}


def _late(sight: Sight, record: UnitRecord, module_part: str, soak: timedelta) -> str | None:
    """Why a unit does not prove anything yet."""
    if not _runs(record.applied, module_part):
        return f"{record.unit} does not run it yet"
    applied = record.applied
    if applied is None or record.steady_since is None or applied.fingerprint != sight.expected.get(record.unit):
        return f"{record.unit} is not in order"
    until = record.steady_since + soak
    return None if sight.now >= until else f"{record.unit} until {until:%Y-%m-%d %H:%M} UTC"


def rules_of(desired: Desired) -> frozenset[Promotion]:
    """Every environment's."""
    return frozenset(rule for one in desired.environments.values() for rule in one.promotion)


def edges_of(record: UnitRecord, rules: frozenset[Promotion]) -> Iterator[datetime]:
    """When the unit will have been in order for long enough, and when its line ends."""
    if record.steady_since is not None:
        name = record.unit.partition("/")[0]
        yield from (record.steady_since + rule.soak for rule in rules if rule.after == name)
    if rules and record.skip is not None and record.skip.at is not None and not record.skip.spent:
        yield record.skip.at + SKIP_LIFE


# --- the line that lets a module in without proof


def is_open(line: str | None, skip: Skip | None, now: datetime) -> bool:
    """Whether the line counts: as it was seen, for a week, and until an apply has used it."""
    if line is None or skip is None or skip.reason != line or skip.spent or skip.at is None:
        return False
    return now < skip.at + SKIP_LIFE


def unseen(
    desired: Desired, ledger: Ledger, now: datetime, among: Iterable[UnitId] | None = None
) -> Iterator[tuple[UnitId, Skip | None]]:
    """The lines that are other ones than were seen last. Where nothing is known at all, they are seen and open nothing.

    `among`: nothing can be new of any other unit.
    """
    first = not ledger.units
    for name in desired.units if among is None else sorted(among):
        unit, record = desired.units.get(name), ledger.units.get(name)
        known = record.skip if record else None
        if unit is None or (known.reason if known else None) == unit.entry.promotion_skip:
            continue
        line = unit.entry.promotion_skip
        yield name, None if line is None else Skip(line, now, spent=first)

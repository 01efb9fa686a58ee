"""A pass over everything, as plain as can be: what every pass of the product, which looks only at what was touched, has to come to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from reconciler.actual.ledger import claimed_by_moves, reads_now
from reconciler.deciding import promotion
from reconciler.deciding.budgets import CALM, OF_ALL, Capacity, Limit, Pressure, Use
from reconciler.deciding.decide import (
    Dispatch,
    Held,
    Known,
    expected,
    look,
    record_of,
    unwanted,
)
from reconciler.deciding.gates import EVERY_UNIT, World
from reconciler.deciding.promotion import rules_of, users_of
from reconciler.deciding.schedule import edges_for_all, edges_of
from reconciler.deciding.turns import Served, Wanted, rank, rank_within, wanted
from reconciler.model import Desired, Hold, Ledger, RunnerFacts, UnitId


@dataclass(frozen=True, slots=True)
class Queued:
    """The unit would start, were it its turn. `limit`: what the first of its environment waits for."""

    unit: UnitId
    environment: str
    limit: Limit


Decision = Dispatch | Held | Queued


def survey(
    desired: Desired,
    ledger: Ledger,
    facts: RunnerFacts | None,
    now: datetime,
    *,
    answers: bool = True,
    known: Known | None = None,
) -> World:
    """Gather what the gates look at. `answers`: whether the runner does, now. `known`: see `expected`."""
    faults: dict[UnitId, Exception] = {}
    wanted, users = expected(desired, ledger, facts, known, faults), users_of(desired, ledger)
    return World(desired, ledger, facts, wanted, readers_of(ledger, faults), now, answers, users, faults=faults)


def readers_of(ledger: Ledger, faults: dict[UnitId, Exception] | None = None) -> dict[UnitId, tuple[UnitId, ...]]:
    """For each unit that something is built on: what.

    `faults` gets what nobody foresaw, by unit: what such a unit reads is unknown, so it counts as a reader of every unit.
    """
    faults = {} if faults is None else faults
    readers: dict[UnitId, list[UnitId]] = {}
    for record in ledger.units.values():
        try:
            reads = reads_now(record)
        except Exception as error:  # noqa: BLE001 - `decide` holds the unit for it
            reads, faults[record.unit] = frozenset({EVERY_UNIT}), error
        for unit in reads:
            readers.setdefault(unit, []).append(record.unit)
    return {unit: tuple(sorted(who)) for unit, who in readers.items()}


def decide(
    world: World, capacity: Capacity, pressure: Pressure = CALM, served: Served | None = None
) -> Iterator[Decision]:
    """One decision for every unit that needs anything, or whose hold has changed."""
    found: list[Wanted] = []
    holds: dict[UnitId, Hold | None] = {}
    world = replace(world, holds=holds)
    for place, unit_id in enumerate(world.desired.order):
        record = record_of(world, unit_id)
        view = look(world, world.desired.units[unit_id], record)
        if record.job is None:
            holds[unit_id] = view.hold
            if view.hold != record.hold:
                yield Held(unit_id, view.hold, view.fault)
        if view.dispatch is not None:
            found.append(wanted(view.dispatch, record, place))
    yield from _unwanted(world)
    running = [record for record in world.ledger.units.values() if record.job is not None]
    use = Use(sorted(running, key=lambda record: record.unit), capacity, world.facts, pressure, world.now)
    yield from _start(found, use, served or Served(), world.now)


def _start(found: list[Wanted], use: Use, served: Served, now: datetime) -> Iterator[Dispatch | Queued]:
    """Each time the first of all, until nothing more may start."""
    shut: dict[str, Limit] = {}
    for one in _heads(found, use, served, now):
        limit = use.limit(one.environment, one.memory)
        if limit is not None and limit not in OF_ALL:
            shut[one.environment] = limit
    while heads := [one for one in _heads(found, use, served, now) if one.environment not in shut]:
        one = min(heads, key=lambda one: rank(one, use, served, now))
        limit = use.limit(one.environment, one.memory)
        if limit is not None:
            names = [head.environment for head in heads] if limit in OF_ALL else [one.environment]
            shut |= dict.fromkeys(names, limit)
            continue
        found.remove(one)
        use.add(one.environment, one.memory, one.dispatch.cause)
        served.note(one.environment, one.kind)
        yield one.dispatch
    for one in sorted(found, key=lambda one: one.dispatch.unit.id):
        yield Queued(one.dispatch.unit.id, one.environment, shut[one.environment])


def _heads(found: list[Wanted], use: Use, served: Served, now: datetime) -> list[Wanted]:
    names = {one.environment for one in found}
    return [
        min((one for one in found if one.environment == name), key=lambda one: rank_within(one, use, served, now))
        for name in sorted(names)
    ]


def _unwanted(world: World) -> Iterator[Decision]:
    """Broken entries, and units whose file is gone: neither is touched, and both say why."""
    claimed = claimed_by_moves(world.desired, world.ledger)
    for unit in (*world.desired.broken, *(one for one in world.ledger.units if one not in world.desired.broken)):
        yield from unwanted(world, unit, claimed)


def next_due(world: World) -> datetime | None:
    """When the next decision changes although nothing happens: a check, a retry, the edge of a pause, a session or a freeze."""
    times = [*edges_for_all(world), *edges(world.desired, world.ledger)]
    for unit_id in world.desired.units:
        record = world.ledger.units.get(unit_id)
        times += edges_of(record) if record is not None else ()
    return min((t for t in times if t > world.now), default=None)


def edges(desired: Desired, ledger: Ledger) -> Iterator[datetime]:
    """When a unit will have been in order for long enough, though nothing happens."""
    rules = rules_of(desired)
    for record in ledger.units.values() if rules else ():
        yield from promotion.edges_of(record, rules)

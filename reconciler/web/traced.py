"""From a unit back to who let it be: entry, pin, commit, pull request, signer and approvers, as far as the controller knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.desired.template import spell
from reconciler.git.proofs import Proof
from reconciler.model import Applied, Commit, Pin, Reference, SecretReference, Text, Unit, UnitId
from reconciler.status import Picture
from reconciler.web.view import View


@dataclass(frozen=True, slots=True)
class Trace:
    """One side's: what is desired, or what was applied. What the controller does not know is None."""

    commit: Commit | None
    proof: Proof | None
    entry: str | None = None
    pin: Pin | None = None


def trace(view: View, picture: Picture, unit_id: UnitId) -> tuple[Trace | None, Trace | None]:
    """Of what is desired, and of what was applied; None for a side that is not there."""
    unit = picture.desired.units.get(unit_id) if picture.desired else None
    record = picture.ledger.units.get(unit_id)
    wanted = picture.desired.commit if picture.desired else None
    return (
        Trace(wanted, _proof(view, wanted), str(unit.entry.place), unit.pin) if unit is not None else None,
        _applied(view, record.applied) if record is not None and record.applied is not None else None,
    )


def _applied(view: View, applied: Applied) -> Trace:
    return Trace(applied.commit, _proof(view, applied.commit))


def _proof(view: View, commit: Commit | None) -> Proof | None:
    return view.proof(commit) if commit else None


def inputs_of(unit: Unit) -> list[tuple[str, list[str]]]:
    """The names of the inputs, and what each is read from, if it is. No values."""
    return [(name, sorted({*_sources(value)})) for name, value in sorted(unit.entry.inputs.items())]


def _sources(value: object) -> Iterator[str]:
    match value:
        case Reference() | SecretReference():
            yield spell(value)
        case Text(parts=parts):
            for part in parts:
                yield from _sources(part)
        case Mapping():
            for inner in value.values():
                yield from _sources(inner)
        case list() | tuple():
            for inner in value:
                yield from _sources(inner)

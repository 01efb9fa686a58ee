"""From a unit back to who let it be: entry, pin, commit, pull request, signer and approvers, as far as the controller knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.desired.template import spell
from reconciler.git.proofs import Proof
from reconciler.model import Commit, Pin, Reference, SecretReference, Text, Unit, UnitId
from reconciler.status import Picture
from reconciler.web.view import View


@dataclass(frozen=True, slots=True)
class Trace:
    """One side's: what is desired, or what was applied. What the controller does not know is None."""

    commit: Commit | None
    proof: Proof | None
    page: str | None = None  # the forge's, of the pull request
    entry: str | None = None
    pin: Pin | None = None


def trace(view: View, picture: Picture, unit_id: UnitId) -> tuple[Trace | None, Trace | None]:
    """Of what is desired, and of what was applied; None for a side that is not there."""
    unit = picture.desired.units.get(unit_id) if picture.desired else None
    record = picture.ledger.units.get(unit_id)
    wanted = picture.desired.commit if picture.desired else None
    return (
        _side(view, wanted, str(unit.entry.place), unit.pin) if unit is not None else None,
        _side(view, record.applied.commit) if record is not None and record.applied is not None else None,
    )


def _side(view: View, commit: Commit | None, entry: str | None = None, pin: Pin | None = None) -> Trace:
    proof = view.proof(commit) if commit else None
    return Trace(commit, proof, _page(view, proof), entry, pin)


def _page(view: View, proof: Proof | None) -> str | None:
    return view.pull_page(proof.pull) if proof is not None and proof.pull is not None else None


def told_of(one: Trace | None) -> dict[str, object] | None:
    """A side as the API has it."""
    if one is None:
        return None
    return {"commit": one.commit, **_proven(one.proof, one.page)}


def pulls_of(view: View, commits: Iterable[Commit]) -> dict[Commit, dict[str, object]]:
    """By which pull request each of the commits came, of those that came by one."""
    proofs = ((commit, view.proof(commit)) for commit in dict.fromkeys(commits))
    return {
        commit: {"number": proof.pull, "url": _page(view, proof)}
        for commit, proof in proofs
        if proof is not None and proof.pull is not None
    }


def _proven(proof: Proof | None, page: str | None) -> dict[str, object]:
    if proof is None:
        return {"pull": None, "signer": None, "key": None, "author": None, "approvers": []}
    pull = {"number": proof.pull, "url": page} if proof.pull is not None else None
    names = {"signer": proof.signer or None, "key": proof.key or None, "author": proof.author or None}
    return {"pull": pull, **names, "approvers": list(proof.approvers)}


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

"""The one item by which everything is decided: who leads, how far the journal goes, and where its last snapshot is.

It is small, and each append changes it: so the journal's tip moves only while its writer leads, and only from where that
writer knows it to be.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.errors import PassError
from reconciler.ports import Term
from reconciler.store.chain import GENESIS, Tip
from reconciler.store.dynamodb.table import Item, Key

OFFICE = Key("lease", 0)
VERSION = 1  # of what is in the table


@dataclass(frozen=True, slots=True)
class Folded:
    """A snapshot: what the journal up to `tip` means, in `parts` items of a slot. `digest`: SHA-256 of all of it, in hex."""

    slot: str
    parts: int
    tip: Tip
    digest: str


@dataclass(frozen=True, slots=True)
class Office:
    """The item as it was read."""

    term: Term
    tip: Tip
    folded: Folded | None = None


def office_of(item: Item | None, place: str) -> Office | None:
    """The item as a fact; None: nobody ever led.

    Raises:
        PassError: "StoreTooNew"; "StoreCorrupt": it is none of this program's.
    """
    if item is None:
        return None
    try:
        version = int(item["version"])
        if version > VERSION:
            raise too_new(place, f"store version {version}, this one knows {VERSION}")
        term = Term(str(item["holder"]), int(item["fence"]), float(item["ttl"]), int(item["beat"]))
        return Office(term, Tip(int(item["seq"]), str(item["hash"])), _folded(item))
    except (KeyError, ValueError) as error:
        raise corrupt(place, f"the item {OFFICE.group}/{OFFICE.number} cannot be read: {error!r}") from error


def _folded(item: Item) -> Folded | None:
    if "slot" not in item:
        return None
    tip = Tip(int(item["folded_seq"]), str(item["folded_hash"]))
    return Folded(str(item["slot"]), int(item["parts"]), tip, str(item["digest"]))


def new_office(term: Term) -> Item:
    """The item of a table that nobody has used."""
    return {"version": VERSION, **said_of(term), "seq": 0, "hash": GENESIS}


def said_of(term: Term) -> Item:
    """The term's part of the item."""
    return {"holder": term.holder, "fence": term.fence, "ttl": str(term.ttl), "beat": term.beat}


def moved_to(tip: Tip, folded: Folded | None) -> Item:
    """What an append changes."""
    moved: Item = {"seq": tip.seq, "hash": tip.hash}
    if folded is None:
        return moved
    place: Item = {"slot": folded.slot, "parts": folded.parts, "digest": folded.digest}
    return {**moved, **place, "folded_seq": folded.tip.seq, "folded_hash": folded.tip.hash}


RESTORE = (
    "Stop the daemons, restore the table to a moment before by point-in-time recovery, under another name, and write that name in "
    "store.dynamodb.table."
)


def corrupt(place: str, what: str) -> PassError:
    """Something in the table is not as this program writes it."""
    return PassError("StoreCorrupt", f"{place}: {what}. {RESTORE}")


def too_new(place: str, what: str) -> PassError:
    """A newer program wrote the store: read as an older one it would be misread."""
    return PassError(
        "StoreTooNew",
        f"{place}: written by a newer reconciler ({what}); install that version again, or restore the table to a moment before "
        "the upgrade by point-in-time recovery, under another name",
    )

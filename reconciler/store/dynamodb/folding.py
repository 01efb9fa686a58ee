"""Snapshots of the ledger, so that a start reads the newest of them and the journal since, and not all history.

There are two slots: while a snapshot is written into one, the other counts. It is written a part with each append, so that no
append takes long; the append after the last part says that it counts.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from reconciler.codec import Newer, decode_kept, encode
from reconciler.model import Commit, Ledger
from reconciler.store.chain import Tip
from reconciler.store.dynamodb.office import Folded, corrupt, too_new
from reconciler.store.dynamodb.patience import Patient
from reconciler.store.dynamodb.table import MOST_OF_ITEM, STAMP, Key, Put, Range, Refused

LEAST = 1 << 20  # bytes of events before there is a first snapshot
FACTOR = 4  # so many times its own size is journaled before the next
SLOTS = ("snapshot-a", "snapshot-b")


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the journal up to some record means: the ledger, and the commits that are part of the accepted history."""

    ledger: Ledger = field(default_factory=Ledger)
    commits: tuple[Commit, ...] = ()


@dataclass(frozen=True, slots=True)
class Folding:
    """A snapshot that is being written: what is left to write of it, and what the lease's item shall say then."""

    left: Sequence[Put]
    folded: Folded

    @property
    def done(self) -> bool:
        """Whether all of it is in the table."""
        return not self.left

    def go_on(self, table: Patient) -> Folding | None:
        """Write one part more. None: a writer of a later term was there."""
        try:
            table.write(self.left[0])
        except Refused:
            return None
        return Folding(self.left[1:], self.folded)


def begin(meaning: Meaning, tip: Tip, before: Folded | None, stamp: str) -> Folding:
    """A snapshot into the slot that does not count now."""
    slot = SLOTS[1] if before is not None and before.slot == SLOTS[0] else SLOTS[0]
    packed = zlib.compress(encode(meaning), 6)
    parts = [packed[start : start + MOST_OF_ITEM] for start in range(0, len(packed), MOST_OF_ITEM)]
    puts = [Put(Key(slot, number), {"data": part, STAMP: stamp}) for number, part in enumerate(parts, 1)]
    return Folding(puts, Folded(slot, len(parts), tip, hashlib.sha256(packed).hexdigest()))


def unfold(table: Patient, folded: Folded) -> Meaning:
    """What a snapshot says.

    Raises:
        PassError: "StoreCorrupt": it is not what was written. "StoreTooNew".
    """
    pages = table.pages(Range(folded.slot, 1, folded.parts))
    packed = b"".join(_data(item["data"]) for page in pages for _, item in page.items)
    if hashlib.sha256(packed).hexdigest() != folded.digest:
        raise corrupt(table.place, f"the snapshot in {folded.slot} is not what was written")
    try:
        return decode_kept(Meaning, zlib.decompress(packed))
    except Newer as error:
        raise too_new(table.place, str(error)) from error
    except ValueError as error:
        raise corrupt(table.place, f"the snapshot in {folded.slot} cannot be read: {error}") from error


def _data(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def is_due(grown: int, least: int, before: Folded | None) -> bool:
    """Whether the next snapshot is worth it. `grown`: bytes of events since the last one."""
    return grown >= max(least, FACTOR * MOST_OF_ITEM * (before.parts - 1 if before is not None else 0))

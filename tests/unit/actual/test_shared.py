from __future__ import annotations

import copy
from dataclasses import replace

from reconciler.actual.shared import shared
from reconciler.codec import decode, encode
from reconciler.model import UnitRecord
from tests.kit import facts
from tests.kit.synced import record_synced
from tests.kit.world import MemoryStore


def records() -> list[UnitRecord]:
    """Of units in order, each read from its own bytes, so that nothing is the same object."""
    store, now = MemoryStore(), facts.NOW
    record_synced(store, facts.desired(*(facts.entry(f"prod/app-{number}") for number in range(3))), facts.facts(), now)
    return [decode(UnitRecord, encode(record)) for record in store.ledger().units.values()]


def test_a_record_is_equal_to_what_it_was() -> None:
    for record in records():
        assert record.applied is not None
        for one in (
            record,
            replace(record, applied=None),
            replace(record, planned=None),
            UnitRecord(record.unit),
            replace(record, applied=replace(record.applied, at=record.applied.at.replace(year=2020))),
        ):
            assert shared(one) == one
            assert repr(shared(one)) == repr(one)


def test_what_is_equal_is_the_same_object() -> None:
    first, second, *_ = (shared(copy.deepcopy(record)) for record in records())
    assert first.applied
    assert first.planned
    assert second.applied
    assert second.planned
    assert first.planned.fingerprint is first.applied.fingerprint
    assert first.planned.summary is second.planned.summary
    assert first.applied.fingerprint.module is second.applied.fingerprint.module
    assert first.applied.commit is second.applied.commit
    assert first.planned.at is first.applied.at

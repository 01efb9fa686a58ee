"""A job that should have ended is pointed out by whoever still can: the controller."""

from __future__ import annotations

from datetime import timedelta

from reconciler.model import Ledger, UnitRecord
from reconciler.status import Picture, UnitStatus, overview
from reconciler.web.sentences import next_step
from reconciler.web.shape import Shape, detail
from tests.kit.sample import APP, NOW, desired, dispatched, unit


def test_what_somebody_has_to_look_at() -> None:
    asked, want = dispatched(APP), desired(unit(APP))
    ledger = Ledger(units={APP: UnitRecord(APP, job=asked)})

    def seen(later: timedelta) -> Shape:
        found: UnitStatus = overview(want, ledger, {}, NOW).units[0]
        return detail(Picture(want, ledger, None, asked.at + later), found, None)

    assert next_step(seen(timedelta(minutes=1))).startswith("the job ends;")
    told = next_step(seen(timedelta(days=1)))
    assert told.startswith("somebody has to look: the job should have ended by ")
    assert asked.job.id in told

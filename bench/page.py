"""The overview page: what the server works for its first paint, with many units."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

from starlette.requests import Request

from bench.row import Row, cpu, known, limited
from reconciler.actual.ledger import CheckScheduled
from reconciler.deciding.decide import Known, expected
from reconciler.status import Outlook
from reconciler.web.pages import Site, overview
from tests.kit.crowd import fill
from tests.kit.served import Installation, serve

FIRST_PAINT = 300.0  # ms of the server's time, at 10,000 units
ASKED = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": [(b"accept", b"text/html")]}


def rows(folder: Path, sizes: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """The first visit after a start, one after something has changed, and one with nothing new."""
    for units in sizes:
        here = folder / f"page-{units}"
        here.mkdir()
        served = serve(here)
        with served.stack:
            yield from _visits(served.installation, units, rounds)


def _visits(installation: Installation, units: int, rounds: int) -> Iterator[Row]:
    crowd = fill(installation, units)
    first, changed, still = [], [], []
    for number in range(rounds):
        site = _begun(installation)
        gc.collect()  # what earlier rounds left behind is not this visit's
        first.append(1000 * cpu(partial(overview, Request(ASKED), site)))
        later = installation.clock.now() + timedelta(hours=1, seconds=number)
        installation.store.append(CheckScheduled(crowd.failing, later))
        changed.append(1000 * cpu(partial(overview, Request(ASKED), site)))
        still.append(1000 * cpu(partial(overview, Request(ASKED), site), 5))
    name = f"the overview page, {units:,} units"
    goal = f"<= {FIRST_PAINT:.0f} ms CPU at 10,000"
    if units > 10_000:
        yield known(f"{name}, first paint after a start", first, "ms")
    else:
        yield limited(f"{name}, first paint after a start", goal, first, "ms", FIRST_PAINT)
    yield known(f"{name}, something has changed", changed, "ms")
    yield known(f"{name}, nothing new", still, "ms")


def _begun(here: Installation) -> Site:
    """As after a start: nothing was worked out yet for the page. A pass of the loop comes before there is anything to show."""
    known: Known = {}
    if here.desired is not None:
        expected(here.desired, here.store.ledger(), here.facts, known)
    here.outlook = Outlook(lambda: here.desired, here.store.ledger, lambda: here.facts, here.clock.now, known)
    return Site(here)

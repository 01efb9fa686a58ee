from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.ledger import CheckScheduled, JobEnded
from reconciler.model import UnitId
from reconciler.status import overview
from reconciler.web.listing import SORTS, Listing, Query
from tests.kit.crowd import fill
from tests.kit.sample import NOW, dispatched, result
from tests.kit.served import Served, serve


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = serve(tmp_path)
    with one.stack:
        yield one


def test_an_index_lasts_as_long_as_the_overview(served: Served) -> None:
    crowd, listing = fill(served.installation, 400), Listing()
    picture = served.installation.picture()
    index = listing.of(picture)
    assert listing.of(served.installation.picture()) is index
    assert index.find(Query(q="prod")) is index.find(Query(q="prod"))
    served.installation.store.append(CheckScheduled(crowd.failing, NOW + timedelta(hours=9)))
    assert listing.of(served.installation.picture()) is not index


def test_every_kind_finds_what_it_is_for(served: Served) -> None:
    crowd = fill(served.installation, 400)
    index = Listing().of(served.installation.picture())

    def found(**words: Any) -> list[str]:
        return [str(line.unit) for line in index.find(Query(**words))]

    assert found(show="attention") == [crowd.orphaned, crowd.failing, "stage/search-broken"]
    assert found(show="running") == [crowd.running]
    assert found(show="drift") == [crowd.drifting]
    assert found(show="orphaned") == [crowd.orphaned]
    assert found(reason="DependencyNotReady") == [crowd.waiting]
    assert len(found(show="held")) == index.number("held") == 103
    assert index.number("held", "stage") == 101
    assert found(q="STAGE network vpc") == ["stage/network"]
    assert len(found(q=" ")) == 402


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_is_total_and_turns_around(served: Served, sort: str) -> None:
    fill(served.installation, 60)
    index = Listing().of(served.installation.picture())
    up, down = index.find(Query(sort=sort)), index.find(Query(sort=sort, down=True))
    assert up == tuple(reversed(down))
    assert len(up) == len(index.lines)


def test_answers_that_were_given_do_not_pile_up(served: Served) -> None:
    fill(served.installation, 8)
    index = Listing().of(served.installation.picture())
    for number in range(200):
        index.find(Query(q=str(number)))
    assert len(index._answers) <= 64


def test_what_stands_is_not_worked_out_again_and_is_what_it_would_be(served: Served) -> None:
    crowd, installation = fill(served.installation, 200), served.installation
    before = {status.unit: status for status in installation.picture().overview.units}
    asked = dispatched(crowd.failing)
    installation.store.append(JobEnded(asked, result(asked), None, None))
    installation.desired = replace(crowd.desired, broken={}, problems=())
    picture = installation.picture()
    afresh = overview(picture.desired, picture.ledger, picture.expected, picture.now)
    assert picture.overview == afresh
    other = [status.unit for status in picture.overview.units if before.get(status.unit) is not status]
    assert crowd.failing in other
    assert len(other) < 10
    assert UnitId("stage/search-broken") not in [status.unit for status in picture.overview.units]

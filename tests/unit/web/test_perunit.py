"""What is written of each unit, held against Prometheus' own library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconciler.actual.ledger import CheckScheduled
from reconciler.model import Health, Sync
from reconciler.observe import actions_of
from reconciler.status import Picture, UnitStatus, pending
from reconciler.web.perunit import PerUnit
from tests.kit.crowd import fill
from tests.kit.served import Installation, serve

Rows = Iterable[tuple[Sequence[str], float]]


class Plain(Collector):
    """The same families, made anew by the library each time."""

    def __init__(self, picture: Picture, shown: Sequence[UnitStatus]) -> None:
        self.picture, self.shown = picture, shown

    def collect(self) -> Iterator[Metric]:
        return _units(self.picture, self.shown)


def _family(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(f"reconciler_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _units(picture: Picture, shown: Sequence[UnitStatus]) -> Iterator[Metric]:
    label = ["environment", "unit"]
    names = [(unit.environment, unit.unit) for unit in shown]
    records = [picture.ledger.units.get(unit.unit) for unit in shown]
    yield _family("unit_info", "What a unit is.", [*label, "module", "version"], _info(picture, shown))
    yield _family("unit_sync_status", "A unit's sync status.", [*label, "status"], _states(shown, Sync))
    yield _family("unit_health_status", "A unit's health.", [*label, "status"], _states(shown, Health))
    applied = [
        (name, _stamp(r.applied.at if r and r.applied else None)) for name, r in zip(names, records, strict=True)
    ]
    yield _family("unit_last_success_timestamp_seconds", "When a unit was last in order; 0: never.", label, applied)
    drift = [(name, _stamp(r.drift_since if r else None)) for name, r in zip(names, records, strict=True)]
    yield _family("unit_drift_since_timestamp_seconds", "Since when a unit drifts; 0: it does not.", label, drift)
    failures = [(name, r.failure.count if r and r.failure else 0) for name, r in zip(names, records, strict=True)]
    yield _family("unit_consecutive_failures", "Failures of a unit in a row.", label, failures)
    plans = [(name, r and pending(r)) for name, r in zip(names, records, strict=True)]
    changes = [((*name, a), c) for name, p in plans if p for a, c in actions_of(p.summary).items()]
    yield _family("unit_pending_changes", "Changes that a unit's last plan shows.", [*label, "action"], changes)


def _info(picture: Picture, shown: Iterable[UnitStatus]) -> Rows:
    for status in shown:
        unit = picture.desired.units.get(status.unit) if picture.desired else None
        if unit is not None:
            yield (status.environment, status.unit, unit.pin.module, unit.pin.version), 1


def _states(shown: Iterable[UnitStatus], states: type[Sync | Health]) -> Rows:
    for status in shown:
        for state in states:
            yield (status.environment, status.unit, state.value), state is status.sync or state is status.health


def _stamp(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    served = serve(tmp_path)
    with served.stack:
        yield served.installation


def by_the_library(picture: Picture, shown: Sequence[UnitStatus]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Plain(picture, shown))
    return generate_latest(registry)


def written(series: PerUnit, picture: Picture, shown: Sequence[UnitStatus]) -> bytes:
    return b"".join(one.text for one in series(picture, shown))


def test_it_is_what_the_library_writes_whatever_changes(here: Installation) -> None:
    crowd = fill(here, 60)
    series = PerUnit()
    texts = set()
    for number in range(3):
        picture = here.outlook.picture()
        shown = picture.overview.units
        assert written(series, picture, shown) == by_the_library(picture, shown)
        texts.add(written(series, picture, shown))
        here.store.append(CheckScheduled(crowd.failing, here.clock.now() + timedelta(hours=number)))
    picture = here.outlook.picture()
    fewer = [one for one in picture.overview.units if not one.in_order]
    assert 0 < len(fewer) < len(picture.overview.units)
    assert written(series, picture, fewer) == by_the_library(picture, fewer)
    assert written(series, picture, ()) == by_the_library(picture, ())
    assert written(series, replace(picture, desired=None), fewer) == by_the_library(
        replace(picture, desired=None), fewer
    )
    assert len(texts) == 1  # when it is looked at next is in none of them


def test_what_a_version_is_called_is_escaped(here: Installation) -> None:
    fill(here, 10)
    picture = here.outlook.picture()
    assert picture.desired is not None
    odd = {
        id_: replace(unit, pin=replace(unit.pin, version='1"\\\n${{ \u00e9'))
        for id_, unit in picture.desired.units.items()
    }
    odd_picture = replace(picture, desired=replace(picture.desired, units=odd))
    shown = picture.overview.units
    assert written(PerUnit(), odd_picture, shown) == by_the_library(odd_picture, shown)


def test_nothing_is_written_anew_while_nothing_changes(here: Installation) -> None:
    crowd = fill(here, 40)
    series, picture = PerUnit(), here.outlook.picture()
    first = series(picture, picture.overview.units)
    assert series(here.outlook.picture(), picture.overview.units) is first
    assert len(crowd.desired.units) >= 40

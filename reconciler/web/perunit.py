"""The series that each unit has of its own, as text: a unit's lines are written once, and again when something of it is another.

Prometheus' library writes each line anew at every scrape; thirty thousand of them take a fifth of a second.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter

from prometheus_client.core import Metric
from prometheus_client.utils import floatToGoString

from reconciler.model import Health, Sync, Unit, UnitId, UnitRecord
from reconciler.observe import actions_of
from reconciler.status import Picture, UnitStatus, pending

# Name, meaning, and the labels that come to `environment` and `unit`; in the order of `_lines`.
_FAMILIES = (
    ("unit_info", "What a unit is.", ("module", "version")),
    ("unit_sync_status", "A unit's sync status.", ("status",)),
    ("unit_health_status", "A unit's health.", ("status",)),
    ("unit_last_success_timestamp_seconds", "When a unit was last in order; 0: never.", ()),
    ("unit_drift_since_timestamp_seconds", "Since when a unit drifts; 0: it does not.", ()),
    ("unit_consecutive_failures", "Failures of a unit in a row.", ()),
    ("unit_pending_changes", "Changes that a unit's last plan shows.", ("action",)),
)


class Written(Metric):
    """A family as it is written down already."""

    def __init__(self, name: str, meaning: str, labels: Sequence[str], lines: str) -> None:
        super().__init__(name, meaning, "gauge")
        self._labelnames = ("environment", "unit", *labels)
        self.text = f"# HELP {name} {meaning}\n# TYPE {name} gauge\n{lines}".encode()


@dataclass(frozen=True, slots=True)
class _Seen:
    """One unit's lines of each family, and what they were written of: facts that are the same objects say the same."""

    status: UnitStatus
    record: UnitRecord | None
    unit: Unit | None
    lines: tuple[str, ...]

    def of(self, status: UnitStatus, record: UnitRecord | None, unit: Unit | None) -> bool:
        """Whether it is still so."""
        return self.status is status and self.record is record and self.unit is unit


class PerUnit:
    """The families of the units that are shown. For one scrape at a time."""

    def __init__(self) -> None:
        self._seen: dict[UnitId, _Seen] = {}
        self._families: tuple[Written, ...] = ()

    def __call__(self, picture: Picture, shown: Sequence[UnitStatus]) -> tuple[Written, ...]:
        """Every family, as the picture has it."""
        seen = {status.unit: self._look(picture, status) for status in shown}
        same = len(seen) == len(self._seen) and all(self._seen.get(unit) is one for unit, one in seen.items())
        if not (same and self._families):
            self._families = tuple(_written([one.lines for one in seen.values()]))
        self._seen = seen
        return self._families

    def _look(self, picture: Picture, status: UnitStatus) -> _Seen:
        record = picture.ledger.units.get(status.unit)
        unit = picture.desired.units.get(status.unit) if picture.desired else None
        seen = self._seen.get(status.unit)
        if seen is not None and seen.of(status, record, unit):
            return seen
        return _Seen(status, record, unit, tuple(_lines(status, record, unit)))


def _written(lines: Sequence[Sequence[str]]) -> Iterator[Written]:
    for number, (name, meaning, labels) in enumerate(_FAMILIES):
        yield Written(f"reconciler_{name}", meaning, labels, "".join(map(itemgetter(number), lines)))


def _lines(status: UnitStatus, record: UnitRecord | None, unit: Unit | None) -> Iterator[str]:
    """What is written of the unit in each family, in the order of `_FAMILIES`."""

    def one(family: int, value: float, **more: str) -> str:
        labels = {"environment": status.environment, "unit": status.unit, **more}
        told = ",".join(f'{name}="{_said(text)}"' for name, text in sorted(labels.items()))
        number: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # the library says no types here
        return f"reconciler_{_FAMILIES[family][0]}{{{told}}} {number}\n"

    yield one(0, 1, module=unit.pin.module, version=unit.pin.version) if unit else ""
    yield "".join(one(1, state is status.sync, status=state.value) for state in Sync)
    yield "".join(one(2, state is status.health, status=state.value) for state in Health)
    yield one(3, _stamp(record.applied.at if record and record.applied else None))
    yield one(4, _stamp(record.drift_since if record else None))
    yield one(5, record.failure.count if record and record.failure else 0)
    plan = pending(record) if record else None
    yield "".join(one(6, count, action=action) for action, count in actions_of(plan.summary).items()) if plan else ""


def _said(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _stamp(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0

"""A house that a real Prometheus watches while things go wrong in it: the alerts of deploy/monitoring fire, and clear.

Each file of stories names the alerts of its steps; `tests/unit/deploy/test_monitoring.py` holds that every alert there is stands
in a story or in `NOT_DRIVEN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.kit.house import House
from tests.kit.prometheus import Prometheus

PATIENCE = 120.0  # seconds
# Alerts (without `Reconciler`) that no story drives, and why it cannot be. A new alert that stands nowhere fails a test: give it a
# step in tests/e2e/test_alerts.py, or in test_alerts_rare.py where it takes a forge, AWS, a jail or a second daemon.
NOT_DRIVEN: dict[str, str] = {}
# What is scraped in the house of test_alerts_rare.py alone.
RARE = frozenset(
    {
        "reconciler_branch_protection",
        "reconciler_branch_protection_last_check_timestamp_seconds",
        "reconciler_notifications_total",
        "reconciler_out_of_band_last_answer_timestamp_seconds",
    }
)


@dataclass
class Watched:
    """A house, and the Prometheus that watches it. `fired`: the alerts that fired in the step that is played."""

    home: House
    prometheus: Prometheus
    fired: set[str] = field(default_factory=set, init=False)

    def fires(self, name: str, **labels: str) -> dict[str, Any]:
        """Wait until the alert fires for these labels; its text has to be whole."""

        def there() -> dict[str, Any] | None:
            found = self.prometheus.firing(f"Reconciler{name}")
            return next((one for one in found if labels.items() <= one["labels"].items()), None)

        alert: dict[str, Any] = self.home.until(there, f"{name} fires for {labels}", PATIENCE)
        notes = alert["annotations"]
        assert "error expanding" not in str(notes)
        assert "<no value>" not in str(notes)
        self.fired.add(name)
        return alert

    def clears(self, *names: str) -> None:
        """Wait until none of these fires any more."""
        self.home.until(lambda: not self.firing() & {*names}, f"{names} clear", PATIENCE)

    @contextmanager
    def alarmed(self, name: str, **labels: str) -> Iterator[None]:
        """The alert fires before the block, which puts things right, and clears after it."""
        self.fires(name, **labels)
        yield
        self.clears(name)

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        return {str(one["labels"]["alertname"]).removeprefix("Reconciler") for one in self.prometheus.firing()}


W = TypeVar("W", bound=Watched)
Story = Sequence[tuple[Callable[[W], None], Sequence[str]]]  # what goes wrong, and the alerts that fire by it


def play(watched: W, story: Story[W]) -> None:
    """Let one thing after the other go wrong; each fires the alerts that stand beside it."""
    for goes_wrong, alerts in story:
        watched.fired.clear()
        goes_wrong(watched)
        assert watched.fired == {*alerts}, goes_wrong.__name__

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.model import LONGEST_REST, has_come
from tests.kit import facts as make

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (timedelta(0), True),
        (timedelta(seconds=1), False),
        (timedelta(hours=2), False),
        (timedelta(hours=2, seconds=1), True),  # nobody can have set it: the clock was put back since
        (timedelta(days=-1), True),
    ],
)
def test_a_time_has_come(away: timedelta, expected: bool) -> None:
    assert has_come(NOW + away, NOW, timedelta(hours=2)) is expected


@pytest.mark.parametrize(
    ("away", "expected"), [(timedelta(0), False), (timedelta(1), True), (LONGEST_REST, True), (2 * LONGEST_REST, False)]
)
def test_a_failure_waits_for_as_long_as_anybody_can_have_meant(away: timedelta, expected: bool) -> None:
    assert make.failure(make.fingerprint(), retry_at=NOW + away).waits(NOW) is expected

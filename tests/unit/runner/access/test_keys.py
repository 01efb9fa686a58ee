from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from reconciler.errors import UnitError
from reconciler.runner.access.keys import PAUSE, Keys, Renewing, ends_at

BEGIN = 1_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> float:
        return self.now


def keys(name: str, ends: float | None) -> Keys:
    return Keys(name, f"{name}-secret", f"{name}-token", None if ends is None else datetime.fromtimestamp(ends, UTC))


class Source:
    """Gives keys of an hour, and counts how often; None in their place: it cannot."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.asked, self.away = clock, 0, False

    def __call__(self) -> Keys:
        self.asked += 1
        if self.away:
            raise UnitError("CredentialsUnavailable", "not now", transient=True)
        return keys(str(self.asked), self.clock.now + 3600)


def test_keys_are_renewed_when_a_third_of_their_life_is_left() -> None:
    clock = Clock()
    source = Source(clock)
    renewing = Renewing(source, clock)
    assert source.asked == 0
    assert renewing.current() == renewing.current()
    clock.now = BEGIN + 2399
    assert renewing.current().access_key == "1"
    clock.now = BEGIN + 2401
    assert renewing.current().access_key == "2"
    clock.now = BEGIN + 2401 + 3600
    assert renewing.current().access_key == "3"


def test_good_keys_outlast_a_source_that_is_away() -> None:
    clock = Clock()
    source = Source(clock)
    renewing = Renewing(source, clock)
    renewing.current()
    source.away, clock.now = True, BEGIN + 3000
    assert [renewing.current().access_key for _ in range(3)] == ["1"] * 3
    assert source.asked == 2  # not once a request
    clock.now += PAUSE
    renewing.current()
    assert source.asked == 3
    clock.now = BEGIN + 3600
    with pytest.raises(UnitError, match="not now"):
        renewing.current()
    source.away = False
    assert renewing.current().access_key == "5"


def test_keys_without_an_end_are_fetched_once() -> None:
    given: Iterator[Keys] = iter([keys("only", None)])
    renewing = Renewing(lambda: next(given), clock := Clock())
    renewing.current()
    clock.now += 1e9
    assert renewing.current().access_key == "only"


def test_no_secret_shows_where_keys_are_printed() -> None:
    assert str(keys("AKIA", None)) == "Keys(access_key='AKIA', expires=None)"
    assert keys("A", None).secrets == {"A", "A-secret", "A-token"}


@pytest.mark.parametrize("text", ["2026-11-23T20:00:00Z", "2026-11-23T20:00:00+00:00", "2026-11-23T20:00:00"])
def test_ends_are_in_utc(text: str) -> None:
    assert ends_at(text) == datetime(2026, 11, 23, 20, tzinfo=UTC)
    assert ends_at(None) is None
    with pytest.raises(ValueError, match="soon"):
        ends_at("soon")

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.desired.freeze import MOST_STEPS, Outlook, outlook, told, wrong_cron, wrong_zone
from reconciler.model import Window
from tests.kit.stopwatch import within

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
WEEKEND = Window("0 16 * * FRI", 64 * HOUR, "Europe/Berlin", "weekend")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def frozen(now: str, *windows: Window) -> str | None:
    """Until when, as text; None: it is not."""
    look = outlook(windows, at(now))
    return look.until.isoformat()[:16] if look.window and look.until else None


# --- one window


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-27T15:59:59+01:00", None),
        ("2026-11-27T16:00:00+01:00", "2026-11-30T07:00"),
        ("2026-11-29T03:00:00+01:00", "2026-11-30T07:00"),
        ("2026-11-30T07:59:59.999+01:00", "2026-11-30T07:00"),
        ("2026-11-30T08:00:00+01:00", None),
        # The clocks go back on 25 October 2026 and forward on 28 March 2027: 64 hours stay 64 hours.
        ("2026-10-23T16:00:00+02:00", "2026-10-26T06:00"),
        ("2026-10-26T06:59:00+01:00", "2026-10-26T06:00"),
        ("2026-10-26T07:00:00+01:00", None),
        ("2027-03-26T16:00:00+01:00", "2027-03-29T07:00"),
        ("2027-03-29T08:59:00+02:00", "2027-03-29T07:00"),
        ("2027-03-29T09:00:00+02:00", None),
    ],
)
def test_a_weekend(now: str, until: str | None) -> None:
    assert frozen(now, WEEKEND) == until


@pytest.mark.parametrize(
    ("now", "is_frozen"),
    [
        # 02:30 comes twice on 25 October: at 00:30 and at 01:30 UTC.
        ("2026-10-25T00:29:00Z", False), ("2026-10-25T00:30:00Z", True), ("2026-10-25T00:40:00Z", False),
        ("2026-10-25T01:29:00Z", False), ("2026-10-25T01:30:00Z", True), ("2026-10-25T01:40:00Z", False),
        # It never comes on 28 March: the clocks jump from 02:00 to 03:00, at 01:00 UTC.
        ("2027-03-28T00:59:00Z", False), ("2027-03-28T01:00:00Z", True), ("2027-03-28T01:09:00Z", True),
        ("2027-03-28T01:10:00Z", False), ("2027-03-28T01:30:00Z", False),
    ],
)  # fmt: skip
def test_a_time_that_comes_twice_opens_twice_and_one_that_is_skipped_opens_at_the_jump(
    now: str, is_frozen: bool
) -> None:
    window = Window("30 2 * * *", 10 * MINUTE, "Europe/Berlin", "r")
    assert (outlook((window,), at(now)).window is not None) is is_frozen


def test_the_next_beginning_where_nothing_is_frozen() -> None:
    assert outlook((WEEKEND,), at("2026-11-24T10:00Z")) == Outlook(None, at("2026-11-27T15:00Z"))
    assert outlook((), at("2026-11-24T10:00Z")) == Outlook(None, None)


# --- several, and openings that run into each other


def test_windows_together() -> None:
    night = Window("0 20 * * *", 12 * HOUR, "UTC", "night")
    assert frozen("2026-11-26T21:00Z", WEEKEND, night) == "2026-11-27T08:00"
    assert frozen("2026-11-27T15:30Z", WEEKEND, night) == "2026-11-30T08:00"
    assert outlook((WEEKEND, night), at("2026-11-27T10:00Z")).until == at("2026-11-27T15:00Z")
    assert outlook((WEEKEND, night), at("2026-11-27T21:00Z")).window == WEEKEND  # the one that lasts


def test_an_end_that_is_too_far_off_is_said_to_be_none() -> None:
    always = Window("* * * * *", timedelta(days=31), "UTC", "closed for good")
    look = outlook((always,), at("2026-11-24T10:00Z"))
    assert look == Outlook(always, at("2026-11-24T10:00Z") + (MOST_STEPS + 1) * timedelta(days=31), ends=False)
    assert told(look) == "Frozen with no end in sight: closed for good (* * * * *, UTC)."


def test_what_is_told() -> None:
    assert told(outlook((WEEKEND,), at("2026-11-28T10:00Z"))) == (
        "Frozen until 2026-11-30 07:00 UTC: weekend (0 16 * * FRI, Europe/Berlin)."
    )
    assert told(Outlook(None, None)) == ""


# --- against the definition


ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns")
CRONS = (
    "* * * * *", "*/7 * * * *", "30 2 * * *", "0 3 * * *", "15,45 1-3 * * *", "0 16 * * FRI", "59 23 L * *",
    "0 0 29 2 *", "5 2 * * SUN#4", "0 */5 1-7 * MON",
)  # fmt: skip
# Around what clocks do: near the changes of each of those zones.
MOMENTS = ("2026-10-25T01:00Z", "2027-03-28T01:00Z", "2026-11-01T06:00Z", "2027-03-14T07:00Z", "2026-10-03T15:30Z",
           "2027-04-03T15:00Z", "2026-06-17T12:00Z")  # fmt: skip


def openings(window: Window, first: datetime, last: datetime) -> set[datetime]:
    """Every instant between the two at which the clock, minute by minute, shows what the window waits for."""
    zone = ZoneInfo(window.timezone)
    found, shown = set(), (first - 4 * HOUR).astimezone(zone).replace(tzinfo=None)
    now = first - 4 * HOUR
    while now <= last:
        wall = now.astimezone(zone).replace(tzinfo=None)
        jump = range(1, max(2, int((wall - shown) / MINUTE) + 1))  # the minutes that the clock went through, or over
        minutes = [shown + n * MINUTE for n in jump] if wall > shown else [wall]
        if any(matches(window.cron, minute) for minute in minutes) and now >= first:
            found.add(now)
        shown, now = wall, now + MINUTE
    return found


def matches(cron: str, wall: datetime) -> bool:
    return next(CronSim(cron, wall.replace(tzinfo=UTC) - MINUTE)) == wall.replace(tzinfo=UTC)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(CRONS), st.sampled_from(ZONES), st.sampled_from(MOMENTS), st.integers(-300, 300),
    st.integers(1, 400),
)  # fmt: skip
def test_it_is_frozen_as_the_clock_on_the_wall_says(
    cron: str, zone: str, moment: str, offset: int, minutes: int
) -> None:
    window, now = Window(cron, minutes * MINUTE, zone, "r"), at(moment) + offset * MINUTE
    opened = openings(window, now - window.duration, now)
    is_frozen = any(begin <= now < begin + window.duration for begin in opened)
    look = outlook((window,), now)
    assert (look.window is not None) is is_frozen
    if is_frozen:
        assert look.until is not None
        assert look.until >= max(opened) + window.duration
    elif look.until is not None and look.until - now < 6 * HOUR:
        assert openings(window, now + MINUTE, look.until) == {look.until}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_the_worst_costs_little(zone: str) -> None:
    windows = tuple(Window("* * * * *", (1 + n) * MINUTE, zone, "r") for n in range(10))
    rare = tuple(Window("0 0 * 2 MON#5", (1 + n) * MINUTE, zone, "r") for n in range(10))
    with within(1.5):
        for some in (windows, rare):
            outlook(some, at("2026-10-25T01:10Z"))


# --- what is refused


@pytest.mark.parametrize(
    ("cron", "wrong"),
    [
        ("0 16 * * FRI", None),
        ("*/5 0-6,22 L * 1#1", None),
        ("0 0 29 2 */7", None),
        ("", "write five fields"),
        ("0 16 * *", "write five fields"),
        ("0 0 16 * * FRI", "write five fields"),
        ("@daily", "write five fields"),
        ("0 16 * * FRÏ", "write five fields"),
        ("0 16 * * " + 61 * "1", "write five fields"),
        ("60 16 * * *", "Bad minute; write five fields"),
        ("0 0 30 2 *", "Bad day-of-month"),
        ("0 0 */30 2 1#5", "never comes; write a day that exists"),
    ],
)
def test_a_cron(cron: str, wrong: str | None) -> None:
    found = wrong_cron(cron)
    assert found == wrong if wrong is None else wrong in (found or "")


FIELD = st.text("0123456789*,/-#LWMONFEB", min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(FIELD, min_size=5, max_size=5).map(" ".join))
def test_whatever_five_fields_say_is_read_or_refused(cron: str) -> None:
    began = time.process_time()
    if wrong_cron(cron) is None:
        outlook((Window(cron, HOUR, "Europe/Berlin", "r"),), at("2026-10-25T01:10Z"))
    assert time.process_time() - began < 5  # seconds of our own, and not of whatever else runs here


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/Indiana/Knox", "Etc/GMT+5"])
def test_a_zone(zone: str) -> None:
    assert wrong_zone(zone) is None


@pytest.mark.parametrize(
    "zone",
    ["", "utc", "Europe/Nowhere", "../../etc/passwd", "/etc/localtime", "localtime", "right/UTC", "America/Indiana",
     "Europe/../Europe/Berlin", "posixrules", "CET"],
)  # fmt: skip
def test_no_zone(zone: str) -> None:
    assert wrong_zone(zone) == "there is no such time zone; write UTC, or a name like Europe/Berlin"

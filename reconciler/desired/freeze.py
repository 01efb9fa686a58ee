"""Freeze windows: when nothing is applied, until when, and when that changes. Pure; all instants are UTC.

A window opens at a time of the wall clock and lasts real time: 64 hours are 64 hours, also where the clocks are changed
in between. A time of the wall clock that comes twice opens the window twice, one that is skipped opens it at the jump.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import chain, islice, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from reconciler.model import Window

LONGEST = timedelta(days=31)
CHANGE = timedelta(hours=3)  # no clock is changed by more, nor twice within it
MINUTE = timedelta(minutes=1)
MOST_STEPS = 10  # from the end of one opening into the next, before the end is called unknown
_ZONE = re.compile(r"UTC|[A-Z][A-Za-z]{1,30}(?:/[A-Za-z0-9_+-]{1,40}){1,2}")
_CRON = re.compile(r"[0-9A-Za-z*,/#-]{1,60}(?: +[0-9A-Za-z*,/#-]{1,60}){4}")
_ANY_DAY = datetime(2024, 1, 1, tzinfo=UTC)  # whether a window ever opens does not depend on when that is asked


@dataclass(frozen=True, slots=True)
class Outlook:
    """Whether applies are frozen, by which window, and when to ask again at the latest.

    `until`: the end of the freeze, or the next beginning of one; None: never. Where not `ends`, the freeze goes on then,
    for longer than is worth working out.
    """

    window: Window | None
    until: datetime | None
    ends: bool = True


def wrong_cron(text: str) -> str | None:
    """What is wrong with the five fields, and what to write instead."""
    example = 'write five fields: minute, hour, day of month, month, day of week, as in "0 16 * * FRI"'
    if not _CRON.fullmatch(text):
        return example
    try:
        next(CronSim(text, _ANY_DAY))
    except StopIteration:
        return "this never comes; write a day that exists"
    except CronSimError as error:
        return f"{error}; {example}"
    return None


def wrong_zone(text: str) -> str | None:
    """What is wrong with the time zone."""
    with suppress(KeyError, ValueError, OSError):
        if _ZONE.fullmatch(text):
            ZoneInfo(text)
            return None
    return "there is no such time zone; write UTC, or a name like Europe/Berlin"


@lru_cache(maxsize=1024)
def outlook(windows: tuple[Window, ...], now: datetime) -> Outlook:
    """What the windows, taken together, say of this moment."""
    first = _open(windows, now)
    if first is None:
        openings = [at for window in windows if (at := _next_opening(window, now)) is not None]
        return Outlook(None, min(openings, default=None))
    window, end = first
    for _ in range(MOST_STEPS):
        further = _open(windows, end)
        if further is None:
            return Outlook(window, end)
        end = further[1]
    return Outlook(window, end, ends=False)


def told(look: Outlook) -> str:
    """The freeze in a sentence, for a hold."""
    if look.window is None or look.until is None:
        return ""
    end = f"until {look.until:%Y-%m-%d %H:%M UTC}" if look.ends else "with no end in sight"
    return f"Frozen {end}: {look.window.reason} ({look.window.cron}, {look.window.timezone})."


def _open(windows: tuple[Window, ...], now: datetime) -> tuple[Window, datetime] | None:
    """The window that is open for the longest, and its end as far as that one opening goes."""
    ends = [(opened + window.duration, window) for window in windows if (opened := _last_opening(window, now))]
    end, window = max(((e, w) for e, w in ends if e > now), key=lambda found: found[0], default=(now, None))
    return (window, end) if window is not None else None


def _last_opening(window: Window, now: datetime) -> datetime | None:
    """The newest instant, not after `now`, at which the window opened."""
    zone = ZoneInfo(window.timezone)
    wall, slack, second = _wall(now, zone), _slack(now, zone), timedelta(seconds=1)
    near = takewhile(lambda time: time > wall - slack, _times(window, wall + slack + second, reverse=True))
    before = islice(_times(window, wall - slack + second, reverse=True), 1)
    return max((at for time in chain(near, before) for at in _instants(time, zone) if at <= now), default=None)


def _next_opening(window: Window, now: datetime) -> datetime | None:
    """The first instant after `now` at which the window opens."""
    zone = ZoneInfo(window.timezone)
    wall, slack = _wall(now, zone), max(_slack(now, zone), _slack(now + CHANGE, zone))
    near = takewhile(lambda time: time <= wall + slack, _times(window, wall - slack, reverse=False))
    after = islice(_times(window, wall + slack, reverse=False), 1)
    return min((at for time in chain(near, after) for at in _instants(time, zone) if at > now), default=None)


def _times(window: Window, start: datetime, *, reverse: bool) -> Iterator[datetime]:
    """The times of the wall clock at which the window opens, from `start` on. Labelled UTC: then a wall clock has no gaps."""
    yield from (time.replace(tzinfo=None) for time in CronSim(window.cron, start.replace(tzinfo=UTC), reverse=reverse))


def _wall(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None, fold=0, microsecond=0)


def _slack(now: datetime, zone: ZoneInfo) -> timedelta:
    """How far the order of wall clock times may differ from that of instants: the clocks were changed a moment ago."""
    then = (now - CHANGE).astimezone(zone)
    return CHANGE if then.utcoffset() != now.astimezone(zone).utcoffset() else timedelta()


def _instants(time: datetime, zone: ZoneInfo) -> set[datetime]:
    """When the wall clock shows the time: once; twice; or, where it is skipped, at the jump."""
    while True:
        both = {time.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
        if real := {at for at in both if _wall(at, zone) == time}:
            return real
        time += MINUTE

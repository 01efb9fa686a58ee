"""Points in time and durations as people type them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(?:\d{1,6}[smhdw])+")


def duration(text: str) -> timedelta:
    """`90s`, `2h`, `1d12h`.

    Raises:
        ValueError: it is nothing of that kind.
    """
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is no duration: write 90s, 30m, 2h, 3d or 1d12h")
    parts = re.findall(r"(\d+)([smhdw])", text)
    return sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())


class Duration(click.ParamType[timedelta]):
    """A duration on the command line."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration, or a usage error."""
        if isinstance(value, timedelta):
            return value
        try:
            return duration(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[datetime]):
    """A point in time on the command line: a duration from now, or ISO 8601 with a zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The point in time in UTC, or a usage error."""
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            moment = datetime.now(UTC) + duration(text) if _DURATION.fullmatch(text) else datetime.fromisoformat(text)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{text!r} is no time: write 2h, 3d, or 2026-11-24T10:00Z with its time zone", param, ctx)
        return moment.astimezone(UTC)

"""A wall clock that is wrong by as much as a file says, for one process and what it forks. Its monotonic clock stays right."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

READERS = ("reconciler", "apscheduler")  # whose modules look at the clock; the engine and git have the host's


def put_wrong(file: Path) -> None:
    """From now on this process's clock is wrong by the seconds in the file, which is looked at each time."""
    real, ticking = dt.datetime, time.time

    def wrong() -> float:
        return float(file.read_text(encoding="ascii") or 0)

    replacement = _Wrong("datetime", (), {"real": real, "wrong": staticmethod(wrong)})
    time.time = lambda: ticking() + wrong()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in READERS and getattr(module, "datetime", None) is real:
            module.datetime = replacement  # type: ignore[attr-defined]


class _Wrong(type):
    """What stands for `datetime` in a module: its instances are plain ones, and so are those that it makes."""

    real: type[dt.datetime]
    wrong: Callable[[], float]

    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
        return cls.real.now(tz) + dt.timedelta(seconds=cls.wrong())

    def __call__(cls, *args: Any, **kwargs: Any) -> dt.datetime:
        return cls.real(*args, **kwargs)

    def __instancecheck__(cls, one: object) -> bool:
        return isinstance(one, cls.real)

    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], object]) -> object:
        return handler(cls.real)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.real, name)


def set_clock(file: Path, seconds: float) -> None:
    """Put the clock wrong by so much, all at once."""
    draft = file.with_suffix(f"{file.suffix}.new")
    draft.write_text(str(seconds), encoding="ascii")
    draft.replace(file)

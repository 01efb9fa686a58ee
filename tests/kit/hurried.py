"""Starts a plane with some of its times scaled, as those of the rules are: `python hurried.py MODULE:NAME=SECONDS... PROGRAM -m reconciler ...`

Nothing else of it is another. For the `before` of a house.
"""

from __future__ import annotations

import importlib
import itertools
import runpy
import sys
from collections.abc import Mapping
from datetime import timedelta


def hurried(times: Mapping[str, float]) -> tuple[str, ...]:
    """The words in front of a plane's own. `times`: the constants, a timedelta or seconds each, by `module:NAME`."""
    return (sys.executable, __file__, *(f"{name}={seconds}" for name, seconds in times.items()))


def main() -> None:
    """Set the constants before anything has read them, and be the program."""
    told = list(itertools.takewhile(lambda word: "=" in word, sys.argv[1:]))
    _, _, program, *words = sys.argv[1 + len(told) :]
    sys.path.pop(0)  # this folder
    for one in told:
        place, _, seconds = one.partition("=")
        module, _, name = place.partition(":")
        found = importlib.import_module(module)
        is_span = isinstance(getattr(found, name), timedelta)
        setattr(found, name, timedelta(seconds=float(seconds)) if is_span else float(seconds))
    sys.argv = [program, *words]
    runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    main()

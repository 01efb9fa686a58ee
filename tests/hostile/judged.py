"""Judge an area of the table in a process of its own: `python -m tests.hostile.judged AREA SEED`. One line of JSON for each case.

Each class is judged in a fork with an address space of its own, so that a death is one class's, and is seen.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.table import Refusal, Trait
from tests.kit.stopwatch import slowness

ADDRESS_SPACE = 2 << 30  # bytes, so that no mistake takes the machine; what counts is what is resident
Row = dict[str, Any]


def area(name: str) -> tuple[Trait, ...]:
    """The classes of an area."""
    if name == "files":
        from tests.hostile.files import FILES

        return FILES
    if name == "words":
        from tests.hostile.words import WORDS

        return WORDS
    if name == "trees":
        from tests.hostile.trees import trees

        return trees(Path(os.environ["RECONCILER_TEST_FOLDER"]))
    raise ValueError(name)


def judged(one: Trait, seed: str) -> Iterator[Row]:
    """Every case of a class, and its twin."""
    cases = [("hostile", case) for case in one.cases(Random(f"{seed} {one.name}"))]  # noqa: S311 - cases, no secrets
    for number, (kind, given) in enumerate([*cases, ("twin", one.twin)]):
        made = one.ready(given)
        began = _spent()
        refused = one.judge(made)
        seconds = _spent() - began
        if seconds > 0.5:  # near the limit it matters what the neighbours do
            seconds /= slowness()
        yield {
            "name": one.name,
            "number": number,
            "kind": kind,
            "seconds": seconds,
            "wrong": _wrong(one, kind, refused),
        }


def _wrong(one: Trait, kind: str, refused: list[Refusal]) -> str:
    """What is not as the table says; empty where all is."""
    if kind == "twin":
        return f"a twin was refused: {refused[0]}" if refused else ""
    if not refused:
        return "a hostile case was accepted"
    first = refused[0]
    if one.reasons and not any(refusal.reason in one.reasons for refusal in refused):
        return f"refused for another reason: {first}"
    if not all(refusal.place.startswith(one.place) for refusal in refused[:1]) or not first.message:
        return f"refused at another place: {first}"
    if one.line and not re.search(r":[1-9][0-9]*:[1-9][0-9]*$", first.place):
        return f"refused without a line: {first}"
    return ""


def _spent() -> float:
    """Seconds of processor time, of this process and of the git commands that it waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _forked(one: Trait, seed: str) -> None:
    """Judge a class in a child, and say so where that dies."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        for row in judged(one, seed):
            used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
            _say({**row, "megabytes": used // 1024})
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    if status:
        _say(
            {
                "name": one.name,
                "number": -1,
                "kind": "death",
                "wrong": f"the process died: {status}",
                "seconds": 0,
                "megabytes": 0,
            }
        )


def _say(row: Row) -> None:
    os.write(1, json.dumps(row).encode() + b"\n")


def main(name: str, seed: str) -> None:
    """See the top."""
    for one in area(name):
        _forked(one, seed)


if __name__ == "__main__":
    main(*sys.argv[1:3])

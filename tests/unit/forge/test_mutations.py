"""Any one field of any answer left out, or of another type: what was a hold stays one, and nothing but PassError is raised."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import Forge as Configured
from reconciler.errors import PassError
from reconciler.forge import Bounds, Forge, Merged, open_forge
from reconciler.model import Commit
from tests.kit.forge import KINDS, ForgeSite, forge_site
from tests.kit.merges import NAME, WAYS, Scene, Way

Json = Any
GONE = object()
STRANGE: tuple[Json, ...] = (GONE, None, True, 0, -1, "x", "", [], {}, [None], 10**30, 1.5)

PASSING = ("approved", "squashed", "two approve, two needed")
HOLDING = tuple(way.name for way in WAYS if way.reason)


def places(answer: Json, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every part of an answer, itself included."""
    yield at
    for key, inner in (
        answer.items() if isinstance(answer, dict) else enumerate(answer) if isinstance(answer, list) else ()
    ):
        yield from places(inner, (*at, key))


def altered(answer: Json, at: tuple[str | int, ...], value: Json) -> Json:
    if not at:
        return None if value is GONE else value
    whole = copy.deepcopy(answer)
    inner = whole
    for step in at[:-1]:
        inner = inner[step]
    if value is GONE:
        del inner[at[-1]]
    else:
        inner[at[-1]] = value
    return whole


class Recorded:
    """What the forge answered, by path; asked again, it answers the same but for one part."""

    def __init__(self, site: ForgeSite, forge: Forge, commit: Commit) -> None:
        self.site, self.forge, self.commit = site, forge, commit
        self.said: dict[str, Json] = {}
        self.site.change = self._record
        self.verdict = self._ask()
        self.paths = {path: answer for path, answer in self.said.items() if answer != []}

    def _record(self, path: str, answer: Json) -> Json:
        self.said.setdefault(path, answer)  # the first page: the second is empty
        return answer

    def _ask(self) -> Merged | str:
        try:
            return self.forge.merged(self.commit)
        except PassError as error:
            return error.reason

    def with_change(self, path: str, at: tuple[str | int, ...], value: Json) -> Merged | str:
        def change(asked: str, answer: Json) -> Json:
            if asked != path or (answer == [] and at):
                return answer
            try:
                return altered(answer, at, value)
            except (KeyError, IndexError, TypeError):
                return answer

        self.site.change = change
        return self._ask()


def recorded(folder: Path, site: ForgeSite, way: Way, kind: str) -> Recorded:
    scene = Scene.of(site)
    commit = way.go(scene)
    site.still = {}
    given = {**site.config(kind, NAME), "min_approvals": way.needed}
    return Recorded(site, open_forge(Configured.model_validate(given), "main", bounds=Bounds(pages=3)), commit)


def cases(record: Recorded, tries: int) -> list[tuple[str, tuple[str | int, ...], Json]]:
    """Some of all changes, others at each run (pytest-randomly's seed repeats them); all, if that is asked for."""
    every = [(path, at, value) for path, answer in record.paths.items() for at in places(answer) for value in STRANGE]
    every = [(path, at, value) for path, at, value in every if not is_lie(record.paths[path], at, value)]
    return every if os.environ.get("RECONCILER_TEST_FORGE") == "all" else random.sample(every, min(tries, len(every)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [way for way in WAYS if way.name in HOLDING], ids=lambda way: way.name)
def test_what_was_a_hold_stays_one(tmp_path: Path, way: Way, kind: str) -> None:
    with forge_site(tmp_path / "forge") as site:
        record = recorded(tmp_path, site, way, kind)
        assert isinstance(record.verdict, str)
        for path, at, value in cases(record, 12):
            found = record.with_change(path, at, value)
            assert isinstance(found, str), (path, at, value, found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", [way for way in WAYS if way.name in PASSING], ids=lambda way: way.name)
def test_what_passed_says_the_same_or_holds(tmp_path: Path, way: Way, kind: str) -> None:
    with forge_site(tmp_path / "forge") as site:
        record = recorded(tmp_path, site, way, kind)
        assert isinstance(record.verdict, Merged)
        held = 0
        for path, at, value in cases(record, 30):
            found = record.with_change(path, at, value)
            if isinstance(found, str):
                held += 1
            else:
                assert (found.pull, found.head) == (record.verdict.pull, record.verdict.head), (path, at, value)
                assert set(found.approvers) <= {*record.verdict.approvers, "x"}, (
                    path,
                    at,
                    value,
                )  # a login is for show
        assert held > 2


def is_lie(answer: Json, at: tuple[str | int, ...], value: Json) -> bool:
    """A thing of a list that is not told at all cannot be missed: such a forge lies, and its word is what is asked for."""
    for step in at:
        answer = answer[step]
    return (value is GONE and bool(at) and isinstance(at[-1], int)) or (value == [] and isinstance(answer, list))

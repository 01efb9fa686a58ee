"""The state and the place that it speaks of: when either is not the one that was left behind, nothing is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.kit.house import House, Json, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env, look, made, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

NAMES = ["a", "b", "c", "d"]


def regional(region: str, **more: object) -> str:
    return environment(providers={"files": {"region": region}}, **more)


def test_a_wrong_region_creates_nothing(tmp_path: Path) -> None:
    entries = {env("prod"): regional("eu"), at("prod/files"): entry("files", {"paths": NAMES})}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({env("prod"): regional("us")})
        held = home.held("prod/files", "RecreateLimit")
        assert (held["sync"], held["health"]) == ("OutOfSync", "Degraded")
        assert "4 objects" in held["message"]
        assert "limits.recreate" in held["message"]
        assert len(held["plan"]["missing"]) == 4
        assert not (home.ground.world / "us").exists()

        home.ground.merge({env("prod"): regional("eu")})
        home.synced()
        assert sorted(made(home, "create", "created")) == [f"eu/{name}" for name in NAMES]
        assert made(home, "delete", "deleted") == []


def test_an_emptied_account_is_not_filled_again_by_drift_correction(tmp_path: Path) -> None:
    entries = {env("prod"): regional("eu"), at("prod/files"): entry("files", {"paths": NAMES})}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        (home.ground.world / "eu").rename(home.ground.world / "elsewhere")
        assert look(home, "prod/files")["reason"] == "RecreateLimit"
        home.held("prod/files", "RecreateLimit")
        (home.ground.world / "elsewhere").rename(home.ground.world / "eu")
        assert look(home, "prod/files")["reason"] == "InSync"
        home.synced()
        assert len(made(home, "create", "created")) == 4


def _emptied(folder: Path, state: Path, old: bytes) -> None:
    shutil.move(state.parent, folder / "away")


def _older(folder: Path, state: Path, old: bytes) -> None:
    shutil.copy(state, folder / "newest")
    state.write_bytes(old)


def _foreign(folder: Path, state: Path, old: bytes) -> None:
    shutil.copy(state, folder / "newest")
    state.write_text(json.dumps(json.loads(state.read_bytes()) | {"lineage": "a-stranger", "serial": 99}))


@pytest.mark.parametrize("lose", [_emptied, _older, _foreign])
def test_a_state_that_is_not_the_one_left_behind_holds_until_it_is_back(tmp_path: Path, lose) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    entries = {env("prod"): environment(), at("prod/a"): data("one"), at("prod/b"): data("${{ a.value }}")}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        state = home.ground.state("prod/a")
        old = state.read_bytes()
        home.ground.merge({at("prod/a"): data("two")})
        home.synced()
        good = state.read_bytes()

        lose(tmp_path, state, old)
        home.ground.merge({at("prod/a"): data("three"), at("prod/c"): data("new, and no reader")})
        held = home.held("prod/a", "StateLost")
        assert (held["sync"], held["health"]) == ("OutOfSync", "Degraded")
        assert "Bring the right state back" in held["message"]
        home.synced("prod/c")
        assert home.unit("prod/b")["reason"] in ("DependencyNotReady", "StateLost", "")
        assert _plans(results(home, "prod/a")) == 2

        _restore(home, tmp_path, state, good)
        look(home, "prod/a")
        home.synced()
        assert json.loads(home.ground.state("prod/b").read_text())["outputs"]["value"]["value"] == "three"


def _plans(found: list[Json]) -> int:
    return sum(1 for one in found if one["plan"] is not None)


def _restore(home: House, folder: Path, state: Path, good: bytes) -> None:
    if (folder / "away").exists():
        for file in (folder / "away").iterdir():
            shutil.copy(file, state.parent / file.name)
    state.write_bytes(good)


def test_a_state_where_none_was_left_is_not_taken_over(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/a"): data("one")}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        shutil.copy(home.ground.state("prod/a"), home.ground.state("prod/new"))
        home.ground.merge({at("prod/new"): data("two")})
        assert "never wrote" in home.held("prod/new", "StateLost")["message"]
        home.ground.state("prod/new").unlink()
        look(home, "prod/new")
        home.synced()
        settled(home)


def test_a_runner_that_forgot_everything_holds_what_has_a_state(tmp_path: Path) -> None:
    with house(
        tmp_path / "h",
        {env("prod"): environment(), at("prod/f"): entry("file", {"path": "f", "content": "x"})},
        CATALOG,
    ) as home:
        home.start()
        home.synced()
        home.stop()
        shutil.rmtree(home.ground.folder / "runner" / "units")
        home.start()
        assert look(home, "prod/f")["reason"] == "StateLost"
        assert made(home, "create", "created") == ["f"]

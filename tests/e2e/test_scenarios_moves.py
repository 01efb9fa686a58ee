"""A renamed entry keeps its state and its objects, wherever the move is interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, did, env, made, results
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PAGE = {"path": "page", "content": "x"}

# The real runner, in which the process of a job kills itself before the Nth time that it replaces a file for good. The
# number stands in a file, which is taken away, so that it happens once.
MORTAL = """\
import os, pathlib, signal, sys
service, order, real, done = os.getpid(), pathlib.Path(sys.argv.pop(1)), os.replace, []
def replace(source, target):
    if os.getpid() != service and not done:
        done.append(int(order.read_text()) if order.exists() else 0)
    if os.getpid() != service and done[0]:
        done[0] -= 1
        if not done[0]:
            order.unlink()
            order.with_name(f"died-{pathlib.Path(target).name}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return real(source, target)
os.replace = replace
from reconciler.cli import main
main()
"""


def lineage(home: House, unit: str) -> str:
    return str(json.loads(home.ground.state(unit).read_text())["lineage"])


def test_a_rename_keeps_the_state_and_recreates_nothing(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        at("prod/old"): entry("file", PAGE),
        at("prod/reader"): data("${{ old.path }}"),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        before = lineage(home, "prod/old")
        home.ground.merge(
            {
                at("prod/old"): None,
                at("prod/new"): entry("file", PAGE, moved_from="old"),
                at("prod/reader"): data("${{ new.path }}"),
            }
        )
        home.synced()
        assert lineage(home, "prod/new") == before
        assert not home.ground.state("prod/old").exists()
        assert home.unit("prod/old") == {}
        assert [one["unit"] for one in home.units()] == ["prod/new", "prod/reader"]
        assert made(home, "create", "created") == ["page"]
        assert made(home, "delete", "deleted") == []

        # The line may stay for good, and it may go; and the old name is free for something else.
        home.ground.merge({at("prod/new"): entry("file", {**PAGE, "content": "y"}, moved_from="old")})
        home.synced()
        home.ground.merge({at("prod/new"): entry("file", {**PAGE, "content": "y"}), at("prod/old"): data("another")})
        home.synced()
        assert lineage(home, "prod/old") != before
        assert lineage(home, "prod/new") == before
        assert made(home, "create", "created") == ["page"]
        # And what was moved can still be destroyed.
        home.ground.merge({at("prod/reader"): None})
        home.held("prod/reader", "Orphaned")


def test_a_move_whose_source_is_still_there_or_never_was_is_held(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/old"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({at("prod/new"): data(1, moved_from="old"), at("prod/lost"): data(1, moved_from="nobody")})
        held = home.held("prod/new", "MoveInvalid")
        assert "remove its file" in held["message"]
        assert "environments/prod/new.yaml:7:16" in held["message"]
        assert "moved_from" in home.held("prod/lost", "MoveBlocked")["message"]
        assert home.unit("prod/old")["sync"] == "Synced"
        assert not home.ground.state("prod/new").exists()
        assert not home.ground.state("prod/lost").exists()

        home.ground.merge({at("prod/old"): None, at("prod/lost"): None})
        home.synced()
        assert json.loads(home.ground.state("prod/new").read_text())["outputs"]["value"]["value"] == 1
        assert did(home, "prod/new")[-1][0] == "apply"


def test_a_move_to_a_name_that_has_a_state_of_its_own_changes_nothing(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/old"): data(1), at("prod/new"): data(2)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        both = lineage(home, "prod/old"), lineage(home, "prod/new")
        home.ground.merge({at("prod/old"): None, at("prod/new"): data(2, moved_from="old")})
        # The unit exists already, so there is nothing to take over; the old one is an orphan like any other.
        home.held("prod/old", "Orphaned")
        home.synced("prod/new")
        assert (lineage(home, "prod/old"), lineage(home, "prod/new")) == both


def test_a_move_that_is_killed_at_any_step_still_arrives(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/n0"): entry("file", PAGE)}
    order = tmp_path / "order"
    with house(tmp_path / "h", entries, CATALOG) as home:
        _start_mortal(home, order)
        home.start()
        home.synced()
        first = lineage(home, "prod/n0")
        for step in range(1, STEPS + 1):
            order.write_text(str(step))
            old, new = f"prod/n{step - 1}", f"prod/n{step}"
            content = {**PAGE, "content": f"x{step}"} if step % 3 == 0 else results_content(home)
            home.ground.merge({at(old): None, at(new): entry("file", content, moved_from=old.partition("/")[2])})
            home.synced(patience=90)
            assert [one["unit"] for one in home.units()] == [new]
            assert lineage(home, new) == first
            assert not home.ground.state(old).exists()
        died = sorted(path.name for path in tmp_path.glob("died-*"))
        assert len(died) > 4, died  # at steps of several kinds
        assert made(home, "create", "created") == ["page"]
        assert made(home, "delete", "deleted") == []
        assert doubled(home.ground.world) == []
        assert results(home, "prod")[-1]["outcome"] == "Succeeded"


STEPS = 9


def results_content(home: House) -> dict[str, str]:
    """The inputs as they are applied now, so that the move is all that changes."""
    return {**PAGE, "content": (home.ground.world / "page").read_text()}


def _start_mortal(home: House, order: Path) -> None:
    with (home.ground.logs / "runner.log").open("ab") as log:
        home.runner = subprocess.Popen(
            [sys.executable, "-c", MORTAL, str(order), "runner", "serve", "--config", str(home.ground.runner_config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
    home.until(home._runner_answers, "the mortal runner answers")

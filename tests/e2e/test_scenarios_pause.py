"""People and processes that stop: nothing new begins, what runs ends, and nothing happens twice."""

from __future__ import annotations

import json
import os
import pwd
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.kit.house import PATIENCE, House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import ask, at, did, env, gate, made, phase, results, seen, settled
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SLOW = {"path": "slow", "content": "1"}


def pause(home: House, scope: str, hours: int = 2) -> None:
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    ask(home, "pause", scope, reason="an incident", until=until)


def value(home: House, unit: str) -> object:
    return json.loads(home.ground.state(unit).read_text())["outputs"]["value"]["value"]


def test_a_paused_scope_is_planned_and_not_changed_until_it_is_resumed(tmp_path: Path) -> None:
    units = ("prod/a", "prod/b", "dev/a")
    entries = {env("prod"): environment(), env("dev"): environment(), **{at(unit): data(0) for unit in units}}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        for number, (scope, still) in enumerate(
            (("prod/a", ["prod/a"]), ("prod", ["prod/a", "prod/b"]), ("all", list(units))), start=1
        ):
            pause(home, scope)
            home.ground.merge({at(unit): data(number) for unit in units})
            for unit in still:
                _planned(home, unit)
                shown = home.held(unit, "Paused")
                assert (shown["sync"], shown["health"]) == ("OutOfSync", "Suspended")
                [said] = shown["pauses"]
                assert (said["scope"], said["reason"], said["owner"]) == (scope, "an incident", _me())
                assert said["until"] > datetime.now(UTC).isoformat()
                assert scope in shown["message"]
                assert value(home, unit) == number - 1
            if moving := [unit for unit in units if unit not in still]:
                home.synced(*moving)
            settled(home)
            assert [value(home, unit) for unit in still] == [number - 1] * len(still)
            ask(home, "resume", scope)
            home.synced()
            assert [value(home, unit) for unit in units] == [number] * 3


def test_a_pause_ends_by_itself(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data(0)}, CATALOG) as home:
        home.start()
        home.synced()
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        ask(home, "pause", "prod", reason="an hour", until=later)
        home.ground.merge({at("prod/a"): data(1)})
        home.held("prod/a", "Paused")
        soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
        ask(home, "pause", "prod", reason="a moment", until=soon)
        home.synced()
        ended = datetime.fromisoformat(results(home, "prod/a")[-1]["started_at"])
        assert ended >= datetime.fromisoformat(soon)


def test_a_pause_works_with_everything_else_away_and_outlives_a_restart(tmp_path: Path) -> None:
    often = {"environments_repo": {"poll_interval": "1s"}}
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data(0)}, CATALOG, controller=often) as home:
        home.start()
        home.synced()
        assert home.runner is not None
        home.runner.send_signal(signal.SIGTERM)
        home.runner.wait(PATIENCE)
        away = home.ground.environments.folder.rename(tmp_path / "away.git")
        states = (home.ground.folder / "states").rename(tmp_path / "states")
        done = home.command("pause", "prod", "--reason", "all is on fire", "--until", "2h")
        assert (done.returncode, done.stderr) == (0, "")
        assert [one["scope"] for one in home.get("/api/v1/status")["pauses"]] == ["prod"]
        home.kill("controller")
        home.start_controller()
        assert [one["scope"] for one in home.get("/api/v1/status")["pauses"]] == ["prod"]

        away.rename(home.ground.environments.folder)
        states.rename(home.ground.folder / "states")
        home.ground.merge({at("prod/a"): data(1)})
        home.start()
        home.held("prod/a", "Paused")
        home.until(lambda: did(home, "prod/a")[1:] == [("plan", "Planned")], "it is planned")
        assert value(home, "prod/a") == 0
        assert home.command("resume", "prod").returncode == 0
        home.synced()


def test_a_job_that_plans_when_its_unit_is_paused_does_not_apply(tmp_path: Path) -> None:
    page = {"path": "page", "content": "1"}
    variables = {"environments": {"prod": {"env": gate(tmp_path)}}}
    entries = {env("prod"): environment(), at("prod/page"): entry("file", page)}
    with house(tmp_path / "h", entries, CATALOG, runner=variables) as home:
        home.start()
        home.synced()
        (tmp_path / "closed").touch()
        home.ground.merge({at("prod/page"): entry("file", {**page, "content": "2"})})
        phase(home, "prod/page", "Planning")
        pause(home, "prod")
        spool = home.ground.folder / "runner" / "spool"
        home.until(lambda: list(spool.glob("*/cancel")), "the runner was told")
        (tmp_path / "closed").unlink()
        home.until(lambda: len(results(home, "prod/page")) >= 2, "the job ends")
        overtaken = results(home, "prod/page")[1]
        assert overtaken["outcome"] == "Superseded"
        assert (home.ground.world / "page").read_text() == "1"
        shown = home.held("prod/page", "Paused")
        assert shown["health"] == "Suspended"
        ask(home, "resume", "prod")
        home.synced()
        assert (home.ground.world / "page").read_text() == "2"


def test_an_apply_that_runs_ends_under_a_pause(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/slow"): entry("slow", SLOW)}, CATALOG) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the apply runs")
        pause(home, "all")
        home.until(lambda: list((home.ground.folder / "runner" / "spool").glob("*/cancel")), "the runner was told")
        (home.ground.world / "go").touch()
        home.until(lambda: did(home, "prod/slow") == [("apply", "Applied")], "the apply ends")
        shown = home.unit("prod/slow")
        assert (shown["sync"], shown["health"], shown["reason"]) == ("Synced", "Suspended", "Paused")
        assert made(home, "create", "created") == ["slow"]


@pytest.mark.parametrize("which", ["controller", "both"])
def test_sigterm_in_the_middle_of_an_apply_lets_it_end_and_it_is_not_done_again(tmp_path: Path, which: str) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/slow"): entry("slow", SLOW)}, CATALOG) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the apply runs")
        home.ground.merge({at("prod/next"): data(1)})
        assert home.controller is not None
        assert home.runner is not None
        home.controller.send_signal(signal.SIGTERM)
        home.controller.wait(PATIENCE)
        if which == "both":
            home.runner.send_signal(signal.SIGTERM)
            (home.ground.world / "go").touch()
            home.runner.wait(PATIENCE)  # it waited for its apply
            assert made(home, "create", "created") == ["slow"]
        home.start()
        (home.ground.world / "go").touch()
        home.synced()
        assert did(home, "prod/slow") == [("apply", "Applied")]
        assert [call.outcome for call in seen(home, "slow", "create")] == ["waiting", "started", "created"]
        assert doubled(home.ground.world) == []


@pytest.mark.parametrize("which", ["controller", "runner"])
def test_kill_of_a_plane_in_the_middle_of_an_apply(tmp_path: Path, which: str) -> None:
    """The job is a process of its own: it outlives both."""
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/slow"): entry("slow", SLOW)}, CATALOG) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the apply runs")
        home.kill(which)
        (home.ground.world / "go").touch()
        home.start()
        home.synced()
        assert did(home, "prod/slow") == [("apply", "Applied")]
        assert made(home, "create", "created") == ["slow"]
        assert doubled(home.ground.world) == []


def test_a_killed_job_is_uncertain_and_its_plan_is_not_applied_again(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/slow"): entry("slow", SLOW)}, CATALOG) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the apply runs")
        _kill_job(home, "prod/slow")
        (home.ground.world / "go").touch()
        home.synced()
        found = results(home, "prod/slow")
        assert found[0]["outcome"] == "Uncertain"
        assert found[-1]["reason"] in ("Applied", "InSync")
        assert made(home, "create", "created") == ["slow"]
        assert doubled(home.ground.world) == []


def _kill_job(home: House, unit: str) -> None:
    """kill -9 the process of the unit's job; its engine lives on, and holds the unit's lock."""
    job = home.unit(unit)["job"]["id"]
    parent = home.runner.pid if home.runner else 0
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    assert len(children) == 1, (job, children)
    os.kill(int(children[0]), signal.SIGKILL)


def _planned(home: House, unit: str) -> None:
    home.until(lambda: (home.unit(unit)["plan"] or {}).get("pending"), f"{unit} is planned")


def _me() -> str:
    return pwd.getpwuid(os.getuid()).pw_name

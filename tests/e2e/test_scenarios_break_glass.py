"""People work by hand: nothing is put back under their hands, it ends on time, and nothing is applied over what they did."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from reconciler.demo.playground import free_port, laid_over
from tests.kit.house import PATIENCE, House, Json, house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import ask, at, env, look, made, results, seen
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PAGE, OTHER = {"path": "page", "content": "as reviewed"}, {"path": "other", "content": "as reviewed"}
SLOW = {"path": "slow", "content": "1"}
SOON = timedelta(seconds=5)


def sessions(home: House) -> list[str]:
    return [one["scope"] for one in home.get("/api/v1/status")["break_glass"]]


def ends(home: House) -> list[Json]:
    """What the journal says of the ends of sessions, oldest first."""
    events = home.get("/api/v1/history?scope=all&limit=1000")["events"]
    return [one for one in reversed(events) if one["action"] == "break-glass-closed"]


def standby_of(home: House, folder: Path) -> Path:
    """The configuration of a second daemon on the same store."""
    config = yaml.safe_load(home.ground.controller_config.read_text())
    own = {
        "http": {"listen": f"127.0.0.1:{free_port()}"},
        "admin": {"socket": str(home.ground.runtime / "second.sock")},
    }
    path = folder / "standby.yaml"
    path.write_text(yaml.safe_dump(laid_over(config, own)))
    return path


def falls_and_is_followed_by(home: House, standby: Path) -> None:
    """kill -9 the daemon that leads; another one, which stands by, leads from then on."""
    second = home._spawn("standby", "run", "--config", str(standby))
    address = yaml.safe_load(standby.read_text())["http"]["listen"]
    home.kill("controller")
    home.controller, home.listens = second, f"http://{address}"
    home.until(lambda: home.get("/readyz")["checks"]["leader"]["ok"], "the standby leads")


def test_what_is_done_by_hand_stays_and_the_clock_ends_it_whatever_happens(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(limits={"destroy": 1}),
        at("prod/page"): entry("file", PAGE),
        at("prod/other"): entry("file", OTHER),
        at("prod/slow"): entry("slow", SLOW),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        world = home.ground.world
        world.mkdir(exist_ok=True)
        (world / "go").touch()
        home.start()
        home.synced()
        _nothing_is_put_back_under_their_hands(home)
        _what_was_done_stays_until_it_is_merged(home)
        _it_ends_on_time(home, tmp_path)
        _given_up_it_is_put_back(home)


def _nothing_is_put_back_under_their_hands(home: House) -> None:
    """Also not by a daemon that was killed meanwhile."""
    world = home.ground.world
    opened = home.command("break-glass", "open", "prod", "--reason", "the site is down", "--until", "50m")
    assert (opened.returncode, opened.stderr) == (0, "")
    assert "a pause with an audit: it grants nothing" in opened.stdout
    (world / "page").write_text("by hand")
    assert look(home, "prod/page")["job"]["operation"] == "plan"
    home.kill("controller")
    home.start_controller()
    assert sessions(home) == ["prod"]
    assert look(home, "prod/page")["job"]["operation"] == "plan"
    shown = home.held("prod/page", "BreakGlass")
    assert (shown["sync"], shown["health"]) == ("OutOfSync", "Suspended")
    assert 'reconciler_break_glass_active{scope="prod"} 1.0' in home.text("/metrics")
    again = home.command("break-glass", "open", "prod", "--reason", "more time", "--until", "55m")
    assert again.returncode == 1
    assert "close it first" in again.stderr


def _what_was_done_stays_until_it_is_merged(home: House) -> None:
    """Each unit is looked at first; what is in sync goes on."""
    world = home.ground.world
    assert "units are planned first" in home.command("break-glass", "close", "prod").stdout
    home.held("prod/page", "AfterBreakGlass", "is not in sync since")
    home.synced("prod/other", "prod/slow")
    told = home.command("explain", "prod/page").stdout
    assert "--accept-loss" in told
    assert (world / "page").read_text() == "by hand"
    home.ground.merge({at("prod/page"): entry("file", {**PAGE, "content": "by hand"})})
    home.synced()
    assert (world / "page").read_text() == "by hand"
    assert seen(home, "page", "update") == []  # only the outputs in the state followed


def _it_ends_on_time(home: House, folder: Path) -> None:
    """With an object destroyed and its successor in flight, the daemon killed, another one in its place."""
    world = home.ground.world
    (world / "go").unlink()
    home.ground.merge({at("prod/slow"): entry("slow", {**SLOW, "path": "slower"})})
    home.until(lambda: "slower" in made(home, "create", "waiting"), "the apply is in the middle", PATIENCE)
    until = datetime.now(UTC) + SOON
    said = ask(home, "break-glass-open", "prod", reason="again", until=until.isoformat())
    assert "jobs of prod/slow may be applying" in said["warning"]
    (world / "page").write_text("by hand again")
    falls_and_is_followed_by(home, standby_of(home, folder))
    home.until(lambda: not sessions(home), "the session has ended")
    [by_hand, by_clock] = ends(home)
    assert (by_hand["body"]["actor"] == "clock", by_clock["body"]["actor"]) == (False, "clock")
    assert datetime.fromisoformat(by_clock["at"]) >= until
    assert len(results(home, "prod/slow")) == 2  # the apply has not ended: nobody killed it, nor waited for it
    home.held("prod/page", "AfterBreakGlass", "is not in sync since")
    (world / "go").touch()
    home.synced("prod/slow", "prod/other")


def _given_up_it_is_put_back(home: House) -> None:
    """By the normal apply, once an admin said so."""
    world = home.ground.world
    second = home.ground.runtime / "second.sock"
    words = ("break-glass", "close", "prod/page", "--accept-loss", "--reason", "a test", "--socket", str(second))
    lost = home.command(*words)
    assert (lost.returncode, lost.stderr) == (0, "")
    home.synced()
    assert (world / "page").read_text() == "by hand"
    assert made(home, "create", "created").count("slower") == 1
    assert doubled(world) == []


def test_a_pause_begins_and_ends_with_git_the_network_and_the_state_away(tmp_path: Path) -> None:
    """The daemon runs in a network of its own, in which there is none; only the admin socket is left."""
    ground_of = {env("prod"): environment(), at("prod/page"): entry("file", PAGE)}
    with house(tmp_path / "h", ground_of, CATALOG) as home:
        home.start()
        home.synced()
        home.stop()
        away = home.ground.environments.folder.rename(tmp_path / "away.git")
        states = (home.ground.folder / "states").rename(tmp_path / "states")
        home.before = {"controller": ("unshare", "--map-current-user", "--net")}
        home.controller = home._spawn("controller", "run", "--config", str(home.ground.controller_config))
        paused = ("pause", "prod", "--reason", "all is on fire", "--until", "2h")
        home.until(lambda: home.command(*paused).returncode == 0, "the pause is taken")
        assert home.command("resume", "prod").returncode == 0
        opened = ("break-glass", "open", "prod/page", "--reason", "all is on fire", "--until", "30m")
        assert home.command(*opened).returncode == 0
        home.controller.send_signal(signal.SIGTERM)
        assert home.controller.wait(PATIENCE) == 0

        away.rename(home.ground.environments.folder)
        states.rename(home.ground.folder / "states")
        home.before = {}
        home.start()
        done = [one["action"] for one in home.get("/api/v1/history?scope=all&limit=1000")["events"]]
        assert [one for one in reversed(done) if one in ("paused", "resumed")] == ["paused", "resumed"]
        assert sessions(home) == ["prod/page"]
        assert home.command("break-glass", "close", "prod/page").returncode == 0
        home.synced()
        assert json.loads(home.ground.state("prod/page").read_text())["serial"] > 0

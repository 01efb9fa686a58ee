"""The git server lies: an older head, half a pack, a bent one, a crawl, another history. What was merged before stays in force."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.demo.forge import Forge
from reconciler.demo.playground import laid_over
from tests.kit.gitserver import HttpsServer, running
from tests.kit.house import House, Json, house
from tests.kit.modules import CATALOG, data, environment
from tests.kit.story import at, env

PATIENCE = 180.0  # seconds
ENTRIES = {env("prod"): environment(), at("prod/a"): data("one"), at("prod/b"): data("${{ a.value }}")}

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def served(tmp_path: Path) -> Iterator[tuple[HttpsServer, House]]:
    """A house whose planes fetch everything over https, at the second merge, and a server that can have another root."""
    folder = tmp_path / "h"
    server = HttpsServer(tmp_path / "https", folder)
    place = {"allow_file": None, "ca_file": str(server.ca_file)}
    runner: Json = {
        "environments_repo": {**place, "url": server.url(folder / "environments.git")},
        "catalog_repos": {"acme": {**place, "url": server.url(folder / "catalog.git")}},
    }
    controller = laid_over(runner, {"environments_repo": {"poll_interval": "1s"}})
    with running(server), house(folder, ENTRIES, CATALOG, controller=controller, runner=runner) as home:
        home.start()
        home.synced(patience=PATIENCE)
        shutil.copytree(folder / "environments.git", tmp_path / "older" / "environments.git")
        merge(home, "two")
        home.synced(patience=PATIENCE)
        yield server, home


def merge(home: House, value: str) -> None:
    home.ground.merge({at("prod/a"): data(value)})


def states(home: House) -> list[str]:
    return [home.ground.state(unit).read_text() for unit in ("prod/a", "prod/b")]


def arrived(home: House, value: str) -> None:
    """What was merged meanwhile arrives by itself, and goes on to who reads it."""
    home.synced(patience=PATIENCE)
    assert all(f'"value": "{value}"' in state for state in states(home))


def frozen(home: House, reason: str) -> None:
    home.until(lambda: (home.get("/api/v1/status")["frozen"] or {}).get("reason") == reason, reason, PATIENCE)


def failing(home: House) -> None:
    """The polls fail, and the page says so."""
    home.until(lambda: home.get("/api/v1/status")["checks"]["git"]["message"], "git is told to fail", PATIENCE)


def test_an_older_head_stops_applies_and_nothing_is_taken_back(tmp_path: Path) -> None:
    with served(tmp_path) as (server, home):
        good, before = home.head(), states(home)
        genuine, server.root = server.root, tmp_path / "older"
        frozen(home, "HistoryRolledBack")
        merge(home, "three")
        assert (home.head(), states(home)) == (good, before)
        server.root = genuine
        arrived(home, "three")


@pytest.mark.parametrize("mode", ["cut", "bent", "crawl"])
def test_what_arrives_broken_or_hardly_at_all_counts_as_nothing(mode: str, tmp_path: Path) -> None:
    with served(tmp_path) as (server, home):
        good, before = home.head(), states(home)
        server.mode = mode
        merge(home, "three")
        failing(home)
        assert (home.head(), states(home)) == (good, before)
        server.mode = "serve"
        arrived(home, "three")


def test_another_history_stops_applies_for_good(tmp_path: Path) -> None:
    with served(tmp_path) as (server, home):
        good, before = home.head(), states(home)
        (tmp_path / "other").mkdir()
        other = Forge.create(tmp_path / "other" / "environments.git")
        other.commit({**ENTRIES, at("prod/a"): data("evil")}, "Not what you know")
        genuine, server.root = server.root, tmp_path / "other"
        frozen(home, "HistoryRewritten")
        server.root = genuine
        merge(home, "three")
        home.until(
            lambda: home.ground.environments.head in str(home.get("/api/v1/status")["frozen"]), "it is back", PATIENCE
        )
        assert (home.head(), states(home)) == (
            good,
            before,
        )  # who could do that may have done more: somebody has to look

        merged, config = home.ground.environments.head, str(home.ground.runner_config)
        known = ("--reason", "the server's disk was another's")
        for words in (("runner", "accept-history", good, merged, "--config", config), ("accept-history", good, merged)):
            done = home.command(*words, *known)
            assert (done.returncode, done.stderr) == (0, "")
        arrived(home, "three")

"""Nothing is destroyed that an entry did not say to: removals, orphans, and what others still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reconciler.demo.example import LOCK
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import actions, at, did, env, made, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

NETWORK = {"path": "network", "content": "10.0.0.0/16"}


def yanked(home: House, module: str, version: str = "1.0.0") -> str:
    """The lock with a version yanked."""
    lock = yaml.safe_load(home.ground.read(LOCK))
    lock["modules"][f"acme/{module}"]["versions"][version]["yanked"] = "it leaks"
    return json.dumps(lock, indent=1)


def there(home: House) -> list[str]:
    """The objects that exist."""
    return sorted(p.name for p in home.ground.world.iterdir() if not p.name.startswith((".", "calls")))


def test_a_removed_file_orphans_and_a_yanked_version_still_goes_when_it_is_said(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        at("prod/network"): entry("file", NETWORK),
        at("prod/other"): entry("file", {"path": "other", "content": "stays"}),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()

        home.ground.merge({at("prod/network"): None})
        orphan = home.held("prod/network", "Orphaned")
        assert (orphan["sync"], orphan["health"]) == ("OutOfSync", "Degraded")
        assert "state: absent" in orphan["message"]
        settled(home)
        assert there(home) == ["network", "other"]

        # The lock says that the version is not for new use; the unit that goes is at it, and may.
        home.ground.merge({at("prod/network"): entry("file", NETWORK, state="absent"), LOCK: yanked(home, "file")})
        held = home.held("prod/network", "DestroyLimit")
        assert "`allow_destroy: 1` in environments/prod/network.yaml" in held["message"]
        assert there(home) == ["network", "other"]

        home.ground.merge({at("prod/network"): entry("file", NETWORK, state="absent", allow_destroy=1)})
        home.synced()
        assert there(home) == ["other"]
        assert actions(results(home, "prod/network")[-1]) == [("files_file.this", "delete")]
        assert made(home, "delete", "deleted") == ["network"]

        done = len(results(home, "prod"))
        home.ground.merge({at("prod/network"): None})
        home.until(lambda: home.unit("prod/network") == {}, "the unit is history")
        settled(home)
        assert len(results(home, "prod")) == done
        home.synced()


def test_a_yanked_version_is_refused_to_new_uses_and_kept_for_those_that_have_it(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/old"): data("x")}, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({LOCK: yanked(home, "data"), at("prod/new"): data("y"), at("prod/old"): data("z")})
        home.synced("prod/old")
        held = home.held("prod/new", "Yanked")
        assert "it leaks" in held["message"]
        assert not home.ground.state("prod/new").exists()


def test_forgotten_lets_go_and_destroys_nothing(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/network"): entry("file", NETWORK)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({at("prod/network"): entry("file", NETWORK, state="forgotten")})
        home.until(lambda: did(home, "prod/network")[-1] == ("apply", "Forgotten"), "it is let go")
        home.synced()
        assert there(home) == ["network"]
        assert not home.ground.state("prod/network").exists()
        assert made(home, "delete", "deleted") == []

        home.ground.merge({at("prod/network"): None})
        home.until(lambda: home.unit("prod/network") == {}, "the unit is history")
        assert there(home) == ["network"]

        # A new unit of that name starts with nothing: it does not take over what was let go.
        home.ground.merge({at("prod/network"): entry("file", {"path": "another", "content": "new"})})
        home.synced()
        assert there(home) == ["another", "network"]


def test_what_is_still_read_is_not_destroyed(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(limits={"destroy": 9}),
        at("prod/network"): entry("file", NETWORK),
        at("prod/reader"): entry("file", {"path": "reader", "content": "${{ network.content }}"}),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()

        # Its reader still says that it reads: the reader's entry is wrong, and both stay as they are.
        home.ground.merge({at("prod/network"): entry("file", NETWORK, state="absent")})
        broken = home.held("prod/reader", "ReferenceToAbsent")
        assert "environments/prod/reader.yaml:6:15" in broken["message"]
        home.held("prod/network", "StillReferenced")
        settled(home)
        assert there(home) == ["network", "reader"]

        # Its reader's file is gone, but what was applied reads it still.
        home.ground.merge({at("prod/reader"): None})
        home.held("prod/reader", "Orphaned")
        assert "prod/reader" in home.held("prod/network", "StillReferenced")["message"]
        settled(home)
        assert there(home) == ["network", "reader"]
        assert made(home, "delete", "deleted") == []

        # The reader stops reading in the same merge: first it, then what it read.
        home.ground.merge({at("prod/reader"): entry("file", {"path": "reader", "content": "on its own"})})
        home.synced()
        assert there(home) == ["reader"]
        assert made(home, "update", "updated") == ["reader"]


def test_a_chain_is_destroyed_in_reverse_order_by_one_merge(tmp_path: Path) -> None:
    texts = {
        "network": {"path": "network", "content": "n"},
        "cluster": {"path": "cluster", "content": "in ${{ network.path }}"},
        "service": {"path": "service", "content": "on ${{ cluster.path }}"},
    }
    entries = {env("prod"): environment(), **{at(f"prod/{n}"): entry("file", t) for n, t in texts.items()}}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        gone = {at(f"prod/{n}"): entry("file", t, state="absent", allow_destroy=1) for n, t in texts.items()}
        home.ground.merge(gone)
        home.synced()
        assert made(home, "delete", "deleted") == ["service", "cluster", "network"]
        assert there(home) == []

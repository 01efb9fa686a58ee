"""deploy/container: both planes behind the walls that compose.yaml puts around them.

No container engine runs where tests do. What it would do for these services is done by bubblewrap, from the same file: a root that is
read-only, the user, no capabilities, memory at the `tmpfs`, and nothing else that can be written than the `volumes`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kit.house import House, house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import at, env

COMPOSE = Path(__file__).parents[2] / "deploy" / "container" / "compose.yaml"
ELSEWHERE = ("/etc/reconciler/", "/etc/reconciler-runner/")  # configurations: a house has its own

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240), pytest.mark.usefixtures("plain_provider")]


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def walls(service: dict[str, Any], home: House) -> list[str]:
    """The words of bubblewrap that stand for a service; where its volumes are in a house."""
    folder, where = home.ground.folder, {
        "/var/lib/reconciler": home.ground.folder / "controller",
        "/var/lib/reconciler-runner": home.ground.folder / "runner",
        "/run/reconciler": home.ground.runtime,
        "/run/reconciler-runner": home.ground.runtime,
    }  # fmt: skip
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    uid, _, gid = service["user"].partition(":")
    words = [
        "bwrap",
        "--die-with-parent",
        "--unshare-user",
        "--uid",
        uid,
        "--gid",
        gid,
        "--cap-drop",
        "ALL",
        "--ro-bind",
        "/",
        "/",
    ]
    words += ["--dev", "/dev", "--proc", "/proc"]
    memory = [one.partition(":")[0] for one in service["tmpfs"]]
    for path in (one for one in memory if one not in where):
        words += ["--tmpfs", path]
    words += ["--ro-bind", str(folder), str(folder)]
    volumes = [one.split(":")[1] for one in service["volumes"]]
    for path in [*volumes, *(one for one in memory if one in where)]:
        if not path.startswith(ELSEWHERE):
            words += ["--bind", str(where[path]), str(where[path])]
    return words


def test_both_planes_work_behind_the_walls_of_their_containers(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/page"): entry("file", {"path": "page", "content": "as reviewed"})}
    with house(tmp_path / "h", entries, CATALOG) as home:
        described = services()
        home.before = {name: walls(described[name], home) for name in ("controller", "runner")}
        # The world and the states are elsewhere in production; here they are folders of the house.
        for name in ("world", "states"):
            home.before["runner"] = [*home.before["runner"], "--bind", *[str(home.ground.folder / name)] * 2]
        home.start()
        home.synced()
        assert (home.ground.world / "page").read_text() == "as reviewed"
        home.ground.merge({at("prod/page"): entry("file", {"path": "page", "content": "changed"})})
        home.synced()
        assert (home.ground.world / "page").read_text() == "changed"


@pytest.mark.parametrize("name", ["controller", "runner"])
def test_what_a_service_may_not_write_it_cannot(name: str, tmp_path: Path) -> None:
    """The walls hold: the store of the controller is there for the controller alone, and nobody writes elsewhere."""
    with house(tmp_path / "h", {env("prod"): environment()}, CATALOG) as home:
        own, other = ("controller", "runner") if name == "controller" else ("runner", "controller")
        script = (
            f"for place in {home.ground.folder}/{own} {home.ground.folder}/{other} /usr {home.ground.folder}; "
            'do touch "$place/probe" 2>/dev/null && echo "$place"; done; id -u'
        )
        words = [*walls(services()[name], home), "sh", "-c", script]
        found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert found == [str(home.ground.folder / own), services()[name]["user"].partition(":")[0]]

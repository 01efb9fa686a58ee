"""A backup of a house at work, and what becomes of the house when an old one is put back: nothing twice, nothing loosened."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reconciler.runner import backup as of_runner
from reconciler.store import backup as of_store
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env, judged, look, made

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

RESTORED = ["both", "controller", "runner", "lost"]


def file(path: str, content: str = "x", **fields: Any) -> str:
    return entry("file", {"path": path, "content": content}, **fields)


FIRST = {
    env("prod"): environment(),
    at("prod/a"): file("a", "one"),
    at("prod/b"): file("b", "${{ a.content }}"),
    at("prod/many"): entry("files", {"paths": ["c1", "c2", "c3"]}),
    at("prod/old"): file("old"),
    at("prod/word"): data("one"),
}


def planes(home: House, which: str) -> list[str]:
    both = {
        "controller": ["--config", str(home.ground.controller_config)],
        "runner": ["--runner", str(home.ground.runner_config)],
    }
    return both[which] if which in both else [*both["controller"], *both["runner"]]


def saved(home: House, name: str) -> Path:
    path = home.ground.folder / name
    done = home.command("backup", str(path), *planes(home, "both"))
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    return path


# What is fetched, looked up or made again; and what only lives while a process does.
LEFT_OUT = re.compile(
    r".*[./]lock|.*\.sock|(?:work|engine|probes|spool|locks|claims|modules|vetted|providers|initialized)/.*|seen\.json|fetched|fetch-failed|reconciler\.db(?:-wal|-shm)?"
)


def forgotten(home: House) -> list[str]:
    """Files of both planes that are in no backup, and of which nobody has said that they need not be."""
    found = []
    for name, kept in (("controller", of_store.NAMES), ("runner", of_runner.NAMES)):
        folder = home.ground.folder / name
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        found += [one for one in names if not kept.fullmatch(one) and not LEFT_OUT.fullmatch(one)]
    return found


def twice(home: House) -> list[str]:
    """Objects that were created more than once."""
    return [path for path, times in Counter(made(home, "create", "created")).items() if times > 1]


def lose(home: House) -> None:
    """The host is gone, with everything but the backup, the states and the world."""
    for name in ("controller", "runner"):
        for inner in (home.ground.folder / name).rglob("*"):  # pinned trees are read-only
            if inner.is_dir():
                inner.chmod(0o700)
        shutil.rmtree(home.ground.folder / name)


@pytest.mark.parametrize("which", RESTORED)
def test_an_old_backup_makes_nothing_twice_and_opens_nothing(tmp_path: Path, which: str) -> None:
    with house(tmp_path / "h", FIRST, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({at("prod/a"): file("a", "two"), at("prod/busy"): file("busy")})
        backup = saved(home, "backup.tar")  # both are at work on it, or about to be
        home.synced()
        assert forgotten(home) == []

        home.ground.merge(
            {
                at("prod/a"): file("a", "three"),
                at("prod/new"): file("new", "${{ a.content }}"),
                at("prod/many"): entry("files", {"paths": ["c1", "c2"]}, allow_destroy=1),
                at("prod/old"): file("old", state="absent", allow_destroy=1),
                at("prod/other"): data("other", moved_from="word"),
                at("prod/word"): None,
            }
        )
        home.synced()
        states = {name: home.ground.state(name).read_bytes() for name in ("prod/new", "prod/other", "prod/b")}
        home.ground.merge({at("prod/many"): entry("files", {"paths": ["c1"]}, allow_destroy=1)})
        home.held("prod/many", "DestroyLimit")

        home.kill("controller")
        home.kill("runner")
        if which == "lost":
            lose(home)
        done = home.command("restore", str(backup), *planes(home, which), *([] if which == "lost" else ["--replace"]))
        assert done.returncode == 0, done.stderr
        home.start()
        for unit in ("prod/a", "prod/b", "prod/new", "prod/many", "prod/other", "prod/busy"):
            look(home, unit)
        home.held("prod/many", "DestroyLimit")
        home.synced("prod/a", "prod/b", "prod/new", "prod/other", "prod/busy")
        assert twice(home) == []
        assert made(home, "delete", "deleted") == ["c3", "old"] or made(home, "delete", "deleted") == ["old", "c3"]
        assert {name: home.ground.state(name).read_bytes() for name in states} == states
        verified = home.command("audit", "verify", "--config", str(home.ground.runner_config), "-o", "json")
        assert verified.returncode == 0
        assert json.loads(verified.stdout)["fits"]
        store = home.ground.folder / "controller" / "reconciler.db"
        assert home.command("audit", "verify", "--store", str(store)).returncode == 0

        without = home.ground.merge({at("prod/many"): entry("files", {"paths": ["c1"]})})
        judged(home, "prod/many", without)
        home.ground.merge(
            {at("prod/many"): entry("files", {"paths": ["c1"]}, allow_destroy=1), at("prod/b"): file("b", "alone")}
        )
        home.synced("prod/many", "prod/b")
        home.ground.merge({at("prod/last"): file("last", state="absent"), at("prod/new"): file("new", "alone")})
        home.synced()
        assert twice(home) == []

"""Jobs whose unit is only looked at are planned by warm workers; whatever goes wrong with one, the engine plans."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Result
from reconciler.runner.host import Host
from tests.kit import plane, warm
from tests.kit.terraform import static_engine, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="warm workers take Linux"),
]


class Site:
    """A host with units of one module, an engine that notes its commands, and warm workers."""

    def __init__(self, folder: Path, engine: Path, **runner: Any) -> None:
        self.engine = plane.NotedEngine(folder, engine)
        entries = {name: plane.note(name) for name in "abc"}
        said = {"engine": self.engine.config(), "warm": warm.config(), **runner}
        self.ground = plane.ground(folder, entries, **said)
        self.host: Host = plane.open_host(self.ground)
        self.jobs = 0

    def run(self, name: str) -> Result:
        self.jobs += 1
        (self.host.memory.folder / "fetched").unlink(missing_ok=True)
        return plane.carry_out(self.host, plane.job(f"prod/{name}", self.ground.environments.head, self.jobs))

    def commands(self, name: str, reason: str = "InSync") -> list[str]:
        """What a job of the unit has the engine do, one after another."""
        before = len(self.engine.commands())
        result = self.run(name)
        assert result.reason == reason, result
        return [word for _, word in self.engine.commands()[before:]]

    def state(self, name: str) -> Path:
        return self.ground.folder / "states" / f"prod/{name}.tfstate"

    def deploy(self) -> None:
        """Every unit, and a first look at one, which says that a worker may be worth its start."""
        for name in "abc":
            self.commands(name, "Applied")
        assert self.commands("a") == ["plan"]


@contextmanager
def site(folder: Path, engine: Path, **runner: Any) -> Iterator[Site]:
    made = Site(folder, engine, **runner)
    with warm.brokered(made.host):
        yield made
    until(lambda: not warm.programs(made.host), "every worker has ended with its broker")
    assert made.host.warmth is not None
    assert [path.name for path in made.host.warmth.home.iterdir()] == ["pool.json"]


@pytest.fixture
def here(tmp_path: Path, engine: Path) -> Iterator[Site]:
    with site(tmp_path, engine) as made:
        yield made


def test_a_unit_that_is_only_looked_at_is_planned_by_one_worker_after_another_job(here: Site) -> None:
    here.deploy()
    assert [here.commands(name) for name in "abcabc"] == [[]] * 6
    warm.until_pool(here.host, workers=1, made=1, lent=5, lent_now=0, refused_first=1)
    assert not list(
        here.host.spool.job(plane.job("prod/a", here.ground.environments.head, here.jobs).id).path.glob("warm")
    )


def test_the_worker_of_a_jail_sees_no_more_than_an_engine_there(tmp_path: Path, engine: Path) -> None:
    static_engine()
    # A module that tries to start the Python which its worker is.
    with site(tmp_path, engine, sandbox={"tier": "strict"}) as made:
        made.deploy()
        assert [made.commands(name) for name in "abc"] == [[]] * 3
        warm.until_pool(made.host, workers=1, lent_now=0)

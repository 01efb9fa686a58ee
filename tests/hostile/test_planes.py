"""Each class of hostile trees as the head of the branch, once: what the controller's poll and the runner's look make of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.branch.protected import open_branch
from reconciler.config import ControllerConfig, RunnerConfig
from reconciler.controller.daemon import SystemClock
from reconciler.controller.poller import AcceptedInStore, Poller
from reconciler.errors import PassError
from reconciler.logs import open_log
from reconciler.model import Commit, Desired, Operation, UnitId
from reconciler.observe import Observer
from reconciler.runner.history import History
from reconciler.runner.memory import Memory
from reconciler.store.sqlite import SqliteStore
from tests.hostile.site import ENTRY, ENTRY_PATH, ENVIRONMENT_PATH, LOCK, LOCK_PATH
from tests.hostile.trees import ROWS, UNTAKEN, Build, commit_with
from tests.kit.gitrepo import RepoBuilder

NETWORK = UnitId("prod/network")


@dataclass
class Planes:
    """A controller's poller and a runner's history over one repository, each with a store of its own, for their whole life."""

    repo: RepoBuilder
    poller: Poller
    history: History
    stamp: Path

    def poll(self) -> Desired:
        """What the controller goes on with."""
        self.poller.poll()
        found = self.poller.latest()
        assert found is not None
        return found

    def look(self, at_least: Commit) -> Desired:
        """What a job goes on with. Raises PassError."""
        self.stamp.unlink(missing_ok=True)  # a fetch counts for five seconds
        return self.history.newest(at_least, Operation.PLAN)


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planes]:
    folder, clock = tmp_path_factory.mktemp("planes"), SystemClock()
    catalog = RepoBuilder.create(folder / "catalog.git")
    pinned = catalog.commit({"modules/vpc/main.tf": ""})
    repo = RepoBuilder.create(folder / "repo.git")
    genesis = repo.commit(
        {ENVIRONMENT_PATH: "class: protected\n", LOCK_PATH: LOCK.replace("a" * 40, pinned), ENTRY_PATH: ENTRY}
    )
    both = {
        "environments_repo": {"url": repo.url, "genesis": genesis, "allow_file": True, "signatures": "off"},
        "catalog_repos": {"acme": {"url": catalog.url, "allow_file": True}},
    }
    controller = ControllerConfig.model_validate(
        {**both, "store": {"path": str(folder / "store.db")}, "executor": {"local": {"socket": str(folder / "sock")}}}
    )
    runner = RunnerConfig.model_validate(
        {
            **both,
            "memory": {"path": str(folder / "memory")},
            "socket": str(folder / "sock"),
            "allow": [{"operations": ["plan"], "refs": "merged", "folders": ["environments/**"]}],
            "engine": "auto",
            "environments": {},
        }
    )
    observer = Observer("test", open_log(io.StringIO(), as_json=True), clock.now)
    history = History(Memory(runner.memory_path), lambda accepted: open_branch(runner, accepted))
    with closing(SqliteStore(controller.store_path, clock)) as store:
        poller = Poller(open_branch(controller, AcceptedInStore(store)), store, observer, lambda: None, clock)
        yield Planes(repo, poller, history, runner.memory_path / "fetched")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "build"), [(name, builds[0]) for name, _, builds in ROWS])
def test_a_hostile_head_stops_nothing_but_itself_on_either_plane(planes: Planes, name: str, build: Build) -> None:
    repo, good = planes.repo, planes.repo.head()
    assert good
    assert set(planes.poll().units) == set(planes.look(good).units) == {NETWORK}
    bad = commit_with(repo, build, good)
    on_controller, error = planes.poll(), planes.poller.error
    assert set(on_controller.units) == {NETWORK}
    if error is None:  # one file is wrong, and breaks itself alone
        assert on_controller.commit == bad
        assert on_controller.problems
        on_runner = planes.look(bad)
        assert (on_runner.units, on_runner.problems) == (on_controller.units, on_controller.problems)
    elif error.reason in UNTAKEN:  # git refused it: the last good commit is in force, and jobs go on at it
        assert on_controller.commit == planes.look(good).commit == good
        repo.point("main", good)
    else:  # it was merged, and cannot be read: the controller knows the last good one, and no job runs at what nobody can read
        assert (on_controller.commit, error.reason) == (good, "TreeTooLarge")
        with pytest.raises(PassError) as refused:
            planes.look(good)
        assert refused.value.reason == "TreeTooLarge"
    head = repo.head()
    assert head
    mended = repo.commit_tree(repo.git("rev-parse", f"{good}^{{tree}}"), f"After {name}", (head,))
    repo.point("main", mended)
    assert planes.poll().commit == planes.look(mended).commit == mended
    assert planes.poller.error is None

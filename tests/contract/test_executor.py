"""What every executor promises, with a real runner behind it. Each test runs on every kind in `RUNNERS`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.config import load_controller
from reconciler.demo.playground import Playground
from reconciler.errors import PassError
from reconciler.executor.opening import Reached, open_executor
from reconciler.model import Job, Operation, Outcome, Phase, Result
from reconciler.ports import Lost, Running
from reconciler.remote.bucket import open_bucket
from reconciler.remote.spool import Asking
from tests.kit.house import House
from tests.kit.plane import CATALOG, ENVIRONMENT, PROD, job, note

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE = 120.0  # seconds


@dataclass
class Bench:
    """A runner with entries to work on, and the executor that reaches it. `kill` ends every process of a job that runs."""

    ground: Playground
    open: Callable[[], Reached]
    kill: Callable[[Job], None]

    def ended(self, executor: Reached, one: Job) -> Result | Lost:
        return self.until(executor, one, lambda state: not isinstance(state, Running))

    def until(self, executor: Reached, one: Job, holds: Callable[[Running | Result | Lost], bool]) -> Result | Lost:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = executor.poll(one.id)
            if holds(state):
                return state  # type: ignore[return-value]
            time.sleep(0.1)  # a poll, not a wait: the deadline is the wait
        pytest.fail(f"{one.id} is {state}\n" + "\n".join(p.read_text() for p in self.ground.logs.glob("*.log")))

    def job(self, number: int, unit: str = "prod/a", operation: Operation = Operation.APPLY, fence: int = 1) -> Job:
        return job(unit, self.ground.environments.head, number, operation=operation, fence=fence)


FILES = {**ENVIRONMENT, f"{PROD}/a.yaml": note(), f"{PROD}/b.yaml": note("two")}


@contextmanager
def local(folder: Path) -> Iterator[Bench]:
    ground = Playground.create(folder, FILES, CATALOG)
    house = House(ground)
    try:
        house.start_runner()

        def kill(_: Job) -> None:
            from tests.kit.ecs import kill_whole

            assert house.runner is not None  # it has begun the job when it has answered `start`
            kill_whole(house.runner.pid)
            house.runner.wait(10)
            house.runner = None
            house.start_runner()

        yield Bench(ground, lambda: open_executor(load_controller(ground.controller_config)), kill)
    finally:
        house.stop()
        ground.close()


@contextmanager
def fargate(folder: Path) -> Iterator[Bench]:
    from tests.kit.aws import REGION, serving
    from tests.kit.ecs import KEYS, SPOOL, agent, controller_says, ecs, runner_says

    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in KEYS.items():
            patch.setenv(name, value)
        aws = stack.enter_context(serving())
        cloud = stack.enter_context(ecs(aws))
        ground = Playground.create(
            folder, FILES, CATALOG, controller=controller_says(aws.endpoint), runner=runner_says(aws.endpoint)
        )
        stack.callback(ground.close)
        for family in ("reconciler-plan", "reconciler-apply"):
            cloud.define(family, ["runner", "task", "--config", str(ground.runner_config)])
        agents = stack.enter_context(agent(cloud, ground.logs))

        spool = Asking(open_bucket(SPOOL, REGION, aws.endpoint))

        def kill(one: Job) -> None:
            deadline = time.monotonic() + PATIENCE
            while (claim := spool.claim(one.id)) is None and time.monotonic() < deadline:
                time.sleep(0.02)  # a poll, not a wait: a task is on its way
            assert claim is not None
            assert agents.kill(claim.task)

        yield Bench(ground, lambda: open_executor(load_controller(ground.controller_config)), kill)


RUNNERS = {"local": local, "fargate": fargate}


@pytest.fixture(scope="module", params=sorted(RUNNERS))
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with RUNNERS[request.param](tmp_path_factory.mktemp(request.param) / "ground") as made:
        yield made


@pytest.fixture
def executor(bench: Bench) -> Iterator[Reached]:
    made = bench.open()
    yield made
    made.close()


NUMBERS = iter(range(10, 99))


def leading(executor: Reached) -> int:
    """Lead with a fence that is higher than all before, as soon as the runner has said what it is."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fence = executor.describe().fence + 1
            break
        except PassError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)  # a poll, not a wait
    executor.lead(fence)
    return fence


def test_a_job_is_carried_out_once_and_its_result_is_kept(bench: Bench, executor: Reached) -> None:
    one = bench.job(next(NUMBERS), fence=leading(executor))
    executor.start(one)
    executor.start(one)
    bench.open().start(one)
    found = bench.ended(executor, one)
    assert isinstance(found, Result), found
    assert (found.outcome, found.job) == (Outcome.SUCCEEDED, one), found.message
    assert executor.poll(one.id) == bench.open().poll(one.id) == found
    assert [phase for phase, _ in executor.phases(one.id)][:2] == [Phase.VERIFYING, Phase.PLANNING]
    executor.start(one)
    assert executor.poll(one.id) == found
    whole, part = b"", b"-"
    while part:
        part = executor.log(one.id, len(whole))
        whole += part
    assert b"terraform_data.this" in whole
    assert whole.startswith(executor.log(one.id, 0)[:10])
    assert executor.log(one.id, 3)[:10] == whole[3:13]


def test_a_job_that_nobody_started_is_lost_and_has_no_log(bench: Bench, executor: Reached) -> None:
    one = bench.job(next(NUMBERS))
    assert executor.poll(one.id) == Lost(applying=False)
    assert executor.log(one.id, 0) == b""
    executor.cancel(one.id)


def test_the_runner_says_what_it_is_and_which_fence_it_knows(executor: Reached) -> None:
    fence = leading(executor)
    executor.lead(fence)
    found = executor.describe()
    assert (set(found.environments), found.fence) == ({"prod"}, fence)
    leading(executor)
    with pytest.raises(PassError) as told:
        executor.lead(fence)
    assert told.value.reason == "FenceStale"


def test_no_job_of_a_lower_fence_begins(bench: Bench, executor: Reached) -> None:
    leading(executor)
    fence = leading(executor)
    stale = bench.job(next(NUMBERS), "prod/b", fence=fence - 1)
    old = bench.open()
    old.start(stale)  # by a controller that was stopped since it led
    found = bench.ended(old, stale)
    assert isinstance(found, Result)
    assert (found.outcome, found.reason, found.applied) == (Outcome.FAILED, "FenceStale", None)
    fresh = bench.job(next(NUMBERS), "prod/b", fence=fence)
    executor.start(fresh)
    found = bench.ended(executor, fresh)
    assert isinstance(found, Result)
    assert found.outcome is Outcome.SUCCEEDED, found.message


def test_a_job_that_is_cancelled_in_time_changes_nothing(bench: Bench, executor: Reached) -> None:
    bench.ground.merge({f"{PROD}/a.yaml": note("other")})
    fence = leading(executor)
    one = bench.job(next(NUMBERS), fence=fence)
    executor.start(one)
    executor.cancel(one.id)
    found = bench.ended(executor, one)
    if isinstance(found, Result):
        assert (found.outcome, found.applied) == (Outcome.SUPERSEDED, None), found.message
    else:
        assert not found.applying


def test_a_job_whose_processes_are_all_killed_is_lost(bench: Bench, executor: Reached) -> None:
    fence = leading(executor)
    one = bench.job(next(NUMBERS), operation=Operation.PLAN, fence=fence)
    executor.start(one)
    bench.kill(one)
    found = bench.ended(executor, one)
    assert isinstance(found, Lost), found
    assert not found.applying
    again = bench.job(next(NUMBERS), operation=Operation.PLAN, fence=fence)
    executor.start(again)
    assert isinstance(bench.ended(executor, again), Result)

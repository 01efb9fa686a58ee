"""A house whose runner is tasks of ECS."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.demo.example import Releases
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground, laid_over
from tests.kit.aws import Aws
from tests.kit.ecs import KEYS, Agent, Cloud, agent, controller_says, ecs, runner_says
from tests.kit.house import House


@dataclass(slots=True)
class FargateHouse(House):
    """No runner runs: the controller asks for tasks, and the agent starts them."""

    cloud: Cloud | None = None
    agent: Agent | None = None

    def start_runner(self) -> None:
        """There is none to start."""

    def tails(self) -> str:
        """As ever, and how the tasks fare."""
        assert self.cloud is not None
        told = [
            f"{task.id} {task.last_status} {task.stopped_reason} {task.overrides}" for task in self.cloud.tasks[-10:]
        ]
        return House.tails(self) + "\n" + "\n".join(told)


@contextmanager
def fargate_house(
    folder: Path,
    aws: Aws,
    entries: Files,
    catalog: Releases,
    *,
    controller: Mapping[str, Any] | None = None,
    runner: Mapping[str, Any] | None = None,
    fargate: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
) -> Iterator[FargateHouse]:
    """Such a house with nothing running yet. `fargate` and `task` are laid over those parts of the two configurations."""
    with ExitStack() as stack:
        cloud = stack.enter_context(ecs(aws))
        ground = Playground.create(
            folder,
            entries,
            catalog,
            controller=laid_over(controller_says(aws.endpoint, **(fargate or {})), controller or {}),
            runner=laid_over(runner_says(endpoint=aws.endpoint, **(task or {})), runner or {}),
        )
        stack.callback(ground.close)
        for family in ("reconciler-plan", "reconciler-apply"):
            cloud.define(family, ["runner", "task", "--config", str(ground.runner_config)])
        built = FargateHouse(ground, KEYS, cloud=cloud, agent=stack.enter_context(agent(cloud, ground.logs)))
        try:
            yield built
        finally:
            built.stop()


@contextmanager
def killer(house: FargateHouse, seed: int, times: int) -> Iterator[list[str]]:
    """Kill tasks at random while a block runs, so many at the most; the ARNs of those that were."""
    rng, over, killed = random.Random(seed), threading.Event(), list[str]()  # noqa: S311 - a story, not a secret
    made = house.agent
    assert made is not None

    def work() -> None:
        while len(killed) < times and not over.wait(rng.uniform(0.2, 2.5)):
            living = list(made.running)
            if living and made.kill(arn := rng.choice(living)):
                killed.append(arn)

    thread = threading.Thread(target=work, name="killer", daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()

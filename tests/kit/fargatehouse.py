"""A house whose runner is tasks of ECS."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reconciler.demo.example import Releases
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground, free_port, laid_over
from tests.kit.aws import REGION, Aws
from tests.kit.dynamo import make_table, quick_transactions
from tests.kit.ecs import (
    CLUSTER,
    KEYS,
    MEMORY_BUCKET,
    SPOOL_BUCKET,
    Agent,
    Cloud,
    agent,
    controller_says,
    ecs,
    runner_says,
)
from tests.kit.forks import Plane
from tests.kit.house import PATIENCE, House

TABLE = "acme-reconciler"


@dataclass(slots=True)
class FargateHouse(House):
    """No runner runs: the controller asks for tasks, and the agent starts them. `standby`: a second controller, on a host of its own."""

    _cloud: Cloud | None = None
    _agent: Agent | None = None
    standby: Plane | None = None
    _other: str = ""

    @property
    def cloud(self) -> Cloud:
        assert self._cloud is not None
        return self._cloud

    @property
    def agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    def start_runner(self) -> None:
        """There is none to start."""

    def start_standby(self) -> None:
        """Start a second controller, with nothing of the first one's disk."""
        config = yaml.safe_load(self.ground.controller_config.read_text())
        own: dict[str, Any] = {
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "admin": {"socket": str(self.ground.runtime / "standby.sock")},
            "store": {"dynamodb": {"folder": str(self.ground.folder / "host-2")}},
        }
        path = self.ground.folder / "standby.yaml"
        path.write_text(yaml.safe_dump(laid_over(config, own)))
        self.standby = self._spawn("standby", "run", "--config", str(path))
        self._other = f"http://{own['http']['listen']}"

    def lose_controller(self) -> None:
        """kill -9 the controller. From then on it is the standby that is asked."""
        self.kill("controller")
        self.controller, self.standby, self.listens = self.standby, None, self._other

    def stop(self, patience: float = PATIENCE) -> None:
        """As ever; a standby has nothing to end."""
        if self.standby is not None:
            self.standby.kill()
            self.standby.wait(10)
        House.stop(self, patience)

    def task_of(self, unit: str) -> str:
        """The ARN of the task that carries out the unit's running job."""
        job = self.unit(unit)["job"]["id"]
        found = self.cloud.client("s3").get_object(Bucket=SPOOL_BUCKET, Key=f"prod/jobs/{job}/task.json")
        return str(json.loads(found["Body"].read())["task"])

    def locks(self) -> list[str]:
        """The locks of units in the memory."""
        found = self.cloud.client("s3").list_objects_v2(Bucket=MEMORY_BUCKET, Prefix="prod/locks/")
        return [one["Key"] for one in found.get("Contents", [])]

    def audited(self, kind: str) -> list[dict[str, Any]]:
        """The records of that kind in the memory's audit log."""
        s3, found = self.cloud.client("s3"), list[dict[str, Any]]()
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=MEMORY_BUCKET, Prefix="prod/audit/"):
            for key in (one["Key"] for one in page.get("Contents", []) if one["Key"].endswith(".jsonl")):
                lines = s3.get_object(Bucket=MEMORY_BUCKET, Key=key)["Body"].read().splitlines()
                found += [one for one in map(json.loads, lines) if one["kind"] == kind]
        return found

    def tails(self) -> str:
        """As ever, and how the tasks fare."""
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
    shared: bool = False,
    lease: int = 6,
) -> Iterator[FargateHouse]:
    """Such a house with nothing running yet. `fargate` and `task` are laid over those parts of the two configurations.

    `shared`: the runner's memory is in a bucket, and each task has a disk of its own, which is gone when it ends; and the store is a table,
    whose leader is replaced after so many seconds.
    """
    table = {"table": TABLE, "region": REGION, "endpoint": aws.endpoint, "folder": str(folder / "host-1")}
    store = {"store": {"path": None, "dynamodb": table, "lease": f"{lease}s"}} if shared else {}
    with ExitStack() as stack:
        cloud = stack.enter_context(ecs(aws))
        if shared:
            stack.enter_context(quick_transactions())
            make_table(aws.client("dynamodb"), TABLE)
        ground = Playground.create(
            folder,
            entries,
            catalog,
            controller=laid_over(controller_says(aws.endpoint, **(fargate or {})) | store, controller or {}),
            runner=laid_over(runner_says(aws.endpoint, shared=shared, **(task or {})), runner or {}),
        )
        stack.callback(ground.close)
        for family in ("reconciler-plan", "reconciler-apply"):
            cloud.define(family, ["runner", "task", "--config", str(ground.runner_config)])
        hands = stack.enter_context(agent(cloud, ground.logs, folder / "disks" if shared else None))
        built = FargateHouse(ground, KEYS, _cloud=cloud, _agent=hands)
        try:
            yield built
        finally:
            built.stop()


@contextmanager
def killer(house: FargateHouse, seed: int, times: int, pause: float = 1.0) -> Iterator[list[str]]:
    """Lose tasks at random while a block runs, so many at the most; the ARNs of those that were.

    Each third one is asked to stop, as by somebody with the console; the others are killed, as when their host is lost. `pause`: seconds
    between two, on average.
    """
    rng, over, lost = random.Random(seed), threading.Event(), list[str]()  # noqa: S311 - a story, not a secret

    def work() -> None:
        while len(lost) < times and not over.wait(pause * rng.uniform(0.2, 1.8)):
            living = list(house.agent.running)
            if living and _lose(house, arn := rng.choice(living), asked=rng.random() < 1 / 3):
                lost.append(arn)

    thread = threading.Thread(target=work, name="killer", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        over.set()
        thread.join()


def _lose(house: FargateHouse, arn: str, *, asked: bool) -> bool:
    if not asked:
        return house.agent.kill(arn)
    house.cloud.client("ecs").stop_task(cluster=CLUSTER, task=arn, reason="tidying up")
    return True

"""What a task learns from ECS about another one that has a lock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.errors import UnitError
from reconciler.model import JobId
from reconciler.runner.tasklife import TaskLife
from reconciler.runner.unitlock import LockHolder
from tests.kit.aws import serving
from tests.kit.ecs import CLUSTER, KEYS, Cloud, ecs


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with pytest.MonkeyPatch.context() as patch, serving() as aws, ecs(aws) as made:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        made.define("apply-it", ["runner", "task"])
        yield made


def start(cloud: Cloud, number: int) -> str:
    said = cloud.client("ecs").run_task(
        cluster=CLUSTER, taskDefinition="apply-it", launchType="FARGATE", clientToken=str(number),
        overrides={"containerOverrides": [{"name": "reconciler", "command": []}]},
    )  # fmt: skip
    return str(said["tasks"][0]["taskArn"])


def holder(task: str, ago: timedelta = timedelta(minutes=1)) -> LockHolder:
    return LockHolder("1", "prod%net", datetime.now(UTC) - ago, JobId("job-1"), 1, "ip-10-0-0-1", 1, task)


def test_only_a_task_that_ecs_calls_stopped_is_dead(cloud: Cloud) -> None:
    me, other = start(cloud, 1), start(cloud, 2)
    life = TaskLife(me, cloud.aws.endpoint)
    task = next(one for one in cloud.tasks if one.task_arn == other)
    for status in ("RUNNING", "DEACTIVATING", "STOPPING"):
        task.last_status = status
        assert life(holder(other, timedelta(days=1))) is None
    assert life(holder(me)) is None  # of its own task the file lock tells
    assert life(holder("")) is None
    cloud.forgotten.add(other)
    assert life(holder(other)) is None
    assert "forgotten by ECS" in str(life(holder(other, timedelta(hours=2))))
    cloud.forgotten.clear()
    cloud.end(task, "SpotInterruption", "Your Spot Task was interrupted.", 137)
    assert "SpotInterruption: Your Spot Task was interrupted." in str(life(holder(other)))


def test_where_ecs_does_not_say_the_unit_stays_busy(cloud: Cloud) -> None:
    me, other = start(cloud, 3), start(cloud, 4)
    cloud.refuse("describe_tasks", "AccessDeniedException", "not authorized to perform: ecs:DescribeTasks")
    with pytest.raises(UnitError, match="ecs:DescribeTasks") as told:
        TaskLife(me, cloud.aws.endpoint)(holder(other))
    assert (told.value.reason, told.value.transient) == ("UnitBusy", True)
    with pytest.raises(UnitError, match="ClusterNotFoundException"):
        TaskLife(me, cloud.aws.endpoint)(holder(other.replace(f"/{CLUSTER}/", "/another/")))
    assert TaskLife(me, cloud.aws.endpoint)(holder("arn:aws:ecs:eu-west-1:123456789012:task/of-the-old-form")) is None

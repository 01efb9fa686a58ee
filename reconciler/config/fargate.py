"""reconciler.yaml, `executor.fargate`: each job is a task of ECS."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from reconciler.config.fields import AwsEndpoint, Positive, SpoolUrl
from reconciler.desired.shape import Closed, Duration, Line, Name, matching
from reconciler.model import Operation

SHORTEST_START = timedelta(seconds=30)


def _long_enough(value: timedelta) -> timedelta:
    if value < SHORTEST_START:
        raise PydanticCustomError("start_timeout", "a task needs its time to start; write at least 30s")
    return value


Definition = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_-]{1,255}(?::[0-9]{1,9})?|arn:aws[a-z-]{0,20}:ecs:[a-z0-9-]{1,30}:[0-9]{12}:task-definition/[A-Za-z0-9_-]{1,255}:[0-9]{1,9}",
        "a task definition (reconciler-plan, or with a revision reconciler-plan:3)",
    ),
]


class TaskDefinitions(Closed):
    """Which task plans, and which applies: each has a role of its own."""

    plan: Definition
    apply: Definition


class FargateExecutor(Closed):
    """Tasks of ECS on Fargate. Credentials are those that the AWS SDKs find on the controller's host."""

    cluster: Line = Field(description="its name or ARN")
    region: Line | None = Field(default=None, description="where it is; what the AWS SDKs find, if not written")
    endpoint: AwsEndpoint | None = Field(
        default=None, description="another address of ECS and S3 than the region's; only to try it out"
    )
    spool: SpoolUrl = Field(description="where jobs are asked for, as runner.yaml's task.spool")
    tasks: TaskDefinitions = Field(description="task definitions, of every environment that has none of its own")
    environments: dict[Name, TaskDefinitions] = Field(default={}, description="an environment's own")
    container: Annotated[str, matching(r"[A-Za-z0-9_-]{1,255}", "the name of a container")] = Field(
        default="reconciler", description="which container of the task runs the job"
    )
    subnets: list[Line] = Field(min_length=1, max_length=16)
    security_groups: list[Line] = Field(min_length=1, max_length=5)
    assign_public_ip: bool = Field(default=False, description="as subnets without a NAT gateway need it")
    plans_on_spot: bool = Field(
        default=False, description="plans take Fargate Spot: cheaper, and tried again where its capacity is taken back"
    )
    workers: Positive = Field(default=10, description="tasks at a time, in all")
    per_environment: Positive = Field(default=5, description="jobs at a time in one environment")
    per_account: Positive | None = Field(
        default=None, description="jobs at a time in one account of a cloud, as that of executor.local"
    )
    start_timeout: Annotated[Duration, AfterValidator(_long_enough)] = Field(
        default=timedelta(minutes=5),
        description="a task that does not run after so long is stopped, and asked for anew",
    )
    reuse: bool = Field(
        default=False, description="tasks that idle may take further jobs: needs task.serve_until_idle in runner.yaml"
    )
    describe_interval: Duration = Field(
        default=timedelta(hours=1), description="how old what the runner says of itself may be, where no job runs"
    )

    def definition(self, environment: str, operation: Operation) -> str:
        """Which task carries out such jobs."""
        tasks = self.environments.get(environment, self.tasks)
        return tasks.apply if operation is Operation.APPLY else tasks.plan

    @property
    def network(self) -> dict[str, Any]:
        """Where tasks are reached, and what they reach, as ECS has it."""
        return {
            "subnets": self.subnets,
            "securityGroups": self.security_groups,
            "assignPublicIp": "ENABLED" if self.assign_public_ip else "DISABLED",
        }

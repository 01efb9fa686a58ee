"""The Fargate executor against a server that answers as ECS and S3 do, at every turn that a task can take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler import codec
from reconciler.config.fargate import FargateExecutor as Config
from reconciler.config.fargate import TaskDefinitions
from reconciler.errors import PassError
from reconciler.executor.fargate import FargateExecutor
from reconciler.model import Commit, Job, JobId, Operation, Outcome, Phase, Result, RunnerFacts, UnitId
from reconciler.ports import Lost, Running
from reconciler.remote.bucket import Bucket, open_bucket
from reconciler.remote.calls import open_client
from reconciler.remote.ecs import AGE, FORGOTTEN, SLOWER, UNSEEN, Tasks, ended
from reconciler.remote.spool import Answering, Asking
from tests.kit.aws import REGION, Aws, serving
from tests.kit.ecs import CLUSTER, KEYS, SPOOL, SPOOL_BUCKET, Cloud, ecs

NOW = datetime(2026, 11, 24, tzinfo=UTC)
CONFIG = Config(
    cluster=CLUSTER, region=REGION, spool=SPOOL, tasks=TaskDefinitions(plan="plan-it", apply="apply-it"),
    subnets=["subnet-1"], security_groups=["sg-1"], workers=3,
)  # fmt: skip
FACTS = RunnerFacts("terraform", "1.11.4", {}, fence=7)


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def clients(server: Aws) -> Iterator[tuple[Bucket, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield open_bucket(SPOOL, REGION, server.endpoint), open_client("ecs", REGION, server.endpoint)


@pytest.fixture
def cloud(server: Aws) -> Iterator[Cloud]:
    server.reset()
    with ecs(server) as found:
        for family in ("plan-it", "apply-it", "prod-apply"):
            found.define(family, ["runner", "task"])
        yield found


@dataclass
class Hands:
    """Both sides of the spool, and a clock."""

    cloud: Cloud
    bucket: Bucket
    client: Any
    seconds: float = 0.0

    def executor(self, config: Config = CONFIG) -> FargateExecutor:
        tasks = Tasks(self.client, CLUSTER, lambda: self.seconds)
        return FargateExecutor(config, "acme.prod", Asking(self.bucket), tasks, self.now, lambda: self.seconds)

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds)

    def later(self, seconds: float = AGE + 1) -> None:
        self.seconds += seconds

    @property
    def task(self) -> Answering:
        return Answering(self.bucket)

    def takes(self, job: Job, task: Any, *phases: Phase) -> None:
        """The task runs, took the job, and came so far."""
        task.last_status = "RUNNING"
        assert self.task.take(job.id, task.task_arn)
        lines = [f'{{"at": "{NOW.isoformat()}", "phase": "{phase.value}"}}\n' for phase in phases]
        self.task.put_phases(job.id, "".join(lines).encode())


@pytest.fixture
def hands(cloud: Cloud, clients: tuple[Bucket, Any]) -> Hands:
    return Hands(cloud, *clients)


def job(number: int = 1, operation: Operation = Operation.APPLY, unit: str = "prod/net", fence: int = 3) -> Job:
    return Job(JobId(f"20261124T10000{number}-aa"), operation, UnitId(unit), Commit("c" * 40), fence)


def result(of: Job) -> Result:
    return Result(of, Outcome.SUCCEEDED, "Applied", "1 object changed.", NOW, NOW)


def test_a_job_is_asked_for_once_and_has_one_task(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    executor.start(one)
    (task,) = hands.cloud.tasks
    assert task.overrides == {"containerOverrides": [{"name": "reconciler", "command": ["--job", one.id]}]}
    assert (task.started_by, task.launch_type) == ("acme-prod/3", "FARGATE")
    assert ":task-definition/apply-it:" in task.task_definition_arn
    found = hands.task.asked(one.id)
    assert found is not None
    assert found.data == codec.encode(one)
    assert executor.poll(one.id) == Running(Phase.QUEUED)
    with pytest.raises(PassError, match="is another job"):
        hands.executor().start(replace(one, unit=UnitId("prod/app")))


def test_plans_have_a_task_of_their_own_and_so_may_environments(hands: Hands) -> None:
    config = CONFIG.model_copy(
        update={"environments": {"prod": TaskDefinitions(plan="plan-it", apply="prod-apply")}, "plans_on_spot": True}
    )
    executor = hands.executor(config)
    executor.start(job(1))
    executor.start(job(2, Operation.PLAN, "test/net"))
    executor.start(job(3, Operation.APPLY, "test/net"))
    asked = [
        (one["taskDefinition"], one["launchType"], bool(one["capacityProviderStrategy"])) for one in hands.cloud.asked
    ]
    assert asked == [("prod-apply", "FARGATE", False), ("plan-it", None, True), ("apply-it", "FARGATE", False)]


def test_who_was_killed_between_asking_for_a_task_and_the_answer_finds_that_task_again(hands: Hands) -> None:
    one = job()
    hands.executor().start(one)  # and killed, before it knew
    again = hands.executor()
    assert again.poll(one.id) == Running(Phase.QUEUED)
    assert (hands.cloud.requests["run_task"], len(hands.cloud.tasks)) == (2, 1)


def test_who_was_killed_before_it_asked_for_a_task_asks_when_it_looks(hands: Hands) -> None:
    one = job()
    hands.executor().spool.ask(one)  # and killed
    assert hands.executor().poll(one.id) == Running(Phase.QUEUED)
    assert len(hands.cloud.tasks) == 1


def test_a_job_that_nobody_asked_for_is_lost(hands: Hands) -> None:
    assert hands.executor().poll(job().id) == Lost(applying=False)
    assert hands.cloud.tasks == []


def test_phases_and_the_result_are_what_the_task_writes(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, Phase.VERIFYING, Phase.PLANNING)
    assert executor.poll(one.id) == Running(Phase.PLANNING)
    assert executor.phases(one.id) == [(Phase.VERIFYING, NOW), (Phase.PLANNING, NOW)]
    hands.task.put_result(one.id, result(one))
    assert task.last_status == "RUNNING"
    assert executor.poll(one.id) == result(one)  # whatever the task goes on to do
    assert hands.executor().poll(one.id) == result(one)  # and whoever asks


def test_a_task_that_never_starts_is_stopped_and_its_job_is_lost_for_good(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    task.last_status = "PENDING"
    hands.later(299)
    assert executor.poll(one.id) == Running(Phase.QUEUED)
    hands.later(2)
    assert executor.poll(one.id) == Lost(applying=False)
    assert (task.last_status, task.stop_code) == ("STOPPED", "UserInitiated")
    assert hands.task.cancelled(one.id)  # should it start all the same, it finds that it is not wanted
    assert "did not start within 0:05:00" in executor.trouble()


def test_a_task_that_takes_its_job_as_it_is_given_up_keeps_it(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    cancel = executor.spool.cancel

    def late(job_id: JobId) -> None:
        hands.takes(one, task, Phase.VERIFYING)
        cancel(job_id)

    monkeypatch.setattr(executor.spool, "cancel", late)
    hands.later(301)
    assert executor.poll(one.id) == Running(Phase.VERIFYING)


@pytest.mark.parametrize("reason", ["RESOURCE:CPU", "Capacity is unavailable at this time"])
def test_a_job_without_room_waits_and_says_so(hands: Hands, reason: str) -> None:
    executor, one = hands.executor(), job()
    hands.cloud.no_room(reason)
    executor.start(one)
    assert executor.poll(one.id) == Running(Phase.QUEUED)
    assert hands.cloud.tasks == []
    assert reason in executor.trouble()
    assert hands.cloud.requests["run_task"] == 1  # it is not asked again at once
    hands.later()
    assert executor.poll(one.id) == Running(Phase.QUEUED)
    assert len(hands.cloud.tasks) == 1
    assert "wait" not in executor.trouble()


def test_each_refusal_is_waited_for_longer(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    for _ in range(4):
        hands.cloud.refuse("run_task", "InvalidParameterException", "no such subnet")
    executor.start(one)
    asked_at = []
    while not hands.cloud.tasks:
        hands.later(1)
        before = hands.cloud.requests["run_task"]
        assert executor.poll(one.id) == Running(Phase.QUEUED)
        if hands.cloud.requests["run_task"] > before:
            asked_at.append(hands.seconds)
    assert asked_at == [3.0, 9.0, 21.0, 45.0]


def test_throttles_are_waited_out_and_lose_no_job(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    hands.cloud.throttle("run_task", 3)  # the SDK asks three times
    executor.start(one)
    assert executor.poll(one.id) == Running(Phase.QUEUED)
    hands.later()
    executor.poll(one.id)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, Phase.APPLYING)
    hands.cloud.throttle("describe_tasks", 3)
    hands.later()
    assert executor.poll(one.id) == Running(Phase.APPLYING)
    asked = hands.cloud.requests["describe_tasks"]
    assert executor.poll(one.id) == Running(Phase.APPLYING)
    assert hands.cloud.requests["describe_tasks"] == asked
    hands.cloud.end(task)
    hands.later(SLOWER + 1)
    assert executor.poll(one.id) == Lost(applying=True)


def test_a_process_that_begins_while_ecs_throttles_loses_nothing(hands: Hands) -> None:
    one = job()
    hands.executor().start(one)
    hands.takes(one, hands.cloud.tasks[0], Phase.APPLYING)
    hands.cloud.throttle("describe_tasks", 3)
    assert hands.executor().poll(one.id) == Running(Phase.APPLYING)


@pytest.mark.parametrize(
    ("code", "reason", "container", "exit_code", "died"),
    [
        ("EssentialContainerExited", "Essential container in task exited", "OutOfMemoryError: Container killed due to memory usage", 137,
         "ended by ECS (EssentialContainerExited: Essential container in task exited: OutOfMemoryError: Container killed due to memory usage: exit code 137)"),
        ("SpotInterruption", "Your Spot Task was interrupted.", "", 143, ""),
        ("UserInitiated", "Task stopped by Ada", "", None, ""),
    ],
)  # fmt: skip
@pytest.mark.parametrize("phase", [Phase.PLANNING, Phase.APPLYING])
def test_how_a_task_ended_tells_what_became_of_its_job(
    hands: Hands, phase: Phase, code: str, reason: str, container: str, exit_code: int | None, died: str
) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, phase)
    hands.cloud.end(task, code, reason, exit_code)
    task.containers[0].reason = container
    hands.later()
    lost = executor.poll(one.id)
    assert isinstance(lost, Lost)
    assert (lost.applying, lost.died) == (phase is Phase.APPLYING, died)
    if not died:
        assert reason in executor.trouble()


def test_what_the_task_says_of_its_dead_process_counts_more(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, Phase.PLANNING)
    hands.task.put_died(one.id, "killed by SIGKILL")
    hands.cloud.end(task)
    hands.later()
    lost = executor.poll(one.id)
    assert isinstance(lost, Lost)
    assert lost.died == "killed by SIGKILL"


def test_a_result_that_is_written_as_the_task_ends_is_not_overlooked(
    hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, Phase.APPLYING)
    hands.later()
    look = executor.tasks.look

    def late(arn: str) -> Any:
        hands.task.put_result(one.id, result(one))
        hands.cloud.end(task)
        return look(arn)

    monkeypatch.setattr(Tasks, "look", lambda _, arn: late(arn))
    assert executor.poll(one.id) == result(one)


def test_tasks_that_end_before_they_take_their_job_slow_the_next_ones_down(hands: Hands) -> None:
    executor = hands.executor()
    executor.start(job(1))
    hands.cloud.end(hands.cloud.tasks[0], "TaskFailedToStart", "CannotPullContainerError: no such image", None)
    hands.later()
    lost = executor.poll(job(1).id)
    assert lost == Lost(applying=False)
    assert isinstance(lost, Lost)
    assert lost.died == ""  # nobody's fault who is asked for: it does not count against the unit
    assert "CannotPullContainerError: no such image" in executor.trouble()
    executor.start(job(2))
    assert len(hands.cloud.tasks) == 1
    hands.later()
    executor.poll(job(2).id)
    assert len(hands.cloud.tasks) == 2


def test_a_task_that_ecs_has_forgotten_is_lost_after_a_while(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, Phase.APPLYING)
    hands.cloud.forgotten.add(task.task_arn)
    hands.later()
    assert executor.poll(one.id) == Running(Phase.APPLYING)  # what ECS says may be some seconds old
    hands.later(UNSEEN)
    assert executor.poll(one.id) == Lost(applying=True)


def test_tasks_are_looked_at_together_and_not_too_often(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.remote.ecs.AT_ONCE", 3)
    executor = hands.executor(CONFIG.model_copy(update={"workers": 1000}))
    jobs = [job(number) for number in range(5)]
    for one in jobs:
        executor.start(one)
        hands.task.take(one.id, executor._open[one.id].arn)
    hands.later()
    hands.cloud.requests.clear()
    for _ in range(2):
        for one in jobs:
            executor.poll(one.id)
    assert hands.cloud.requests["describe_tasks"] == 2
    assert hands.cloud.largest == 3


def test_no_more_tasks_than_are_allowed_and_the_others_wait(hands: Hands) -> None:
    executor, jobs = hands.executor(), [job(number) for number in range(5)]
    for one in jobs:
        executor.start(one)
    assert hands.cloud.requests["run_task"] == 3
    assert [executor.poll(one.id) for one in jobs] == [Running(Phase.QUEUED)] * 5
    assert "2 jobs wait for a task: 3 tasks run" in executor.trouble()
    hands.takes(jobs[0], hands.cloud.tasks[0], Phase.PLANNING)
    hands.task.put_result(jobs[0].id, result(jobs[0]))
    assert executor.poll(jobs[0].id) == result(jobs[0])
    hands.later()
    executor.poll(jobs[3].id)
    assert hands.cloud.requests["run_task"] == 3  # the task of the first has not ended
    hands.cloud.end(hands.cloud.tasks[0])
    hands.later()
    executor.poll(jobs[3].id)
    assert hands.cloud.requests["run_task"] == 4


def test_a_job_that_is_cancelled_before_it_has_a_task_gets_none(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    hands.cloud.no_room()
    executor.start(one)
    executor.cancel(one.id)
    hands.later()
    assert executor.poll(one.id) == Lost(applying=False)
    assert hands.cloud.tasks == []


def test_s3_that_is_away_is_told_and_loses_nothing(hands: Hands) -> None:
    executor, one = hands.executor(), job()
    executor.start(one)
    hands.cloud.client("s3").delete_object(Bucket=SPOOL_BUCKET, Key=f"prod/jobs/{one.id}/job.json")
    hands.cloud.client("s3").delete_bucket(Bucket=SPOOL_BUCKET)
    for ask in (
        lambda: executor.poll(one.id),
        lambda: executor.start(job(2)),
        executor.describe,
        lambda: executor.lead(9),
    ):
        with pytest.raises(PassError) as told:
            ask()
        assert told.value.reason == "RunnerUnavailable"
    gone = FargateExecutor(CONFIG, "acme", Asking(open_bucket(SPOOL, REGION, "http://127.0.0.1:9")), executor.tasks)
    with pytest.raises(PassError) as told:
        gone.poll(one.id)
    assert told.value.reason == "RunnerUnavailable"


def test_the_fence_is_only_ever_raised(hands: Hands) -> None:
    executor = hands.executor()
    executor.lead(4)
    executor.lead(4)
    with pytest.raises(PassError, match="4 leads already") as told:
        hands.executor().lead(3)
    assert told.value.reason == "FenceStale"
    hands.executor().lead(9)
    assert hands.task.fence() == 9


def test_a_job_of_a_term_before_is_lost_unless_a_task_has_taken_it(hands: Hands) -> None:
    before, one, other = hands.executor(), job(1), job(2)
    before.start(one)
    before.start(other)
    hands.takes(other, hands.cloud.tasks[1], Phase.APPLYING)
    after = hands.executor()
    after.lead(4)
    assert after.poll(one.id) == Lost(applying=False)
    assert after.poll(other.id) == Running(Phase.APPLYING)
    assert hands.task.cancelled(one.id)
    assert hands.cloud.requests["run_task"] == 2


def test_a_runner_that_has_never_said_what_it_is_is_asked_by_a_task(hands: Hands) -> None:
    executor = hands.executor()
    for _ in range(3):
        with pytest.raises(PassError, match="has not published yet"):
            executor.describe()
    (task,) = hands.cloud.tasks
    assert ":task-definition/plan-it:" in task.task_definition_arn
    assert task.overrides["containerOverrides"][0]["command"] == []
    hands.task.put_facts(FACTS)
    executor.lead(9)
    assert executor.describe() == FACTS
    assert executor.describe().fence == 9  # the higher of the memory's and the spool's
    hands.later(3601)
    hands.cloud.end(task)
    assert executor.describe() == FACTS  # what is known goes on being so, and somebody looks
    assert len(hands.cloud.tasks) == 2


def test_a_describing_task_that_ends_without_a_word_is_said_and_asked_for_again(hands: Hands) -> None:
    executor = hands.executor()
    with pytest.raises(PassError):
        executor.describe()
    hands.cloud.end(hands.cloud.tasks[0], "TaskFailedToStart", "ResourceInitializationError: no route to S3", None)
    hands.later()
    with pytest.raises(PassError, match="no route to S3"):
        executor.describe()
    hands.later(60)
    with pytest.raises(PassError):
        executor.describe()
    assert len(hands.cloud.tasks) == 2


def test_a_task_that_idles_is_given_time_to_take_the_next_job(hands: Hands) -> None:
    executor, one, two = hands.executor(CONFIG.model_copy(update={"reuse": True})), job(1), job(2)
    executor.start(one)
    (task,) = hands.cloud.tasks
    hands.takes(one, task, Phase.PLANNING)
    hands.task.put_result(one.id, result(one))
    executor.poll(one.id)
    executor.start(two)
    assert executor.poll(two.id) == Running(Phase.QUEUED)
    assert len(hands.cloud.tasks) == 1
    hands.takes(two, task, Phase.PLANNING)
    assert executor.poll(two.id) == Running(Phase.PLANNING)
    executor.start(job(3))
    hands.later(6)
    executor.poll(job(3).id)
    assert len(hands.cloud.tasks) == 2  # nobody took it


def test_the_log_is_read_from_any_byte_on(hands: Hands) -> None:
    one, executor = job(), hands.executor()
    for offset, part in ((0, b"first "), (6, b"second "), (13, b"third")):
        hands.task.put_log(one.id, offset, part)
    assert executor.log(one.id, 0) == b"first "
    assert executor.log(one.id, 6) == b"second "
    assert executor.log(one.id, 8) == b"cond "
    assert executor.log(one.id, 18) == b""
    assert executor.log(JobId("nobody"), 0) == b""


def test_a_task_is_proven_dead_by_ecs_alone(hands: Hands) -> None:
    executor = hands.executor()
    executor.start(job())
    executor.start(job(2))
    task, asker = hands.cloud.tasks
    asker.last_status = "RUNNING"
    client, arn, me = hands.client, task.task_arn, asker.task_arn
    for status in ("PROVISIONING", "RUNNING", "STOPPING", "DEPROVISIONING"):
        task.last_status = status
        assert not ended(client, arn, FORGOTTEN, me)
    hands.cloud.forgotten.add(arn)
    assert not ended(client, arn, FORGOTTEN - timedelta(seconds=1), me)
    assert "forgotten by ECS" in ended(client, arn, FORGOTTEN, me)
    hands.cloud.forgotten.clear()
    hands.cloud.end(task, reason="Host EC2 terminated")
    assert "Host EC2 terminated" in ended(client, arn, timedelta(0), me)
    hands.cloud.throttle("describe_tasks", 3)
    with pytest.raises(PassError):
        ended(client, arn, FORGOTTEN, me)


def test_an_ecs_that_may_be_another_one_proves_nothing(hands: Hands) -> None:
    """Another account's, or one that is behind, says of every task that it does not know it."""
    hands.executor().start(job())
    (task,) = hands.cloud.tasks
    arn, stranger = task.task_arn, "arn:aws:ecs:eu-west-1:123456789012:task/reconciler/ffff"
    hands.cloud.forgotten.add(arn)
    assert not ended(hands.client, arn, 2 * FORGOTTEN, stranger)
    assert not ended(hands.client, arn, 2 * FORGOTTEN, stranger.replace("reconciler", "other"))
    assert not ended(hands.client, arn.replace("/reconciler/", "/"), 2 * FORGOTTEN, stranger)
    with pytest.raises(PassError, match="ClusterNotFoundException"):
        ended(hands.client, arn.replace("/reconciler/", "/other/"), 2 * FORGOTTEN, stranger)

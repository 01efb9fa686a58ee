"""ECS on this machine: moto keeps the tasks, and this starts them as processes, as ECS's agent starts containers.

What moto does not do is added here, on the side of the server: `clientToken`, a task that is asked to stop and takes its time, tasks
that are forgotten, refusals and throttles to order. The product sees nothing but the API.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from moto.core.responses import ActionResult
from moto.ecs.models import ecs_backends
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.moto_api import state_manager

from tests.kit import forks
from tests.kit.aws import ACCOUNT, REGION, Aws
from tests.kit.forks import Plane

CLUSTER, SPOOL_BUCKET, SPOOL, MEMORY_BUCKET = "reconciler", "acme-spool", "s3://acme-spool/prod", "acme-memory"
STOP_TIMEOUT = 90.0  # seconds between SIGTERM and SIGKILL; ECS allows 120
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


class Refusal(Exception):
    """What ECS answers instead of doing it: its word for it, and a message."""

    def answer(self) -> tuple[str, dict[str, Any]]:
        code, message = self.args
        return json.dumps({"__type": code, "message": message}), {"status": 400, "x-amzn-errortype": code}


@dataclass
class Cloud:
    """The cluster, looked at from behind. `refuses`: what the next requests of a verb are answered with."""

    aws: Aws
    tokens: dict[str, Any] = field(default_factory=dict)
    refuses: dict[str, list[Refusal | dict[str, str]]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    requests: Counter[str] = field(default_factory=Counter)
    asked: list[Mapping[str, Any]] = field(default_factory=list)  # of RunTask
    largest: int = 0  # tasks in one DescribeTasks

    def client(self, service: str) -> Any:
        """One for each service and server: it takes a while to make."""
        return _client(self.aws.endpoint, service)

    @property
    def tasks(self) -> list[Any]:
        """All tasks that were ever started."""
        return list(ecs_backends[ACCOUNT][REGION].tasks.get(CLUSTER, {}).values())

    def throttle(self, verb: str, times: int = 1) -> None:
        """The next requests are one too many. The SDK itself asks three times."""
        self.refuses.setdefault(verb, []).extend([Refusal("ThrottlingException", "Rate exceeded")] * times)

    def no_room(self, reason: str = "RESOURCE:CPU") -> None:
        """The next RunTask finds no capacity."""
        self.refuses.setdefault("run_task", []).append({"reason": reason})

    def refuse(self, verb: str, code: str, message: str) -> None:
        self.refuses.setdefault(verb, []).append(Refusal(code, message))

    def define(self, family: str, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Register a task definition as an admin does; its container starts `reconciler` with these words."""
        said = {
            "name": "reconciler", "image": "reconciler", "memory": 512, "entryPoint": list(words),
            "environment": [{"name": name, "value": value} for name, value in (environment or {}).items()],
        }  # fmt: skip
        self.client("ecs").register_task_definition(family=family, containerDefinitions=[said])

    def end(
        self, task: Any, code: str = "EssentialContainerExited", reason: str = "", exit_code: int | None = 0
    ) -> None:
        """The task has stopped."""
        task.stop_code, task.stopped_reason = code, reason or "Essential container in task exited"
        task.containers[0].exitCode = exit_code
        task.last_status = task.desired_status = "STOPPED"


@cache
def _client(endpoint: str, service: str) -> Any:
    return Aws(endpoint).client(service)


@contextmanager
def ecs(aws: Aws) -> Iterator[Cloud]:
    """A cluster without an agent: tasks stay as they were asked for until the test says otherwise."""
    cloud = Cloud(aws)
    cloud.client("ecs").create_cluster(clusterName=CLUSTER)
    for name in (SPOOL_BUCKET, MEMORY_BUCKET):
        cloud.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    state_manager.set_transition("ecs::task", {"progression": "manual", "times": 1 << 30})
    of, was = EC2ContainerServiceResponse, {}
    for verb in ("run_task", "describe_tasks", "stop_task"):
        was[verb] = getattr(of, verb)
        setattr(of, verb, _handled(cloud, verb, was[verb]))
    try:
        yield cloud
    finally:
        for verb, before in was.items():
            setattr(of, verb, before)
        state_manager.unset_transition("ecs::task")


def _handled(cloud: Cloud, verb: str, before: Any) -> Any:
    def handle(self: Any) -> Any:
        cloud.requests[verb] += 1
        if cloud.refuses.get(verb):
            refusal = cloud.refuses[verb].pop(0)
            return refusal.answer() if isinstance(refusal, Refusal) else _result([refusal])
        try:
            return ADDED[verb](cloud, self, before)
        except Refusal as refusal:
            return refusal.answer()

    return handle


def _result(failures: Sequence[Mapping[str, str]], tasks: Sequence[Any] = ()) -> Any:
    return ActionResult({"tasks": list(tasks), "failures": list(failures)})


def _run_task(cloud: Cloud, response: Any, before: Any) -> Any:
    token = response._get_param("clientToken")
    asked = {
        name: response._get_param(name)
        for name in ("taskDefinition", "overrides", "startedBy", "launchType", "capacityProviderStrategy")
    }
    if token in cloud.tokens:
        task, said = cloud.tokens[token]
        if said != asked:
            raise Refusal("ConflictException", "the token stands for another request")
        return _result([], [task])
    known = {task.task_arn for task in cloud.tasks}
    before(response)
    (task,) = (one for one in cloud.tasks if one.task_arn not in known)
    task.last_status, task.created_at = "PROVISIONING", datetime.now(UTC)
    cloud.tokens[token] = (task, asked)
    cloud.asked.append(asked)
    return _result([], [task])


def _describe_tasks(cloud: Cloud, response: Any, _before: Any) -> Any:
    wanted = response._get_param("tasks", [])
    if response._get_param("cluster").rpartition("/")[2] != CLUSTER:
        raise Refusal("ClusterNotFoundException", "Cluster not found.")
    cloud.largest = max(cloud.largest, len(wanted))
    found = [task for task in cloud.tasks if task.task_arn in wanted and task.task_arn not in cloud.forgotten]
    missing = set(wanted) - {task.task_arn for task in found}
    return _result([{"arn": arn, "reason": "MISSING"} for arn in sorted(missing)], found)


def _stop_task(cloud: Cloud, response: Any, _before: Any) -> Any:
    arn = response._get_param("task")
    for task in cloud.tasks:
        if task.task_arn == arn and task.last_status != "STOPPED":
            task.desired_status, task.stop_code = "STOPPED", "UserInitiated"
            task.stopped_reason = response._get_param("reason")
            if task.last_status == "RUNNING":
                task.last_status = "DEACTIVATING"
            else:
                cloud.end(task, "UserInitiated", task.stopped_reason, None)
    return ActionResult({"task": next(task for task in cloud.tasks if task.task_arn == arn)})


ADDED = {"run_task": _run_task, "describe_tasks": _describe_tasks, "stop_task": _stop_task}

# --- the agent


@dataclass
class Agent:
    """Starts tasks as processes, and says when they end."""

    cloud: Cloud
    logs: Path
    disks: Path | None = (
        None  # where each task has one of its own, which is gone when it ends; None: all share the host's
    )
    running: dict[str, Plane] = field(default_factory=dict)
    asked_to_end: dict[str, float] = field(default_factory=dict)
    started: int = 0
    holds: bool = False  # starts nothing for the time being
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None
    server: ThreadingHTTPServer | None = None

    def work(self) -> None:
        while not self.over.wait(0.05):
            for task in self.cloud.tasks:
                self.attend(task)

    def attend(self, task: Any) -> None:
        process = self.running.get(task.task_arn)
        if process is None:
            if task.last_status == "PROVISIONING" and not self.holds:
                self.start(task)
            return
        if process.poll() is not None:
            del self.running[task.task_arn]
            code = process.wait()
            asked = task.task_arn in self.asked_to_end
            how = "UserInitiated" if asked else "EssentialContainerExited"
            self.lose_disk(task)
            self.cloud.end(task, how, task.stopped_reason if asked else "", code if code >= 0 else 128 - code)
        elif task.desired_status == "STOPPED":
            since = self.asked_to_end.setdefault(task.task_arn, time.monotonic())
            if since + STOP_TIMEOUT < time.monotonic():
                kill_whole(process.pid)
            else:
                process.send_signal(signal.SIGTERM)

    def start(self, task: Any) -> None:
        definition = self.cloud.client("ecs").describe_task_definition(taskDefinition=task.task_definition_arn)
        container = definition["taskDefinition"]["containerDefinitions"][0]
        overrides = task.overrides["containerOverrides"][0]
        words = [*self.on_its_disk(task, container["entryPoint"]), *overrides["command"]]
        assert self.server is not None
        here = f"http://127.0.0.1:{self.server.server_port}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "AWS_REGION": REGION,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{here}/credentials",
            "ECS_CONTAINER_METADATA_URI_V4": f"{here}/{task.id}",
            **{one["name"]: one["value"] for one in container["environment"]},
            **{one["name"]: one["value"] for one in overrides.get("environment", [])},
        }
        self.started += 1
        log = self.logs / f"task-{self.started:03}.log"
        if forks.QUICK is not None:
            process: Plane = forks.QUICK.start(words, log, environment)
        else:
            with log.open("ab") as file:
                argv = [sys.executable, "-m", "reconciler", *words]
                process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
        task.log, task.process = log, process
        self.running[task.task_arn] = process
        task.last_status = "RUNNING"

    def on_its_disk(self, task: Any, words: Sequence[str]) -> list[str]:
        """The words of the container with a runner.yaml that names the task's own disk as `work`."""
        if self.disks is None:
            return list(words)
        disk = self.disks / task.id
        disk.mkdir(parents=True)
        found = yaml.safe_load(Path(words[-1]).read_text())
        (disk / "runner.yaml").write_text(yaml.safe_dump(found | {"work": str(disk / "work")}))
        return [*words[:-1], str(disk / "runner.yaml")]

    def lose_disk(self, task: Any) -> None:
        if self.disks is not None:
            lose(self.disks / task.id)

    def kill(self, arn: str) -> bool:
        """kill -9 everything in the task, as when its host is lost. Whether it lived."""
        process = self.running.get(arn)
        if process is None or process.poll() is not None:
            return False
        kill_whole(process.pid)
        return True

    def end(self) -> None:
        self.over.set()
        if self.thread is not None:
            self.thread.join()
        for process in self.running.values():
            kill_whole(process.pid)
            process.wait(10)


@contextmanager
def agent(cloud: Cloud, logs: Path, disks: Path | None = None) -> Iterator[Agent]:
    """The agent while it is needed; at its end no task runs any more."""
    made = Agent(cloud, logs, disks)
    made.server = ThreadingHTTPServer(("127.0.0.1", 0), _local(cloud))
    threading.Thread(target=made.server.serve_forever, name="ecs-metadata", daemon=True).start()
    made.thread = threading.Thread(target=made.work, name="ecs-agent", daemon=True)
    made.thread.start()
    try:
        yield made
    finally:
        made.end()
        made.server.shutdown()
        made.server.server_close()


def _local(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    """What a task can ask its agent: who it is, and for its role's credentials."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            said: dict[str, str] = {
                "AccessKeyId": "test",
                "SecretAccessKey": "test",
                "Token": "t",
                "Expiration": expires,
            }
            if self.path != "/credentials":
                said = {"TaskARN": next(one.task_arn for one in cloud.tasks if one.id == self.path.split("/")[1])}
            data = json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def kill_whole(pid: int) -> None:
    """SIGKILL the process and all below it, none of which can start another meanwhile: a container dies as a whole."""
    stopped: list[int] = []
    todo = [pid]
    while todo:
        one = todo.pop()
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGSTOP)
            stopped.append(one)
        for path in Path("/proc").glob(f"{one}/task/*/children"):
            with suppress(OSError):
                todo += map(int, path.read_text().split())
    for one in reversed(stopped):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def lose(disk: Path) -> None:
    """The disk is gone."""
    for inner, _, _ in os.walk(disk):  # pinned trees are read-only
        Path(inner).chmod(0o700)
    shutil.rmtree(disk)


def runner_says(endpoint: str, *, shared: bool = False, **more: Any) -> dict[str, Any]:
    """What runner.yaml says where jobs are tasks. `shared`: the memory is in a bucket, and tasks have disks of their own."""
    task = {"spool": SPOOL, "region": REGION, "endpoint": endpoint, "ecs_endpoint": endpoint, **more}
    if not shared:
        return {"task": task}
    s3 = {"bucket": MEMORY_BUCKET, "region": REGION, "prefix": "prod", "endpoint": endpoint, "use_path_style": True}
    return {"task": task, "memory": {"path": None, "s3": s3}, "work": "/nowhere/but/on/each/disk"}


def controller_says(endpoint: str, **more: Any) -> dict[str, Any]:
    """What reconciler.yaml says of the executor."""
    return {
        "executor": {
            "local": None,
            "fargate": {
                "cluster": CLUSTER, "region": REGION, "endpoint": endpoint, "spool": SPOOL,
                "tasks": {"plan": "reconciler-plan", "apply": "reconciler-apply"},
                "subnets": ["subnet-1"], "security_groups": ["sg-1"], **more,
            },
        }
    }  # fmt: skip

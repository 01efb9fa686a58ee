"""Each job a task: the daemon, real Terraform in processes that stand for containers, and a server that answers as ECS and S3 do."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reconciler.config import load_controller
from reconciler.executor.opening import open_executor
from reconciler.model import Phase, Result
from reconciler.ports import Lost, Running
from reconciler.remote.bucket import open_bucket
from reconciler.remote.spool import Asking
from tests.kit.modules import CATALOG, NEEDS_FILES, entry, environment, release, strings
from tests.kit.story import at, env, made, results
from tests.provider.log import doubled

if TYPE_CHECKING:
    from tests.kit.aws import Aws

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
UNITS = int(os.environ.get("RECONCILER_TEST_FARGATE_UNITS", "2"))
PATIENCE = 120.0 + UNITS * 20


def entries(content: str, count: int) -> dict[str, str]:
    """`count` files, of which each second one waits for the one before it."""
    found = {}
    for number in range(count):
        said = f"{content} after ${{{{ u{number - 1}.path }}}}" if number % 2 else content
        found[at(f"prod/u{number}")] = entry("file", {"path": f"u{number}", "content": said})
    return found


def test_tasks_and_a_controller_are_lost_and_no_work_is(
    tmp_path: Path, aws: Aws, request: pytest.FixtureRequest
) -> None:
    """Two controllers on a table, a memory in a bucket, a disk for each task; `make fargate` plays it with 300 units."""
    from tests.kit.fargatehouse import fargate_house, killer

    seed, began, stamps = int(request.config.getoption("randomly_seed", 0)), time.monotonic(), dict[str, float]()
    first = {env("prod"): environment(limits={"destroy": UNITS}), **entries("one", UNITS)}
    idle = {"serve_until_idle": "20s"} if UNITS > 20 else {}
    more = {"workers": 6, "per_environment": 6, "reuse": bool(idle)}
    with fargate_house(
        tmp_path / "h", aws, first, CATALOG, fargate=more, task=idle, shared=True, lease=15 if idle else 6
    ) as home:
        world, everything = home.ground.world, sorted(f"u{number}" for number in range(UNITS))
        home.start()
        home.synced(patience=PATIENCE)
        stamps["made"] = time.monotonic() - began
        assert sorted(made(home, "create", "created")) == everything
        home.start_standby()

        with killer(home, seed, times=max(2, UNITS // 10), pause=max(1.0, UNITS / 40)) as lost:
            home.ground.merge(entries("two", UNITS))
            home.until(lambda: len(made(home, "update", "updated")) >= UNITS // 2, "half is changed", PATIENCE)
            if not idle:  # it dies while a task that it asked for is not there yet
                home.agent.holds = True
                home.until(lambda: _starting(home.cloud.tasks), "a task is asked for", PATIENCE)
            home.lose_controller()
            home.agent.holds = False
            home.synced(patience=PATIENCE)
        stamps["changed"] = time.monotonic() - began
        assert all("two" in (world / unit).read_text() for unit in everything)
        assert lost

        gone = f"u{UNITS - 1}"
        home.ground.merge({at(f"prod/{gone}"): entry("file", {"path": gone, "content": "two"}, state="absent")})
        home.until(lambda: not (world / gone).exists(), f"{gone} is destroyed", PATIENCE)
        home.synced(patience=PATIENCE)
        stamps["destroyed"] = time.monotonic() - began
        ends = Counter(one["reason"] for unit in everything for one in results(home, f"prod/{unit}"))
        broken = [one["body"]["proof"] for one in home.audited("unit-lock-broken")]
        told: dict[str, Any] = {
            "units": UNITS,
            "seed": seed,
            "tasks": len(home.cloud.tasks),
            "lost": len(lost),
            "locks broken": len(broken),
        }
        told |= {"requests to ECS": dict(home.cloud.requests), "seconds": stamps, "ends": ends}
        sys.stderr.write(f"{json.dumps(told)}\n")

        assert sorted(made(home, "create", "created")) == everything
        assert doubled(world) == []
        assert made(home, "delete", "deleted") == [gone]
        assert home.locks() == []
        assert all("ended by ECS" in one or "on this host" in one for one in broken), broken
        verified = home.command("audit", "verify", "--config", str(home.ground.runner_config), "-o", "json")
        assert json.loads(verified.stdout)["fits"], verified.stdout + verified.stderr
        one = results(home, "prod/u0")[-1]["job"]["id"]
        assert home.text(f"/api/v1/jobs/{one}/log").startswith("Terraform ")


# The second object waits for `go`, after the first one has been changed.
HALVES = release(
    halves=NEEDS_FILES
    + strings("path", "content")
    + """\
resource "files_file" "first" {
  path    = "${var.path}-first"
  content = var.content
}
resource "files_slow" "second" {
  path       = "${var.path}-second"
  content    = var.content
  seconds    = 60
  until      = "go"
  depends_on = [files_file.first]
}
"""
)


def test_a_task_that_dies_in_its_apply_and_one_that_is_stopped_in_it(tmp_path: Path, aws: Aws) -> None:
    """The first one's locks are broken with ECS's word for it; the second one's engine comes to an end, and its result arrives."""
    from tests.kit.aws import BUCKET, REGION
    from tests.kit.fargatehouse import fargate_house

    def halves(content: str) -> dict[str, str]:
        said = {name: entry("halves", {"path": name, "content": content}) for name in ("killed", "stopped")}
        return {at(f"prod/{name}"): text for name, text in said.items()}

    first = {env("prod"): environment(), **halves("one")}
    states = {"bucket": BUCKET, "region": REGION, "use_path_style": True, "endpoint": aws.endpoint}
    prod = {"backend": {"local": None, "s3": states}, "env": {"AWS_ENDPOINT_URL": aws.endpoint, **KEYS}}
    more = {"environments": {"prod": prod}}
    with fargate_house(tmp_path / "h", aws, first, {"v1.0.0": HALVES}, runner=more, shared=True) as home:
        world, go = home.ground.world, home.ground.world / "go"
        go.touch()
        home.start()
        home.synced(patience=PATIENCE)
        go.unlink()
        home.ground.merge(halves("two"))
        waiting = home.until(
            lambda: (found := made(home, "update", "waiting")) and len(found) == 2 and found, "both", PATIENCE
        )
        assert sorted(waiting) == ["killed-second", "stopped-second"]

        killed, stopped = (home.task_of(f"prod/{name}") for name in ("killed", "stopped"))
        assert len(home.locks()) == 2
        assert home.agent.kill(killed)
        home.cloud.client("ecs").stop_task(cluster="reconciler", task=stopped, reason="a new version of the platform")
        ended = home.until(lambda: results(home, "prod/stopped")[1:], "the stopped one says how it ended", PATIENCE)
        assert (ended[0]["outcome"], ended[0]["reason"]) == ("Failed", "ApplyFailed")
        assert made(home, "update", "interrupted") == ["stopped-second"]
        kept = {
            one["type"]: one["instances"][0]["attributes"]["content"]
            for one in _state(aws, "prod/stopped")["resources"]
        }
        assert kept == {"files_file": "two", "files_slow": "one"}
        go.touch()
        home.synced(patience=PATIENCE)

        assert {path.name: path.read_text() for path in world.glob("*-*") if "two" not in path.read_text()} == {}
        assert sorted(made(home, "create", "created")) == sorted(
            f"{name}-{half}" for name in ("killed", "stopped") for half in ("first", "second")
        )
        assert doubled(world) == []
        assert home.locks() == []
        assert not {key for key in aws.objects() if key.endswith(".tflock")}
        for kind in ("unit-lock-broken", "state-lock-broken"):
            (broken,) = (one["body"] for one in home.audited(kind))
            assert broken["proof"].startswith(f"task {killed} was ended by ECS")
        assert [one["reason"] for one in results(home, "prod/killed")] == ["Applied", "UncertainApply", "Applied"]


def _state(aws: Aws, unit: str) -> Any:
    return json.loads(aws.contents()[f"{unit}.tfstate"])


def _starting(tasks: list[Any]) -> bool:
    return any(task.last_status == "PROVISIONING" for task in tasks)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _ended(state: Running | Result | Lost) -> Result | Lost | None:
    return None if isinstance(state, Running) else state


def test_a_job_that_two_tasks_are_started_for_is_carried_out_by_one_and_an_idle_task_takes_the_next(
    tmp_path: Path, aws: Aws
) -> None:
    from tests.kit.aws import REGION
    from tests.kit.ecs import SPOOL
    from tests.kit.fargatehouse import fargate_house
    from tests.kit.plane import CATALOG as NOTES
    from tests.kit.plane import job, note

    first = {env("prod"): environment(), at("prod/a"): note(), at("prod/b"): note("two")}
    idle = {"serve_until_idle": "30s"}
    with fargate_house(tmp_path / "h", aws, first, NOTES, fargate={"reuse": True}, task=idle) as home:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in KEYS.items():
                patch.setenv(name, value)
            executor = open_executor(load_controller(home.ground.controller_config))
            one = job("prod/a", home.ground.environments.head, 1)
            executor.start(one)
            twin = home.cloud.aws.client("ecs").run_task(
                cluster="reconciler", taskDefinition="reconciler-apply", launchType="FARGATE", clientToken="another",
                overrides={"containerOverrides": [{"name": "reconciler", "command": ["--job", one.id]}]},
            )["tasks"][0]["taskArn"]  # fmt: skip
            assert isinstance(home.until(lambda: _ended(executor.poll(one.id)), "it ends", PATIENCE), Result)
            two = job("prod/b", home.ground.environments.head, 2)
            executor.start(two)
            assert isinstance(home.until(lambda: _ended(executor.poll(two.id)), "it ends", PATIENCE), Result)
            claims = {executor.phases(each.id)[0][0] for each in (one, two)}
            assert len(home.cloud.tasks) == 2
            three = job("prod/b", home.ground.environments.head, 3)
            executor.start(three)
            spool = Asking(open_bucket(SPOOL, REGION, aws.endpoint))
            idler = home.until(lambda: spool.claim(three.id), "a task takes it", PATIENCE).task
            children = home.until(lambda: _children(home.agent.running[idler].pid), "its process is there", PATIENCE)
            os.kill(children[0], signal.SIGKILL)
            lost = home.until(lambda: _ended(executor.poll(three.id)), "it is lost", PATIENCE)
            assert lost == Lost(applying=False, died="killed by SIGKILL")
            home.until(lambda: idler not in home.agent.running, "its task takes no further one, and ends", 20)
        assert claims == {Phase.VERIFYING}
        assert twin in {task.task_arn for task in home.cloud.tasks}
        jobs = sorted(path.name for path in (home.ground.folder / "runner" / "spool").iterdir())
        assert jobs == [one.id, two.id, three.id]
        assert (
            home.cloud.client("s3").list_objects_v2(Bucket="acme-spool", Prefix="prod/queue/").get("Contents", []) == []
        )

"""Each job a task: the daemon, real Terraform in processes that stand for containers, and a server that answers as ECS and S3 do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from reconciler.config import load_controller
from reconciler.demo.playground import free_port, laid_over
from reconciler.executor.opening import open_executor
from reconciler.model import Phase, Result
from reconciler.ports import Lost, Running
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import at, env, made, results
from tests.provider.log import doubled

if TYPE_CHECKING:
    from tests.kit.aws import Aws

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
UNITS = int(os.environ.get("RECONCILER_TEST_FARGATE_UNITS", "3"))
PATIENCE = 120.0 + UNITS * 10


def entries(content: str, count: int) -> dict[str, str]:
    """`count` files, of which each second one waits for the one before it."""
    found = {}
    for number in range(count):
        said = f"{content} after ${{{{ u{number - 1}.path }}}}" if number % 2 else content
        found[at(f"prod/u{number}")] = entry("file", {"path": f"u{number}", "content": said})
    return found


def test_units_are_made_changed_and_destroyed_by_tasks_some_of_which_are_killed(
    tmp_path: Path, aws: Aws, request: pytest.FixtureRequest
) -> None:
    from tests.kit.fargatehouse import fargate_house, killer

    seed = int(request.config.getoption("randomly_seed", 0))
    first = {env("prod"): environment(limits={"destroy": UNITS}), **entries("one", UNITS)}
    idle = {"serve_until_idle": "20s"} if UNITS > 20 else {}
    more = {"workers": 8, "per_environment": 8, "reuse": bool(idle)}
    with fargate_house(tmp_path / "h", aws, first, CATALOG, fargate=more, task=idle) as home:
        assert home.cloud is not None
        home.start()
        home.synced(patience=PATIENCE)
        assert sorted(made(home, "create", "created")) == sorted(f"u{number}" for number in range(UNITS))

        with killer(home, seed, times=max(2, UNITS // 10)) as killed:
            home.ground.merge(entries("two", UNITS))
            home.synced(patience=PATIENCE)
        assert all("two" in (home.ground.world / f"u{number}").read_text() for number in range(UNITS))
        lost = [one for one in results(home, "prod") if one["reason"] in ("JobDied", "JobLost", "UncertainApply")]
        assert len(lost) <= len(killed)

        gone = f"u{UNITS - 1}"
        home.ground.merge({at(f"prod/{gone}"): entry("file", {"path": gone, "content": "two"}, state="absent")})
        home.until(lambda: not (home.ground.world / gone).exists(), f"{gone} is destroyed", PATIENCE)
        home.synced(patience=PATIENCE)
        assert doubled(home.ground.world) == []

        one = results(home, "prod/u0")[-1]["job"]["id"]
        assert home.text(f"/api/v1/jobs/{one}/log").startswith("Terraform ")
        keys = {
            key["Key"].rpartition("/")[2]
            for key in home.cloud.client("s3").list_objects_v2(Bucket="acme-spool")["Contents"]
        }
        assert {"facts.json", "lead.json", "job.json", "task.json", "phases", "result.json"} <= keys
        with (tmp_path / "told.json").open("w") as file:
            json.dump({"tasks": len(home.cloud.tasks), "requests": home.cloud.requests, "lost": len(lost)}, file)


def test_a_standby_goes_on_with_the_tasks_of_a_controller_that_was_killed(tmp_path: Path, aws: Aws) -> None:
    from tests.kit.fargatehouse import fargate_house

    first = {env("prod"): environment(), **entries("one", 2)}
    with fargate_house(tmp_path / "h", aws, first, CATALOG, controller={"store": {"lease": "3s"}}) as home:
        assert home.cloud is not None
        assert home.agent is not None
        home.start()
        home.synced(patience=PATIENCE)
        config = yaml.safe_load(home.ground.controller_config.read_text())
        own = {
            "http": {"listen": f"127.0.0.1:{free_port()}"},
            "admin": {"socket": str(home.ground.runtime / "standby.sock")},
        }
        other = tmp_path / "h" / "standby.yaml"
        other.write_text(yaml.safe_dump(laid_over(config, own)))
        standby = home._spawn("standby", "run", "--config", str(other))
        try:
            home.agent.holds = True  # so that the controller dies while its task is not there yet
            before = len(home.cloud.tasks)
            home.ground.merge(entries("two", 2))
            cloud = home.cloud
            home.until(lambda: len(cloud.tasks) > before, "a task is asked for", PATIENCE)
            home.kill("controller")
            home.agent.holds = False
            home.listens = f"http://{own['http']['listen']}"
            home.synced(patience=PATIENCE)
            assert "two" in (home.ground.world / "u1").read_text()
            assert doubled(home.ground.world) == []
        finally:
            standby.kill()
            standby.wait(10)


def _ended(state: Running | Result | Lost) -> Result | Lost | None:
    return None if isinstance(state, Running) else state


def test_a_job_that_two_tasks_are_started_for_is_carried_out_by_one_and_an_idle_task_takes_the_next(
    tmp_path: Path, aws: Aws
) -> None:
    from tests.kit.fargatehouse import fargate_house
    from tests.kit.plane import CATALOG as NOTES
    from tests.kit.plane import job, note

    first = {env("prod"): environment(), at("prod/a"): note(), at("prod/b"): note("two")}
    idle = {"serve_until_idle": "30s"}
    with fargate_house(tmp_path / "h", aws, first, NOTES, fargate={"reuse": True}, task=idle) as home:
        assert home.cloud is not None
        assert home.agent is not None
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
        assert claims == {Phase.VERIFYING}
        assert len(home.cloud.tasks) == 2
        assert twin in {task.task_arn for task in home.cloud.tasks}
        jobs = sorted(path.name for path in (home.ground.folder / "runner" / "spool").iterdir())
        assert jobs == [one.id, two.id]
        assert (
            home.cloud.client("s3").list_objects_v2(Bucket="acme-spool", Prefix="prod/queue/").get("Contents", []) == []
        )

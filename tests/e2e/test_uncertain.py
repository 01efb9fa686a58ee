"""Killed between a call that creates and its answer: nothing is made twice, and nothing is left that nobody is told of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.example import LOCK
from tests.kit.aws import ACCOUNT, NEEDS_AWS, REGION, Aws, locked, prod, provider_pin
from tests.kit.house import House, Json, house
from tests.kit.middleman import Middleman, kill_apply, standing_before
from tests.kit.modules import entry, environment, release
from tests.kit.story import at, env, results

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 300.0  # seconds: the provider is a program of hundreds of megabytes, and starts several times a job
UNIT = "prod/thing"
TRUST = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]})  # fmt: skip
BODIES = {
    "vpc": 'resource "aws_vpc" "this" { cidr_block = "10.1.0.0/16" }',
    "queue": 'resource "aws_sqs_queue" "this" { name = "thing-queue" }',
    "bucket": 'resource "aws_s3_bucket" "this" { bucket = "thing-bucket" }',
    "table": """resource "aws_dynamodb_table" "this" {
  name         = "thing-table"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "k"
  attribute {
    name = "k"
    type = "S"
  }
}""",
    "pair": """resource "aws_vpc" "this" { cidr_block = "10.1.0.0/16" }
resource "aws_sqs_queue" "this" {
  name = "thing-${aws_vpc.this.id}"
}""",
    "role": f'resource "aws_iam_role" "this" {{\n  name = "thing-role"\n  assume_role_policy = {json.dumps(TRUST)}\n}}',
}
CATALOG = {"v1.0.0": release(**{name: f"{NEEDS_AWS}{body}\n" for name, body in BODIES.items()})}


def vpcs(aws: Aws) -> list[str]:
    return [str(one["VpcId"]) for one in aws.vpcs()]


def queues(aws: Aws) -> list[str]:
    return [str(url).rpartition("/")[2] for url in aws.client("sqs").list_queues().get("QueueUrls", ())]


def buckets(aws: Aws) -> list[str]:
    named = [str(one["Name"]) for one in aws.client("s3").list_buckets()["Buckets"]]
    return [name for name in named if name.startswith("thing")]


def tables(aws: Aws) -> list[str]:
    return [str(name) for name in aws.client("dynamodb").list_tables()["TableNames"]]


def roles(aws: Aws) -> list[str]:
    return [str(one["RoleName"]) for one in aws.client("iam").list_roles()["Roles"] if one["RoleName"][:5] == "thing"]


@dataclass(frozen=True)
class Sort:
    """How objects of a type are made, counted, and deleted: by the command that a person is told, as boto3 says it."""

    module: str
    action: str
    there: Callable[[Aws], list[str]]
    command: str
    delete: Callable[[Aws, str], object]


SORTS = (
    Sort("vpc", "CreateVpc", vpcs, f"aws ec2 delete-vpc --vpc-id {{}} --region {REGION}",
         lambda aws, name: aws.client("ec2").delete_vpc(VpcId=name)),
    Sort("queue", "CreateQueue", queues, f"aws sqs delete-queue --region {REGION} --queue-url ",
         lambda aws, name: aws.client("sqs").delete_queue(QueueUrl=aws.client("sqs").get_queue_url(QueueName=name)["QueueUrl"])),
    Sort("bucket", "CreateBucket", buckets, f"aws s3api delete-bucket --bucket {{}} --region {REGION}",
         lambda aws, name: aws.client("s3").delete_bucket(Bucket=name)),
    Sort("table", "CreateTable", tables, f"aws dynamodb delete-table --table-name {{}} --region {REGION}",
         lambda aws, name: aws.client("dynamodb").delete_table(TableName=name)),
    Sort("role", "CreateRole", roles, "aws iam delete-role --role-name {}",
         lambda aws, name: aws.client("iam").delete_role(RoleName=name)),
)  # fmt: skip


@pytest.fixture
def man(aws: Aws) -> Iterator[Middleman]:
    with standing_before(aws.endpoint) as found:
        yield found


def runner(folder: Path, endpoint: str, mirror: Path) -> Json:
    """States are local: who holds a lock is another story."""
    keys = (folder / "keys.env", "worker-key-0123456789")
    said = prod(Aws(endpoint), ACCOUNT, plan=keys, apply=keys)
    del said["backend"]
    return {"provider_mirror": {"path": str(mirror)}, "environments": {"prod": said}}


def entries(folder: Path, mirror: Path) -> Mapping[str, str]:
    providers = {"aws": {"region": REGION, "s3_use_path_style": True}}
    return {env("prod"): environment(providers=providers), LOCK: locked(folder, CATALOG, provider_pin(mirror))}


@pytest.mark.parametrize("sort", SORTS, ids=lambda sort: sort.module)
def test_killed_between_a_creation_and_its_answer(
    sort: Sort, tmp_path: Path, aws: Aws, man: Middleman, aws_mirror: Path
) -> None:
    said = {**entries(tmp_path, aws_mirror), at(UNIT): entry(sort.module, {})}
    with house(tmp_path / "h", said, CATALOG, runner=runner(tmp_path, man.endpoint, aws_mirror)) as home:
        man.lose(sort.action, lambda: kill_apply(home.ground.folder / "runner" / "spool"))
        home.start()
        shown = home.held(UNIT, "Uncertain", patience=PATIENCE)
        assert man.struck.is_set()
        (name,) = sort.there(aws)  # the server made it, and nobody was told
        assert man.seen[sort.action] == 1
        (stray,) = home.get("/api/v1/orphans")["strays"]
        assert (stray["unit"], stray["address"]) == (UNIT, "module.unit.aws_" + TYPES[sort.module] + ".this")
        assert stray["id"].endswith(name)
        assert f"`{sort.command.format(name)}" in shown["message"]
        listed = home.command("orphans", "prod", "-o", "json")
        assert (listed.returncode, json.loads(listed.stdout)["strays"]) == (3, [stray])
        assert stray["id"] in home.command("orphans").stdout
        assert stray["id"] in home.command("explain", UNIT).stdout
        assert _metric(home, "orphaned_resources") == _metric(home, "uncertain_units") == 1
        again(home)
        assert man.seen[sort.action] == 1  # held is held

        sort.delete(aws, name)
        again(home)
        home.synced(patience=PATIENCE)
        assert len(sort.there(aws)) == 1
        assert man.seen[sort.action] == 2
        assert home.get("/api/v1/orphans")["strays"] == []
        assert _metric(home, "orphaned_resources") == _metric(home, "uncertain_units") == 0


TYPES = {"vpc": "vpc", "queue": "sqs_queue", "bucket": "s3_bucket", "table": "dynamodb_table", "role": "iam_role"}


def again(home: House) -> None:
    """One more job of the unit, to its end."""
    before = len(results(home, UNIT))
    assert home.command("reconcile", UNIT).returncode == 0
    home.until(lambda: len(results(home, UNIT)) > before, "it is looked at", PATIENCE)


def _metric(home: House, name: str) -> float:
    import httpx

    line = f'reconciler_{name}{{environment="prod"}} '
    text = httpx.get(f"{home.ground.address}/metrics", timeout=20).text
    return float(next(one for one in text.splitlines() if one.startswith(line)).removeprefix(line))


def test_an_answer_that_was_lost_is_asked_for_again_and_the_first_object_is_found(
    tmp_path: Path, aws: Aws, man: Middleman, aws_mirror: Path
) -> None:
    """Nobody dies: the provider asks once more, as SDKs do. What it made first only the account itself can tell."""
    said = {**entries(tmp_path, aws_mirror), at(UNIT): entry("vpc", {})}
    with house(tmp_path / "h", said, CATALOG, runner=runner(tmp_path, man.endpoint, aws_mirror)) as home:
        man.lose("CreateVpc")
        home.start()
        home.synced(patience=PATIENCE)
        assert len(vpcs(aws)) == 2
        found = in_the_account(home, "prod", "-o", "json")
        assert found.returncode == 3, found.stderr
        (stray,) = json.loads(found.stdout)
        kept: Any = json.loads(home.ground.state(UNIT).read_bytes())
        mine = kept["resources"][0]["instances"][0]["attributes"]["id"]
        (lost,) = set(vpcs(aws)) - {mine}
        assert stray["id"].endswith(f":vpc/{lost}")
        aws.client("ec2").delete_vpc(VpcId=lost)
        assert in_the_account(home).returncode == 0


def test_what_was_made_and_not_yet_written_to_the_bucket_of_states_is_found(
    tmp_path: Path, aws: Aws, man: Middleman, aws_mirror: Path
) -> None:
    """Terraform writes a state in S3 now and then only: of an object that it was told of no state knows either."""
    said = {**entries(tmp_path, aws_mirror), at(UNIT): entry("pair", {})}
    keys = (tmp_path / "keys.env", "worker-key-0123456789")
    there = prod(Aws(man.endpoint), ACCOUNT, plan=keys, apply=keys)
    config = {"provider_mirror": {"path": str(aws_mirror)}, "environments": {"prod": there}}
    with house(tmp_path / "h", said, CATALOG, runner=config) as home:
        man.lose("CreateQueue", lambda: kill_apply(home.ground.folder / "runner" / "spool"))
        home.start()
        home.held(UNIT, "Uncertain", patience=PATIENCE)
        (vpc,), (queue,) = vpcs(aws), queues(aws)
        strays = home.get("/api/v1/orphans")["strays"]
        assert sorted((one["type"], one["id"].rpartition("/")[2].rpartition(":")[2]) for one in strays) == [
            ("aws_sqs_queue", queue),
            ("aws_vpc", vpc),
        ]
        for sort, name in ((SORTS[0], vpc), (SORTS[1], queue)):
            sort.delete(aws, name)
        again(home)
        home.synced(patience=PATIENCE)
        assert (len(vpcs(aws)), len(queues(aws)), man.seen["CreateVpc"]) == (1, 1, 2)
        assert home.get("/api/v1/orphans")["strays"] == []


def in_the_account(home: House, *words: str) -> subprocess.CompletedProcess[str]:
    """`reconciler runner orphans`: it asks for everything that there may be."""
    argv = [sys.executable, "-m", "reconciler", "runner", "orphans", "--config", str(home.ground.runner_config), *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)

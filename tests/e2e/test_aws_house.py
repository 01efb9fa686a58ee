"""Both planes, the real AWS provider, states in S3 with native locking, before a server that answers as AWS does."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from reconciler.demo.example import LOCK
from tests.kit.aws import ACCOUNT, NEEDS_AWS, REGION, Aws, locked, prod, provider_pin
from tests.kit.house import House, Json, house
from tests.kit.modules import entry, environment, release
from tests.kit.story import at, env, look, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 300.0  # seconds: the provider is a program of hundreds of megabytes, and starts several times a job
PASSWORD = "Zx9-very/secret+value&<that>-nobody-sees"
TAMPERED = "Qw7-who/ever+changed&<this>-knows-it"
ROTATED = "Rt5-next/secret+value&<that>-nobody-sees"
SECRET = "prod/net-password"  # in Secrets Manager
KEYS = {"plan": "plan-key-0123456789", "apply": "apply-key-0123456789"}
ELSEWHERE = "999999999999"

NET = (
    NEEDS_AWS
    + """\
variable "cidr" { type = string }
variable "password" { type = string }
resource "aws_vpc" "this" {
  cidr_block = var.cidr
}
resource "aws_ssm_parameter" "password" {
  name  = "/net/password"
  type  = "SecureString"
  value = var.password
}
output "vpc_id" { value = aws_vpc.this.id }
output "password" {
  value     = aws_ssm_parameter.password.value
  sensitive = true
}
"""
)
APP = (
    NEEDS_AWS
    + """\
variable "vpc_id" { type = string }
variable "url" { type = string }
resource "aws_ssm_parameter" "vpc" {
  name  = "/app/vpc"
  type  = "String"
  value = var.vpc_id
}
resource "aws_ssm_parameter" "url" {
  name  = "/app/url"
  type  = "SecureString"
  value = var.url
}
"""
)
CATALOG = {"v1.0.0": release(net=NET, app=APP)}
ENTRIES = {
    env("prod"): environment(providers={"aws": {"region": REGION}}),
    at("prod/net"): entry("net", {"cidr": "10.1.0.0/16", "password": "${{ secret.password }}"}),
    at("prod/app"): entry("app", {"vpc_id": "${{ net.vpc_id }}", "url": "pg://u:${{ net.password }}@db"}),
}
STATES = {"prod/net.tfstate", "prod/app.tfstate"}
KEPT = {f"{state}.kept" for state in STATES}  # the last good ones
CLAIM = {"prod/.reconciler.json"}  # whose they are


def runner(folder: Path, aws: Aws, mirror: Path) -> Json:
    """What the host says, at first with the number of another account."""
    credentials = {operation: (folder / f"{operation}.env", key) for operation, key in KEYS.items()}
    said = prod(aws, ELSEWHERE, **credentials) | {"secrets": {"password": {"file": None, "secretsmanager": SECRET}}}
    return {"provider_mirror": {"path": str(mirror)}, "environments": {"prod": said}}


def test_a_story_on_aws(tmp_path: Path, aws: Aws, aws_mirror: Path) -> None:
    entries = {**ENTRIES, LOCK: locked(tmp_path, CATALOG, provider_pin(aws_mirror))}
    with house(tmp_path / "h", entries, CATALOG, runner=runner(tmp_path, aws, aws_mirror)) as home:
        aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=PASSWORD)
        home.start()
        another_account_is_refused(home, aws)
        it_deploys(home, aws)
        tampering_is_put_back(home, aws)
        a_rotated_secret_is_found_and_applied(home, aws)
        an_emptied_bucket_creates_nothing(home, aws)
        nothing_shows_in_clear(home)


def another_account_is_refused(home: House, aws: Aws) -> None:
    failed = home.held("prod/net", "AccountNotAllowed", patience=PATIENCE)
    assert (failed["sync"], failed["health"]) == ("OutOfSync", "Degraded")
    assert ACCOUNT in failed["message"]
    assert ELSEWHERE in failed["message"]
    assert "environments.prod.allowed_account_ids in runner.yaml" in failed["message"]
    assert "prod/net failed (AccountNotAllowed: " in home.held("prod/app", "DependencyNotReady")["message"]
    home.stop()
    assert (aws.vpcs(), aws.parameters(), aws.objects()) == ([], set(), set())


def it_deploys(home: House, aws: Aws) -> None:
    config = yaml.safe_load(home.ground.runner_config.read_text())
    config["environments"]["prod"]["allowed_account_ids"] = [ACCOUNT]
    home.ground.runner_config.write_text(yaml.safe_dump(config))
    home.start()
    home.synced(patience=PATIENCE)
    settled(home)
    assert aws.objects() == STATES | KEPT | CLAIM  # and no lock
    (vpc,) = aws.vpcs()
    ours = {"reconciler:installation": "reconciler", "reconciler:unit": "prod/net"}
    assert tags(vpc["Tags"]) == ours
    listed = aws.client("ssm").list_tags_for_resource(ResourceType="Parameter", ResourceId="/net/password")
    assert tags(listed["TagList"]) == ours
    assert aws.parameter("/app/vpc") == vpc["VpcId"]
    assert aws.parameter("/app/url") == f"pg://u:{PASSWORD}@db"


def tags(found: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in found}


def tampering_is_put_back(home: House, aws: Aws) -> None:
    (vpc,) = aws.vpcs()
    aws.client("ssm").put_parameter(Name="/net/password", Value=TAMPERED, Type="SecureString", Overwrite=True)
    aws.client("ec2").delete_tags(Resources=[vpc["VpcId"]], Tags=[{"Key": "reconciler:unit"}])
    before = len(results(home, "prod/net"))
    assert home.command("reconcile", "prod/net").returncode == 0
    result = home.until(lambda: results(home, "prod/net")[before:], "it is looked at", PATIENCE)[0]
    assert (result["reason"], result["cause"]) == ("Applied", "drift")
    changed = {(change["address"], *change["actions"]) for change in result["plan"]["changes"]}
    assert changed == {
        ("module.unit.aws_ssm_parameter.password", "update"),
        ("module.unit.aws_vpc.this", "update"),
    }
    assert aws.parameter("/net/password") == PASSWORD
    assert tags(aws.vpcs()[0]["Tags"])["reconciler:unit"] == "prod/net"
    home.synced(patience=PATIENCE)
    assert [one["reason"] for one in results(home, "prod/app")] == ["Applied"]  # what it reads is as it was


def a_rotated_secret_is_found_and_applied(home: House, aws: Aws) -> None:
    """By the next look at a unit that reads it; and what reads that unit's outputs follows."""
    aws.client("secretsmanager").put_secret_value(SecretId=SECRET, SecretString=ROTATED)
    before = len(results(home, "prod/net"))
    assert home.command("reconcile", "prod/net").returncode == 0
    result = home.until(lambda: results(home, "prod/net")[before:], "it is looked at", PATIENCE)[0]
    assert (result["reason"], result["cause"]) == ("Applied", "upstream")
    assert {change["address"] for change in result["plan"]["changes"]} == {"module.unit.aws_ssm_parameter.password"}
    home.until(lambda: aws.parameter("/app/url") == f"pg://u:{ROTATED}@db", "what reads it follows", PATIENCE)
    assert aws.parameter("/net/password") == ROTATED
    home.synced(patience=PATIENCE)
    settled(home)


def an_emptied_bucket_creates_nothing(home: House, aws: Aws) -> None:
    kept = aws.contents()
    assert set(kept) == STATES | KEPT | CLAIM
    aws.empty()
    held = look(home, "prod/net")
    assert (held["outcome"], held["reason"]) == ("Held", "StateLost")
    assert "Bring the right state back" in home.held("prod/net", "StateLost")["message"]
    assert look(home, "prod/app")["reason"] in ("DependencyNotReady", "StateLost")
    assert aws.objects() == set()
    aws.put(kept)
    assert look(home, "prod/net")["reason"] == "InSync"
    assert look(home, "prod/app")["reason"] == "InSync"
    home.synced(patience=PATIENCE)
    assert len(aws.vpcs()) == 1
    assert aws.parameters() == {"/net/password", "/app/vpc", "/app/url"}
    assert aws.objects() == STATES | KEPT | CLAIM


def nothing_shows_in_clear(home: House) -> None:
    found = results(home, "prod")
    jobs, planned = [one["job"]["id"] for one in found], [one for one in found if one["plan"]]
    for path in said(jobs):
        answer = httpx.get(f"{home.ground.address}{path}", timeout=60).content
        assert not shows(answer), path
    for words in (
        ("status",),
        ("explain", "prod/net"),
        ("diff", "prod/net"),
        ("history", "prod"),
        ("logs", "prod/net"),
    ):
        done = home.command(*words)
        assert not shows((done.stdout + done.stderr).encode()), words
    home.stop()
    folder = home.ground.folder
    logs = [path for path in (folder / "runner" / "spool").glob("*/log.txt") if path.stat().st_size]
    assert len(logs) >= len(planned) > 4  # those that were held before they planned wrote nothing
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert [str(path.relative_to(folder)) for path in files if shows(path.read_bytes())] == []
    assert list(folder.glob("runner/spool/*/work")) == []


def said(jobs: list[str]) -> Iterator[str]:
    yield from ("/", "/metrics", "/readyz", "/api/v1/status", "/api/v1/units", "/api/v1/history?scope=all&limit=1000")
    yield from (f"/api/v1/units/prod/{name}" for name in ("net", "app"))
    yield from (f"/api/v1/jobs/{job}/log" for job in jobs)


def shows(text: bytes) -> bool:
    return any(
        form in text for secret in (PASSWORD, ROTATED, TAMPERED, *KEYS.values()) for form in forms(secret.encode())
    )


def forms(raw: bytes) -> Iterator[bytes]:
    yield raw
    yield base64.b64encode(raw).rstrip(b"=")[:-1]
    yield json.dumps(raw.decode()).encode()[1:-1]
    yield hashlib.sha256(raw).hexdigest().encode()

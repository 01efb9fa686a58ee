"""The real AWS provider against a server that answers as AWS does: state, locking, tags, drift, secrets."""

from __future__ import annotations

import base64
import hashlib
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from reconciler.errors import UnitError
from reconciler.model import ProviderPin
from reconciler.runner.engine import Engine, EngineError, SensitiveOutputs, deadline_in, find_engine
from reconciler.runner.plan import secrets_in, summarise
from reconciler.runner.s3 import S3Backend
from reconciler.runner.workspace import Value
from tests.kit.terraform import AWS_PROVIDER, until
from tests.kit.workbench import SECONDS, UNIT, Workbench, pin
from tests.provider.mirror import this_platform

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KEY = b"k" * 32
BUCKET = "acme-tfstate"
REGION = "eu-west-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# What the provider would ask of AWS about the account and the machine; the server has neither.
SKIPS = {"skip_credentials_validation": True, "skip_requesting_account_id": True, "skip_metadata_api_check": True}
MODULE = """\
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
variable "cidr" { type = string }
variable "password" { type = string }
resource "aws_vpc" "this" {
  cidr_block = var.cidr
}
resource "aws_ssm_parameter" "password" {
  name  = "/app/password"
  type  = "SecureString"
  value = var.password
}
output "vpc_id" { value = aws_vpc.this.id }
output "password" { value = aws_ssm_parameter.password.value }
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def aws_pin(aws_mirror: Path, aws_engine: Engine) -> ProviderPin:
    source, version = AWS_PROVIDER
    return ProviderPin(
        source, version, {aws_engine.registry: (package_hash(aws_mirror / "registry.terraform.io" / source),)}
    )


@pytest.fixture(scope="module")
def aws_engine(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return find_engine(str(engine), None, None, tmp_path_factory.mktemp("launcher"))


def package_hash(folder: Path) -> str:
    """Terraform's `h1:` of the provider, packed or not."""
    unpacked = folder / AWS_PROVIDER[1] / this_platform()
    if unpacked.is_dir():
        return h1(
            {f.relative_to(unpacked).as_posix(): sha256(f.open("rb")) for f in unpacked.rglob("*") if f.is_file()}
        )
    with zipfile.ZipFile(folder / f"terraform-provider-aws_{AWS_PROVIDER[1]}_{this_platform()}.zip") as packed:
        return h1({name: sha256(packed.open(name)) for name in packed.namelist()})


def sha256(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    with file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def h1(files: dict[str, str]) -> str:
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(files.items()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


class Aws:
    """The server, looked at from behind."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def objects(self) -> set[str]:
        return {o["Key"] for o in self.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])}

    def password(self) -> str:
        return str(self.client("ssm").get_parameter(Name="/app/password", WithDecryption=True)["Parameter"]["Value"])

    def vpcs(self) -> list[dict[str, Any]]:
        return [v for v in self.client("ec2").describe_vpcs()["Vpcs"] if not v["IsDefault"]]


@pytest.fixture
def aws(cloud: str) -> Aws:
    """The server, as if nobody had used it before."""
    import requests

    requests.post(f"{cloud}/moto-api/reset", timeout=10)
    found = Aws(cloud)
    found.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return found


@pytest.fixture
def bench(aws: Aws, aws_engine: Engine, aws_mirror: Path, aws_pin: ProviderPin, tmp_path: Path) -> Workbench:
    bench = Workbench(
        aws_engine, tmp_path, aws_mirror,
        env={**CREDENTIALS, "AWS_ENDPOINT_URL": aws.endpoint},
        pin=pin(aws_pin),
        options={"providers": {"aws": {"region": REGION, **SKIPS}}},
        backend=S3Backend(BUCKET, REGION, {"use_path_style": True, **SKIPS}, CREDENTIALS, aws.endpoint),
    )  # fmt: skip
    bench.module(MODULE)
    return bench


def test_deploy_drift_and_secrets(bench: Workbench, aws: Aws) -> None:
    spec = bench.spec(cidr="10.1.0.0/16", password=Value("hush-hush", sensitive=True))
    with pytest.raises(SensitiveOutputs) as found:
        bench.plan(spec)
    assert found.value.names == {"password"}
    spec = replace(spec, sensitive_outputs=found.value.names)
    talk, planned = bench.plan(spec)
    assert "hush-hush" in secrets_in(planned.json)
    assert talk.apply(deadline_in(SECONDS)).failure is None

    assert aws.objects() == {f"{UNIT}.tfstate"}  # and the lock is gone
    (vpc,) = aws.vpcs()
    tags = {tag["Key"]: tag["Value"] for tag in vpc["Tags"]}
    assert tags == {"reconciler:installation": "test", "reconciler:unit": UNIT}
    outputs = bench.state().outputs
    assert outputs == {"vpc_id": Value(vpc["VpcId"]), "password": Value("hush-hush", sensitive=True)}

    _, nothing = bench.plan(spec)
    assert not nothing.changed

    aws.client("ssm").put_parameter(Name="/app/password", Value="tampered", Type="SecureString", Overwrite=True)
    talk, planned = bench.plan(spec)
    summary = summarise(planned.json, KEY)
    assert [(c.address, c.actions) for c in summary.changes] == [
        ("module.unit.aws_ssm_parameter.password", ("update",))
    ]
    assert talk.apply(deadline_in(SECONDS)).failure is None
    assert aws.password() == "hush-hush"
    assert "hush-hush" not in bench.log.read_text()
    assert "tampered" not in bench.log.read_text()


def test_wrong_region_shows_as_missing_objects(bench: Workbench) -> None:
    spec = replace(
        bench.spec(cidr="10.1.0.0/16", password=Value("hush-hush", sensitive=True)),
        sensitive_outputs=frozenset({"password"}),
    )
    assert bench.apply(spec).failure is None
    _, planned = bench.plan(replace(spec, providers={"aws": {"region": "us-west-2", **SKIPS}}))
    summary = summarise(planned.json, KEY)
    assert summary.missing == ("module.unit.aws_ssm_parameter.password", "module.unit.aws_vpc.this")
    assert not any(change.destroys for change in summary.changes)


def test_lock_of_another_run_is_respected_and_its_holder_named(bench: Workbench, aws: Aws) -> None:
    holder = b'{"ID":"1b2c","Operation":"OperationTypeApply","Who":"ada@laptop","Version":"1.11.4","Created":"2026-01-02T03:04:05Z","Path":"x"}'
    aws.client("s3").put_object(Bucket=BUCKET, Key=f"{UNIT}.tfstate.tflock", Body=holder)
    talk = bench.open(bench.spec(cidr="10.1.0.0/16", password="x"), lock_timeout=0)
    talk.init(deadline_in(SECONDS))
    with pytest.raises(EngineError) as refused:
        talk.plan(deadline_in(SECONDS))
    assert refused.value.transient
    assert "ada@laptop" in refused.value.errors[0].detail
    assert aws.objects() == {f"{UNIT}.tfstate.tflock"}


def test_missing_bucket_is_an_error_and_not_a_first_deploy(bench: Workbench, aws: Aws) -> None:
    aws.client("s3").delete_bucket(Bucket=BUCKET)
    talk = bench.open(bench.spec(cidr="10.1.0.0/16", password="x"))
    with pytest.raises(EngineError, match="bucket"):
        talk.init(deadline_in(SECONDS))
    with pytest.raises(UnitError) as refused:
        bench.kept.read(UNIT)
    assert refused.value.reason == "StateUnavailable"


def test_interrupted_apply_releases_the_lock(bench: Workbench, aws: Aws) -> None:
    spec = replace(bench.spec(cidr="10.1.0.0/16", password="xxxx"), sensitive_outputs=frozenset({"password"}))
    talk, _ = bench.plan(spec)

    def interrupt() -> None:
        until(lambda: f"{UNIT}.tfstate.tflock" in aws.objects(), "the lock")
        talk.interrupt()

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    result = talk.apply(deadline_in(SECONDS))
    watcher.join()
    assert result.interrupted
    assert not result.killed
    assert f"{UNIT}.tfstate.tflock" not in aws.objects()
    assert bench.apply(spec).failure is None
    assert len(aws.vpcs()) == 1

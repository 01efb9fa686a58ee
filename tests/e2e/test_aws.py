"""The real AWS provider against a server that answers as AWS does: state, locking, tags, drift, secrets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.errors import UnitError
from reconciler.model import ProviderPin
from reconciler.runner.terraform.engine import Engine, EngineError, SensitiveOutputs, deadline_in, find_engine
from reconciler.runner.terraform.plan import secrets_in, summarise
from reconciler.runner.terraform.s3 import S3Backend
from reconciler.runner.terraform.workspace import Value
from tests.kit.aws import BUCKET, NEEDS_AWS, REGION, Aws, provider_pin
from tests.kit.terraform import until
from tests.kit.workbench import SECONDS, UNIT, Workbench, apply_while, pin

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KEY = b"k" * 32
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# What the provider would ask of AWS about the account and the machine; the server has neither.
SKIPS = {"skip_credentials_validation": True, "skip_requesting_account_id": True, "skip_metadata_api_check": True}
MODULE = (
    NEEDS_AWS
    + """\
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
)


@pytest.fixture(scope="module")
def aws_pin(aws_mirror: Path) -> ProviderPin:
    return provider_pin(aws_mirror)


@pytest.fixture(scope="module")
def aws_engine(engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return find_engine(str(engine), None, None, tmp_path_factory.mktemp("launcher"))


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
    assert aws.parameter("/app/password") == "hush-hush"
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


def test_missing_bucket_is_an_error_and_not_a_first_deploy(bench: Workbench, aws: Aws) -> None:
    aws.client("s3").delete_bucket(Bucket=BUCKET)
    talk = bench.open(bench.spec(cidr="10.1.0.0/16", password="x"))
    with pytest.raises(EngineError, match="bucket"):
        talk.init(deadline_in(SECONDS))
    with pytest.raises(UnitError) as refused:
        bench.kept.read(UNIT)
    assert refused.value.reason == "StateUnavailable"


def test_an_interrupted_apply_leaves_what_it_did_in_the_state(bench: Workbench, aws: Aws) -> None:
    spec = replace(bench.spec(cidr="10.1.0.0/16", password="xxxx"), sensitive_outputs=frozenset({"password"}))
    talk, _ = bench.plan(spec)

    def interrupt() -> None:
        until((bench.work / "apply.out").exists, "the apply")
        bench.stopped.add("apply")

    result = apply_while(talk, interrupt)
    assert result.interrupted
    assert not result.killed
    bench.stopped.clear()
    assert bench.apply(spec).failure is None
    assert len(aws.vpcs()) == 1

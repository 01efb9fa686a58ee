"""Identities that count: roles assumed per job, an apply that outlives its first keys, and who can do nothing."""

from __future__ import annotations

import base64
import copy
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from botocore.exceptions import ClientError

from reconciler.demo import example
from reconciler.demo.example import LOCK
from reconciler.demo.forge import Forge
from reconciler.git.catalog import digest_of
from reconciler.git.tree import FILE
from reconciler.lockfile import with_pin
from reconciler.model import Pin, ProviderPin
from tests.kit.aws import ACCOUNT, BUCKET, REGION, provider_pin
from tests.kit.guard import Guarded, allow, both, guarded, role_arn
from tests.kit.house import House, Json, house
from tests.kit.modules import entry, environment, release
from tests.kit.story import at, env, results, settled
from tests.kit.terraform import static_engine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="jails are made of Linux's namespaces"),
]

PATIENCE = 300.0  # seconds: as in test_aws_house
LIFE = 6.0  # seconds, as the holder of a session is told
CHAIN = """\
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
variable "text" { type = string }
resource "aws_ssm_parameter" "first" {
  name  = "/first"
  type  = "String"
  value = var.text
}
resource "aws_ssm_parameter" "second" {
  name  = "/second"
  type  = "String"
  value = aws_ssm_parameter.first.value
}
"""
CATALOG = {"v1.0.0": release(chain=CHAIN)}
STATES = f"arn:aws:s3:::{BUCKET}"
LOOKS = allow("ssm:Get*", "ssm:Describe*", "ssm:List*", "s3:GetObject", "s3:ListBucket", "s3:HeadObject", "sts:*")
ROLES = {
    "plan": both(LOOKS, allow("s3:PutObject", "s3:DeleteObject", resource=f"{STATES}/*.tflock")),
    "apply": both(LOOKS, allow("ssm:*", "s3:*")),
}
USERS = {
    "runner": allow("sts:AssumeRole", resource=[role_arn(name) for name in ROLES]),
    "controller": allow("sts:GetCallerIdentity"),
}


@pytest.fixture
def aws() -> Iterator[Guarded]:
    def first_is_made(environ: Mapping[str, Any], body: bytes) -> bool:
        return environ.get("HTTP_X_AMZ_TARGET") == "AmazonSSM.PutParameter" and b'"/first"' in body

    with guarded(life=LIFE, slow=first_is_made) as found:
        found.begin(USERS, ROLES)
        yield found


def lock(folder: Path, provider: ProviderPin) -> str:
    """The catalog's releases have the same commits wherever they are made, so the lock can be written beforehand."""
    forge = Forge.create(folder / "releases.git")
    example.release(forge, CATALOG)
    tag, files = next(iter(CATALOG.items()))
    digest = digest_of({path: (FILE, content.encode()) for path, content in files.items()})
    return with_pin(LOCK, "", Pin("acme/chain", "1.0.0", "modules/chain", tag, forge.head, digest, (provider,)))


def runner(aws: Guarded, mirror: Path) -> Json:
    names = {"AWS_ACCESS_KEY_ID": "RUNNER_KEY", "AWS_SECRET_ACCESS_KEY": "RUNNER_SECRET"}
    credentials = {
        name: {"assume_role": {"role": role_arn(name), "source": {"environment": dict(names)}}} for name in ROLES
    }
    prod = {
        "backend": {"local": None, "s3": {"bucket": BUCKET, "region": REGION, "use_path_style": True}},
        "allowed_account_ids": [ACCOUNT],
        "env": {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_EC2_METADATA_DISABLED": "true"},
        "credentials": credentials,
    }
    return {
        "provider_mirror": {"path": str(mirror)},
        "environments": {"prod": prod},
        "sandbox": {"tier": "strict"},
    }


def test_identities_count(tmp_path: Path, aws: Guarded, aws_mirror: Path) -> None:
    static_engine()
    entries = {
        env("prod"): environment(providers={"aws": {"region": REGION, "max_retries": 1}}),
        at("prod/chain"): entry("chain", {"text": "one"}),
        LOCK: lock(tmp_path, provider_pin(aws_mirror)),
    }
    own = aws.people["runner"]
    started = {"RUNNER_KEY": own["aws_access_key_id"], "RUNNER_SECRET": own["aws_secret_access_key"]}
    made = runner(aws, aws_mirror)
    with house(tmp_path / "h", entries, CATALOG, runner=made, environment=started) as home:
        home.start()
        an_apply_outlives_its_first_keys(home, aws)
        sessions_say_what_they_are_for(home, aws)
        nobody_else_may_do_anything(aws)
        the_plan_role_cannot_write(home, aws)
        nothing_of_them_is_left(home, aws)


def an_apply_outlives_its_first_keys(home: House, aws: Guarded) -> None:
    home.synced(patience=PATIENCE)
    settled(home)
    assert (aws.parameter("/first"), aws.parameter("/second")) == ("one", "one")
    assert "prod/chain.tfstate" in aws.objects()
    assert [one["reason"] for one in results(home, "prod/chain")][:1] == ["Applied"]
    assert aws.guard.outlived is not None
    later = aws.guard.used[len(aws.guard.used) - 1 - aws.guard.used[::-1].index(aws.guard.outlived) :]
    assert len(set(later) - {aws.guard.outlived}) >= 1
    assert aws.guard.refused == []


def sessions_say_what_they_are_for(home: House, aws: Guarded) -> None:
    job = results(home, "prod/chain")[0]["job"]["id"]
    ours = [one.asked for one in aws.guard.sessions if one.asked["RoleSessionName"] == f"reconciler-{job}"[:64]]
    assert {one["RoleArn"] for one in ours} == {role_arn("apply")}
    commit = home.ground.environments.head
    tags = {ours[0][f"Tags.member.{n}.Key"]: ours[0][f"Tags.member.{n}.Value"] for n in range(1, 6)}
    assert tags["reconciler:unit"] == "prod/chain"
    assert (tags["reconciler:commit"], tags["reconciler:job"]) == (commit, job)
    assert {one["SourceIdentity"] for one in ours} == {f"reconciler@{commit[:12]}"}
    policies = [json.loads(one["Policy"]) for one in ours]
    own = [s["Resource"] for policy in policies for s in policy["Statement"] if "s3:PutObject" in s["Action"]]
    assert set(own) == {f"{STATES}/prod/chain.tfstate"}


def nobody_else_may_do_anything(aws: Guarded) -> None:
    """The controller has an identity that may do nothing; nor may the runner's own, but to assume the roles."""
    for who in ("controller", "runner"):
        assert aws.client_of("sts", who).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/{who}"
        ssm, s3 = aws.client_of("ssm", who), aws.client_of("s3", who)
        denied(lambda: ssm.put_parameter(Name="/first", Value="x", Type="String", Overwrite=True))  # noqa: B023
        denied(lambda: ssm.get_parameter(Name="/first"))  # noqa: B023
        denied(lambda: s3.get_object(Bucket=BUCKET, Key="prod/chain.tfstate"))  # noqa: B023
        denied(lambda: s3.put_object(Bucket=BUCKET, Key="prod/chain.tfstate", Body=b"x"))  # noqa: B023
    sts = aws.client_of("sts", "controller")
    for name in ROLES:
        denied(lambda: sts.assume_role(RoleArn=role_arn(name), RoleSessionName="me"))  # noqa: B023
    given = aws.client_of("sts", "runner").assume_role(RoleArn=role_arn("plan"), RoleSessionName="look")["Credentials"]
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    ssm, s3 = aws.client_with("ssm", **keys), aws.client_with("s3", **keys)
    assert ssm.get_parameter(Name="/first")["Parameter"]["Value"] == "one"
    denied(lambda: ssm.put_parameter(Name="/first", Value="x", Type="String", Overwrite=True))
    denied(lambda: ssm.delete_parameter(Name="/first"))
    denied(lambda: s3.put_object(Bucket=BUCKET, Key="prod/chain.tfstate", Body=b"x"))
    assert aws.parameter("/first") == "one"


def denied(ask: Any) -> None:
    with pytest.raises(ClientError) as refused:
        ask()
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert answer["Error"]["Code"] in ("AccessDenied", "403")  # the server words it for some services as for others


def the_plan_role_cannot_write(home: House, aws: Guarded) -> None:
    """Where the host gives applies the role of plans, a change is planned, and AWS refuses to make it."""
    home.stop()
    config = yaml.safe_load(home.ground.runner_config.read_text())
    credentials = config["environments"]["prod"]["credentials"]
    credentials["apply"] = copy.deepcopy(credentials["plan"])
    home.ground.runner_config.write_text(yaml.safe_dump(config))
    home.start()
    before, state = len(results(home, "prod/chain")), aws.contents()["prod/chain.tfstate"]
    home.ground.environments.commit({at("prod/chain"): entry("chain", {"text": "two"})}, "Another text")
    failed = home.until(lambda: results(home, "prod/chain")[before:], "it is tried", PATIENCE)[0]
    assert [change["address"] for change in failed["plan"]["changes"]], failed
    # Before anything is applied the last good state is kept aside, which writes to the bucket: AWS refuses that already.
    assert (failed["outcome"], failed["reason"]) == ("Failed", "StateUnavailable"), failed
    assert "AccessDenied" in failed["message"], failed
    assert aws.contents()["prod/chain.tfstate"] == state
    assert (aws.parameter("/first"), aws.parameter("/second")) == ("one", "one")


def nothing_of_them_is_left(home: House, aws: Guarded) -> None:
    """No secret of a session, no token of the endpoint, nor of whoever assumes roles: in no file, no answer, no log."""
    jobs = [one["job"]["id"] for one in results(home, "prod")]
    secrets = {text.encode() for text in aws.guard.secrets() | {aws.people["runner"]["aws_secret_access_key"]}}
    assert len(secrets) > 4
    said = ["/", "/metrics", "/api/v1/status", "/api/v1/units/prod/chain", "/api/v1/history?scope=all&limit=1000"]
    for path in (*said, *(f"/api/v1/jobs/{job}/log" for job in jobs)):
        answer = httpx.get(f"{home.ground.address}{path}", timeout=60).content
        assert not [one for one in secrets if shows(answer, one)], path
        assert b"AWS_CONTAINER" not in answer, path
    home.stop()
    files = [path for path in sorted(home.ground.folder.rglob("*")) if path.is_file()]
    assert len(files) > 20
    assert [str(path) for path in files for one in secrets if shows(path.read_bytes(), one)] == []


def shows(text: bytes, secret: bytes) -> bool:
    return secret in text or base64.b64encode(secret).rstrip(b"=")[:-1] in text

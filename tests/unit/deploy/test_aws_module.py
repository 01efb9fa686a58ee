"""deploy/aws as a module of a catalog, its task's first container, and the evaluator that the e2e test tries its policies with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.git.tree import FILE
from reconciler.vetting.audit import vet
from tests.kit import iamrules

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy" / "aws"
PREPARE = DEPLOY / "prepare.py"


@pytest.mark.parametrize("path", ["deploy/aws", "deploy/aws/account", "deploy/aws/forward", "deploy/aws/organization"])
def test_it_enters_a_catalog_as_any_module_does(path: str) -> None:
    found = [one for one in DEPLOY.rglob("*") if one.is_file() and ".terraform" not in one.parts]
    files = {
        one.relative_to(ROOT).as_posix(): (FILE, one.read_bytes())
        for one in found
        if one.suffix in (".tf", ".py", ".md")
    }
    assert f"{path}/versions.tf" in files
    assert vet(files, path, frozenset({"hashicorp/aws"})) == ()


def prepare(folder: Path, environ: dict[str, str]) -> None:
    me = os.getuid()
    said = {
        "folders": {str(folder / "etc"): [me, "0700"], str(folder / "tmp"): [me, "1777"]},
        "texts": {str(folder / "etc" / "reconciler.yaml"): [me, "store: {}\n"]},
        "secrets": {str(folder / "etc" / "token"): [me, "SECRET_0"]},
    }
    more = ["--job", "j1"]  # what whoever starts the task adds: it is not looked at
    subprocess.run(
        [sys.executable, "-I", "-c", PREPARE.read_text(), json.dumps(said), *more], env=environ, check=True, timeout=60
    )


def test_a_task_finds_its_folders_and_files_and_nobody_else_reads_them(tmp_path: Path) -> None:
    prepare(tmp_path, {"SECRET_0": "hush\n"})
    assert (tmp_path / "etc" / "reconciler.yaml").read_text() == "store: {}\n"
    assert (tmp_path / "etc" / "token").read_text() == "hush\n"
    modes = {
        name: (tmp_path / name).stat().st_mode & 0o7777 for name in ("etc", "tmp", "etc/token", "etc/reconciler.yaml")
    }
    assert modes == {"etc": 0o700, "tmp": 0o1777, "etc/token": 0o600, "etc/reconciler.yaml": 0o600}


def test_a_task_without_its_secret_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        prepare(tmp_path, {})


ME = {"aws:PrincipalArn": "arn:aws:iam::1:role/me"}


def one(effect: str, **more: Any) -> dict[str, Any]:
    given = {
        "Effect": effect,
        **({} if "NotAction" in more else {"Action": "*"}),
        **({} if "NotResource" in more else {"Resource": "*"}),
    }
    return {"Version": "2012-10-17", "Statement": [given | more]}


def when(**tests: dict[str, str | list[str]]) -> dict[str, Any]:
    return one("Deny", Condition={name.replace("_", ":"): keys for name, keys in tests.items()})


ALL = one("Allow")


@pytest.mark.parametrize(
    ("policies", "may"),
    [
        ([], False),
        ([ALL], True),
        ([ALL, one("Deny", Action="S3:put*")], False),  # actions are told apart by no case
        ([ALL, one("Deny", Action="s3:Get*")], True),
        ([one("Allow", NotAction="s3:*")], False),
        ([one("Allow", NotAction="iam:*")], True),
        ([one("Allow", Resource="arn:aws:s3:::b/*")], True),
        ([one("Allow", Resource="arn:aws:s3:::B/*")], False),
        ([one("Allow", Resource="arn:aws:s3:::?/k")], True),
        ([one("Allow", NotResource=["arn:aws:s3:::b", "arn:aws:s3:::b/*"])], False),
        ([ALL, one("Deny", NotResource="arn:aws:s3:::b/*")], True),
        ([ALL, one("Deny", NotResource="arn:aws:s3:::c/*")], False),
        ([ALL, when(ArnNotEquals={"aws:PrincipalArn": ["arn:aws:iam::1:role/me"]})], True),
        ([ALL, when(ArnNotLike={"aws:PrincipalArn": ["arn:aws:iam::1:role/you*"]})], False),
        ([ALL, when(Null={"s3:if-match": "true"})], False),
        ([ALL, when(Null={"aws:PrincipalArn": "true"})], True),
        ([ALL, when(Null={"s3:if-match": "true", "aws:PrincipalArn": "true"})], True),  # all tests have to hold
        ([ALL, when(StringNotEqualsIfExists={"s3:x-amz-server-side-encryption": "aws:kms"})], False),
        ([ALL, when(StringEquals={"s3:x-amz-server-side-encryption": "aws:kms"})], True),  # a key that is not there equals nothing
        ([ALL, when(StringNotEquals={"iam:PermissionsBoundary": "b"})], False),  # and differs from everything
        ([ALL, when(ForAnyValue_StringLike={"kms:ResourceAliases": "alias/a-*"})], True),
    ],
)  # fmt: skip
def test_the_evaluator(policies: list[dict[str, Any]], may: bool) -> None:
    assert iamrules.allowed("s3:PutObject", "arn:aws:s3:::b/k", ME, identity=policies) is may


@pytest.mark.parametrize(
    ("boundary", "organization", "of_resource", "may"),
    [
        (None, [], [], True),
        (one("Allow", Action="s3:*"), [], [], True),
        (one("Allow", Action="ec2:*"), [], [], False),
        (None, [ALL, one("Deny", Action="s3:Put*")], [], False),
        (None, [one("Allow", Action="ec2:*")], [], False),
        (None, [], [one("Deny", Principal="*")], False),
        (None, [], [one("Deny", Principal={"AWS": ["arn:aws:iam::1:role/you"]})], True),
        (one("Allow", Action="ec2:*"), [], [one("Allow", Principal="*")], False),
    ],
)
def test_each_kind_of_policy_has_to_let_it(boundary: Any, organization: Any, of_resource: Any, may: bool) -> None:
    found = iamrules.allowed(
        "s3:PutObject",
        "arn:aws:s3:::b/k",
        ME,
        identity=[ALL],
        boundary=boundary,
        organization=organization,
        of_resource=of_resource,
    )
    assert found is may


@pytest.mark.parametrize(
    "policy",
    [
        one("Allow", NotPrincipal={"AWS": "*"}),
        one("Allow", Resource="arn:aws:s3:::${aws:username}/*"),
        one("Allow", Condition={"IpAddress": {"aws:PrincipalArn": "10.0.0.0/8"}}),
        one("Allow", Principal={"Federated": "x"}),
        {"Statement": [{"Effect": "Allow", "Action": "*"}]},
    ],
)
def test_the_evaluator_guesses_at_nothing(policy: dict[str, Any]) -> None:
    with pytest.raises((NotImplementedError, KeyError)):
        iamrules.allowed("s3:PutObject", "arn:aws:s3:::b/k", ME, identity=[policy])

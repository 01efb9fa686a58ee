from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from reconciler.model import Operation
from reconciler.runner.access.policy import for_adoption, for_engine, for_runner, for_secrets, partition_of

STATES = "arn:aws:s3:::acme-tfstate"
OWN = f"{STATES}/prod/net.tfstate"


def may(policy: str, action: str, resource: str) -> bool:
    """As IAM reads it: something allows the action on the resource. Nothing here denies."""
    return any(_fits(statement, action, resource) for statement in json.loads(policy)["Statement"])


def _fits(statement: dict[str, Any], action: str, resource: str) -> bool:
    assert statement["Effect"] == "Allow"
    acts = any(fnmatchcase(action, one) for one in _many(statement["Action"]))
    if "NotResource" in statement:
        return acts and not any(fnmatchcase(resource, one) for one in _many(statement["NotResource"]))
    return acts and any(fnmatchcase(resource, one) for one in _many(statement["Resource"]))


def _many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


ENGINE = [
    ("s3:GetObject", OWN, {"plan", "apply"}),
    ("s3:PutObject", OWN, {"apply"}),
    ("s3:DeleteObject", OWN, {"apply"}),
    ("s3:PutObject", f"{OWN}.tflock", set()),
    ("s3:DeleteObject", f"{OWN}.tflock", set()),
    ("s3:GetObject", f"{STATES}/prod/app.tfstate", set()),
    ("s3:PutObject", f"{STATES}/prod/app.tfstate.tflock", set()),
    ("s3:PutObject", f"{STATES}/prod/.reconciler.json", set()),
    ("s3:ListBucket", STATES, {"plan", "apply"}),
    ("s3:GetBucketLocation", STATES, {"plan", "apply"}),
    ("s3:PutBucketPolicy", STATES, set()),
    ("s3:PutReplicationConfiguration", STATES, set()),
    ("s3:PutLifecycleConfiguration", STATES, set()),
    ("s3:DeleteBucket", STATES, set()),
    ("s3:PutBucketPolicy", "arn:aws:s3:::another", {"plan", "apply"}),
    ("s3:PutObject", "arn:aws:s3:::another/key", {"plan", "apply"}),
    ("ec2:CreateVpc", "*", {"plan", "apply"}),
]


@pytest.mark.parametrize(("action", "resource", "who"), ENGINE)
def test_an_engine_reaches_its_own_state_and_no_other(action: str, resource: str, who: set[str]) -> None:
    policies = {
        "plan": for_engine("acme-tfstate", "aws", "prod/net.tfstate", Operation.PLAN),
        "apply": for_engine("acme-tfstate", "aws", "prod/net.tfstate", Operation.APPLY),
    }
    assert {name for name, policy in policies.items() if may(policy, action, resource)} == who


def test_the_runner_itself_reaches_states_and_nothing_else() -> None:
    policy = for_runner("acme-tfstate", "aws")
    assert may(policy, "s3:GetObject", OWN)
    assert may(policy, "s3:ListBucket", STATES)
    assert not may(policy, "s3:GetObject", "arn:aws:s3:::another/key")
    assert not may(policy, "ec2:DescribeVpcs", "*")


def test_a_state_that_is_adopted_is_read_and_nothing_else() -> None:
    policy = for_adoption("old", "net/a.tfstate", "aws")
    assert may(policy, "s3:GetObject", "arn:aws:s3:::old/net/a.tfstate")
    assert may(policy, "s3:GetObject", "arn:aws:s3:::old/net/a.tfstate.tflock")
    assert may(policy, "s3:ListBucket", "arn:aws:s3:::old")
    assert not may(policy, "s3:GetObject", "arn:aws:s3:::old/net/b.tfstate")
    assert not may(policy, "s3:PutObject", "arn:aws:s3:::old/net/a.tfstate")
    assert not may(policy, "s3:DeleteObject", "arn:aws:s3:::old/net/a.tfstate")
    assert not may(policy, "ec2:DescribeVpcs", "*")


def test_the_longest_policy_fits() -> None:
    policy = for_engine("b" * 63, "aws-us-gov", f"{'u' * 200}.tfstate", Operation.APPLY)
    assert len(policy) < 2048  # what STS takes
    assert partition_of("arn:aws-us-gov:iam::111111111111:role/r") == "aws-us-gov"


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        ("secretsmanager:GetSecretValue", True),
        ("ssm:GetParameter", True),
        ("kms:Decrypt", True),
        ("secretsmanager:PutSecretValue", False),
        ("ssm:PutParameter", False),
        ("ssm:GetParameters", False),
        ("kms:Encrypt", False),
        ("s3:GetObject", False),
        ("sts:AssumeRole", False),
    ],
)
def test_who_reads_secrets_may_do_nothing_else(action: str, allowed: bool) -> None:
    assert may(for_secrets(), action, "arn:aws:secretsmanager:eu-west-1:111111111111:secret:x") is allowed

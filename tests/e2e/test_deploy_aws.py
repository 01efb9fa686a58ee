"""deploy/aws: applied from nothing with the real AWS provider, no second change, nothing left; and in between who may do what."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from moto.events.models import EventPattern
from moto.organizations.models import organizations_backends

from reconciler.config import load_controller, load_runner
from tests.kit import iamrules
from tests.kit.aws import ACCOUNT, REGION, serving
from tests.kit.caller import Caller, attempt, session, users
from tests.kit.deployed import CERTIFICATE, DEPLOY, KINDS, PEOPLE, Deployed, example, inventory, mended
from tests.kit.enforced import enforced, policies_of
from tests.kit.wishlist import (
    ADMIN,
    APPLY,
    APPLY_TASK,
    CI,
    CLOSER,
    CONTROLLER,
    DESCRIBE,
    DEVELOPER,
    EMERGENCY,
    EVERYBODY,
    KEEPER,
    PLAN,
    PLAN_TASK,
    USERS,
    Place,
    rows,
)  # fmt: skip

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
Inventory = dict[str, set[str]]


def test_the_accounts_side(engine: Path, aws_mirror: Path, tmp_path: Path) -> None:
    """One apply for all of it: a test of its own for each would be an apply for each, wherever tests run beside each other."""
    with serving() as aws, mended():
        made = example(aws, engine, aws_mirror, tmp_path)
        made.terraform.run("fmt", "-check", "-recursive", "-no-color", str(DEPLOY))
        before = inventory(aws)
        made.apply()
        a_second_plan_is_empty(made, before)
        its_outputs_are_the_planes_configurations(made, tmp_path)
        the_table_is_the_one_of_deploy_dynamodb(made)
        applied = inventory(aws)
        nobody_may_more_or_less_than_they_should(made)
        a_role_is_taken_for_an_installation_and_a_commit(made)
        people_take_roles_with_mfa_alone(made)
        break_glass_is_closed_by_when_a_session_began(made)
        whoever_takes_break_glass_is_told(made)
        the_organizations_policy_leaves_the_pipeline_alone(made)
        by_tries = {kind: there - applied[kind] for kind, there in inventory(aws).items()}
        destroy_leaves_nothing(made, {kind: there | by_tries[kind] for kind, there in before.items()})


def a_second_plan_is_empty(made: Deployed, before: Inventory) -> None:
    assert made.is_empty()
    added = {kind for kind, there in inventory(made.aws).items() if there - before[kind]}
    assert added == {kind for kind, (_, types) in KINDS.items() if types}
    assert made.types() == {one for _, types in KINDS.values() for one in types}


def its_outputs_are_the_planes_configurations(made: Deployed, tmp_path: Path) -> None:
    said = made.outputs()
    controller, runner = tmp_path / "reconciler.yaml", tmp_path / "runner.yaml"
    controller.write_text(said["reconciler_yaml"])
    runner.write_text(said["runner_yaml"])
    asks, answers = load_controller(controller), load_runner(runner)
    assert asks.executor.fargate is not None
    assert answers.task.spool == asks.executor.fargate.spool
    assert answers.environments["prod"].credentials.apply is not None
    told = yaml.safe_load(said["reconciler_yaml"])["out_of_band"]
    assert told["break_glass"] == [said["roles"]["break_glass"]]
    assert said["roles"]["apply"]["prod"] in told["allowed"]
    assert said["roles"]["plan"]["prod"] not in told["allowed"]


def the_table_is_the_one_of_deploy_dynamodb(made: Deployed) -> None:
    wanted = json.loads((ROOT / "deploy" / "dynamodb" / "table.json").read_text())
    table = made.aws.client("dynamodb").describe_table(TableName="reconciler")["Table"]
    assert sorted(table["AttributeDefinitions"], key=str) == sorted(wanted["AttributeDefinitions"], key=str)
    assert table["KeySchema"] == wanted["KeySchema"]
    index = {key: table["GlobalSecondaryIndexes"][0][key] for key in wanted["GlobalSecondaryIndexes"][0]}
    assert [index] == wanted["GlobalSecondaryIndexes"]
    assert table["BillingModeSummary"]["BillingMode"] == wanted["BillingMode"]
    identity, _ = policies_of(f"arn:aws:iam::{ACCOUNT}:role/reconciler-controller")
    (store,) = [one for one in identity[0]["Statement"] if one["Sid"] == "Store"]
    (policy,) = json.loads((ROOT / "deploy" / "dynamodb" / "policy.json").read_text())["Statement"]
    assert sorted(store["Action"]) == sorted(policy["Action"])
    assert sorted(one.partition("table/")[2] for one in store["Resource"]) == ["reconciler", "reconciler/index/by-unit"]


# --- who may do what


def nobody_may_more_or_less_than_they_should(made: Deployed) -> None:
    at, tries, caller = place(made), rows(), Caller(made.aws)
    sessions = {who: session(made.aws, role) for who, role in roles(made).items()}
    wrong, tried = [], 0
    with enforced(made.aws) as decisions:
        for who in EVERYBODY:
            caller.become(*sessions[who])
            for row in tries:
                may = attempt(partial(row.call, caller.client, at), row.right, decisions)
                tried += 1
                if may is not (who in row.may):
                    wrong.append(f"{who} {'may' if may else 'may not'} {row.what}: {decisions.made[-1]}")
    assert wrong == [], "\n".join(wrong)
    assert tried == len(EVERYBODY) * len(tries) > 1000


def people_take_roles_with_mfa_alone(made: Deployed) -> None:
    people, targets, caller = users(made.aws, PEOPLE), roles(made), Caller(made.aws)
    with enforced(made.aws) as decisions:
        for name, keys in people.items():
            caller.become(*keys)
            mfa = {"SerialNumber": f"{PEOPLE[name]}/mfa", "TokenCode": "123456"}
            for target, (plainly, with_mfa) in USERS.items():
                for shown, may in (({}, plainly), (mfa, with_mfa)):
                    take = partial(
                        caller.client("sts").assume_role, RoleArn=targets[target], RoleSessionName=name, **shown
                    )
                    assert attempt(take, "sts:AssumeRole", decisions) is (name in may), (name, target, shown)


def a_role_is_taken_for_an_installation_and_a_commit(made: Deployed) -> None:
    caller = Caller(made.aws)
    caller.become(*session(made.aws, roles(made)[APPLY_TASK]))
    with enforced(made.aws) as decisions:
        for more, may in (
            ({}, False),
            ({"SourceIdentity": "mallory"}, False),
            ({"SourceIdentity": "reconciler@0123"}, True),
        ):
            take = partial(caller.client("sts").assume_role, RoleArn=roles(made)[APPLY], RoleSessionName="j1", **more)
            assert attempt(take, "sts:AssumeRole", decisions) is may, more


def break_glass_is_closed_by_when_a_session_began(made: Deployed) -> None:
    """By the documents: the server has no notion of when a session was given."""
    arn = roles(made)[EMERGENCY]
    identity, boundary = policies_of(arn)
    client = made.aws.client("iam")
    closed = json.loads(
        json.dumps(client.get_role_policy(RoleName="reconciler-break-glass", PolicyName="closed")["PolicyDocument"])
    )
    closed["Statement"][0]["Condition"]["DateLessThan"]["aws:TokenIssueTime"] = "2026-11-30T12:00:00Z"
    for began, more, may in (
        ("2026-11-30T11:59:59Z", [], True),
        ("2026-11-30T11:59:59Z", [closed], False),
        ("2026-11-30T12:00:00Z", [closed], True),
    ):
        context = {"aws:PrincipalArn": arn, "aws:TokenIssueTime": began}
        found = iamrules.allowed("ec2:RunInstances", "*", context, identity=[*identity, *more], boundary=boundary)
        assert found is may, (began, more)
    role = client.get_role(RoleName="reconciler-break-glass")["Role"]
    assert role["MaxSessionDuration"] == 3600
    ages = [one["Condition"]["NumericLessThan"] for one in role["AssumeRolePolicyDocument"]["Statement"]]
    assert ages == [{"aws:MultiFactorAuthAge": "3600"}]


def whoever_takes_break_glass_is_told(made: Deployed) -> None:
    events = made.aws.client("events")
    rule = events.describe_rule(Name="reconciler-break-glass")
    assert rule["State"] == "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"  # AssumeRole is no write
    detail = {
        "eventSource": "sts.amazonaws.com", "eventName": "AssumeRole", "readOnly": True,
        "requestParameters": {"roleArn": roles(made)[EMERGENCY]},
    }  # fmt: skip
    event: Any = {
        "id": "1", "account": ACCOUNT, "source": "aws.sts", "time": "2026-11-30T12:00:00Z", "region": REGION, "resources": [],
        "detail-type": "AWS API Call via CloudTrail", "detail": detail,
    }  # fmt: skip
    for role, told in ((EMERGENCY, True), (PLAN, False)):
        detail["requestParameters"] = {"roleArn": roles(made)[role]}
        assert EventPattern.load(rule["EventPattern"]).matches_event(event) is told
    writes = events.describe_rule(Name="reconciler-writes")["EventPattern"]
    for read_only in (True, False):
        detail["readOnly"] = read_only
        assert EventPattern.load(writes).matches_event(event) is not read_only
    targets = events.list_targets_by_rule(Rule="reconciler-break-glass")["Targets"]
    assert [one["Arn"] for one in targets] == [place(made).topic]
    alarm = made.aws.client("cloudwatch").describe_alarms(AlarmNames=["reconciler-break-glass"])["MetricAlarms"][0]
    assert (alarm["MetricName"], alarm["AlarmActions"]) == ("MatchedEvents", [place(made).topic])


def the_organizations_policy_leaves_the_pipeline_alone(made: Deployed) -> None:
    """By the document, as a member account would be bound: the server enforces none, and its only account is the one that none binds."""
    arns = roles(made)
    listed = organizations_backends[ACCOUNT]["aws"].policies
    policy = next(json.loads(str(one.content)) for one in listed if one.name == "reconciler-only-path")
    full = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    somebody = f"arn:aws:iam::{ACCOUNT}:role/"
    free = [arns[APPLY], arns[EMERGENCY], arns[CONTROLLER], f"{somebody}workload/app", PEOPLE["installer"]]
    bound = [
        f"{somebody}AWSReservedSSO_AdministratorAccess_1",
        f"{somebody}OrganizationAccountAccessRole",
        f"arn:aws:iam::{ACCOUNT}:root",
    ]
    changes = (
        "ec2:RunInstances",
        "s3:PutObject",
        "iam:CreateUser",
        "dynamodb:PutItem",
        "lambda:InvokeFunction",
        "kms:Encrypt",
        "new:DoIt",
    )
    looks = (
        "ec2:DescribeInstances",
        "s3:GetObject",
        "iam:ListRoles",
        "sts:AssumeRole",
        "secretsmanager:GetSecretValue",
        "kms:Decrypt",
    )
    for who in (*free, *bound):
        for action in (*changes, *looks):
            found = iamrules.allowed(
                action, "*", {"aws:PrincipalArn": who}, identity=[full], organization=[full, policy]
            )
            assert found is (who in free or action in looks), (who, action)
        for action in ("cloudtrail:StopLogging", "organizations:LeaveOrganization"):
            found = iamrules.allowed(
                action, "*", {"aws:PrincipalArn": who}, identity=[full], organization=[full, policy]
            )
            assert found is (who == PEOPLE["installer"]), (who, action)


def destroy_leaves_nothing(made: Deployed, before: Inventory) -> None:
    """Buckets are emptied before, as the README says. `before`: what was there, and what those made by hand who were let."""
    empty(made)
    made.destroy()
    left = {kind: there - before[kind] for kind, there in inventory(made.aws).items()}
    assert {kind: there for kind, there in left.items() if there} == {}


# --- the account, looked at


def roles(made: Deployed) -> dict[str, str]:
    said = made.outputs()["roles"]
    return {
        DEVELOPER: said["developer"], CI: said["ci"], ADMIN: said["admin"], CLOSER: said["closer"], EMERGENCY: said["break_glass"],
        CONTROLLER: said["controller"], PLAN_TASK: said["jobs"]["prod-plan"], APPLY_TASK: said["jobs"]["prod-apply"],
        DESCRIBE: said["describe"], KEEPER: said["keeper"], PLAN: said["plan"]["prod"], APPLY: said["apply"]["prod"],
    }  # fmt: skip


def place(made: Deployed) -> Place:
    said, kms = made.outputs(), made.aws.client("kms")
    keys = {
        name: kms.describe_key(KeyId=f"alias/reconciler-{name}")["KeyMetadata"]["KeyId"]
        for name in ("memory", "shared", "states")
    }
    network = said["network"]
    return Place(
        network["subnet_ids"], network["job_security_group"], roles(made), said["boundaries"], keys, CERTIFICATE
    )


def empty(made: Deployed) -> None:
    s3 = made.aws.client("s3")
    for bucket in [one["Name"] for one in s3.list_buckets()["Buckets"]]:
        listed = s3.list_object_versions(Bucket=bucket)
        for one in [*listed.get("Versions", []), *listed.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])

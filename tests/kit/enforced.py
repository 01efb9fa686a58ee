"""moto's server with IAM as AWS has it: its own evaluator is taken out, and `iamrules` put in its place.

moto (5.2) knows who asks, checks the signature and asks its evaluator with an action. What that evaluator gets wrong, and why it cannot judge these
policies: any statement with a `Condition` denies; one with `NotResource` is taken for a trust policy, and allows, a deny too; it knows no
boundaries, no organization's policies and no policies of buckets; and but for S3 and a role that is taken the resource is always `*`, so that no
statement that names one ever matches. The resource is found here, for the calls that tests make; for any other call there is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests
from botocore.parsers import RpcV2CBORParser
from moto.ecs.models import ecs_backends
from moto.iam.access_control import IAMRequestBase
from moto.iam.models import iam_backends
from moto.kms.models import kms_backends
from moto.s3.models import s3_backends

from tests.kit import iamrules
from tests.kit.aws import ACCOUNT, REGION, Aws

Words = Mapping[str, Any]
Asked = tuple[str, str, dict[str, Any]]  # action, resource, keys of the request


@dataclass
class Decisions:
    """What was decided: who, which action, on what, and whether they may."""

    made: list[tuple[str, str, str, bool]] = field(default_factory=list)


@contextmanager
def enforced(aws: Aws) -> Iterator[Decisions]:
    """From now on identities count."""
    decisions, was = Decisions(), IAMRequestBase.check_action_permitted

    def check(request: Any, resource: str) -> None:
        if not _may(request, resource, decisions):
            request._raise_access_denied()

    IAMRequestBase.check_action_permitted = check  # type: ignore[method-assign, assignment]
    _post(aws, "0")
    try:
        yield decisions
    finally:
        _post(aws, "inf")
        IAMRequestBase.check_action_permitted = was  # type: ignore[method-assign]


def _post(aws: Aws, count: str) -> None:
    requests.post(f"{aws.endpoint}/moto-api/reset-auth", data=count.encode(), timeout=30).raise_for_status()


def _may(request: Any, resource: str, decisions: Decisions) -> bool:
    me = _principal(request)
    if request._action == "sts:GetCallerIdentity":
        return True
    request._action = request._action.replace("monitoring:", "cloudwatch:")  # a service may sign by another name
    for action, on, more in _asked(request, resource):
        may = _judged(me, action, on, {"aws:PrincipalArn": me, "aws:SecureTransport": "true", **more})
        decisions.made.append((me.rpartition(":")[2], action, on, may))
        if not may:
            return False
    return True


def _principal(request: Any) -> str:
    """The role whose session asks, or the user."""
    key = request._access_key
    name = getattr(key, "_owner_role_name", None)
    if name is None:
        return str(key.arn)
    return next(str(one.arn) for one in iam_backends[ACCOUNT]["aws"].roles.values() if one.name == name)


def _judged(me: str, action: str, on: str, context: dict[str, Any]) -> bool:
    identity, boundary = policies_of(me)
    bucket = on.removeprefix("arn:aws:s3:::").partition("/")[0] if action.startswith("s3:") else ""
    known = s3_backends[ACCOUNT]["aws"].buckets.get(bucket)
    own = [json.loads(known.policy)] if known is not None and known.policy else []
    if not iamrules.allowed(action, on, context, identity=identity, boundary=boundary, of_resource=own):
        return False
    if action.startswith("sts:") and ":role/" in on:
        role = iam_backends[ACCOUNT]["aws"].get_role_by_arn(on)
        return iamrules.trusts(json.loads(role.assume_role_policy_document), action, context)
    return True


def policies_of(arn: str) -> tuple[list[Words], Words | None]:
    """The policies that somebody has, and their boundary, as the server keeps them."""
    iam = iam_backends[ACCOUNT]["aws"]
    if ":user/" in arn:
        user = iam.get_user(arn.rpartition("/")[2])
        return [json.loads(one) for one in user.policies.values()], None
    role = iam.get_role_by_arn(arn)
    attached = [_in_force(one) for one in role.managed_policies.values()]
    bound = role.permissions_boundary_arn
    return (
        [*(json.loads(one) for one in role.policies.values()), *attached],
        _in_force(iam.managed_policies[bound]) if bound else None,
    )


def _in_force(policy: Any) -> Words:
    return dict(json.loads(next(one.document for one in policy.versions if one.is_default)))


# --- what is asked for


def _asked(request: Any, resource: str) -> Iterator[Asked]:
    """What the caller must be allowed for this to be done: some calls take more than one right."""
    action = request._action
    if action.startswith("s3:"):
        yield action, resource, _of_s3(request)
        return
    words = _words(request)
    yield from KINDS[action](action, words)


def _of_s3(request: Any) -> dict[str, str]:
    headers = {name.lower(): value for name, value in request._headers.items()}
    found = {
        "s3:if-match": headers.get("if-match"),
        "s3:if-none-match": headers.get("if-none-match"),
        "s3:x-amz-server-side-encryption": headers.get("x-amz-server-side-encryption"),
        "s3:x-amz-server-side-encryption-aws-kms-key-id": headers.get("x-amz-server-side-encryption-aws-kms-key-id"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _words(request: Any) -> dict[str, Any]:
    body = request._body if isinstance(request._body, bytes) else (request._body or "").encode()
    if body.startswith(b"{"):
        return dict(json.loads(body))
    if request._headers.get("Smithy-Protocol") == "rpc-v2-cbor":
        return dict(RpcV2CBORParser().parse_data_item(RpcV2CBORParser().get_peekable_stream_from_bytes(body)))
    return {name: value[0] if isinstance(value, list) else value for name, value in request._data.items()}


Kind = Callable[[str, Words], Iterator[Asked]]


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"


def _iam(rest: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:{rest}"


def _on(what: Callable[[Words], str]) -> Kind:
    """One right, on what the request names."""

    def kind(action: str, words: Words) -> Iterator[Asked]:
        yield action, what(words), {}

    return kind


def _anything(_: Words) -> str:
    return "*"


def _role(words: Words) -> str:
    path = words.get("Path") or next(
        (one.path for one in iam_backends[ACCOUNT]["aws"].roles.values() if one.name == words["RoleName"]), "/"
    )
    return _iam(f"role{path}{words['RoleName']}")


def _key(action: str, words: Words) -> Iterator[Asked]:
    aliases = sorted(kms_backends[ACCOUNT][REGION].keys[words["KeyId"]].aliases)
    yield action, _arn("kms", f"key/{words['KeyId']}"), {"kms:ResourceAliases": aliases}


def _bounded(action: str, words: Words) -> Iterator[Asked]:
    bound = words.get("PermissionsBoundary")
    yield action, _role(words), {"iam:PermissionsBoundary": bound} if bound else {}


def _takes(action: str, words: Words) -> Iterator[Asked]:
    """A role is taken: with tags and a source identity each of them is a right of its own."""
    more: dict[str, str] = {}
    if "SourceIdentity" in words:
        more["sts:SourceIdentity"] = words["SourceIdentity"]
    if "SerialNumber" in words and "TokenCode" in words:
        more |= {"aws:MultiFactorAuthPresent": "true", "aws:MultiFactorAuthAge": "0"}
    yield action, words["RoleArn"], more
    if "SourceIdentity" in words:
        yield "sts:SetSourceIdentity", words["RoleArn"], more
    if any(name.startswith("Tags.") for name in words):
        yield "sts:TagSession", words["RoleArn"], more


def _runs(action: str, words: Words) -> Iterator[Asked]:
    """A task is started: its definition, in a cluster, and each of its roles is passed."""
    cluster = _arn("ecs", f"cluster/{words['cluster']}")
    family = words["taskDefinition"]
    revisions = ecs_backends[ACCOUNT][REGION].task_definitions[family]
    newest = revisions[max(revisions)]
    looked_into = str(words.get("enableExecuteCommand", False)).lower()
    yield action, newest.arn, {"ecs:cluster": cluster, "ecs:enable-execute-command": looked_into}
    changed = words.get("overrides", {})
    for name, own in (("taskRoleArn", newest.task_role_arn), ("executionRoleArn", newest.execution_role_arn)):
        yield "iam:PassRole", changed.get(name, own), {"iam:PassedToService": "ecs-tasks.amazonaws.com"}


def _enters(action: str, words: Words) -> Iterator[Asked]:
    more = {"ecs:container-name": words["container"], "ecs:cluster": _arn("ecs", f"cluster/{words['cluster']}")}
    yield action, _arn("ecs", f"cluster/{words['cluster']}"), more
    yield action, _task(words), more


def _task(words: Words) -> str:
    one = words.get("task") or words["tasks"][0]
    return _arn("ecs", f"task/{words['cluster']}/{one}")


def _lists(action: str, words: Words) -> Iterator[Asked]:
    yield action, "*", {"ecs:cluster": _arn("ecs", f"cluster/{words['cluster']}")}


_TABLE = _on(lambda words: _arn("dynamodb", f"table/{words['TableName']}"))
_QUEUE = _on(lambda words: _arn("sqs", words["QueueUrl"].rpartition("/")[2]))
_ON_ROLE = _on(_role)
_SECRET = _on(lambda words: str(words["SecretId"]))
_ANY = _on(_anything)
_LOG = _on(lambda words: _arn("logs", f"log-group:{words['logGroupName']}:*"))

KINDS: Mapping[str, Kind] = {
    **{f"dynamodb:{verb}": _TABLE for verb in ("GetItem", "PutItem", "DeleteItem", "DescribeTable", "DeleteTable")},
    **{f"sqs:{verb}": _QUEUE for verb in ("ReceiveMessage", "DeleteMessage", "SendMessage", "DeleteQueue", "SetQueueAttributes")},
    **{
        f"iam:{verb}": _ON_ROLE
        for verb in ("PutRolePolicy", "UpdateAssumeRolePolicy", "DeleteRolePermissionsBoundary", "DeleteRole", "GetRole")
    },
    **{f"iam:{verb}": _bounded for verb in ("CreateRole", "PutRolePermissionsBoundary")},
    **{f"kms:{verb}": _key for verb in ("Decrypt", "GenerateDataKey", "ScheduleKeyDeletion", "PutKeyPolicy")},
    **{f"logs:{verb}": _LOG for verb in ("GetLogEvents", "DeleteLogGroup")},
    **dict.fromkeys(("ec2:DescribeInstances", "ec2:RunInstances", "iam:ListRoles", "organizations:LeaveOrganization", "organizations:DetachPolicy", "ecs:RegisterTaskDefinition"), _ANY),
    "iam:CreateUser": _on(lambda words: _iam(f"user/{words['UserName']}")),
    "iam:CreatePolicyVersion": _on(lambda words: str(words["PolicyArn"])),
    "iam:CreateAccessKey": _on(lambda words: _iam(f"user/{words['UserName']}")),
    "ssm:PutParameter": _on(lambda words: _arn("ssm", f"parameter{words['Name']}")),
    "ssm:GetParameter": _on(lambda words: _arn("ssm", f"parameter{words['Name']}")),
    "secretsmanager:GetSecretValue": _SECRET,
    "cloudtrail:StopLogging": _on(lambda words: _arn("cloudtrail", f"trail/{words['Name']}")),
    "cloudtrail:DeleteTrail": _on(lambda words: _arn("cloudtrail", f"trail/{words['Name']}")),
    "events:DisableRule": _on(lambda words: _arn("events", f"rule/{words['Name']}")),
    "events:RemoveTargets": _on(lambda words: _arn("events", f"rule/{words['Rule']}")),
    "sns:SetTopicAttributes": _on(lambda words: str(words["TopicArn"])),
    "sns:DeleteTopic": _on(lambda words: str(words["TopicArn"])),
    "cloudwatch:DeleteAlarms": _on(lambda words: _arn("cloudwatch", f"alarm:{words['AlarmNames'][0]}")),
    "sts:AssumeRole": _takes,
    "ecs:RunTask": _runs,
    "ecs:ExecuteCommand": _enters,
    "ecs:ListTasks": _lists,
    "ecs:DescribeTasks": _on(_task),
    "ecs:StopTask": _on(_task),
    "ecs:UpdateService": _on(lambda words: _arn("ecs", f"service/{words['cluster']}/{words['service']}")),
}  # fmt: skip

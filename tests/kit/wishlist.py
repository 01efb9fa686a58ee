"""Who may do what in an account that deploy/aws guards: what is tried, and who may, as docs/security.md and docs/operations.md say it.

The verdicts are declared here, by hand; nothing is worked out from the policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.kit.aws import ACCOUNT, REGION

Client = Callable[[str], Any]

# Whose sessions try everything: people, pipelines, the two planes' tasks, and the roles of prod's plans and applies.
DEVELOPER, CI, ADMIN, CLOSER, EMERGENCY = "developer", "ci", "admin", "closer", "break_glass"
CONTROLLER, PLAN_TASK, APPLY_TASK, DESCRIBE, KEEPER = "controller", "plan task", "apply task", "describe", "keeper"
PLAN, APPLY = "plan", "apply"
EVERYBODY = (
    DEVELOPER, CI, ADMIN, CLOSER, EMERGENCY, CONTROLLER, PLAN_TASK, APPLY_TASK, DESCRIBE, KEEPER, PLAN, APPLY,
)  # fmt: skip
NOBODY: frozenset[str] = frozenset()
WRITERS = frozenset({APPLY, EMERGENCY})
LOOKERS = frozenset({DEVELOPER, PLAN, *WRITERS})
TASKS = frozenset({PLAN_TASK, APPLY_TASK, DESCRIBE})

NAME = "reconciler"
SPOOL, MEMORY, STATES, TRAIL = (
    f"{NAME}-{one}-{ACCOUNT}-{REGION}" for one in ("spool", "memory", "states-prod", "trail")
)
JOURNAL = {"pk": {"S": "e"}, "sk": {"N": "1"}}
ITEM = {"Item": JOURNAL}
COMMIT = "0" * 12


@dataclass(frozen=True, slots=True)
class Place:
    """What the applied module made, by which calls name it."""

    subnets: list[str]
    group: str
    roles: Mapping[str, str]
    boundaries: Mapping[str, str]
    keys: Mapping[str, str]
    certificate: str

    @property
    def queue(self) -> str:
        return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{NAME}-trail"

    @property
    def topic(self) -> str:
        return f"arn:aws:sns:{REGION}:{ACCOUNT}:{NAME}-break-glass"


@dataclass(frozen=True, slots=True)
class Row:
    """Something that is tried, the right that it takes, and who may."""

    what: str
    right: str
    may: frozenset[str]
    call: Callable[[Client, Place], Any]


def rows() -> list[Row]:
    return [*_store(), *_spool(), *_memory(), *_states(), *_jobs(), *_guards(), *_iam(), *_rest()]


def _on_s3(verb: str, bucket: str, key: str, **more: Any) -> Callable[[Client, Place], Any]:
    body = {"Body": b"x"} if verb == "put_object" else {}
    return lambda client, _: getattr(client("s3"), verb)(Bucket=bucket, Key=key, **body, **more)


def _plain(at: str, verb: str, /, **words: Any) -> Callable[[Client, Place], Any]:
    return lambda client, _: getattr(client(at), verb)(**words)


def _store() -> list[Row]:
    mine, table = frozenset({CONTROLLER}), {"TableName": NAME}
    return [
        Row("read the journal", "dynamodb:GetItem", mine, _plain("dynamodb", "get_item", Key=JOURNAL, **table)),
        Row("write the journal", "dynamodb:PutItem", mine, _plain("dynamodb", "put_item", **ITEM, **table)),
        Row("forget of the journal", "dynamodb:DeleteItem", NOBODY, _plain("dynamodb", "delete_item", Key=JOURNAL, **table)),
        Row("remove the journal", "dynamodb:DeleteTable", NOBODY, _plain("dynamodb", "delete_table", **table)),
        Row(
            "look at the journal's table", "dynamodb:DescribeTable", frozenset({DEVELOPER, PLAN}),
            _plain("dynamodb", "describe_table", **table),
        ),
        Row(
            "write an application's table", "dynamodb:PutItem", WRITERS,
            _plain("dynamodb", "put_item", TableName="orders", **ITEM),
        ),
    ]  # fmt: skip


def _spool() -> list[Row]:
    mine, job = frozenset({CONTROLLER}), "spool/jobs/j1"
    put, get, drop = "s3:PutObject", "s3:GetObject", "s3:DeleteObject"
    return [
        Row("ask for a job", put, mine, _on_s3("put_object", SPOOL, f"{job}/job.json")),
        Row("cancel a job", put, mine, _on_s3("put_object", SPOOL, f"{job}/cancel")),
        Row("lead", put, mine, _on_s3("put_object", SPOOL, "spool/lead.json")),
        Row("announce a job", put, mine, _on_s3("put_object", SPOOL, "spool/queue/prod/plan/j1")),
        Row("take a job", put, TASKS, _on_s3("put_object", SPOOL, f"{job}/task.json", IfNoneMatch="*")),
        Row("tell phases", put, TASKS, _on_s3("put_object", SPOOL, f"{job}/phases")),
        Row("tell the log", put, TASKS, _on_s3("put_object", SPOOL, f"{job}/log/0000000000000000")),
        Row("tell a death", put, TASKS, _on_s3("put_object", SPOOL, f"{job}/died")),
        Row("tell the result", put, TASKS, _on_s3("put_object", SPOOL, f"{job}/result.json")),
        Row("publish facts", put, TASKS, _on_s3("put_object", SPOOL, "spool/facts.json")),
        Row("write elsewhere in the spool", put, NOBODY, _on_s3("put_object", SPOOL, "elsewhere")),
        Row("read of a job", get, TASKS | mine, _on_s3("get_object", SPOOL, f"{job}/result.json")),
        Row("take an announcement down", drop, TASKS, _on_s3("delete_object", SPOOL, "spool/queue/prod/plan/j1")),
        Row("remove a job", drop, NOBODY, _on_s3("delete_object", SPOOL, f"{job}/job.json")),
        Row("let go of the lead", drop, NOBODY, _on_s3("delete_object", SPOOL, "spool/lead.json")),
    ]


def _memory() -> list[Row]:
    theirs, record = TASKS | {KEEPER}, "memory/audit/000000000000001.jsonl"
    put, drop = "s3:PutObject", "s3:DeleteObject"
    anew, over = {"IfNoneMatch": "*"}, {"IfMatch": '"d41d8cd98f00b204e9800998ecf8427e"'}
    return [
        Row("read the memory", "s3:GetObject", theirs, _on_s3("get_object", MEMORY, "memory/trust.json")),
        Row("write a new document of the memory", put, theirs, _on_s3("put_object", MEMORY, "memory/trust.json", **anew)),
        Row("write over what was read", put, theirs, _on_s3("put_object", MEMORY, "memory/trust.json", **over)),
        Row("write over whatever is there", put, NOBODY, _on_s3("put_object", MEMORY, "memory/trust.json")),
        Row("stamp the last look", put, theirs, _on_s3("put_object", MEMORY, "memory/looked")),
        Row("write beside the memory", put, NOBODY, _on_s3("put_object", MEMORY, "other/trust.json", **anew)),
        Row("resume the runner", drop, theirs, _on_s3("delete_object", MEMORY, "memory/pause")),
        Row("add a record to the audit log", put, theirs, _on_s3("put_object", MEMORY, record, **anew)),
        Row("change a record of the audit log", put, NOBODY, _on_s3("put_object", MEMORY, record, **over)),
        Row("remove a record of the audit log", drop, NOBODY, _on_s3("delete_object", MEMORY, record)),
        Row(
            "remove an old version of the memory", "s3:DeleteObjectVersion", NOBODY,
            _on_s3("delete_object", MEMORY, "memory/trust.json", VersionId="v1"),
        ),
        Row(
            "open the memory's bucket", "s3:PutBucketPolicy", NOBODY,
            _plain("s3", "put_bucket_policy", Bucket=MEMORY, Policy="{}"),
        ),
        Row("close the memory's bucket policy", "s3:DeleteBucketPolicy", NOBODY, _plain("s3", "delete_bucket_policy", Bucket=MEMORY)),
        Row(
            "use the memory's key", "kms:GenerateDataKey", theirs,
            lambda client, at: client("kms").generate_data_key(KeyId=at.keys["memory"], KeySpec="AES_256"),
        ),
        Row(
            "use the spool's key", "kms:GenerateDataKey", TASKS | {CONTROLLER},
            lambda client, at: client("kms").generate_data_key(KeyId=at.keys["shared"], KeySpec="AES_256"),
        ),
    ]  # fmt: skip


def _states() -> list[Row]:
    readers, state = frozenset({PLAN, *WRITERS}), "prod/network.tfstate"
    put = "s3:PutObject"
    return [
        Row("read a state", "s3:GetObject", readers, _on_s3("get_object", STATES, state)),
        Row("write a state", put, WRITERS, _on_s3("put_object", STATES, state)),
        Row("lock a state", put, readers, _on_s3("put_object", STATES, f"{state}.tflock", IfNoneMatch="*")),
        Row("unlock a state", "s3:DeleteObject", readers, _on_s3("delete_object", STATES, f"{state}.tflock")),
        Row("remove a state", "s3:DeleteObject", WRITERS, _on_s3("delete_object", STATES, state)),
        Row("write a state in S3's own cipher", put, NOBODY, _on_s3("put_object", STATES, state, ServerSideEncryption="AES256")),
        Row(
            "write a state with another key", put, NOBODY,
            _on_s3("put_object", STATES, state, ServerSideEncryption="aws:kms", SSEKMSKeyId="arn:aws:kms:eu-west-1:1:key/x"),
        ),
        Row(
            "write a state with the states' key", put, WRITERS,
            lambda client, at: client("s3").put_object(
                Bucket=STATES, Key=state, Body=b"x", ServerSideEncryption="aws:kms",
                SSEKMSKeyId=f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{at.keys['states']}",
            ),
        ),
        Row(
            "remove an old version of a state", "s3:DeleteObjectVersion", frozenset({EMERGENCY}),
            _on_s3("delete_object", STATES, state, VersionId="v1"),
        ),
        Row("list states", "s3:ListBucket", LOOKERS, _plain("s3", "list_objects_v2", Bucket=STATES)),
        Row(
            "keep no versions of states", "s3:PutBucketVersioning", NOBODY,
            _plain("s3", "put_bucket_versioning", Bucket=STATES, VersioningConfiguration={"Status": "Suspended"}),
        ),
        Row("open the bucket of states", "s3:PutBucketPolicy", NOBODY, _plain("s3", "put_bucket_policy", Bucket=STATES, Policy="{}")),
        Row("remove the bucket of states", "s3:DeleteBucket", NOBODY, _plain("s3", "delete_bucket", Bucket=STATES)),
        Row(
            "use the states' key", "kms:GenerateDataKey", readers,
            lambda client, at: client("kms").generate_data_key(KeyId=at.keys["states"], KeySpec="AES_256"),
        ),
        Row(
            "end the states' key", "kms:ScheduleKeyDeletion", NOBODY,
            lambda client, at: client("kms").schedule_key_deletion(KeyId=at.keys["states"]),
        ),
    ]  # fmt: skip


def _run(family: str, **more: Any) -> Callable[[Client, Place], Any]:
    def call(client: Client, at: Place) -> Any:
        network = {"awsvpcConfiguration": {"subnets": at.subnets, "securityGroups": [at.group]}}
        said = {key: value(at) if callable(value) else value for key, value in more.items()}
        return client("ecs").run_task(
            cluster=NAME, taskDefinition=f"{NAME}-{family}", launchType="FARGATE", networkConfiguration=network, **said
        )

    return call


def _as(role: str) -> Callable[[Place], Any]:
    return lambda at: {"taskRoleArn": at.roles[role]}


def _jobs() -> list[Row]:
    mine, run = frozenset({CONTROLLER}), "ecs:RunTask"
    watchers = TASKS | {CONTROLLER, ADMIN, DEVELOPER, PLAN}
    container = {"cluster": NAME, "task": "t1", "interactive": True, "command": "sh"}
    return [
        Row("start a job that plans", run, mine, _run("prod-plan")),
        Row("start a job that applies", run, mine, _run("prod-apply")),
        Row("let the runner describe itself", run, mine, _run("describe")),
        Row("start the keeper", run, frozenset({ADMIN}), _run("keeper")),
        Row("start a second controller", run, NOBODY, _run("controller")),
        Row("look into a job", run, NOBODY, _run("prod-plan", enableExecuteCommand=True)),
        # What ECS cannot forbid, docs/security.md says: a plan would run with the role of applies.
        Row("plan with the role of applies", run, mine, _run("prod-plan", overrides=_as(APPLY_TASK))),
        Row("plan with the controller's role", run, NOBODY, _run("prod-plan", overrides=_as(CONTROLLER))),
        Row("plan with the role of prod's applies", run, NOBODY, _run("prod-plan", overrides=_as(APPLY))),
        Row("keep with the role of applies", run, NOBODY, _run("keeper", overrides=_as(APPLY_TASK))),
        Row("stop a job", "ecs:StopTask", mine, _plain("ecs", "stop_task", cluster=NAME, task="t1")),
        Row(
            "look at a job", "ecs:DescribeTasks", watchers, _plain("ecs", "describe_tasks", cluster=NAME, tasks=["t1"])
        ),
        Row("find the controller", "ecs:ListTasks", LOOKERS | {ADMIN}, _plain("ecs", "list_tasks", cluster=NAME)),
        Row(
            "enter to pause",
            "ecs:ExecuteCommand",
            frozenset({ADMIN}),
            _plain("ecs", "execute_command", container="admin", **container),
        ),
        Row(
            "enter the controller",
            "ecs:ExecuteCommand",
            NOBODY,
            _plain("ecs", "execute_command", container="controller", **container),
        ),
        Row(
            "enter a job",
            "ecs:ExecuteCommand",
            NOBODY,
            _plain("ecs", "execute_command", container="reconciler", **container),
        ),
        Row(
            "stop the controller",
            "ecs:UpdateService",
            NOBODY,
            _plain("ecs", "update_service", cluster=NAME, service="controller", desiredCount=0),
        ),
    ]


def _guards() -> list[Row]:
    return [
        Row("read what others write", "sqs:ReceiveMessage", frozenset({CONTROLLER}), lambda c, at: c("sqs").receive_message(QueueUrl=at.queue)),
        Row("forge what others write", "sqs:SendMessage", NOBODY, lambda c, at: c("sqs").send_message(QueueUrl=at.queue, MessageBody="x")),
        Row("remove the queue", "sqs:DeleteQueue", NOBODY, lambda c, at: c("sqs").delete_queue(QueueUrl=at.queue)),
        Row("stop the trail", "cloudtrail:StopLogging", NOBODY, _plain("cloudtrail", "stop_logging", Name=NAME)),
        Row("remove the trail", "cloudtrail:DeleteTrail", NOBODY, _plain("cloudtrail", "delete_trail", Name=NAME)),
        Row("change what the trail has", "s3:PutObject", NOBODY, _on_s3("put_object", TRAIL, f"AWSLogs/{ACCOUNT}/x")),
        Row("blind out_of_band", "events:DisableRule", NOBODY, _plain("events", "disable_rule", Name=f"{NAME}-writes")),
        Row("lead the rule elsewhere", "events:RemoveTargets", NOBODY, _plain("events", "remove_targets", Rule=f"{NAME}-writes", Ids=["x"])),
        Row("blind the alarm", "events:DisableRule", NOBODY, _plain("events", "disable_rule", Name=f"{NAME}-break-glass")),
        Row("remove the alarm", "cloudwatch:DeleteAlarms", NOBODY, _plain("cloudwatch", "delete_alarms", AlarmNames=[f"{NAME}-break-glass"])),
        Row("remove who is told", "sns:DeleteTopic", NOBODY, lambda c, at: c("sns").delete_topic(TopicArn=at.topic)),
        Row("leave the organization", "organizations:LeaveOrganization", NOBODY, _plain("organizations", "leave_organization")),
        Row(
            "take the organization's policy off", "organizations:DetachPolicy", NOBODY,
            _plain("organizations", "detach_policy", PolicyId="p-12345678", TargetId="r-1234"),
        ),
        Row("read logs of tasks", "logs:GetLogEvents", frozenset({ADMIN}), _plain("logs", "get_log_events", logGroupName=f"/{NAME}/job", logStreamName="s")),
        Row("remove logs of tasks", "logs:DeleteLogGroup", NOBODY, _plain("logs", "delete_log_group", logGroupName=f"/{NAME}/job")),
    ]  # fmt: skip


def _iam() -> list[Row]:
    trust = '{"Version": "2012-10-17", "Statement": []}'
    made = {"RoleName": "app", "AssumeRolePolicyDocument": trust}
    policy = {"PolicyName": "x", "PolicyDocument": trust}

    def create(path: str, boundary: str | None) -> Callable[[Client, Place], Any]:
        def call(client: Client, at: Place) -> Any:
            bound = {"PermissionsBoundary": at.boundaries[boundary]} if boundary else {}
            return client("iam").create_role(Path=path, **made, **bound)

        return call

    return [
        Row("list roles", "iam:ListRoles", LOOKERS, _plain("iam", "list_roles")),
        Row("make a user", "iam:CreateUser", NOBODY, _plain("iam", "create_user", UserName="mallory")),
        Row("make a user's keys", "iam:CreateAccessKey", NOBODY, _plain("iam", "create_access_key", UserName="developer")),
        Row("make an application's role", "iam:CreateRole", WRITERS, create("/workload/", "workload")),
        Row("make a role without a boundary", "iam:CreateRole", NOBODY, create("/workload/", None)),
        Row("make a role with another boundary", "iam:CreateRole", NOBODY, create("/workload/", "pipeline")),
        Row("make a role elsewhere", "iam:CreateRole", NOBODY, create("/", "workload")),
        Row("close break-glass", "iam:PutRolePolicy", frozenset({CLOSER}), _plain("iam", "put_role_policy", RoleName=f"{NAME}-break-glass", **policy)),
        Row("widen the role of applies", "iam:PutRolePolicy", NOBODY, _plain("iam", "put_role_policy", RoleName=f"{NAME}-prod-apply", **policy)),
        Row("widen the role of plans", "iam:PutRolePolicy", NOBODY, _plain("iam", "put_role_policy", RoleName=f"{NAME}-prod-plan", **policy)),
        Row("let others plan", "iam:UpdateAssumeRolePolicy", NOBODY, _plain("iam", "update_assume_role_policy", RoleName=f"{NAME}-prod-plan", PolicyDocument=trust)),
        Row("let others break the glass", "iam:UpdateAssumeRolePolicy", NOBODY, _plain("iam", "update_assume_role_policy", RoleName=f"{NAME}-break-glass", PolicyDocument=trust)),
        Row("unbind applies", "iam:DeleteRolePermissionsBoundary", NOBODY, _plain("iam", "delete_role_permissions_boundary", RoleName=f"{NAME}-prod-apply")),
        Row(
            "widen a boundary", "iam:CreatePolicyVersion", NOBODY,
            lambda c, at: c("iam").create_policy_version(PolicyArn=at.boundaries["workload"], PolicyDocument=trust, SetAsDefault=True),
        ),
    ]  # fmt: skip


def _rest() -> list[Row]:
    return [
        Row(
            "read the trigger's certificate", "secretsmanager:GetSecretValue", WRITERS | {CI},
            lambda c, at: c("secretsmanager").get_secret_value(SecretId=at.certificate),
        ),
        Row(
            "read another secret", "secretsmanager:GetSecretValue", WRITERS,
            _plain("secretsmanager", "get_secret_value", SecretId=f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:other-AbCdEf"),
        ),
        Row("change a parameter", "ssm:PutParameter", WRITERS, _plain("ssm", "put_parameter", Name="/app/x", Value="1", Type="String", Overwrite=True)),
        Row("read a parameter", "ssm:GetParameter", WRITERS, _plain("ssm", "get_parameter", Name="/app/x")),
        Row("start a machine", "ec2:RunInstances", WRITERS, _plain("ec2", "run_instances", ImageId="ami-00000000", MinCount=1, MaxCount=1)),
        Row("look at machines", "ec2:DescribeInstances", LOOKERS, _plain("ec2", "describe_instances")),
        Row("say what a task is", "ecs:RegisterTaskDefinition", WRITERS, _plain("ecs", "register_task_definition", family="app", containerDefinitions=[])),
        *(_taking(role, may) for role, may in TAKEN.items()),
    ]  # fmt: skip


# Which sessions may take which role. People take theirs as users, with MFA: that is a table of its own.
TAKEN: Mapping[str, frozenset[str]] = {
    PLAN: frozenset({PLAN_TASK, APPLY_TASK}),
    APPLY: frozenset({APPLY_TASK}),
    **dict.fromkeys(
        (DEVELOPER, CI, ADMIN, CLOSER, EMERGENCY, CONTROLLER, PLAN_TASK, APPLY_TASK, DESCRIBE, KEEPER), NOBODY
    ),
}


def _taking(role: str, may: frozenset[str]) -> Row:
    return Row(
        f"take the role of {role}", "sts:AssumeRole", may,
        lambda client, at: client("sts").assume_role(
            RoleArn=at.roles[role], RoleSessionName="reconciler-j1", SourceIdentity=f"{NAME}@{COMMIT}",
            Tags=[{"Key": "reconciler:unit", "Value": "prod/network"}],
        ),
    )  # fmt: skip


# Which users may take which role: without MFA, and with it.
USERS: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    DEVELOPER: (frozenset({"developer"}), frozenset({"developer"})),
    CI: (frozenset({"ci"}), frozenset({"ci"})),
    ADMIN: (NOBODY, frozenset({"admin"})),
    CLOSER: (NOBODY, frozenset({"admin"})),
    EMERGENCY: (NOBODY, frozenset({"emergency"})),
    **dict.fromkeys((PLAN, APPLY, CONTROLLER, PLAN_TASK, APPLY_TASK, DESCRIBE, KEEPER), (NOBODY, NOBODY)),
}

"""Types of the AWS provider whose objects are found by their tags: what their ARNs look like, and what deletes one.

Here stands only what is tagged by the very call that makes it and listed by an API that is asked; and S3 buckets, which are
looked for without tags besides. Of any other type nobody can say that nothing was made.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.runner.terraform.creation import BUCKET

AWS = "hashicorp/aws"
ROLE, USER = "aws_iam_role", "aws_iam_user"


@dataclass(frozen=True, slots=True)
class Kind:
    """How objects of a type are named. `resource` begins the last part of their ARN; `delete` is the AWS CLI's command."""

    service: str
    resource: str
    delete: str


KINDS: Mapping[str, Kind] = {
    "aws_cloudwatch_log_group": Kind("logs", "log-group:", "logs delete-log-group --log-group-name {id}"),
    "aws_db_instance": Kind("rds", "db:", "rds delete-db-instance --db-instance-identifier {id}"),
    "aws_dynamodb_table": Kind("dynamodb", "table/", "dynamodb delete-table --table-name {id}"),
    "aws_ebs_volume": Kind("ec2", "volume/", "ec2 delete-volume --volume-id {id}"),
    "aws_ecr_repository": Kind("ecr", "repository/", "ecr delete-repository --repository-name {id}"),
    "aws_ecs_cluster": Kind("ecs", "cluster/", "ecs delete-cluster --cluster {id}"),
    "aws_eip": Kind("ec2", "elastic-ip/", "ec2 release-address --allocation-id {id}"),
    "aws_iam_policy": Kind("iam", "policy/", "iam delete-policy --policy-arn {arn}"),
    ROLE: Kind("iam", "role/", "iam delete-role --role-name {name}"),
    USER: Kind("iam", "user/", "iam delete-user --user-name {name}"),
    "aws_instance": Kind("ec2", "instance/", "ec2 terminate-instances --instance-ids {id}"),
    "aws_internet_gateway": Kind("ec2", "internet-gateway/", "ec2 delete-internet-gateway --internet-gateway-id {id}"),
    "aws_kms_key": Kind("kms", "key/", "kms schedule-key-deletion --key-id {id}"),
    "aws_lambda_function": Kind("lambda", "function:", "lambda delete-function --function-name {id}"),
    "aws_launch_template": Kind("ec2", "launch-template/", "ec2 delete-launch-template --launch-template-id {id}"),
    "aws_lb": Kind("elasticloadbalancing", "loadbalancer/", "elbv2 delete-load-balancer --load-balancer-arn {arn}"),
    "aws_lb_target_group": Kind(
        "elasticloadbalancing", "targetgroup/", "elbv2 delete-target-group --target-group-arn {arn}"
    ),
    "aws_nat_gateway": Kind("ec2", "natgateway/", "ec2 delete-nat-gateway --nat-gateway-id {id}"),
    "aws_network_acl": Kind("ec2", "network-acl/", "ec2 delete-network-acl --network-acl-id {id}"),
    "aws_network_interface": Kind(
        "ec2", "network-interface/", "ec2 delete-network-interface --network-interface-id {id}"
    ),
    "aws_rds_cluster": Kind("rds", "cluster:", "rds delete-db-cluster --db-cluster-identifier {id}"),
    "aws_route_table": Kind("ec2", "route-table/", "ec2 delete-route-table --route-table-id {id}"),
    BUCKET: Kind("s3", "", "s3api delete-bucket --bucket {id}"),
    "aws_secretsmanager_secret": Kind("secretsmanager", "secret:", "secretsmanager delete-secret --secret-id {arn}"),
    "aws_security_group": Kind("ec2", "security-group/", "ec2 delete-security-group --group-id {id}"),
    "aws_sfn_state_machine": Kind(
        "states", "stateMachine:", "stepfunctions delete-state-machine --state-machine-arn {arn}"
    ),
    "aws_sns_topic": Kind("sns", "", "sns delete-topic --topic-arn {arn}"),
    "aws_sqs_queue": Kind(
        "sqs",
        "",
        "sqs delete-queue --region {region} --queue-url "
        '"$(aws sqs get-queue-url --queue-name {id} --region {region} --query QueueUrl --output text)"',
    ),
    "aws_subnet": Kind("ec2", "subnet/", "ec2 delete-subnet --subnet-id {id}"),
    "aws_vpc": Kind("ec2", "vpc/", "ec2 delete-vpc --vpc-id {id}"),
    "aws_vpc_endpoint": Kind("ec2", "vpc-endpoint/", "ec2 delete-vpc-endpoints --vpc-endpoint-ids {id}"),
}
GLOBAL = {"aws": "us-east-1", "aws-cn": "cn-northwest-1", "aws-us-gov": "us-gov-west-1"}  # where IAM is asked for tags


@dataclass(frozen=True, slots=True)
class Arn:
    """The parts of an ARN. `resource` is all of its end: `vpc/vpc-1`, `log-group:name`, `name`."""

    text: str
    service: str
    region: str
    resource: str

    @property
    def id(self) -> str:
        """What a state, or a command, calls the object."""
        kind = self.kind
        if kind is not None:
            return self.resource.removeprefix(KINDS[kind].resource)
        return self.resource.replace(":", "/").rpartition("/")[2]

    @property
    def kind(self) -> str | None:
        """The provider's type of it, if it is one that is known here."""
        return next((name for name, kind in KINDS.items() if self._is(kind)), None)

    def _is(self, kind: Kind) -> bool:
        named = self.resource.startswith(kind.resource)
        return kind.service == self.service and named and (kind.resource != "" or not set("/:") & set(self.resource))


def parse_arn(text: str) -> Arn:
    """The ARN's parts; what is none has only itself."""
    parts = text.split(":", 5)
    return Arn(text, parts[2], parts[3], parts[5]) if len(parts) == 6 and parts[0] == "arn" else Arn(text, "", "", text)


def delete_command(arn: Arn, region: str) -> str:
    """What deletes the object; words for a person where no command is known."""
    kind = KINDS.get(arn.kind or "")
    if kind is None:
        return f"delete {arn.text} with its service's own command"
    words = {"id": arn.id, "name": arn.id.rpartition("/")[2], "arn": arn.text, "region": region}
    line = "aws " + kind.delete.format(**{name: shlex.quote(word) for name, word in words.items()})
    return f"`{line}`" if "--region" in line or kind.service == "iam" else f"`{line} --region {shlex.quote(region)}`"


def untag_command(arn: Arn, region: str) -> str:
    """What makes an object nobody's, so that it is found no more."""
    text, key = shlex.quote(arn.text), "reconciler:unit"
    if arn.kind in (ROLE, USER):
        word = "role" if arn.kind == ROLE else "user"
        return f"`aws iam untag-{word} --{word}-name {shlex.quote(arn.id.rpartition('/')[2])} --tag-keys {key}`"
    where = f"--region {shlex.quote(region)}"
    return f"`aws resourcegroupstaggingapi untag-resources --resource-arn-list {text} --tag-keys {key} {where}`"

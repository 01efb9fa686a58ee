"""deploy/aws applied with the real provider to moto's server, and what there is in an account."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from moto.cloudtrail.responses import CloudTrailResponse
from moto.ecs.responses import EC2ContainerServiceResponse
from moto.iam.access_control import PermissionResult
from moto.s3.models import FakeBucket

from tests.kit.aws import ACCOUNT, REGION, Aws
from tests.kit.terraform import Terraform, write_cli_config

DEPLOY = Path(__file__).parents[2] / "deploy" / "aws"
GLOBAL = "us-east-1"
PEOPLE = {
    role: f"arn:aws:iam::{ACCOUNT}:user/{role}" for role in ("developer", "admin", "emergency", "ci", "installer")
}
CERTIFICATE, TOKENS = (
    f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{name}-AbCdEf" for name in ("trigger", "forge")
)
# The example as it is; only the server's buckets are addressed by path, since there are no names below 127.0.0.1.
BY_PATH = """\
provider "aws" {
  s3_use_path_style = true
}
provider "aws" {
  alias             = "global"
  s3_use_path_style = true
}
"""


@contextmanager
def mended() -> Iterator[None]:
    """moto's server, mended: a trail is deleted by its ARN, too, a service keeps what it was made with, and policies of buckets are left
    to whoever knows conditions (`enforced`): the server itself takes each condition of a deny for one that holds."""
    permission = FakeBucket.get_permission
    trail, service = CloudTrailResponse.delete_trail, EC2ContainerServiceResponse.create_service

    def delete_trail(self: Any) -> str:
        name = self._get_param("Name")
        self.cloudtrail_backend.delete_trail(name.rpartition(":trail/")[2])
        return json.dumps({})

    def create_service(self: Any) -> Any:
        answer: Any = service(self)
        made = answer._result["service"]
        made.enable_execute_command = bool(self._get_param("enableExecuteCommand"))
        made.availability_zone_rebalancing = self._get_param("availabilityZoneRebalancing") or "DISABLED"
        return answer

    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL  # type: ignore[method-assign]
    CloudTrailResponse.delete_trail = delete_trail  # type: ignore[method-assign]
    EC2ContainerServiceResponse.create_service = create_service  # type: ignore[method-assign]
    try:
        yield
    finally:
        FakeBucket.get_permission = permission  # type: ignore[method-assign]
        CloudTrailResponse.delete_trail = trail  # type: ignore[method-assign]
        EC2ContainerServiceResponse.create_service = service  # type: ignore[method-assign]


@dataclass(slots=True)
class Deployed:
    """The example in a folder of its own."""

    aws: Aws
    terraform: Terraform
    _said: dict[str, Any] | None = None

    def apply(self) -> None:
        self.terraform.run("apply", "-auto-approve", *QUIETLY, seconds=300)

    def is_empty(self) -> bool:
        """Whether a plan finds nothing to do: the exit code of -detailed-exitcode is 0."""
        return not self.terraform.differs(*QUIETLY, seconds=200)

    def destroy(self) -> None:
        self.terraform.run("destroy", "-auto-approve", *QUIETLY, seconds=300)

    def outputs(self) -> dict[str, Any]:
        if self._said is None:
            said = json.loads(self.terraform.run("output", "-json"))
            self._said = {name: one["value"] for name, one in said.items()}
        return self._said

    def types(self) -> set[str]:
        """The types of resources that its state has."""
        return {one["type"] for one in self.terraform.state()["resources"] if one["mode"] == "managed"}


QUIETLY = ("-input=false", "-no-color", "-parallelism=30")


def example(aws: Aws, engine: Path, mirror: Path, folder: Path) -> Deployed:
    """A copy of the module with its example, initialised."""
    root = folder / "aws"
    shutil.copytree(DEPLOY, root, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__"))
    work = root / "example"
    (work / "by_path_override.tf").write_text(BY_PATH)
    (work / "terraform.tfvars.json").write_text(json.dumps(variables(root_of_organization(aws))))
    env = {
        "PATH": "/usr/bin:/bin",
        "TF_CLI_CONFIG_FILE": str(write_cli_config(folder / "engine.tfrc", mirror)),
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    made = Deployed(aws, Terraform(engine, work, work, env))
    made.terraform.init()
    return made


def variables(organization: str) -> dict[str, Any]:
    images = {
        plane: f"registry.example.com/{plane}@sha256:{'0' * 63}{n}" for n, plane in enumerate(("controller", "runner"))
    }
    return {
        "account_id": ACCOUNT,
        "region": REGION,
        "images": images,
        "people": {
            "developers": [PEOPLE["developer"]],
            "admins": [PEOPLE["admin"]],
            "emergency": [PEOPLE["emergency"]],
            "installers": [PEOPLE["installer"]],
        },
        "ci": {"principals": [PEOPLE["ci"]], "secret_arn": CERTIFICATE},
        "secrets": {
            "controller": dict.fromkeys(("forge-token", "trigger.crt", "trigger.key", "clients.crt"), TOKENS),
            "runner": {"forge-token": TOKENS},
        },
        "deletion_protection": False,
        "organization_targets": [organization],
    }


def root_of_organization(aws: Aws) -> str:
    """The root of an organization, which is made."""
    client = aws.client("organizations")
    client.create_organization(FeatureSet="ALL")
    return str(client.list_roots()["Roots"][0]["Id"])


# --- what there is

Listed = Callable[[Callable[[str], Any]], set[str]]


def inventory(aws: Aws) -> dict[str, set[str]]:
    """What is in the account, by kind of resource, in both regions: what AWS keeps by itself is left out where it is asked for."""
    found: dict[str, set[str]] = {}
    for region in (REGION, GLOBAL):
        clients: dict[str, Any] = {}

        def client(service: str, region: str = region, clients: dict[str, Any] = clients) -> Any:
            if service not in clients:
                clients[service] = boto3.client(
                    service, region_name=region, endpoint_url=aws.endpoint,
                    aws_access_key_id="test", aws_secret_access_key="test",
                )  # fmt: skip
            return clients[service]

        for kind, (ask, _) in KINDS.items():
            found.setdefault(kind, set()).update(f"{region}/{one}" for one in ask(client))
    return found


def _ec2(verb: str, field: str, name: str, **alive: set[str]) -> Listed:
    def ask(client: Callable[[str], Any]) -> set[str]:
        listed = getattr(client("ec2"), f"describe_{verb}")()[field]
        return {one[name] for one in listed if all(one[key] in states for key, states in alive.items())}

    return ask


def _security_groups(client: Callable[[str], Any]) -> set[str]:
    """moto forgets to remove a network's default group with the network, as AWS does."""
    networks = {one["VpcId"] for one in client("ec2").describe_vpcs()["Vpcs"]}
    groups = client("ec2").describe_security_groups()["SecurityGroups"]
    return {one["GroupId"] for one in groups if one["VpcId"] in networks or one["GroupName"] != "default"}


def _security_group_rules(client: Callable[[str], Any]) -> set[str]:
    groups = _security_groups(client)
    rules = client("ec2").describe_security_group_rules()["SecurityGroupRules"]
    return {one["SecurityGroupRuleId"] for one in rules if one["GroupId"] in groups}


def _keys(client: Callable[[str], Any]) -> set[str]:
    """A key that is deleted is there for a month, on AWS as here, and can do nothing; AWS's own, of which there is one once a table is
    encrypted, nobody deletes."""
    kms = client("kms")
    described = [kms.describe_key(KeyId=one["KeyId"])["KeyMetadata"] for one in kms.list_keys()["Keys"]]
    own = {one.get("TargetKeyId") for one in kms.list_aliases()["Aliases"] if one["AliasName"].startswith("alias/aws/")}
    return {one["KeyId"] for one in described if one["KeyId"] not in own and one["KeyState"] != "PendingDeletion"}


def _interfaces(client: Callable[[str], Any]) -> set[str]:
    """moto forgets to remove a NAT gateway's interface with it, and lets its subnet go all the same, which AWS would not."""
    subnets = {one["SubnetId"] for one in client("ec2").describe_subnets()["Subnets"]}
    listed = client("ec2").describe_network_interfaces()["NetworkInterfaces"]
    return {one["NetworkInterfaceId"] for one in listed if one["SubnetId"] in subnets}


def _aliases(client: Callable[[str], Any]) -> set[str]:
    named = [one["AliasName"] for one in client("kms").list_aliases()["Aliases"]]
    return {name for name in named if not name.startswith("alias/aws/")}


def _clusters(client: Callable[[str], Any]) -> set[str]:
    """AWS, too, shows a cluster, a service and a task definition for a while after they were deleted, as INACTIVE."""
    ecs = client("ecs")
    arns = ecs.list_clusters()["clusterArns"]
    described = ecs.describe_clusters(clusters=arns)["clusters"] if arns else []
    return {one["clusterArn"] for one in described if one["status"] != "INACTIVE"}


def _services(client: Callable[[str], Any]) -> set[str]:
    ecs, found = client("ecs"), set()
    for cluster in _clusters(client):
        if arns := ecs.list_services(cluster=cluster)["serviceArns"]:
            described = ecs.describe_services(cluster=cluster, services=arns)["services"]
            found |= {one["serviceArn"] for one in described if one["status"] != "INACTIVE"}
    return found


def _policies_of_roles(client: Callable[[str], Any]) -> set[str]:
    iam = client("iam")
    roles = [one["RoleName"] for one in iam.list_roles()["Roles"]]
    return {f"{role}/{name}" for role in roles for name in iam.list_role_policies(RoleName=role)["PolicyNames"]}


def _targets(client: Callable[[str], Any]) -> set[str]:
    events = client("events")
    rules = [one["Name"] for one in events.list_rules()["Rules"]]
    return {f"{rule}/{one['Id']}" for rule in rules for one in events.list_targets_by_rule(Rule=rule)["Targets"]}


def _organization(client: Callable[[str], Any]) -> set[str]:
    listed = client("organizations").list_policies(Filter="SERVICE_CONTROL_POLICY")["Policies"]
    return {one["Name"] for one in listed}


def _each(service: str, verb: str, field: str, name: str = "", **words: Any) -> Listed:
    def ask(client: Callable[[str], Any]) -> set[str]:
        listed = getattr(client(service), verb)(**words).get(field, [])
        return {one[name] if name else one for one in listed}

    return ask


# Kind -> how it is listed, and which types of resources it is the list of. What has no list of its own goes with what it belongs to.
KINDS: Mapping[str, tuple[Listed, frozenset[str]]] = {
    "networks": (_ec2("vpcs", "Vpcs", "VpcId"), frozenset({"aws_vpc"})),
    "subnets": (_ec2("subnets", "Subnets", "SubnetId"), frozenset({"aws_subnet"})),
    "gateways": (_ec2("internet_gateways", "InternetGateways", "InternetGatewayId"), frozenset({"aws_internet_gateway"})),
    "nat": (
        _ec2("nat_gateways", "NatGateways", "NatGatewayId", State={"available", "pending"}),
        frozenset({"aws_nat_gateway"}),
    ),
    "addresses": (_ec2("addresses", "Addresses", "AllocationId"), frozenset({"aws_eip"})),
    "routes": (
        _ec2("route_tables", "RouteTables", "RouteTableId"),
        frozenset({"aws_route_table", "aws_route", "aws_route_table_association"}),
    ),
    "endpoints": (_ec2("vpc_endpoints", "VpcEndpoints", "VpcEndpointId", State={"available", "pending"}), frozenset({"aws_vpc_endpoint"})),
    "groups": (_security_groups, frozenset({"aws_security_group"})),
    "rules of groups": (
        _security_group_rules,
        frozenset({"aws_vpc_security_group_egress_rule", "aws_vpc_security_group_ingress_rule"}),
    ),
    "interfaces": (_interfaces, frozenset({"aws_nat_gateway"})),
    "buckets": (
        _each("s3", "list_buckets", "Buckets", "Name"),
        frozenset({
            "aws_s3_bucket", "aws_s3_bucket_lifecycle_configuration", "aws_s3_bucket_ownership_controls", "aws_s3_bucket_policy",
            "aws_s3_bucket_public_access_block", "aws_s3_bucket_server_side_encryption_configuration", "aws_s3_bucket_versioning",
        }),
    ),
    "keys": (_keys, frozenset({"aws_kms_key"})),
    "aliases": (_aliases, frozenset({"aws_kms_alias"})),
    "tables": (_each("dynamodb", "list_tables", "TableNames"), frozenset({"aws_dynamodb_table"})),
    "queues": (_each("sqs", "list_queues", "QueueUrls"), frozenset({"aws_sqs_queue", "aws_sqs_queue_policy"})),
    "topics": (_each("sns", "list_topics", "Topics", "TopicArn"), frozenset({"aws_sns_topic", "aws_sns_topic_policy"})),
    "logs": (
        _each("logs", "describe_log_groups", "logGroups", "logGroupName"),
        frozenset({"aws_cloudwatch_log_group"}),
    ),
    "clusters": (_clusters, frozenset({"aws_ecs_cluster", "aws_ecs_cluster_capacity_providers"})),
    "services": (_services, frozenset({"aws_ecs_service"})),
    "definitions": (
        _each("ecs", "list_task_definitions", "taskDefinitionArns", status="ACTIVE"),
        frozenset({"aws_ecs_task_definition"}),
    ),
    "roles": (_each("iam", "list_roles", "Roles", "RoleName"), frozenset({"aws_iam_role"})),
    "policies of roles": (_policies_of_roles, frozenset({"aws_iam_role_policy"})),
    "policies": (_each("iam", "list_policies", "Policies", "Arn", Scope="Local"), frozenset({"aws_iam_policy"})),
    "rules": (_each("events", "list_rules", "Rules", "Name"), frozenset({"aws_cloudwatch_event_rule"})),
    "targets": (_targets, frozenset({"aws_cloudwatch_event_target"})),
    "trails": (_each("cloudtrail", "describe_trails", "trailList", "TrailARN"), frozenset({"aws_cloudtrail"})),
    "alarms": (
        _each("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        frozenset({"aws_cloudwatch_metric_alarm"}),
    ),
    "organization": (
        _organization,
        frozenset({"aws_organizations_policy", "aws_organizations_policy_attachment"}),
    ),
}  # fmt: skip

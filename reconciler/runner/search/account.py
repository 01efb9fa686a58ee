"""An environment's AWS account, looked at for objects that carry our tags. It only reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from reconciler.model import UnitId
from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.sdk import session_of
from reconciler.runner.search.kinds import GLOBAL, KINDS

INSTALLATION, UNIT = "reconciler:installation", "reconciler:unit"
SECONDS = 180.0  # for one search
PATIENCE = (5, 20)  # seconds to connect, and between two signs of life
TRIES = 3
ENDPOINTS = {"resourcegroupstaggingapi": "RESOURCE_GROUPS_TAGGING_API"}  # in the names of variables
# What EC2 is asked for objects of a type, where the answer has them, and where an object has its id.
NETWORKS: Mapping[str, tuple[str, str, str]] = {
    "aws_ebs_volume": ("describe_volumes", "Volumes", "VolumeId"),
    "aws_eip": ("describe_addresses", "Addresses", "AllocationId"),
    "aws_instance": ("describe_instances", "Reservations", "InstanceId"),
    "aws_internet_gateway": ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
    "aws_launch_template": ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    "aws_nat_gateway": ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
    "aws_network_acl": ("describe_network_acls", "NetworkAcls", "NetworkAclId"),
    "aws_network_interface": ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
    "aws_route_table": ("describe_route_tables", "RouteTables", "RouteTableId"),
    "aws_security_group": ("describe_security_groups", "SecurityGroups", "GroupId"),
    "aws_subnet": ("describe_subnets", "Subnets", "SubnetId"),
    "aws_vpc": ("describe_vpcs", "Vpcs", "VpcId"),
    "aws_vpc_endpoint": ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
}
GONE = frozenset({"deleted", "deleting", "shutting-down", "terminated"})
THEIRS = "aws:"  # begins the tags of what a service made by itself, whatever else it copied


class SearchError(Exception):
    """It could not be looked: nothing is known. The text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object of an account. `unit` is what its tag says; None: it has none of our tags."""

    arn: str
    region: str
    unit: UnitId | None
    how: str


@dataclass(frozen=True)
class Account:
    """What answers to an environment's credentials for plans. `accounts`: the only ones that it may be; any, if empty."""

    installation: str
    variables: Mapping[str, str] = field(repr=False)
    keys: Renewing | None = field(repr=False)
    accounts: tuple[str, ...] = ()

    @cached_property
    def _end(self) -> float:
        return time.monotonic() + SECONDS

    def identity(self, region: str) -> tuple[str, str]:
        """The account's number and its part of the clouds. Raises SearchError: it is not one of those it may be."""
        said = self._ask("sts", region, lambda client: client.get_caller_identity())
        number, partition = str(said["Account"]), str(said["Arn"]).split(":")[1]
        if self.accounts and number not in self.accounts:
            raise SearchError(
                f"the credentials for plans are of the AWS account {number}, and allowed_account_ids has only "
                f"{', '.join(self.accounts)}; give the environment credentials of the account that it applies to"
            )
        return number, partition

    def tagged(self, region: str, unit: UnitId | None = None) -> Iterator[Found]:
        """All that the Resource Groups Tagging API lists in a region with the unit's tags, or any unit's."""
        filters = [{"Key": INSTALLATION, "Values": [self.installation]}]
        filters += [{"Key": UNIT, "Values": [unit]}] if unit else []
        for one in self._pages(
            "resourcegroupstaggingapi", region, "get_resources", "ResourceTagMappingList", TagFilters=filters
        ):
            if (whose := self._whose(one.get("Tags", ()))) is not None:
                yield Found(str(one["ResourceARN"]), region, whose, "listed with the unit's tags")

    def networks(
        self, kinds: Iterable[str], region: str, account: tuple[str, str], unit: UnitId | None = None
    ) -> Iterator[Found]:
        """Objects of these types as EC2 itself has them: it is never late, and knows what is deleted. `account`: see `identity`."""
        number, partition = account
        wanted = [{"Name": f"tag:{INSTALLATION}", "Values": [self.installation]}]
        wanted += [{"Name": f"tag:{UNIT}", "Values": [unit]}] if unit else []
        for kind in kinds:
            call, key, name = NETWORKS[kind]
            for page in self._pages("ec2", region, call, key, Filters=wanted):
                for one in page.get("Instances", (page,)):
                    if (whose := self._whose(one.get("Tags", ()))) is not None and not _is_gone(one.get("State")):
                        arn = f"arn:{partition}:ec2:{region}:{number}:{KINDS[kind].resource}{one[name]}"
                        yield Found(arn, region, whose, "EC2 has it with the unit's tags")

    def people(self, kind: str, partition: str, since: datetime | None = None) -> Iterator[Found]:
        """IAM's roles or users (`Role`, `User`), which no other API lists by their tags; those made since then, or all."""
        region = GLOBAL.get(partition, GLOBAL["aws"])
        for one in self._pages("iam", region, f"list_{kind.lower()}s", f"{kind}s"):
            if since is not None and one["CreateDate"] < since:
                continue
            wanted = {f"{kind}Name": str(one[f"{kind}Name"])}
            tags = list(self._pages("iam", region, f"list_{kind.lower()}_tags", "Tags", **wanted))
            if (whose := self._whose(tags)) is not None:
                yield Found(str(one["Arn"]), region, whose, "IAM has it with the unit's tags")

    def buckets(self, region: str, partition: str, since: datetime, names: frozenset[str]) -> Iterator[Found]:
        """Buckets of a region that were made since then, called so, or anything if that is empty; not those with somebody else's tags."""
        made = self._ask("s3", region, lambda client: client.list_buckets())
        for one in made.get("Buckets", ()):
            name = str(one["Name"])
            if one["CreationDate"] < since or (names and name not in names) or self._region_of(name, region) != region:
                continue
            tags = self._tags_of(name, region)
            whose = self._whose(tags)
            if whose is not None or not tags:
                how = "S3 has it with the unit's tags" if tags else "a bucket without tags, made while the apply ran"
                yield Found(f"arn:{partition}:s3:::{name}", region, whose, how)

    def _region_of(self, bucket: str, region: str) -> str:
        said = self._ask("s3", region, lambda client: client.get_bucket_location(Bucket=bucket))
        where = said.get("LocationConstraint")
        return {None: "us-east-1", "EU": "eu-west-1"}.get(where, str(where))

    def _tags_of(self, bucket: str, region: str) -> list[dict[str, Any]]:
        said = self._ask("s3", region, lambda client: client.get_bucket_tagging(Bucket=bucket), none=("NoSuchTagSet",))
        return list(said.get("TagSet", ()))

    def _whose(self, tags: Any) -> UnitId | None:
        """The unit that tags name, if they are this installation's; what a service made by itself is nobody's."""
        said = {str(one["Key"]): str(one["Value"]) for one in tags}
        if said.get(INSTALLATION) != self.installation or UNIT not in said:
            return None
        return None if any(key.startswith(THEIRS) for key in said) else UnitId(said[UNIT])

    # --- requests

    def _pages(self, service: str, region: str, call: str, key: str, **words: Any) -> Iterator[Mapping[str, Any]]:
        def pages(client: Any) -> list[Mapping[str, Any]]:
            found: list[Mapping[str, Any]] = []
            paged = client.can_paginate(call)
            for page in client.get_paginator(call).paginate(**words) if paged else [getattr(client, call)(**words)]:
                found += page.get(key, ())
                if time.monotonic() > self._end:
                    raise SearchError(f"{service} in {region} did not tell all within {SECONDS:.0f} seconds")
            return found

        yield from self._ask(service, region, pages)

    def _ask(self, service: str, region: str, ask: Callable[[Any], Any], none: tuple[str, ...] = ()) -> Any:
        """Raises SearchError."""
        from botocore.exceptions import BotoCoreError, ClientError

        if time.monotonic() > self._end:
            raise SearchError(f"it was not at its end after {SECONDS:.0f} seconds, before {service} in {region}")
        try:
            return ask(self._client(service, region))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in none:
                return {}
            raise SearchError(
                f"{service} in {region} refuses {error.operation_name} ({code}); let credentials.plan do what "
                "docs/operations.md lists for this search"
            ) from None
        except BotoCoreError as error:
            raise SearchError(f"{service} in {region} does not answer ({type(error).__name__})") from None

    @cached_property
    def _session(self) -> Any:
        return session_of(self.variables, self.keys)

    @cached_property
    def _clients(self) -> dict[tuple[str, str], Any]:
        return {}  # to make one takes longer than to ask it

    def _client(self, service: str, region: str) -> Any:
        if (service, region) not in self._clients:
            self._clients[service, region] = self._made(service, region)
        return self._clients[service, region]

    def _made(self, service: str, region: str) -> Any:
        from botocore.config import Config

        said = self.variables
        own = said.get(f"AWS_ENDPOINT_URL_{ENDPOINTS.get(service, service.upper())}") or said.get("AWS_ENDPOINT_URL")
        return self._session.client(
            service,
            region_name=region,
            endpoint_url=own,
            verify=said.get("AWS_CA_BUNDLE"),
            config=Config(
                connect_timeout=PATIENCE[0], read_timeout=PATIENCE[1], retries={"total_max_attempts": TRIES},
                s3={"addressing_style": "path" if own else "auto"},
            ),
        )  # fmt: skip


def _is_gone(state: Any) -> bool:
    """Whether EC2 only remembers it."""
    return (state.get("Name") if isinstance(state, Mapping) else state) in GONE

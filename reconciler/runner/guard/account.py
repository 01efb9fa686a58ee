"""An account's identities and policies, read. The one place of this package that knows boto3; it only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import PassError
from reconciler.runner.guard.audit import Account, Identity, Resource
from reconciler.runner.guard.policy import Statement, statements

PATIENCE = (5, 60)  # seconds to connect, and to answer
TRIES = 5
EVERYTHING = "that could not be read: it is taken to allow everything"
NONE = ("NoSuchBucketPolicy", "AWS.SimpleQueueService.NonExistentQueue", "NotFoundException", "NoSuchBucket")


@dataclass(slots=True)
class Reader:
    """Reads one account, as whoever the profile is; if there is none, as boto3 finds. `endpoint`: instead of AWS's."""

    region: str
    profile: str | None = None
    endpoint: str | None = None
    unread: list[str] = field(default_factory=list)
    _session: Any = None

    def read(self) -> Account:
        """All of it. Raises PassError "AccountUnreadable": its identities cannot be read."""
        try:
            number = str(self._client("sts").get_caller_identity()["Account"])
            details = self._details()
        except Exception as error:
            if not _of_aws(error):
                raise
            raise PassError(
                "AccountUnreadable",
                f"The account's identities cannot be read ({type(error).__name__}: {error}); it takes credentials with "
                "iam:GetAccountAuthorizationDetails: an admin's, by --profile or as the AWS SDKs find them.",
            ) from error
        identities = _identities(details, self.unread)
        resources = [
            one for kind in (self._buckets, self._keys, self._queues, self._topics) for one in self._some(kind)
        ]
        return Account(number, identities, resources, tuple(self.unread))

    def _details(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for page in self._client("iam").get_paginator("get_account_authorization_details").paginate():
            for name in ("UserDetailList", "GroupDetailList", "RoleDetailList", "Policies"):
                found.setdefault(name, []).extend(page.get(name, ()))
        return found

    def _some(self, kind: Callable[[], Iterator[tuple[str, str]]]) -> Iterator[Resource]:
        """The resources of a kind that have a policy. Those that cannot be listed are told, and hold up nothing else."""
        what = kind.__name__.strip("_")
        try:
            for arn, policy in kind():
                yield Resource(arn, tuple(self._parsed(policy, f"the policy of {arn}")))
        except Exception as error:
            if not _of_aws(error):
                raise
            self.unread.append(f"{what}: {type(error).__name__}: {error}")

    def _parsed(self, policy: str, source: str) -> list[Statement]:
        try:
            return statements(policy, source)
        except ValueError as error:
            self.unread.append(str(error))
            return [Statement(f"{source} {EVERYTHING}", allows=True, principals=(("AWS", "*"),))]

    def _buckets(self) -> Iterator[tuple[str, str]]:
        s3 = self._client("s3")
        for bucket in s3.list_buckets().get("Buckets", ()):
            name = bucket["Name"]

            def ask(name: str = name) -> str:
                return str(s3.get_bucket_policy(Bucket=name)["Policy"])

            policy = self._perhaps(f"the bucket {name}", ask)
            if policy:
                yield f"arn:aws:s3:::{name}", policy

    def _keys(self) -> Iterator[tuple[str, str]]:
        kms = self._client("kms")
        for page in kms.get_paginator("list_keys").paginate():
            for key in page["Keys"]:
                arn = key["KeyArn"]

                def ask(key: str = key["KeyId"]) -> str:
                    return str(kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"])

                if policy := self._perhaps(f"the key {arn}", ask):
                    yield arn, policy

    def _queues(self) -> Iterator[tuple[str, str]]:
        sqs = self._client("sqs")
        for page in sqs.get_paginator("list_queues").paginate():
            for url in page.get("QueueUrls", ()):

                def ask(url: str = url) -> Mapping[str, str]:
                    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy", "QueueArn"])
                    attributes: Mapping[str, str] = found.get("Attributes", {})
                    return attributes

                found = self._perhaps(f"the queue {url}", ask)
                if found and found.get("Policy"):
                    yield found.get("QueueArn", url), found["Policy"]

    def _topics(self) -> Iterator[tuple[str, str]]:
        sns = self._client("sns")
        for page in sns.get_paginator("list_topics").paginate():
            for topic in page["Topics"]:
                arn = topic["TopicArn"]

                def ask(arn: str = arn) -> str:
                    return str(sns.get_topic_attributes(TopicArn=arn)["Attributes"].get("Policy", ""))

                if policy := self._perhaps(f"the topic {arn}", ask):
                    yield arn, policy

    def _perhaps(self, what: str, ask: Callable[[], Any]) -> Any:
        """What one resource says; None where it has none, or does not say."""
        try:
            return ask()
        except Exception as error:
            if not _of_aws(error):
                raise
            code = getattr(error, "response", {}).get("Error", {}).get("Code")
            if code not in NONE:
                self.unread.append(f"{what}: {error}")
            return None

    def _client(self, service: str) -> Any:
        from botocore.config import Config

        if self._session is None:
            import boto3

            self._session = boto3.Session(profile_name=self.profile, region_name=self.region)
        patience = Config(
            connect_timeout=PATIENCE[0], read_timeout=PATIENCE[1], retries={"mode": "standard", "max_attempts": TRIES}
        )
        return self._session.client(service, endpoint_url=self.endpoint, config=patience)


def _of_aws(error: Exception) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    return isinstance(error, BotoCoreError | ClientError | OSError)


def _identities(details: Mapping[str, Sequence[Mapping[str, Any]]], unread: list[str]) -> list[Identity]:
    """Users and roles with all policies that count for them. A policy that is not told is taken to allow everything."""
    managed = {one["Arn"]: _default(one) for one in details["Policies"]}

    def parsed(document: object, source: str) -> list[Statement]:
        try:
            return statements(document, source)
        except ValueError as error:
            unread.append(str(error))
            return [Statement(f"{source} {EVERYTHING}", allows=True)]

    def attached(one: Mapping[str, Any]) -> Iterator[Statement]:
        for policy in one.get("AttachedManagedPolicies", ()):
            yield from parsed(managed.get(policy["PolicyArn"]), f"the policy {policy['PolicyArn']}")

    def inline(one: Mapping[str, Any], name: str, whose: str) -> Iterator[Statement]:
        for policy in one.get(name, ()):
            yield from parsed(policy["PolicyDocument"], f"the inline policy {policy['PolicyName']} of {whose}")

    def bounded(one: Mapping[str, Any]) -> tuple[Statement, ...] | None:
        arn = (one.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn")
        return tuple(parsed(managed.get(arn), f"the boundary {arn}")) if arn else None

    groups = {
        one["GroupName"]: [*inline(one, "GroupPolicyList", f"the group {one['GroupName']}"), *attached(one)]
        for one in details["GroupDetailList"]
    }
    users = [
        Identity(
            arn=one["Arn"],
            policies=(
                *inline(one, "UserPolicyList", "the user itself"),
                *attached(one),
                *(each for group in one.get("GroupList", ()) for each in groups.get(group, ())),
            ),
            boundary=bounded(one),
        )
        for one in details["UserDetailList"]
    ]
    roles = [
        Identity(
            arn=one["Arn"],
            policies=(*inline(one, "RolePolicyList", "the role itself"), *attached(one)),
            boundary=bounded(one),
            trust=tuple(parsed(one.get("AssumeRolePolicyDocument"), f"the trust policy of {one['Arn']}")),
        )
        for one in details["RoleDetailList"]
    ]
    return [*users, *roles]


def _default(policy: Mapping[str, Any]) -> object:
    """The version of a managed policy that counts."""
    versions = [one for one in policy.get("PolicyVersionList", ()) if one.get("IsDefaultVersion")]
    return versions[0].get("Document") if versions else None

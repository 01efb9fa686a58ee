"""The search against a server that answers as AWS does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.model import UnitId
from reconciler.runner.search.account import NETWORKS, Account, Found, SearchError
from reconciler.runner.search.kinds import KINDS
from tests.kit.aws import ACCOUNT, REGION, Aws, serving

UNIT = UnitId("prod/net")
OURS: dict[str, str] = {"reconciler:installation": "here", "reconciler:unit": str(UNIT)}
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
WHO = (ACCOUNT, "aws")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    with serving() as found:
        yield found


@pytest.fixture
def aws(cloud: Aws) -> Aws:
    cloud.reset()
    return cloud


def account(aws: Aws, **more: Any) -> Account:
    return Account("here", {**KEYS, "AWS_ENDPOINT_URL": aws.endpoint}, None, **more)


def words(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def vpc(aws: Aws, tags: dict[str, str]) -> str:
    specification = [{"ResourceType": "vpc", "Tags": words(tags)}] if tags else []
    made = aws.client("ec2").create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=specification)
    return str(made["Vpc"]["VpcId"])


def test_a_network_is_found_by_both_tags_and_not_once_it_is_deleted(aws: Aws) -> None:
    mine = vpc(aws, OURS)
    vpc(aws, {})
    vpc(aws, OURS | {"reconciler:installation": "elsewhere"})
    other = vpc(aws, OURS | {"reconciler:unit": "prod/other"})
    arn = f"arn:aws:ec2:{REGION}:{ACCOUNT}:vpc/"
    look = account(aws)
    assert [one.arn for one in look.networks(["aws_vpc"], REGION, WHO, UNIT)] == [arn + mine]
    assert {one.arn for one in look.networks(["aws_vpc"], REGION, WHO)} == {arn + mine, arn + other}
    aws.client("ec2").delete_vpc(VpcId=mine)
    assert list(look.networks(["aws_vpc"], REGION, WHO, UNIT)) == []


def test_every_type_that_ec2_is_asked_for_can_be_asked(aws: Aws) -> None:
    assert NETWORKS.keys() == {name for name, kind in KINDS.items() if kind.service == "ec2"}
    assert list(account(aws).networks(NETWORKS, REGION, WHO)) == []


def test_what_ended_is_not_there(aws: Aws) -> None:
    ec2 = aws.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    tags = [{"ResourceType": "instance", "Tags": words(OURS)}]
    made = ec2.run_instances(ImageId=image, MinCount=2, MaxCount=2, TagSpecifications=tags)["Instances"]
    one, other = (str(instance["InstanceId"]) for instance in made)
    ec2.terminate_instances(InstanceIds=[one])
    found = list(account(aws).networks(["aws_instance"], REGION, WHO, UNIT))
    assert found == [Found(f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{other}", REGION, UNIT, found[0].how)]


def test_tables_and_queues_are_listed_by_the_tagging_api(aws: Aws) -> None:
    key = {"AttributeName": "k", "AttributeType": "S"}
    schema = [{"AttributeName": "k", "KeyType": "HASH"}]
    for name, tags in (("mine", OURS), ("other", {"reconciler:unit": str(UNIT)})):
        aws.client("dynamodb").create_table(
            TableName=name,
            AttributeDefinitions=[key],
            KeySchema=schema,
            BillingMode="PAY_PER_REQUEST",
            Tags=words(tags),
        )
        aws.client("sqs").create_queue(QueueName=name, tags=tags)
    found = {one.arn for one in account(aws).tagged(REGION, UNIT)}
    assert found == {
        f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/mine",
        f"arn:aws:sqs:{REGION}:{ACCOUNT}:mine",
    }
    assert list(account(aws).tagged("eu-central-1", UNIT)) == []


def test_roles_and_users_are_found_by_their_tags_since_a_time(aws: Aws) -> None:
    iam = aws.client("iam")
    iam.create_role(RoleName="mine", Path="/deep/", AssumeRolePolicyDocument="{}", Tags=words(OURS))
    iam.create_role(RoleName="other", AssumeRolePolicyDocument="{}")
    iam.create_user(UserName="mine", Tags=words(OURS))
    look, now = account(aws), datetime.now(UTC)
    assert [one.arn for one in look.people("Role", "aws")] == [f"arn:aws:iam::{ACCOUNT}:role/deep/mine"]
    assert [one.arn for one in look.people("User", "aws", now - timedelta(minutes=1))] == [
        f"arn:aws:iam::{ACCOUNT}:user/mine"
    ]
    assert list(look.people("User", "aws", now + timedelta(minutes=1))) == []


def test_a_bucket_without_tags_is_suspicious_by_its_name_and_its_time(aws: Aws) -> None:
    s3, now = aws.client("s3"), datetime.now(UTC)
    where = {"LocationConstraint": REGION}
    for name in ("bare", "ours", "theirs"):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
    s3.put_bucket_tagging(Bucket="ours", Tagging={"TagSet": words(OURS)})
    s3.put_bucket_tagging(Bucket="theirs", Tagging={"TagSet": words({"team": "x"})})
    look, since = account(aws), now - timedelta(minutes=1)
    found = {one.arn: one.unit for one in look.buckets(REGION, "aws", since, frozenset({"bare", "ours", "theirs"}))}
    assert found == {"arn:aws:s3:::bare": None, "arn:aws:s3:::ours": UNIT}
    assert {one.arn for one in look.buckets(REGION, "aws", since, frozenset({"bare"}))} == {"arn:aws:s3:::bare"}
    assert "arn:aws:s3:::bare" in {one.arn for one in look.buckets(REGION, "aws", since, frozenset())}
    assert list(look.buckets(REGION, "aws", now + timedelta(minutes=1), frozenset())) == []
    assert list(look.buckets("eu-central-1", "aws", since, frozenset({"bare"}))) == []


def test_another_account_than_the_allowed_one_is_not_searched(aws: Aws) -> None:
    assert account(aws, accounts=(ACCOUNT,)).identity(REGION) == WHO
    with pytest.raises(SearchError, match=f"account {ACCOUNT}, and allowed_account_ids has only 999999999999"):
        account(aws, accounts=("999999999999",)).identity(REGION)


def test_nobody_who_answers_is_said() -> None:
    gone = Account("here", {**KEYS, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, None)
    with pytest.raises(SearchError, match="sts in eu-west-1 does not answer"):
        gone.identity(REGION)

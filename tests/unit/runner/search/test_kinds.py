from __future__ import annotations

import pytest

from reconciler.runner.search.kinds import delete_command, parse_arn, untag_command

EC2 = "arn:aws:ec2:eu-west-1:1:"


@pytest.mark.parametrize(
    ("arn", "kind", "name"),
    [
        (f"{EC2}vpc/vpc-1", "aws_vpc", "vpc-1"),
        (f"{EC2}vpc-endpoint/vpce-1", "aws_vpc_endpoint", "vpce-1"),
        ("arn:aws:sqs:eu-west-1:1:jobs", "aws_sqs_queue", "jobs"),
        ("arn:aws:s3:::a-bucket", "aws_s3_bucket", "a-bucket"),
        ("arn:aws:dynamodb:eu-west-1:1:table/t", "aws_dynamodb_table", "t"),
        ("arn:aws:iam::1:role/deep/path/r", "aws_iam_role", "deep/path/r"),
        ("arn:aws:logs:eu-west-1:1:log-group:/aws/x:y", "aws_cloudwatch_log_group", "/aws/x:y"),
        ("arn:aws:sns:eu-west-1:1:topic:6c5a", None, "6c5a"),  # a subscription
        ("arn:aws:new:eu-west-1:1:thing/a/b", None, "b"),
        ("no arn", None, "no arn"),
    ],
)
def test_an_arn_names_a_type_and_what_a_command_calls_it(arn: str, kind: str | None, name: str) -> None:
    parsed = parse_arn(arn)
    assert (parsed.kind, parsed.id) == (kind, name)


@pytest.mark.parametrize(
    ("arn", "command"),
    [
        (f"{EC2}vpc/vpc-1", "`aws ec2 delete-vpc --vpc-id vpc-1 --region eu-west-1`"),
        ("arn:aws:iam::1:role/deep/r", "`aws iam delete-role --role-name r`"),
        ("arn:aws:new:eu-west-1:1:a/b", "delete arn:aws:new:eu-west-1:1:a/b with its service's own command"),
        (f"{EC2}vpc/$(x)", "`aws ec2 delete-vpc --vpc-id '$(x)' --region eu-west-1`"),
    ],
)
def test_the_command_deletes_this_very_object_and_runs_nothing_else(arn: str, command: str) -> None:
    assert delete_command(parse_arn(arn), "eu-west-1") == command


def test_what_is_let_go_loses_its_tag() -> None:
    assert untag_command(parse_arn(f"{EC2}vpc/vpc-1"), "eu-west-1") == (
        "`aws resourcegroupstaggingapi untag-resources --resource-arn-list arn:aws:ec2:eu-west-1:1:vpc/vpc-1 "
        "--tag-keys reconciler:unit --region eu-west-1`"
    )
    role = parse_arn("arn:aws:iam::1:role/deep/r")
    assert untag_command(role, "us-east-1") == "`aws iam untag-role --role-name r --tag-keys reconciler:unit`"

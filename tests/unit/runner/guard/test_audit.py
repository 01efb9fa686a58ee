"""Who could write in an account, through how many roles; and an account of moto's with holes in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import main
from reconciler.errors import PassError
from reconciler.runner.guard.account import Reader, _identities
from reconciler.runner.guard.audit import OUTSIDE, Account, Identity, Resource, audit
from reconciler.runner.guard.policy import Statement, statements
from tests.kit.aws import ACCOUNT, REGION, Aws, serving

WRITE = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}
LOOK = {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}


def arn(name: str, account: str = ACCOUNT) -> str:
    return f"arn:aws:iam::{account}:{name}"


def parsed(*found: dict[str, Any]) -> tuple[Statement, ...]:
    return tuple(statements({"Statement": list(found)}, "p"))


def trusts(principal: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal, **more}


def role(name: str, *policies: dict[str, Any], trust: list[dict[str, Any]]) -> Identity:
    return Identity(arn(f"role/{name}"), parsed(*policies), trust=parsed(*trust))


def user(name: str, *policies: dict[str, Any]) -> Identity:
    return Identity(arn(f"user/{name}"), parsed(*policies))


ASSUME = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
ROOT = {"AWS": arn("root")}


def found(*identities: Identity, allowed: tuple[str, ...] = (), resources: tuple[Resource, ...] = ()) -> dict[str, Any]:
    who = audit(Account(ACCOUNT, identities, resources), allowed)
    return {one.principal.removeprefix(arn("")): [by.removeprefix(arn("")) for by in one.by] for one in who}


@pytest.mark.parametrize(
    ("trust", "others"),
    [
        ([trusts({"AWS": arn("user/ann")})], {"user/ann": ["role/w"]}),
        ([trusts(ROOT)], {"user/may": ["role/w"]}),
        ([trusts({"AWS": ACCOUNT})], {"user/may": ["role/w"]}),
        ([trusts("*")], {"*": ["role/w"], "user/may": ["role/w"]}),
        ([trusts({"AWS": arn("role/ci", "999999999999")})], {arn("role/ci", "999999999999"): ["role/w"]}),
        ([trusts({"Service": "ec2.amazonaws.com"})], {"ec2.amazonaws.com": ["role/w"]}),
        ([trusts({"Federated": "cognito-identity.amazonaws.com"}, Action="sts:AssumeRoleWithWebIdentity")],
         {"cognito-identity.amazonaws.com": ["role/w"]}),
        ([trusts(ROOT, Condition={"StringEquals": {"sts:ExternalId": "x"}})], {"user/may": ["role/w"]}),
        ([trusts({"AWS": arn("user/ann")}, Action="sts:TagSession")], {}),
        ([trusts({"AWS": arn("user/ann")}, Effect="Deny")], {}),
        ([trusts({"AWS": arn("user/ann")}), trusts("*", Effect="Deny")], {}),
        ([{"Effect": "Allow", "Action": "sts:*", "NotPrincipal": {"AWS": arn("user/bob")}}],
         {"*": ["role/w"], "user/may": ["role/w"]}),
        ([], {}),
    ],
)  # fmt: skip
def test_who_may_become_a_role_that_writes(trust: list[dict[str, Any]], others: dict[str, Any]) -> None:
    seen = found(role("w", WRITE, trust=trust), user("ann"), user("may", ASSUME), allowed=(arn("role/w"),))
    assert seen == others


def test_through_several_roles_and_round_in_circles() -> None:
    chain = (
        role("w", WRITE, trust=[trusts({"AWS": arn("role/b")})]),
        role("b", LOOK, trust=[trusts({"AWS": arn("role/a")})]),
        role("a", LOOK, trust=[trusts({"AWS": arn("role/b")}), trusts({"AWS": arn("user/ann")})]),
        user("ann", LOOK),
        user("bob", LOOK),
    )
    assert found(*chain, allowed=(arn("role/w"),)) == {
        "role/b": ["role/w"],
        "role/a": ["role/b", "role/w"],
        "user/ann": ["role/a", "role/b", "role/w"],
    }


def test_whoever_is_allowed_is_left_out_and_whoever_may_become_him_is_not() -> None:
    them = (role("w", WRITE, trust=[trusts({"AWS": arn("user/ann")})]), user("ann"), user("writer", WRITE))
    assert set(found(*them, allowed=(arn("role/*"),))) == {"user/ann", "user/writer"}
    assert found(*them, allowed=(arn("*"),)) == {}


def test_a_role_that_a_service_has_for_itself_leads_nowhere() -> None:
    linked = role("aws-service-role/rds.amazonaws.com/R", WRITE, trust=[trusts({"Service": "rds.amazonaws.com"})])
    assert set(found(linked)) == {"role/aws-service-role/rds.amazonaws.com/R"}


@pytest.mark.parametrize(
    ("policy", "others"),
    [
        ({**WRITE, "Principal": "*"}, {"*"}),
        ({**WRITE, "Principal": {"AWS": "999999999999"}}, {"999999999999"}),
        ({**WRITE, "Principal": {"AWS": [arn("user/ann"), arn("root")]}}, {"user/ann"}),
        ({**WRITE, "Principal": {"Service": "logs.amazonaws.com"}}, {"logs.amazonaws.com"}),
        ({**LOOK, "Principal": "*"}, set()),
        ({**WRITE, "Effect": "Deny", "Principal": "*"}, set()),
    ],
)
def test_who_is_let_by_a_resource(policy: dict[str, Any], others: set[str]) -> None:
    assert set(found(resources=(Resource("arn:aws:s3:::b", parsed(policy)),))) == others


def test_kinds() -> None:
    outside = arn("user/x", "999999999999")
    shown = audit(Account(ACCOUNT, [role("w", WRITE, trust=[trusts({"AWS": outside})]), user("u", WRITE)]), ())
    assert {one.principal: one.kind for one in shown} == {
        arn("role/w"): "role",
        arn("user/u"): "user",
        outside: OUTSIDE,
    }


# --- an account with holes in it


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with serving() as aws, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        plant(aws)
        yield aws


def document(*found: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(found)})


def plant(aws: Aws) -> None:
    iam = aws.client("iam")
    made = iam.create_policy(PolicyName="grew", PolicyDocument=document(LOOK))["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=made, PolicyDocument=document(WRITE), SetAsDefault=True)
    shrunk = iam.create_policy(PolicyName="shrunk", PolicyDocument=document(WRITE))["Policy"]["Arn"]
    iam.create_policy_version(PolicyArn=shrunk, PolicyDocument=document(LOOK), SetAsDefault=True)
    bound = iam.create_policy(PolicyName="bound", PolicyDocument=document(LOOK))["Policy"]["Arn"]
    for name in ("inline", "grown", "shrunk", "grouped", "reader"):
        iam.create_user(UserName=name)
    no_one = document(trusts({"AWS": arn("user/nobody")}, Effect="Deny"))
    iam.create_role(RoleName="bounded", AssumeRolePolicyDocument=no_one, PermissionsBoundary=bound)
    iam.create_user(UserName="denied")
    iam.put_user_policy(UserName="inline", PolicyName="p", PolicyDocument=document(WRITE))
    iam.put_role_policy(RoleName="bounded", PolicyName="p", PolicyDocument=document({**WRITE, "Action": "*"}))
    iam.put_user_policy(
        UserName="denied", PolicyName="p",
        PolicyDocument=document(WRITE, {"Effect": "Deny", "Action": "s3:*", "Resource": "*"}),
    )  # fmt: skip
    iam.put_user_policy(UserName="reader", PolicyName="p", PolicyDocument=document(LOOK))
    iam.attach_user_policy(UserName="grown", PolicyArn=made)
    iam.attach_user_policy(UserName="shrunk", PolicyArn=shrunk)
    iam.create_group(GroupName="admins")
    iam.put_group_policy(GroupName="admins", PolicyName="p", PolicyDocument=document(WRITE))
    iam.add_user_to_group(GroupName="admins", UserName="grouped")
    for name, who in (("apply", arn("user/runner")), ("elsewhere", arn("root", "999999999999"))):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=document(trusts({"AWS": who})))
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(WRITE))
    aws.client("s3").create_bucket(Bucket="open", CreateBucketConfiguration={"LocationConstraint": REGION})
    opened = {**WRITE, "Principal": {"AWS": arn("root", "888888888888")}, "Resource": "arn:aws:s3:::open/*"}
    aws.client("s3").put_bucket_policy(Bucket="open", Policy=document(opened))
    aws.client("s3").create_bucket(Bucket="shut", CreateBucketConfiguration={"LocationConstraint": REGION})
    aws.client("kms").create_key(
        Policy=document({"Effect": "Allow", "Action": "kms:*", "Resource": "*", "Principal": ROOT})
    )
    aws.client("sqs").create_queue(
        QueueName="q",
        Attributes={"Policy": document({**WRITE, "Action": "sqs:SendMessage", "Principal": {"AWS": "777777777777"}})},
    )
    aws.client("sns").create_topic(
        Name="t",
        Attributes={"Policy": document({**WRITE, "Action": "sns:Publish", "Principal": {"AWS": "666666666666"}})},
    )


HOLES = {
    "arn:aws:iam::888888888888:root", "777777777777", "666666666666", "arn:aws:iam::999999999999:root",
    arn("role/elsewhere"), arn("user/grouped"), arn("user/grown"), arn("user/inline"), arn("user/runner"),
}  # fmt: skip


@pytest.mark.slow
def test_each_hole_that_was_planted_is_found_and_nothing_else(server: Aws) -> None:
    account = Reader(REGION, endpoint=server.endpoint).read()
    assert account.unread == ()
    others = audit(account, [arn("role/apply")])
    assert {one.principal for one in others} == HOLES
    why = {one.principal: one.why for one in others}
    assert why[arn("user/grouped")] == ("the inline policy p of the group admins, statement 1: s3:putobject on *",)
    assert why[arn("user/grown")] == (f"the policy {arn('policy/grew')}, statement 1: s3:putobject on *",)


RUNNER = """\
environments_repo: {url: /srv/environments.git, allow_file: true, signatures: off}
memory: {path: memory}
allow: []
engine: auto
environments:
  prod:
    class: protected
    backend: {local: {path: states}}
    allowed_account_ids: ["%s"]
    credentials: {apply: {assume_role: {role: "%s"}}}
"""


@pytest.mark.slow
def test_the_command_names_them_and_exits_with_2(
    server: Aws, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "runner.yaml"
    config.write_text(RUNNER % (ACCOUNT, arn("role/apply")))
    words = ["guard", "audit", "prod", "--config", str(config), "--endpoint", server.endpoint, "--region", REGION]
    assert main(words) == 2
    said = capsys.readouterr()
    assert f"{arn('user/inline')} (user)" in " ".join(said.out.split())
    assert "9 principals" in said.err
    assert main([*words, "-o", "json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert {one["principal"] for one in told["others"]} == HOLES
    assert main([*words, *(word for hole in HOLES for word in ("--allow", hole))]) == 0
    assert "0 principals" in capsys.readouterr().err
    config.write_text(RUNNER % ("222222222222", arn("role/apply")))
    assert main(words) == 1
    assert "Your credentials are of the account 123456789012" in capsys.readouterr().err
    assert main([*words[:2], "stage", *words[3:]]) == 1
    assert "no environment stage" in capsys.readouterr().err


@pytest.mark.slow
def test_a_policy_that_is_not_told_counts_as_everything_and_what_cannot_be_read_is_told(
    server: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Reader._details

    def less(self: Reader) -> Any:
        found = plain(self)
        return {**found, "Policies": []}

    monkeypatch.setattr(Reader, "_details", less)
    account = Reader(REGION, endpoint=server.endpoint).read()
    assert arn("user/shrunk") in {one.principal for one in audit(account, ())}
    assert any("policy/shrunk" in one for one in account.unread)


def test_an_account_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.runner.guard.account.TRIES", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(PassError, match="iam:GetAccountAuthorizationDetails") as caught:
        Reader(REGION, endpoint="http://127.0.0.1:9").read()
    assert caught.value.reason == "AccountUnreadable"


def test_the_boundary_of_a_user_counts_and_one_that_is_not_told_bounds_nothing() -> None:
    def details(bound: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
        who = {
            "Arn": arn("user/bounded"),
            "UserPolicyList": [{"PolicyName": "p", "PolicyDocument": {"Statement": {**WRITE, "Action": "*"}}}],
            "PermissionsBoundary": {"PermissionsBoundaryArn": arn("policy/b")},
        }
        version = {"IsDefaultVersion": True, "Document": {"Statement": [bound]}}
        policies = [{"Arn": arn("policy/b"), "PolicyVersionList": [version]}]
        return {"UserDetailList": [who], "GroupDetailList": [], "RoleDetailList": [], "Policies": policies}

    unread: list[str] = []
    assert found(*_identities(details(LOOK), unread)) == {}
    assert set(found(*_identities(details(WRITE), unread))) == {"user/bounded"}
    assert unread == []
    assert set(found(*_identities({**details(LOOK), "Policies": []}, unread))) == {"user/bounded"}
    assert len(unread) == 1

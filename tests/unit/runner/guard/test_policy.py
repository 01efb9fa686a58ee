"""Policies of IAM: what could be written, by whom, and how the patterns read."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.runner.guard.patterns import covers, match, meet
from reconciler.runner.guard.policy import granted, is_read, lets, statements, writes

words = st.text("abA:?*[", max_size=6)
plain = st.text("abA:[", max_size=6)


@given(words, plain)
def test_a_pattern_is_like_what_another_reader_says(pattern: str, text: str) -> None:
    assert match(pattern, text) is fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


@given(words, words, plain)
def test_what_is_covered_is_matched_by_the_outer_one(outer: str, inner: str, text: str) -> None:
    if covers(outer, inner) and match(inner, text):
        assert match(outer, text)


@given(words)
def test_a_pattern_covers_itself_and_star_covers_all(pattern: str) -> None:
    assert covers(pattern, pattern)
    assert covers("*", pattern)
    assert meet([pattern])
    assert meet([pattern, "*"])


@given(st.lists(words, min_size=1, max_size=3), plain)
def test_what_is_like_all_of_them_says_that_they_meet(patterns: list[str], text: str) -> None:
    if all(match(pattern, text) for pattern in patterns):
        assert meet(patterns)


@given(st.text("ab*?", max_size=5), st.text("ab*?", max_size=5))
def test_patterns_that_meet_have_a_text_between_them(one: str, other: str) -> None:
    texts = [""]
    for _ in range(len(one) + len(other)):
        texts += [text + char for text in texts[-(3 ** len(texts[-1])) :] for char in "abc"][: 3**6]
    short = any(match(one, text) and match(other, text) for text in texts)
    assert meet([one, other]) or not short


@pytest.mark.parametrize(
    ("one", "other", "meets"),
    [
        ("s3:*", "s3:Put*", True),
        ("s3:Get*", "s3:Put*", False),
        ("a*b", "*c", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("", "*", True),
        ("", "?", False),
        ("*x*", "*y*", True),
    ],
)
def test_which_meet(one: str, other: str, meets: bool) -> None:
    assert meet([one, other]) is meets


@pytest.mark.parametrize(
    ("pattern", "read"),
    [
        ("s3:getobject", True),
        ("s3:get*", True),
        ("ec2:describe*", True),
        ("s3:list*", True),
        ("dynamodb:batchget*", True),
        ("dynamodb:batch*", False),
        ("s3:g*", False),
        ("s3:*object", False),
        ("s3:?etobject", False),
        ("*", False),
        ("s3:*", False),
        ("s3:putobject", False),
        ("iam:passrole", True),
        ("iam:pass*", False),
        ("sts:assumerole", True),
        ("kms:decrypt", True),
        ("kms:*", False),
        ("get", False),
    ],
)
def test_what_only_reads(pattern: str, read: bool) -> None:
    assert is_read(pattern) is read


def allow(action: Any = "s3:PutObject", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **more}


def without(statement: dict[str, Any], name: str, **more: Any) -> dict[str, Any]:
    return {key: value for key, value in statement.items() if key != name} | more


MFA = {"Bool": {"aws:MultiFactorAuthPresent": "true"}}
READ_ONLY = ["s3:Get*", "s3:List*", "ec2:Describe*"]


@pytest.mark.parametrize(
    ("policy", "boundary", "could"),
    [
        ([allow()], None, True),
        ([allow("*")], None, True),
        ([allow("S3:PUTOBJECT")], None, True),
        ([allow("s3:*")], None, True),
        ([allow("s3:p*")], None, True),
        ([allow(READ_ONLY)], None, False),
        ([allow([*READ_ONLY, "s3:DeleteObject"])], None, True),
        ([allow("s3:*", "arn:aws:s3:::logs/*")], None, True),
        ([allow("iam:PassRole")], None, False),
        ([allow("sts:AssumeRole")], None, False),
        ([], None, False),
        ([deny()], None, False),
        # NotAction
        ([without(allow(), "Action", NotAction="iam:*")], None, True),
        ([without(allow(), "Action", NotAction="*")], None, False),
        ([without(allow(), "Resource", NotResource="arn:aws:s3:::secret")], None, True),
        ([without(allow(), "Resource", NotResource="*")], None, False),
        # denies
        ([allow(), deny()], None, False),
        ([allow(), deny("s3:*")], None, False),
        ([allow(), deny("s3:Put*")], None, False),
        ([allow(), deny("s3:PutObjectAcl")], None, True),
        ([allow("s3:*"), deny("s3:Put*")], None, True),
        ([allow("s3:*"), deny("S3:*")], None, False),
        ([allow(), deny("ec2:*")], None, True),
        ([allow(), deny(resource="arn:aws:s3:::logs/*")], None, True),
        ([allow(resource="arn:aws:s3:::logs/a"), deny(resource="arn:aws:s3:::logs/*")], None, False),
        ([allow(), deny(Condition=MFA)], None, True),
        ([allow("*"), without(deny(), "Action", NotAction=READ_ONLY)], None, False),
        ([allow("*"), without(deny(), "Action", NotAction=[*READ_ONLY, "sns:Publish"])], None, True),
        ([allow(), without(deny(), "Action", NotAction="sns:Publish")], None, False),
        ([allow(), without(deny(), "Resource", NotResource="arn:aws:s3:::logs/*")], None, True),
        # conditions
        ([allow(Condition=MFA)], None, True),
        ([allow(READ_ONLY, Condition=MFA)], None, False),
        # boundaries
        ([allow()], [], False),
        ([allow("*")], [allow(READ_ONLY)], False),
        ([allow("*")], [allow("s3:*")], True),
        ([allow("ec2:*")], [allow("s3:*")], False),
        ([allow("s3:*", "arn:aws:s3:::a/*")], [allow("s3:*", "arn:aws:s3:::b/*")], False),
        ([allow("s3:*", "arn:aws:s3:::a/*")], [allow("s3:*", "arn:aws:s3:::*/x")], True),
        ([allow("s3:Get*")], [allow("*")], False),
        ([allow("*")], [allow("*"), deny("*")], False),
        ([allow("*")], [allow("*", Condition=MFA)], True),
        ([allow("*Object")], [allow("s3:Get*")], False),
        ([allow("*Object")], [allow("s3:*")], True),
        ([allow("s3:*")], [allow("*"), deny("s3:*", Condition=MFA)], True),
    ],
)
def test_who_could_write(policy: list[Any], boundary: list[Any] | None, could: bool) -> None:
    own = statements({"Version": "2012-10-17", "Statement": policy}, "the policy p")
    bound = None if boundary is None else statements(json.dumps({"Statement": boundary}), "the boundary b")
    assert bool(writes(granted(own, bound))) is could


def test_a_grant_says_where_it_stands_and_on_what_it_depends() -> None:
    own = statements({"Statement": allow(Sid="Logs", Condition=MFA)}, "the policy p")
    (grant,) = writes(granted(own))
    assert str(grant) == (
        'the policy p, statement Logs: s3:putobject on *, if {"Bool": {"aws:MultiFactorAuthPresent": "true"}}'
    )
    (both,) = granted(own, statements({"Statement": allow(Condition={"a": {"b": "c"}})}, "b"))
    assert both.condition == '{"Bool": {"aws:MultiFactorAuthPresent": "true"}} and {"a": {"b": "c"}}'


@pytest.mark.parametrize("document", ["7", "[]", "{", '{"Statement": [7]}', '{"Statement": {"Effect": "allow"}}', None])
def test_what_is_no_policy(document: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        statements(document, "the policy p")


@given(
    st.lists(st.sampled_from(["s3:Put*", "s3:*", "*", "s3:Get*", "ec2:*", "*Object"]), min_size=1, max_size=3),
    st.data(),
)
def test_more_denies_never_let_more(actions: list[str], data: st.DataObject) -> None:
    denied = data.draw(st.lists(st.sampled_from(["s3:*", "*", "ec2:*", "s3:PutObject"]), max_size=3))
    alone = granted(statements({"Statement": [allow(actions)]}, "p"))
    less = granted(statements({"Statement": [allow(actions), *map(deny, denied)]}, "p"))
    assert set(less) <= set(alone)
    asked = data.draw(st.sampled_from(["s3:putobject", "ec2:runinstances"]))
    if lets(less, asked, "*") and not any(match(one.lower(), asked) for one in denied):
        assert lets(alone, asked, "*")

"""What of a trail is a write by somebody else, what it is about, and how many become one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.actual import outofband
from reconciler.actual.ledger import JobEnded, OutOfBand, after
from reconciler.actual.outofband import OTHERS, Rules, Verdict, fold, joined, judge, matches
from reconciler.model import (
    Ledger,
    Outcome,
    Outside,
    OutsideChange,
    Presence,
    Result,
    UnitId,
    UnitRecord,
)
from reconciler.store.projection import Projection, project
from reconciler.trail.consumer import MOST
from tests.kit import facts as make
from tests.kit.trail import ACCOUNT, APPLIER, EMERGENCY, MALLORY, by_role, told

RULES = Rules(
    "reconciler",
    {ACCOUNT: ("prod",)},
    (APPLIER, "autoscaling.amazonaws.com", "arn:aws:iam::*:role/aws-service-role/*"),
    (EMERGENCY,),
)
NET = UnitId("prod/net")
USER = {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/ann", "userName": "ann"}
ROOT = {"type": "Root", "arn": f"arn:aws:iam::{ACCOUNT}:root", "accountId": ACCOUNT}
LINKED = by_role(f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/rds.amazonaws.com/AWSServiceRoleForRDS")
SERVICE = {"type": "AWSService", "invokedBy": "autoscaling.amazonaws.com"}
OURS = {"reconciler:installation": "reconciler", "reconciler:unit": "prod/net"}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.OUTSIDE),
        ({"userIdentity": by_role(APPLIER)}, Verdict.ALLOWED),
        ({"userIdentity": by_role(APPLIER, "another-session")}, Verdict.ALLOWED),
        ({"userIdentity": by_role(f"{APPLIER}-2")}, Verdict.OUTSIDE),
        ({"userIdentity": by_role(f"x{APPLIER}")}, Verdict.OUTSIDE),
        ({"userIdentity": by_role(APPLIER) | {"sessionContext": {}}}, Verdict.OUTSIDE),
        ({"userIdentity": by_role() | {"arn": APPLIER}}, Verdict.OUTSIDE),  # the issuer counts, not what a session says
        ({"userIdentity": {"type": "IAMUser", "userName": APPLIER}}, Verdict.OUTSIDE),
        ({"userIdentity": by_role(EMERGENCY)}, Verdict.BREAK_GLASS),
        ({"userIdentity": USER}, Verdict.OUTSIDE),
        ({"userIdentity": ROOT}, Verdict.OUTSIDE),
        ({"userIdentity": LINKED}, Verdict.ALLOWED),
        ({"userIdentity": SERVICE}, Verdict.ALLOWED),
        ({"userIdentity": SERVICE | {"invokedBy": "rds.amazonaws.com"}}, Verdict.OUTSIDE),
        ({"userIdentity": by_role() | {"invokedBy": "autoscaling.amazonaws.com"}}, Verdict.OUTSIDE),  # in their name
        ({"userIdentity": None}, Verdict.OUTSIDE),
        ({"userIdentity": {"type": "AWSAccount", "accountId": "999999999999"}}, Verdict.OUTSIDE),
        ({"readOnly": True}, Verdict.IGNORED),
        ({"readOnly": None}, Verdict.OUTSIDE),
        ({"readOnly": "true"}, Verdict.OUTSIDE),
        ({"readOnly": None, "eventName": "DescribeInstances"}, Verdict.IGNORED),
        ({"readOnly": None, "eventName": "Getaway"}, Verdict.OUTSIDE),
        ({"readOnly": False, "eventName": "GetFederationToken"}, Verdict.OUTSIDE),
        ({"errorCode": "AccessDenied"}, Verdict.IGNORED),
        ({"recipientAccountId": "222222222222"}, Verdict.IGNORED),
        ({"recipientAccountId": None}, Verdict.OUTSIDE),  # the envelope names the account, too
        ({"eventName": ""}, Verdict.INVALID),
        ({"eventSource": 7}, Verdict.INVALID),
        ({"eventTime": "soon"}, Verdict.OUTSIDE),
        ({"eventTime": "2026-11-24T09:58:00"}, Verdict.OUTSIDE),
        ({"eventID": None}, Verdict.OUTSIDE),
        ({"requestParameters": None, "resources": "?"}, Verdict.OUTSIDE),
    ],
)
def test_what_an_event_is(changes: dict[str, Any], verdict: Verdict) -> None:
    seen = judge(told(**changes), RULES)
    assert seen.verdict is verdict
    assert bool(seen.changes) == bool(seen.digest) == (verdict in (Verdict.OUTSIDE, Verdict.BREAK_GLASS))
    assert all(one.principal for one in seen.changes)


@pytest.mark.parametrize("body", ["", "{", "[]", "7", "null", '"x"', "{}", '{"detail": []}', "\ud800"])
def test_what_is_no_event(body: str) -> None:
    assert judge(body, RULES).verdict is Verdict.INVALID


def test_an_event_that_is_too_large_is_not_even_parsed() -> None:
    assert judge("[" * (outofband.LARGEST + 1), RULES).verdict is Verdict.INVALID
    assert judge("[" * outofband.LARGEST, RULES).verdict is Verdict.INVALID


def test_another_kind_of_event_is_none_of_ours() -> None:
    other = json.dumps(json.loads(told()) | {"detail-type": "AWS Console Sign In via CloudTrail"})
    assert judge(other, RULES).verdict is Verdict.IGNORED


def test_what_is_told_of_it() -> None:
    arn = "arn:aws:s3:::acme-logs"
    (change,) = judge(told(resources=[{"ARN": arn, "type": "AWS::S3::Bucket"}, "odd"]), RULES).changes
    assert change == OutsideChange(
        environment="prod",
        account=ACCOUNT,
        principal=MALLORY,
        calls=("s3:PutBucketPolicy",),
        objects=(arn, "acme-logs"),
        since=datetime(2026, 11, 24, 9, 58, tzinfo=UTC),
        until=datetime(2026, 11, 24, 9, 58, tzinfo=UTC),
        count=1,
        event="5f1b1a2e-0000-4000-8000-000000000001",
    )


def test_no_value_is_told_but_of_names() -> None:
    asked = {
        "functionName": "f",
        "environment": {"variables": {"TOKEN": "s3cr3t"}},
        "value": "s3cr3t",
        "instancesSet": {"items": [{"instanceId": "i-1"}, {"instanceId": "i-2"}]},
        "dBInstanceIdentifier": "db",
        "roleARN": "arn:x",
        "ids": ["a", 7, "b" * 400],
        "policyDocument": "s3cr3t",
        "username": "s3cr3t",
    }
    (change,) = judge(told(requestParameters=asked), RULES).changes
    assert change.objects == ("f", "i-1", "i-2", "db", "arn:x", "a")


def test_words_are_cut_and_harmless() -> None:
    identity = {"type": "IAMUser", "arn": "arn:\n\x1b[31m" + "a" * 1000}
    (change,) = judge(told(userIdentity=identity), RULES).changes
    assert change.principal.startswith("arn:??[31maaa")
    assert len(change.principal) == outofband.LONGEST_WORD


@pytest.mark.parametrize(
    "asked",
    [
        {"tagSpecificationSet": {"items": [{"tags": [{"key": k, "value": v} for k, v in OURS.items()]}]}},
        {"tags": OURS},
        {"Tags": [{"Key": k, "Value": v} for k, v in OURS.items()]},
        {"tags": [{"tagKey": k, "tagValue": v} for k, v in OURS.items()]},
    ],
)
def test_the_unit_that_a_call_names(asked: dict[str, Any]) -> None:
    (change,) = judge(told(requestParameters=asked), RULES).changes
    assert change.units == {NET}
    (other,) = judge(told(requestParameters=asked), replace(RULES, installation="another")).changes
    assert other.units == set()


@pytest.mark.parametrize("unit", ["prod", "", "prod/../x", "prod/net\n", "stage/net", "PROD/net"])
def test_what_names_no_unit_of_the_environment(unit: str) -> None:
    (change,) = judge(told(requestParameters={"tags": OURS | {"reconciler:unit": unit}}), RULES).changes
    assert change.units == set()


def test_an_account_of_several_environments() -> None:
    rules = replace(RULES, accounts={ACCOUNT: ("prod", "stage", "dev")})
    seen = judge(told(requestParameters={"tags": OURS}), rules, frozenset({"dev"}))
    assert {one.environment: one.units for one in seen.changes} == {"prod": {NET}, "stage": set()}
    assert judge(told(), RULES, frozenset({"prod"})).verdict is Verdict.IGNORED


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(st.sampled_from([*json.loads(told())["detail"], "resources", "errorCode"]), nested, max_size=6))
def test_whatever_is_sent_has_a_verdict_and_never_more_than_is_told(changes: dict[str, Any]) -> None:
    seen = judge(told(**changes), RULES)
    for change in seen.changes:
        assert change.principal
        assert len(change.objects) <= outofband.MOST_TOLD
        assert change.environment == "prod"
    assert seen.verdict is not Verdict.ALLOWED  # nothing but an allowed principal is one


@given(st.text())
def test_text_is_an_event_or_none(body: str) -> None:
    assert judge(body, RULES).verdict in (Verdict.INVALID, Verdict.IGNORED)


def test_deep_and_wide_calls_are_looked_at_as_far_as_it_goes() -> None:
    deep: Any = "x"
    for _ in range(200):
        deep = {"bucketName": deep}
    wide = {"ids": [str(n) for n in range(100_000)]}
    assert len(judge(told(requestParameters=deep), RULES).changes) == 1
    assert len(judge(told(requestParameters=wide), RULES).changes[0].objects) == outofband.MOST_TOLD


# --- patterns


@pytest.mark.parametrize(
    ("pattern", "text", "like"),
    [
        ("arn:aws:iam::*:role/x", "arn:aws:iam::1:role/x", True),
        ("arn:aws:iam::*:role/x", "arn:aws:iam::1:role/xy", False),
        ("*", "", True),
        ("a*c", "abbc", True),
        ("a?c", "abc", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("a*", "b", False),
        ("a", "a\n", False),
    ],
)
def test_patterns(pattern: str, text: str, like: bool) -> None:
    assert matches(pattern, text) is like


@given(st.lists(st.text("ab*", max_size=4), min_size=1, max_size=4), st.text("ab", max_size=4))
def test_a_star_is_any_text(parts: list[str], filling: str) -> None:
    assert matches("*".join(parts), filling.join(part.replace("*", filling) for part in parts))


def test_many_stars_take_no_time() -> None:
    assert not matches("*a" * 500 + "b", "a" * 10_000)
    assert matches("*a" * 500 + "*", "a" * 10_000)


@given(st.text(), st.text())
def test_without_a_star_only_the_same_is_alike(one: str, other: str) -> None:
    assert matches(one.replace("*", ""), other) is (one.replace("*", "") == other)


# --- many become one


def change(**words: Any) -> OutsideChange:
    (plain,) = judge(told(), RULES).changes
    return replace(plain, **words)


def test_a_flood_is_one_for_each_principal() -> None:
    flood = [
        change(event=str(n), objects=(f"o{n}",), calls=(f"s3:C{n % 3}",), until=make.NOW + timedelta(seconds=n))
        for n in range(10_000)
    ]
    (one,) = fold(flood)
    assert (one.count, one.event, len(one.objects)) == (10_000, "9999", outofband.MOST_TOLD)
    assert one.calls == ("s3:C0", "s3:C1", "s3:C2")
    assert one.until == make.NOW + timedelta(seconds=9_999)


def test_many_principals_are_some_and_the_others() -> None:
    folded = fold([change(principal=f"p{n}") for n in range(500)])
    assert len(folded) == outofband.MOST_FOLDS + 1
    assert folded[-1].principal == OTHERS
    assert sum(one.count for one in folded) == 500


def test_a_break_glass_role_among_others_is_no_excuse() -> None:
    assert not joined(change(break_glass=True), change()).break_glass
    assert joined(change(break_glass=True), change(break_glass=True)).break_glass
    assert fold([change(principal=f"p{n}", break_glass=True) for n in range(30)])[-1].break_glass is False


counted = st.builds(
    change, environment=st.sampled_from(["prod", "stage"]), principal=st.text("ab", min_size=1, max_size=6),
    count=st.integers(1, 9), seen_at=st.just(make.NOW),
)  # fmt: skip


@given(st.lists(counted, max_size=80))
def test_nothing_is_lost_by_folding_and_the_ledger_stays_small(changes: list[OutsideChange]) -> None:
    folded = fold(changes)
    assert sum(one.count for one in folded) == sum(one.count for one in changes)
    projection = Projection(Ledger())
    for one in changes:
        projection.advance(project(projection.ledger(), [OutOfBand(one, ())]))
    kept = projection.ledger().outside
    assert projection.ledger().told == ()
    assert len(kept) <= outofband.MOST_KEPT
    assert not changes or changes[-1].key in {one.key for one in kept}


def test_the_newest_digests_are_known() -> None:
    projection = Projection(Ledger(told=("old",)))
    for start in range(0, 3 * outofband.MOST_DIGESTS, 1000):
        told_now = tuple(str(number) for number in range(start, start + 1000))
        projection.advance(project(projection.ledger(), [OutOfBand(change(), told_now), OutOfBand(change(), ())]))
    known = projection.ledger().told
    assert known == tuple(str(number) for number in range(2 * outofband.MOST_DIGESTS, 3 * outofband.MOST_DIGESTS))
    assert MOST + 10 <= outofband.MOST_DIGESTS


def test_the_oldest_goes() -> None:
    known = {
        one.key: one
        for one in (
            change(principal=f"p{n}", seen_at=make.NOW + timedelta(seconds=n)) for n in range(outofband.MOST_KEPT)
        )
    }
    news = change(principal="new", seen_at=make.NOW + make.HOUR)
    assert outofband.kept(known, news) == {"prod p0": None, "prod new": news}
    again = change(principal="p7", seen_at=make.NOW + make.HOUR, count=2)
    (merged,) = outofband.kept(known, again).values()
    assert merged is not None
    assert (merged.count, merged.seen_at) == (3, make.NOW + make.HOUR)


# --- which units are looked at, and until when

WANT = make.desired(make.entry("prod/net"), make.entry("prod/app"), make.entry("stage/net"))
ORDERLY = make.in_order(WANT, make.facts())
SEEN = change(seen_at=make.NOW, units=frozenset({NET}))


def marks(ledger: Ledger, *events: OutsideChange) -> dict[str, Outside | None]:
    delta = project(ledger, [OutOfBand(one, ()) for one in events])
    return {unit: record.outside for unit, record in delta.units.items() if record is not None}


def test_every_unit_of_the_environment_is_looked_at_and_that_which_is_named_first() -> None:
    assert marks(ORDERLY, SEEN) == {
        "prod/net": Outside(make.NOW, named=True),
        "prod/app": Outside(make.NOW, named=False),
    }


def test_what_is_not_there_cannot_have_been_changed() -> None:
    ledger = make.with_record(ORDERLY, "prod/net", applied=None)
    assert set(marks(ledger, SEEN)) == {"prod/app"}


def test_a_second_one_writes_nothing_anew_until_somebody_looked() -> None:
    first = Projection(ORDERLY)
    first.advance(project(ORDERLY, [OutOfBand(SEEN, ())]))
    later = replace(SEEN, seen_at=make.NOW + make.HOUR)
    assert marks(first.ledger(), later) == {}
    running = make.with_record(first.ledger(), "prod/app", job=make.dispatched("prod/app"))
    assert marks(running, later) == {"prod/app": Outside(make.NOW, job=make.dispatched("prod/app").job.id)}
    named = replace(later, units=frozenset({UnitId("prod/app")}))
    assert marks(first.ledger(), named) == {"prod/app": Outside(make.NOW, named=True)}
    looked = make.with_record(first.ledger(), "prod/app", outside=Outside(make.NOW, looked=True))
    assert marks(looked, later) == {"prod/app": Outside(make.NOW)}


APPLIED = ORDERLY.units[NET].applied
ASKED = make.dispatched()
MARK = Outside(make.NOW)
CHANGES = make.plan(make.change("file.a"))


@pytest.mark.parametrize(
    ("mark", "result", "left"),
    [
        (MARK, make.result(ASKED, applied=APPLIED), None),
        (MARK, make.result(ASKED, plan=make.plan()), None),
        (MARK, make.result(ASKED, plan=CHANGES), replace(MARK, looked=True)),
        (MARK, make.result(ASKED, Outcome.HELD, plan=CHANGES), replace(MARK, looked=True)),
        (MARK, make.result(ASKED, Outcome.FAILED), MARK),
        (replace(MARK, looked=True), make.result(ASKED, plan=make.plan()), None),
        (replace(MARK, job=ASKED.job.id), make.result(ASKED, applied=APPLIED), replace(MARK, job=ASKED.job.id)),
        (
            replace(MARK, job=ASKED.job.id),
            make.result(ASKED, applied=replace(APPLIED, presence=Presence.ABSENT)),  # type: ignore[type-var]
            None,
        ),
        (None, make.result(ASKED, plan=CHANGES), None),
    ],
)
def test_what_ends_it(mark: Outside | None, result: Result, left: Outside | None) -> None:
    record = UnitRecord(NET, applied=APPLIED, outside=mark)
    assert after(record, JobEnded(ASKED, result, None, None)).outside == left


def test_it_moves_with_the_state_and_is_looked_at_there() -> None:
    asked = make.dispatched("prod/new")
    ledger = Ledger(units={NET: UnitRecord(NET, applied=APPLIED, outside=replace(MARK, looked=True))})
    delta = project(ledger, [JobEnded(asked, make.result(asked, applied=APPLIED, moved_from=NET), None, None)])
    record = delta.units[UnitId("prod/new")]
    assert record is not None
    assert record.outside == replace(MARK, job=asked.job.id)

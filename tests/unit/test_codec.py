from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.actual.ledger import CheckScheduled, Event, HoldChanged, Thawed
from reconciler.codec import ACTIONS, Newer, action_of, decode, decode_event, decode_kept, encode, encode_event
from reconciler.errors import Place
from reconciler.model import (
    Environment,
    EnvironmentClass,
    Hold,
    HostPart,
    Job,
    Limits,
    PlanSummary,
    RunnerFacts,
    Timeouts,
    UnitId,
    UnitRecord,
)

INSTANT = datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)


def test_equal_facts_give_equal_bytes_whatever_their_order() -> None:
    one = {"b": frozenset({"x", "y", "z"}), "a": 1}
    two = {"a": 1, "b": frozenset({"z", "y", "x"})}
    assert encode(one) == encode(two) == b'{"a":1,"b":["x","y","z"]}'


def test_fields_are_sorted_and_times_are_utc() -> None:
    event = CheckScheduled(UnitId("prod/a"), INSTANT.astimezone(timezone(timedelta(hours=2))))
    assert encode(event) == b'{"next_check":"2026-11-24T10:00:00.123456Z","unit":"prod/a"}'
    assert encode(INSTANT) == b'"2026-11-24T10:00:00.123456Z"'


ZONES = [UTC, timezone(timedelta(hours=-3, minutes=-30))]
FACTS = st.one_of(
    st.builds(Job, fence=st.integers(0, 2**63 - 1)),
    st.builds(RunnerFacts, fence=st.integers(0, 2**63 - 1)),
    st.builds(PlanSummary, more=st.integers(0, 2**63 - 1)),
    st.builds(
        UnitRecord,
        hold=st.from_type(Hold),
        **dict.fromkeys(("applied", "planned", "job", "failure"), st.none()),
        next_check=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.sampled_from(ZONES)),  # noqa: DTZ001
        drift_since=st.none(),
    ),
)


@settings(max_examples=50, deadline=None)
@given(FACTS)
def test_facts_survive(fact: object) -> None:
    assert decode(type(fact), encode(fact)) == fact


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        encode(datetime(2026, 11, 24))  # noqa: DTZ001


def test_an_environment_survives_with_its_durations() -> None:
    environment = Environment(
        "prod",
        Place("environments/prod/environment.yaml", 1, 1),
        EnvironmentClass.PROTECTED,
        providers={"aws": {"region": "eu-west-1", "list": [1, None]}},
        limits=Limits(free_replace=frozenset({"b", "a"})),
        timeouts=Timeouts(plan=timedelta(seconds=0.5), apply=timedelta(days=40)),
    )
    assert decode(Environment, encode(environment)) == environment


def test_views_and_paths_have_a_form() -> None:
    facts = RunnerFacts("tofu", "1.12.3", MappingProxyType({"prod": HostPart(EnvironmentClass.SANDBOX, "d", {})}))
    assert decode(RunnerFacts, encode(facts)) == facts
    assert encode({"path": Path("a/b")}) == b'{"path":"a/b"}'


def test_what_has_no_form_is_named() -> None:
    with pytest.raises(TypeError):
        encode(object())


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"reason": 1, "message": "m"}', '{"reason": "R", "message": "m", "plans": 1}']
)
def test_what_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode(Hold, text)


def test_additions_of_a_newer_writer_are_ignored() -> None:
    assert decode(Hold, '{"reason": "R", "message": "m", "since": "later"}') == Hold("R", "m")


@pytest.mark.parametrize(
    ("kind", "text", "field"),
    [
        (Hold, '{"reason": "R", "message": "m", "since": "later"}', "since"),
        (UnitRecord, '{"unit": "a", "hold": {"reason": "R", "message": "m", "by": null}}', "by"),
        (tuple[Hold, ...], '[{"reason": "R", "message": "m"}, {"reason": "R", "message": "m", "z": 1}]', "z"),
    ],
)
def test_where_a_fact_is_written_back_they_are_refused(kind: type, text: str, field: str) -> None:
    with pytest.raises(Newer, match=f"the field {field} of"):
        decode_kept(kind, text)


@settings(max_examples=50)
@given(FACTS)
def test_what_is_kept_is_read_as_it_was_written(fact: object) -> None:
    assert decode_kept(type(fact), encode(fact)) == fact


def test_what_an_older_version_did_not_write_has_its_default() -> None:
    assert decode_kept(UnitRecord, '{"unit": "a"}') == UnitRecord(UnitId("a"))


def test_every_event_has_one_name() -> None:
    assert set(ACTIONS.values()) == set(get_args(Event))
    assert action_of(Thawed()) == "thawed"


def test_an_event_survives() -> None:
    event = HoldChanged(UnitId("prod/a"), Hold("Paused", "m", plans=True))
    assert decode_event(*encode_event(event)) == event


def test_an_unknown_event_is_refused() -> None:
    with pytest.raises(ValueError, match="newer version"):
        decode_event("gone-fishing", b"{}")

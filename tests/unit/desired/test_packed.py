from __future__ import annotations

from reconciler.desired.packed import Packed, packed
from reconciler.desired.template import named, render
from reconciler.model import Reference, SecretReference, Text, UnitId

DNS = Reference(UnitId("prod/dns"), "zone", ("a", 0))
SECRET = SecretReference("password")
INPUTS: dict[str, object] = {
    "plain": 1,
    "float": 1.0,
    "yes": True,
    "none": None,
    "zone": DNS,
    "deep": {"list": [1, SECRET, {"$": Text(("a", DNS, "b"))}], "empty": {}},
}


def test_packed_inputs_are_as_they_were_at_each_look() -> None:
    found = packed(INPUTS)
    assert isinstance(found, Packed)
    assert found == INPUTS
    assert (repr(found), len(found), list(found), found["deep"]) == (
        repr(INPUTS), len(INPUTS), list(INPUTS), INPUTS["deep"],
    )  # fmt: skip
    assert found["zone"] is DNS
    other = packed({"plain": 2})
    assert (found["plain"], other["plain"], found["plain"]) == (1, 2, 1)


def test_what_they_name_is_found_without_a_look_inside() -> None:
    assert list(named(packed(INPUTS))) == list(named(INPUTS)) == [DNS, SECRET, DNS]
    assert list(named(packed({}))) == []


def test_they_are_rendered_one_by_one() -> None:
    values = {DNS: {"a": ["z1"]}, SECRET: "s"}
    found = {name: render(value, lambda one: values[one]) for name, value in packed(INPUTS).items()}
    assert found["deep"] == {"list": [1, "s", {"$": "az1b"}], "empty": {}}


def test_what_json_cannot_say_stays_as_it_is() -> None:
    inputs: dict[str, object] = {"n": 2**70}
    assert packed(inputs) is inputs

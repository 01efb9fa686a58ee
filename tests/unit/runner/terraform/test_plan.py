"""Summaries, digests and masks of plans."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reconciler.model import Change
from reconciler.runner.terraform.masking import HIDDEN, mask
from reconciler.runner.terraform.plan import secrets_in, summarise

KEY = b"key"


def changed(address: str, *actions: str, **more: Any) -> dict[str, Any]:
    change = {"actions": list(actions), "before": None, "after": {"x": 1}, "after_unknown": {}} | more.pop("change", {})
    return {"address": address, "type": address.split(".")[-2], "mode": "managed", "change": change} | more


PLAN: dict[str, Any] = {
    "resource_changes": [
        changed("module.unit.a_b.z", "delete", "create", action_reason="replace_because_tainted"),
        changed("module.unit.a_b.same", "no-op"),
        changed("module.unit.data.a_b.read", "read", mode="data"),
        changed("module.unit.a_b.adopted", "no-op", change={"importing": {"id": "i-1"}}),
        changed("module.unit.a_b.gone", "forget"),
    ],
    "resource_drift": [changed("module.unit.a_b.z", "delete"), changed("module.unit.a_b.other", "update")],
    "output_changes": {"id": {"actions": ["no-op"]}},
}


def test_summary() -> None:
    summary = summarise(PLAN, KEY)
    assert summary.changes == (
        Change("module.unit.a_b.adopted", "a_b", ("no-op",), "import"),
        Change("module.unit.a_b.gone", "a_b", ("forget",)),
        Change("module.unit.a_b.z", "a_b", ("delete", "create"), "replace_because_tainted"),
    )
    assert summary.missing == ("module.unit.a_b.z",)
    assert not summary.outputs_changed
    assert not summary.empty


def test_nothing_at_all_is_empty() -> None:
    assert summarise({}, KEY).empty


def test_output_alone_is_a_change() -> None:
    summary = summarise({"output_changes": {"id": {"actions": ["create"], "after": 1}}}, KEY)
    assert summary.outputs_changed
    assert not summary.empty


def test_digest_is_of_the_change_set_not_of_its_order() -> None:
    turned = copy.deepcopy(PLAN)
    turned["resource_changes"].reverse()
    turned["timestamp"] = "now"
    turned["resource_changes"][-2]["change"]["after"] = {"x": 2}  # of a no-op
    assert summarise(turned, KEY).digest == summarise(PLAN, KEY).digest


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("actions", ["create"]),
        ("before", {"x": 0}),
        ("after", {"x": 2}),
        ("after_unknown", {"x": True}),
        ("replace_paths", [["x"]]),
    ],
)
def test_digest_changes_with(part: str, value: Any) -> None:
    other = copy.deepcopy(PLAN)
    other["resource_changes"][0]["change"][part] = value
    assert summarise(other, KEY).digest != summarise(PLAN, KEY).digest


def test_digest_changes_with_an_output_and_with_the_key() -> None:
    other = copy.deepcopy(PLAN)
    other["output_changes"]["id"] = {"actions": ["update"], "before": 1, "after": 2}
    assert len({summarise(PLAN, KEY).digest, summarise(other, KEY).digest, summarise(PLAN, b"other").digest}) == 3


def test_deposed_objects_of_one_address_are_told_apart() -> None:
    one = {"resource_changes": [changed("a_b.c", "delete", deposed="00")]}
    two = {"resource_changes": [changed("a_b.c", "delete", deposed="11")]}
    assert summarise(one, KEY).digest != summarise(two, KEY).digest


def test_secrets_are_found_wherever_they_are_marked() -> None:
    plan = {
        "variables": {"a": {"value": {"k": ["var-secret"]}}, "b": {"value": "open"}},
        "configuration": {"root_module": {"variables": {"a": {"sensitive": True}, "b": {}}}},
        "resource_changes": [
            changed(
                "a_b.c", "update",
                change={
                    "before": {"p": "old-secret", "l": [{"t": "open"}, {"t": "list-secret"}]},
                    "before_sensitive": {"p": True, "l": [{}, {"t": True}]},
                    "after": {"p": 424242, "q": None},
                    "after_sensitive": {"p": True, "q": True, "not-there": True},
                },
            )
        ],
        "resource_drift": [changed("a_b.c", "update", change={"after": "drift-secret", "after_sensitive": True})],
        "output_changes": {"o": {"actions": ["create"], "after": "new-output", "after_sensitive": True, "before_sensitive": False}},
        "planned_values": {
            "outputs": {"o": {"sensitive": True, "value": "planned-output"}, "p": {"sensitive": False, "value": "open"}},
            "root_module": {"child_modules": [{"resources": [{"values": {"x": "planned"}, "sensitive_values": {"x": True}}]}]},
        },
        "prior_state": {"values": {"outputs": {"o": {"sensitive": True, "value": ["prior-output", True]}}}},
    }  # fmt: skip
    assert secrets_in(plan) == {
        "var-secret", "old-secret", "list-secret", "424242", "drift-secret", "new-output", "planned-output", "planned", "prior-output",
    }  # fmt: skip


SECRET = 'pä"ss\n<word>&/+='


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        'pä\\"ss\\n\\u003cword\\u003e\\u0026/+=',
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_every_form_of_a_secret_is_hidden(form: str) -> None:
    hidden = mask(f"a {form} b", frozenset({SECRET}))
    assert hidden.rstrip("= b").startswith(f"a {HIDDEN}")
    assert form.rstrip("=") not in hidden


def test_longest_secret_goes_first_and_short_ones_stay() -> None:
    secrets = frozenset({"pass", "password-long", "abc", "true", ""})
    assert mask("password-long pass abc true", secrets) == f"{HIDDEN} {HIDDEN} abc true"


def test_lines_of_a_key_are_hidden_one_by_one() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----\n"
    assert mask("  | MIIEvQIBADANBg", frozenset({key})) == f"  | {HIDDEN}"


def test_bytes_of_no_encoding_pass_through() -> None:
    assert mask(b"\xff\xfe secret \x00", frozenset({"secret"})) == b"\xff\xfe " + HIDDEN.encode() + b" \x00"
    assert mask(b"\xff", frozenset()) == b"\xff"


@given(st.text(min_size=4, max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_is_left(secret: str, before: str, after: str) -> None:
    assume(secret.lower() not in {"true", "false", "null", "none"} and secret not in HIDDEN)
    hidden = mask(before + secret + after, frozenset({secret}))
    assert all(secret not in part for part in hidden.split(HIDDEN))

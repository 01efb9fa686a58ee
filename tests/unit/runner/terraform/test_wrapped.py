from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.errors import UnitError
from reconciler.runner.terraform.state import parse_state
from reconciler.runner.terraform.wrapped import wrap
from tests.kit.estate import noted, old_state


def wrapped(*groups: dict[str, Any], **words: Any) -> dict[str, Any]:
    return dict(json.loads(wrap(parse_state(old_state(*groups, **words))).raw))


def test_every_address_is_inside_and_all_else_stays() -> None:
    provider = 'provider["registry.terraform.io/acme/cloud"]'
    nested = noted(name="inner") | {"module": 'module.net["a b"]', "provider": f'module.net["a b"].{provider}.west'}
    nested["instances"][0] |= {
        "dependencies": ["terraform_data.this", "module.x.data.a.b"],
        "deposed": "abc",
        "index_key": 0,
    }
    found = wrapped(noted(), nested, noted(name="aliased") | {"provider": f"{provider}.east"})
    root, inner, aliased = found["resources"]
    assert (root["module"], inner["module"]) == ("module.unit", 'module.unit.module.net["a b"]')
    assert inner["provider"] == f'module.unit.module.net["a b"].{provider}.west'
    assert aliased["provider"] == f"{provider}.east"
    assert inner["instances"][0]["dependencies"] == ["module.unit.terraform_data.this", "module.unit.module.x.data.a.b"]
    assert {**inner["instances"][0], "dependencies": 0} == {**nested["instances"][0], "dependencies": 0}
    assert "check_results" not in found
    assert (found["serial"], found["lineage"], found["terraform_version"]) == (
        8,
        "99999999-aaaa-bbbb-cccc-000000000000",
        "1.5.0",
    )


def test_numbers_stay_as_they_are_written() -> None:
    digits = "0.3333333333333333333333333333333333333333333333333333333333333333"
    one = noted()
    one["instances"][0]["attributes"] = {"a": "DIGITS", "b": 2**200, "c": "ü\u2028\"'0.5"}
    raw = old_state(one).replace(b'"DIGITS"', f"[{digits}, 1E-7, -2.50]".encode())
    first, again = (wrap(parse_state(raw)).raw for _ in range(2))
    assert first == again
    squeezed = b"".join(first.split())
    assert f"[{digits},1E-7,-2.50]".encode() in squeezed
    assert json.loads(first)["resources"][0]["instances"][0]["attributes"]["b"] == 2**200
    assert json.loads(first)["resources"][0]["instances"][0]["attributes"]["c"] == "ü\u2028\"'0.5"


def test_what_a_unit_has_already_is_not_wrapped_again() -> None:
    with pytest.raises(UnitError, match="use `moved_from`"):
        wrapped(noted() | {"module": "module.unit.module.net"})

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any

import pytest
import yaml
from pydantic_core import PydanticCustomError

from reconciler.desired.entries import parse_entry, parse_environment
from reconciler.desired.lock import parse_lock
from reconciler.desired.schema import SCHEMAS, LimitsModel, draft7
from reconciler.desired.shape import duration, short

jsonschema: Any = importlib.import_module("jsonschema")  # it ships no types


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_a_schema(name: str) -> None:
    schema = draft7(SCHEMAS[name], name)
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert (schema["title"], schema["additionalProperties"]) == (name, False)


def test_defaults_are_as_they_are_written() -> None:
    schema = draft7(SCHEMAS["environment"], "environment")
    assert schema["properties"]["drift_interval"]["default"] == "1h"
    assert schema["definitions"]["TimeoutsModel"]["properties"]["apply"]["default"] == "6h"
    assert schema["definitions"]["LimitsModel"]["properties"]["recreate"]["default"] == 3


def test_what_stands_beside_a_reference_is_not_lost() -> None:
    schema = draft7(SCHEMAS["environment"], "environment")
    assert schema["properties"]["promotion"] == {
        "description": "a module's code enters only after it was in order elsewhere for a while",
        "allOf": [{"$ref": "#/definitions/PromotionModel"}],
    }


def test_a_schema_without_parts() -> None:
    assert "definitions" not in draft7(LimitsModel, "limits")


def test_what_may_be_left_out_may_not_be_null() -> None:
    schema = draft7(SCHEMAS["entry"], "entry")
    assert schema["properties"]["ref"]["type"] == "string"
    assert "default" not in schema["properties"]["ref"]


ENTRIES = [
    ('module: acme/vpc\nversion: "1.4.2"\ninputs: {a: [1, {b: "${{ x.y }}"}]}\ndepends_on: [/a/c]\n', True),
    ("module: acme/vpc\nref: my-branch\nstate: absent\nallow_destroy: 2\n", True),
    ('module: vpc\nversion: "1.4.2"\n', False),
    ("module: acme/vpc\nversion: 1.4\n", False),
    ('module: acme/vpc\nversion: "1.4.2"\ninptus: {}\n', False),
    ('module: acme/vpc\nversion: "1.4.2"\ninputs: {a b: 1}\n', False),
    ('module: acme/vpc\nversion: "1.4.2"\nproviders: {AWS: aws}\n', False),
]


@pytest.mark.parametrize(("text", "valid"), ENTRIES)
def test_an_editor_and_the_daemon_agree_on_entries(text: str, valid: bool) -> None:
    assert jsonschema.Draft7Validator(draft7(SCHEMAS["entry"], "")).is_valid(yaml.safe_load(text)) is valid
    assert isinstance(parse_entry("environments/a/b.yaml", text.encode()), list) is not valid


ENVIRONMENTS = [
    ("class: sandbox\ntimeouts: {plan: 15m}\nproviders: {aws.x: {region: y}}\n", True),
    ("class: sandbox\ntimeouts: {plan: 15}\n", False),
    ("class: prod\n", False),
    ("class: sandbox\nlimits: {destroy: -1}\n", False),
]


@pytest.mark.parametrize(("text", "valid"), ENVIRONMENTS)
def test_an_editor_and_the_daemon_agree_on_environments(text: str, valid: bool) -> None:
    assert jsonschema.Draft7Validator(draft7(SCHEMAS["environment"], "")).is_valid(yaml.safe_load(text)) is valid
    assert isinstance(parse_environment("environments/a/environment.yaml", text.encode()), list) is not valid


VERSION = f'{{ref: v1, commit: {"a" * 40}, digest: "sha256:{"1" * 64}"}}'
LOCKS = [
    (f'lock_version: 1\nmodules: {{acme/vpc: {{path: a/b, versions: {{"1.0.0": {VERSION}}}}}}}\n', True),
    (f'lock_version: 1\nmodules: {{acme/vpc: {{path: /a, versions: {{"1.0.0": {VERSION}}}}}}}\n', False),
    (f'lock_version: 1\nmodules: {{acme/vpc: {{path: a, versions: {{"1.0": {VERSION}}}}}}}\n', False),
    ("lock_version: 2\n", False),
]


@pytest.mark.parametrize(("text", "valid"), LOCKS)
def test_an_editor_and_the_daemon_agree_on_the_lock(text: str, valid: bool) -> None:
    assert jsonschema.Draft7Validator(draft7(SCHEMAS["lock"], "")).is_valid(yaml.safe_load(text)) is valid
    assert isinstance(parse_lock("catalog-lock.yaml", text.encode()), list) is not valid


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("90s", 90), ("15m", 900), ("6h", 21600), ("1d", 86400), ("366d", 366 * 86400)]
)
def test_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)
    assert duration(short(duration(text))) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0s", "1", "1w", "-1s", "1.5h", "1h30m", " 1s", "1s\n", "٣s", "367d", 15, None])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(PydanticCustomError, match="write 30s or 6h"):
        duration(text)

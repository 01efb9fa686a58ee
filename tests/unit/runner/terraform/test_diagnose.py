"""From an engine's diagnostics to a reason and the line to change. The diagnostics are the engines' own words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from reconciler.errors import Place, UnitError
from reconciler.model import Commit, Digest, Entry, Environment, EnvironmentClass, Pin, Unit, UnitId
from reconciler.runner.terraform.diagnose import (
    OF_CONFIGURATION,
    RULE,
    Diagnostic,
    EngineError,
    check_entry,
    diagnose,
    parse_diagnostic,
    sensitive_outputs,
)
from reconciler.runner.terraform.module import ModuleInterface, Variable

FILE = "environments/prod/app.yaml"
ENTRY = Entry(
    UnitId("prod/app"), Place(FILE), "acme/app", "1.0.0", inputs={"size": 7, "nmae": "x"},
    places={"inputs": Place(FILE, 3, 1), "inputs.size": Place(FILE, 4, 3), "inputs.nmae": Place(FILE, 5, 3)},
)  # fmt: skip
PIN = Pin("acme/app", "1.0.0", "app", "v1", Commit("0" * 40), Digest("sha256:0"))
ENVIRONMENT = Environment("prod", Place("environments/prod/environment.yaml"), EnvironmentClass.PROTECTED)
NONE = Digest("sha256:1")
UNIT = Unit(ENTRY.unit, ENTRY, ENVIRONMENT, PIN, frozenset(), frozenset(), frozenset(), NONE, NONE, NONE, NONE)
ROOT = json.dumps(
    {"module": {"unit": {"source": "./catalog/app", "size": "${var.input_size}"}}, "output": {"id": {"value": 1}},
     "provider": {"aws": [{"region": "${var.setting_0}"}]}}, indent=1,
).splitlines()  # fmt: skip


def said(summary: str, detail: str = "", *, at: str = "", context: str = "module.unit", **more: Any) -> Diagnostic:
    """As it comes from the engine, pointing at the line of the root that holds `at`."""
    place = {}
    if at:
        line = next(n for n, text in enumerate(ROOT, 1) if f'"{at}"' in text)
        place = {"range": {"filename": "main.tf.json", "start": {"line": line}}, "snippet": {"context": context}}
    return parse_diagnostic({"severity": "error", "summary": summary, "detail": detail} | place | more, ROOT)


def told(*diagnostics: Diagnostic, step: str = "plan") -> tuple[str, str, bool]:
    error = diagnose(EngineError(step, diagnostics), UNIT)
    return error.reason, str(error), error.transient


@pytest.mark.parametrize(
    "words",
    [
        "operation error EC2: DescribeVpcs, exceeded maximum number of attempts, 25, api error RequestLimitExceeded: Request limit exceeded.",
        "operation error IAM: GetRole, https response error StatusCode: 400, RequestID: 1, api error Throttling: Rate exceeded",
        "operation error SSM: GetParameter, api error ThrottlingException: Rate exceeded",
        "operation error STS: AssumeRole, failed to get rate limit token, retry quota exceeded, 0 available, 5 requested",
        "operation error S3: PutObject, api error SlowDown: Please reduce your request rate.",
        "googleapi: Error 429: Quota exceeded for quota metric, rateLimitExceeded",
        "unexpected status 429 (429 Too Many Requests) with response",
    ],
)
def test_a_cloud_that_is_asked_too_often(words: str) -> None:
    for step in ("plan", "apply"):
        reason, message, transient = told(
            said("reading EC2 VPCs", "one"), said("reading EC2 VPC (vpc-1)", words), step=step
        )
        assert (reason, transient) == ("Throttled", True)
        assert message.startswith("The cloud is asked too often, and fewer jobs go there for a while: ")
        assert words[:60] in message
    assert (
        told(said("Failed to query available provider packages", words), step="init")[0] == "InitFailed"
    )  # no account's


@pytest.mark.parametrize(
    "words",
    [
        "api error VpcLimitExceeded: The maximum number of VPCs has been reached.",
        "api error LimitExceededException: Cannot exceed quota for RolesPerAccount: 1000",
        "port 429 is closed",
        "creating API Gateway Usage Plan (throttle): invalid",
    ],
)
def test_a_quota_is_no_throttling(words: str) -> None:
    assert told(said("creating something", words), step="apply")[0] == "ApplyFailed"


def test_unsuitable_value() -> None:
    detail = "The given value is not suitable for module.unit.var.size declared at catalog/app/main.tf:2,1-13: a number is required."
    assert told(said("Invalid value for input variable", detail, at="size")) == (
        "InputInvalid", f"{FILE}:4:3: the value of size does not suit acme/app: a number is required.", False,
    )  # fmt: skip


def test_what_is_imported_is_named_by_its_line() -> None:
    places = {"import.a.b": Place(FILE, 7, 8), 'import.a.b["x"]': Place(FILE, 8, 8)}
    unit = replace(UNIT, entry=replace(ENTRY, imports={"a.b": "i-1", 'a.b["x"]': "i-2"}, places=places))
    absent = said(
        "Cannot import non-existent remote object",
        'While attempting to import an existing object to "module.unit.a.b["x"]", the provider detected that no object exists '
        "with the given id.",
    )
    nowhere = said("Configuration for import target does not exist", "Resource module.unit.a.b not found.")
    elsewhere = said("Cannot import non-existent remote object", 'to "module.unit.a.bc", and "module.unit.a.b.c"')
    first, second, third = (diagnose(EngineError("plan", [one]), unit) for one in (absent, nowhere, elsewhere))
    assert (first.reason, str(first)[: len(FILE) + 5], first.transient) == ("ImportFailed", f"{FILE}:8:8:", True)
    assert "no object exists with the given id" in str(first)
    assert (second.reason, str(second), second.transient) == (
        "ImportFailed", f"{FILE}:7:8: acme/app has no resource a.b. Correct the address or the id, or remove the line.", False,
    )  # fmt: skip
    assert third.reason == "PlanFailed"


def test_rule_of_the_module() -> None:
    detail = "size must be small\n\nThis was checked by the validation rule at catalog/app/main.tf:5,2-12."
    assert told(said("Invalid value for variable", detail, at="size")) == (
        "InputInvalid", f"{FILE}:4:3: the value of size does not suit acme/app: size must be small", False,
    )  # fmt: skip


def test_missing_and_unknown_input() -> None:
    missing = said(
        "Missing required argument", 'The argument "name" is required, but no definition was found.', at="unit"
    )
    assert told(missing, step="init")[:2] == (
        "InputMissing", f"{FILE}:3:1: acme/app needs the input name. Write it under `inputs`.",
    )  # fmt: skip
    unknown = said("Extraneous JSON object property", 'No argument or block type is named "nmae".', at="size")
    assert told(unknown)[:2] == (
        "InputUnknown",
        f"{FILE}:5:3: acme/app has no input nmae. Remove the line or mend its name.",
    )


def test_error_inside_the_module_is_not_the_entrys() -> None:
    inner = parse_diagnostic(
        {
            "severity": "error", "summary": "Missing required argument", "detail": 'The argument "x" is required.',
            "range": {"filename": "catalog/app/main.tf", "start": {"line": 9}}, "snippet": {"context": 'resource "a" "b"'},
        },
        ROOT,
    )  # fmt: skip
    assert told(inner) == (
        "PlanFailed",
        'catalog/app/main.tf:9: Missing required argument: The argument "x" is required.',
        False,
    )


def test_providers_settings_are_the_environments() -> None:
    bad = said("Invalid provider configuration", "no such region", at="region", context="provider.aws")
    assert told(bad)[1] == "environments/prod/environment.yaml: Invalid provider configuration: no such region"


def test_resource_is_named_and_the_rest_is_counted() -> None:
    denied = Diagnostic("error", "creating VPC", "AccessDenied:\n  no", address="module.unit.aws_vpc.a")
    warning = Diagnostic("warning", "deprecated")
    assert told(warning, denied, denied, denied, step="apply") == (
        "ApplyFailed", "module.unit.aws_vpc.a: creating VPC: AccessDenied: no (and 2 more errors; see the job's log)", True,
    )  # fmt: skip


def test_provider_that_is_not_locked() -> None:
    detail = "the local package doesn't match any of the checksums previously recorded in the dependency lock file"
    reason, message, _ = told(Diagnostic("error", "Failed to install provider", detail), step="init")
    assert reason == "ProviderNotLocked"
    assert "reconciler catalog add acme/app@1.0.0" in message


@pytest.mark.parametrize(
    "text",
    [
        "ThrottlingException: Rate exceeded",
        "api error RequestLimitExceeded",
        "StatusCode: 503, Service Unavailable",
        "dial tcp 10.0.0.1:443: i/o timeout",
        "read: connection reset by peer",
        "lookup sts.amazonaws.com: no such host",
        "StatusCode: 403, AccessDenied",  # may be mended in IAM, which changes no input
        "InvalidParameterValue",
    ],
)
@pytest.mark.parametrize("step", ["init", "plan", "apply"])
def test_whatever_a_provider_says_may_pass_without_new_input(text: str, step: str) -> None:
    assert told(Diagnostic("error", "creating X", text), step=step)[2] is True


@pytest.mark.parametrize("summary", sorted(OF_CONFIGURATION))
def test_what_the_engine_refuses_by_itself_waits_for_new_input(summary: str) -> None:
    refused = Diagnostic("error", summary, "no")
    assert EngineError("plan", [refused, Diagnostic("warning", "deprecated")]).transient is False
    assert EngineError("plan", [refused, Diagnostic("error", "creating X", "AccessDenied")]).transient is True
    assert EngineError("apply", [refused]).transient is True


@pytest.mark.parametrize("has_read", [True, False])
def test_a_rule_of_the_module_is_of_the_input_unless_something_was_read(has_read: bool) -> None:
    assert EngineError("plan", [Diagnostic("error", RULE, "no")], has_read=has_read).transient is has_read


def test_an_engine_that_says_nothing_may_say_more_next_time() -> None:
    assert EngineError("plan", []).transient is True


def test_message_is_masked_and_short() -> None:
    failure = EngineError("apply", [Diagnostic("error", "no", "the secret " + "x" * 5000)])
    error = diagnose(failure, UNIT, lambda text: text.replace("secret", "(hidden)"))
    assert str(error).startswith("no: the (hidden) x")
    assert len(str(error)) < 1600


def test_a_secret_is_hidden_before_the_message_is_cut() -> None:
    failure = EngineError("apply", [Diagnostic("error", "no", "x" * 1490 + " secret")])
    error = diagnose(failure, UNIT, lambda text: text.replace("secret", "(hidden)"))
    assert "sec" not in str(error)


def test_other_errors_keep_their_reason_and_are_masked() -> None:
    error = diagnose(
        UnitError("EngineTimeout", "a secret", transient=True), UNIT, lambda text: text.replace("secret", "-")
    )
    assert (error.reason, str(error), error.transient) == ("EngineTimeout", "a -", True)


def test_engine_that_says_nothing() -> None:
    assert told(step="init")[:2] == ("InitFailed", "the engine ended without saying why; see the job's log")


def test_outputs_are_named_by_their_line() -> None:
    assert sensitive_outputs(
        [said("Output refers to sensitive values", "...", at="id", context="output"), said("x")]
    ) == {"id"}


def interface(**required: bool) -> ModuleInterface:
    return ModuleInterface({n: Variable("string", r, False) for n, r in required.items()}, {}, {})


def test_entry_is_checked_before_the_engine_is_asked() -> None:
    check_entry(ENTRY, interface(size=True, nmae=False, other=False))
    with pytest.raises(UnitError) as refused:
        check_entry(ENTRY, interface(size=True, name=True))
    assert (refused.value.reason, str(refused.value)) == (
        "InputUnknown", f"{FILE}:5:3: acme/app has no input nmae. Remove the line or mend its name. It has: name, size.",
    )  # fmt: skip
    with pytest.raises(UnitError) as refused:
        check_entry(ENTRY, interface(size=True, nmae=True, zone=True))
    assert (refused.value.reason, str(refused.value)) == (
        "InputMissing", f"{FILE}:3:1: acme/app needs more inputs: zone (string). Write them under `inputs`.",
    )  # fmt: skip

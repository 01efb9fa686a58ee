"""What a plan may do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.deciding.judge import Bounds, counted, judge
from reconciler.model import Allowances, Cause, Limits, PlanSummary, Presence
from tests.kit.facts import change, plan

PATH = "environments/prod/net.yaml"
BOUNDS = Bounds(
    Limits(destroy=0, recreate=3, free_replace=frozenset({"null_resource"})), Allowances(), Presence.PRESENT
)

UPDATE = change("module.unit.file.a")
DELETE = change("module.unit.file.b", "delete")
REPLACE = change("module.unit.file.c", "delete", "create")
TAINTED = change("module.unit.file.d", "create", "delete", reason="replace_because_tainted")
ASKED = change("module.unit.file.e", "delete", "create", reason="replace_by_request")
IMPORTED = change("module.unit.file.i", "update", reason="import")
ROUTINE = change("module.unit.null_resource.f", "delete", "create", kind="null_resource")


def reason(summary: PlanSummary, bounds: Bounds = BOUNDS, cause: Cause = Cause.DESIRED) -> str | None:
    hold = judge(summary, bounds, cause, PATH)
    return hold.reason if hold else None


TABLE = {
    "nothing": (plan(), BOUNDS, None),
    "an update": (plan(UPDATE), BOUNDS, None),
    "a destruction": (plan(DELETE), BOUNDS, "DestroyLimit"),
    "a replacement": (plan(REPLACE), BOUNDS, "DestroyLimit"),
    "within the limit": (plan(DELETE, REPLACE), replace(BOUNDS, limits=Limits(destroy=2)), None),
    "one beyond the limit": (plan(DELETE, REPLACE, DELETE), replace(BOUNDS, limits=Limits(destroy=2)), "DestroyLimit"),
    "allowed": (plan(DELETE), replace(BOUNDS, open=Allowances(destroy=1)), None),
    "the larger of limit and allowance counts": (
        plan(DELETE, DELETE),
        replace(BOUNDS, limits=Limits(destroy=2), open=Allowances(destroy=1)),
        None,
    ),
    "an absent unit needs it too": (plan(DELETE), replace(BOUNDS, presence=Presence.ABSENT), "DestroyLimit"),
    "an adoption that changes things": (plan(UPDATE), replace(BOUNDS, adopting="/srv/a"), None),
    "an adoption that destroys, though it is allowed": (
        plan(DELETE),
        replace(BOUNDS, adopting="/srv/a", open=Allowances(destroy=9)),
        "AdoptionDestroys",
    ),
    "an adoption that replaces what is routine": (
        plan(ROUTINE),
        replace(BOUNDS, adopting="/srv/a"),
        "AdoptionDestroys",
    ),
    "an adoption of what is gone": (plan(missing="a"), replace(BOUNDS, adopting="/srv/a"), "AdoptionDestroys"),
    "an import": (plan(IMPORTED), BOUNDS, None),
    "an import that replaces what is routine": (
        plan(change(ROUTINE.address, "delete", "create", kind="null_resource", reason="import")),
        BOUNDS,
        "AdoptionDestroys",
    ),
    "a routine type": (plan(ROUTINE), BOUNDS, None),
    "a routine type that is destroyed for good": (
        plan(change("module.unit.null_resource.f", "delete", kind="null_resource")),
        BOUNDS,
        "DestroyLimit",
    ),
    "tainted by its own apply": (plan(TAINTED), replace(BOUNDS, tainted=frozenset({TAINTED.address})), None),
    "tainted by somebody": (plan(TAINTED), BOUNDS, "DestroyLimit"),
    "replaced by request": (plan(ASKED), replace(BOUNDS, open=Allowances(replace=("file.e",))), None),
    "replaced by nobody's request": (
        plan(ASKED),
        replace(BOUNDS, open=Allowances(replace=("file.x",))),
        "DestroyLimit",
    ),
    "the host's cap on a limit": (
        plan(DELETE, DELETE),
        replace(BOUNDS, limits=Limits(destroy=9), max_destroy=1),
        "DestroyLimit",
    ),
    "the host's cap on a request": (
        plan(ASKED),
        replace(BOUNDS, open=Allowances(replace=("file.e",)), max_destroy=0),
        "DestroyLimit",
    ),
    "the host's cap does not count routine": (plan(ROUTINE), replace(BOUNDS, max_destroy=0), None),
    "as many missing as the limit": (plan(missing="abc"), BOUNDS, None),
    "more missing than the limit": (plan(missing="abcd"), BOUNDS, "RecreateLimit"),
    "missing where it goes anyway": (plan(missing="abcd"), replace(BOUNDS, presence=Presence.ABSENT), None),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_a_plan_may_do(name: str) -> None:
    summary, bounds, expected = TABLE[name]
    assert reason(summary, bounds) == expected


@pytest.mark.parametrize(
    ("cause", "corrected", "summary", "expected"),
    [
        (Cause.DRIFT, "d", plan(UPDATE), "PerpetualDiff"),
        (Cause.DRIFT, "other", plan(UPDATE), None),
        (Cause.DRIFT, None, plan(UPDATE), None),
        (Cause.DESIRED, "d", plan(UPDATE), None),
        (Cause.DRIFT, "d", plan(), None),
    ],
)
def test_the_same_correction_is_not_made_twice(
    cause: Cause, corrected: str | None, summary: PlanSummary, expected: str | None
) -> None:
    assert reason(summary, replace(BOUNDS, corrected=corrected), cause) == expected


def test_the_remedy_names_the_line_the_file_and_the_objects() -> None:
    many = [change(f"module.unit.file.n{n}", "delete") for n in range(7)]
    hold = judge(plan(*many), BOUNDS, Cause.DESIRED, PATH)
    assert hold is not None
    assert "`allow_destroy: 7` in environments/prod/net.yaml" in hold.message
    assert "module.unit.file.n4 and 2 more" in hold.message
    assert "file.n5" not in hold.message


def test_the_remedy_at_the_hosts_cap_is_no_line_of_an_entry() -> None:
    hold = judge(plan(DELETE), replace(BOUNDS, max_destroy=0), Cause.DESIRED, PATH)
    assert hold is not None
    assert "max_destroy is 0" in hold.message
    assert "allow_destroy" not in hold.message


def test_what_is_counted() -> None:
    summary = plan(UPDATE, DELETE, REPLACE, TAINTED, ASKED, ROUTINE)
    assert counted(summary, BOUNDS) == (DELETE, REPLACE, TAINTED, ASKED)

from __future__ import annotations

from typing import Any

import pytest

from reconciler.desired.entries import parse_environment
from reconciler.desired.rules import LONGEST, wrong_expression
from reconciler.model import Over, Rule

PATH = "environments/prod/environment.yaml"


def read(*lines: str) -> Any:
    """An environment.yaml with these rules: the environment, or what is wrong with it."""
    found = parse_environment(PATH, "\n".join(["class: protected", "rules:", *lines, ""]).encode())
    return [str(one) for one in found] if isinstance(found, list) else found


def test_rules_are_read_as_they_are_written() -> None:
    environment = read(
        "  - {name: small, plan: size(plan.resource_changes) < 9, message: Take smaller steps.}",
        "  - name: private",
        "    resource: |-",
        '      resource.type != "bucket" ||',
        '      resource.change.after.acl == "private"',
        "    message: Buckets are private.",
    )
    assert environment.rules == (
        Rule("small", Over.PLAN, "size(plan.resource_changes) < 9", "Take smaller steps."),
        Rule("private", Over.RESOURCE, 'resource.type != "bucket" ||\nresource.change.after.acl == "private"',
             "Buckets are private."),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("plan: plan.x ==", "4:11: rules[0].plan: Syntax error: mismatched input '<EOF>' at line 1, column 10 of the expression;"),
        ("plan: resource.x == 1", "4:11: rules[0].plan: undeclared reference to 'resource.x' at line 1, column 9 of the expression; known are plan and unit; write"),
        ("resource: unit.id == 1", "4:15: rules[0].resource: found no matching overload for '_==_' applied to '(string, int)' at"),
        ("resource: unit.id", "4:15: rules[0].resource: the expression gives STRING, and a rule is true or false; write an"),
        ("plan: ' '", "4:11: rules[0].plan: the expression is empty; write an expression of CEL (https://cel.dev) like `size("),
        (f"plan: {'(' * 40}true{')' * 40}", "4:11: rules[0].plan: the expression is nested too deeply;"),
        (f"plan: {'1==1 && ' * 300}true", f"4:11: rules[0].plan: the expression has 2404 characters; write at most {LONGEST}"),
        ('plan: "\\ud800"', None),
        ("plan: 1==1, resource: 1==1", "3:5: rules[0]: a rule is over the plan or over each resource; write one of plan and resource"),
        ("", "3:5: rules[0]: a rule is over the plan or over each resource; write one of plan and resource"),
        ("each: true", '4:5: unknown field "each"'),
    ],
)  # fmt: skip
def test_a_wrong_rule_is_told_with_its_place(rule: str, said: str | None) -> None:
    fields = [f"    {field}" for field in rule.split(", ") if field]
    found = read("  - name: x", *fields, "    message: m")
    assert isinstance(found, list)
    if said is not None:
        assert any(f"{PATH}:{said}" in one for one in found), found


def test_two_rules_of_one_name_are_refused() -> None:
    found = read(*["  - {name: x, plan: 'true', message: m}"] * 2)
    assert found == [f"{PATH}:3:3: rules: two rules are called x; give each a name of its own"]


def test_an_expression_may_give_what_is_only_known_with_the_plan() -> None:
    assert wrong_expression("resource.change.after.private", Over.RESOURCE) is None
    assert wrong_expression("plan.resource_changes.all(r, has(r.change.after))", Over.PLAN) is None


@pytest.mark.parametrize(
    "text", ["\ud800", "'\ud800' == 'x'", "\x00", "'" * LONGEST, "[" * LONGEST, "!" * LONGEST, "a." * 900]
)
def test_a_hostile_expression_is_a_mistake_and_nothing_worse(text: str) -> None:
    assert wrong_expression(text, Over.PLAN)

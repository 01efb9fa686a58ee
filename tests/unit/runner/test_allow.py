"""The allow-list."""

from __future__ import annotations

import pytest

from reconciler.model import Operation
from reconciler.runner.allow import Rule, Wish, allowed, why_not

BOTH = frozenset({Operation.PLAN, Operation.APPLY})
PLANS = frozenset({Operation.PLAN})


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("environments/prod/**", "environments/prod/net.yaml", True),
        ("environments/prod/**", "environments/prod/a/b/net.yaml", True),
        ("environments/prod/**", "environments/production/net.yaml", False),
        ("environments/prod/**", "environments/stage/net.yaml", False),
        ("environments/prod/*", "environments/prod/a/net.yaml", False),
        ("environments/**/net.yaml", "environments/net.yaml", True),
        ("environments/**/net.yaml", "environments/a/b/net.yaml", True),
        ("environments/**/net.yaml", "environments/a/bnet.yaml", False),
        ("environments/?/net.yaml", "environments/a/net.yaml", True),
        ("environments/?/net.yaml", "environments///net.yaml", False),
        ("environments/a.b/*", "environments/axb/n.yaml", False),
        ("environments/prod", "environments/prod/net.yaml", False),
        ("environments/[ab]/*", "environments/a/net.yaml", False),
        ("environments/prod/net.yaml", "environments/prod/net.yaml\n", False),
    ],
)
def test_globs(glob: str, path: str, expected: bool) -> None:
    assert allowed([Rule(BOTH, (glob,))], Wish(Operation.APPLY, path)) is expected


def test_a_rule_allows_only_its_own_operations() -> None:
    rules = [Rule(PLANS, ("environments/**",)), Rule(BOTH, ("environments/dev/**",))]
    assert allowed(rules, Wish(Operation.PLAN, "environments/prod/a.yaml"))
    assert not allowed(rules, Wish(Operation.APPLY, "environments/prod/a.yaml"))
    assert allowed(rules, Wish(Operation.APPLY, "environments/dev/a.yaml"))
    assert not allowed([], Wish(Operation.PLAN, "environments/dev/a.yaml"))


def test_a_refusal_says_where_it_would_be_allowed() -> None:
    rules = [Rule(PLANS, ("environments/**",)), Rule(BOTH, ("environments/stage/**", "environments/dev/**"))]
    said = why_not(rules, Wish(Operation.APPLY, "environments/prod/a.yaml"))
    assert said == (
        "apply of environments/prod/a.yaml is not on this runner's allow-list; "
        "folders where apply is allowed: environments/dev/**, environments/stage/**."
    )
    assert why_not([], Wish(Operation.PLAN, "x")).endswith("allowed: none.")


def test_a_rule_allows_only_its_modules() -> None:
    rules = [
        Rule(BOTH, ("environments/prod/**",), modules=("acme/*",)),
        Rule(PLANS, ("environments/**",), modules=("other/net",)),
        Rule(PLANS, ("environments/prod/**",), pulls=True, modules=("acme/service",)),
    ]
    path = "environments/prod/a.yaml"
    assert allowed(rules, Wish(Operation.APPLY, path, "acme/service"))
    assert not allowed(rules, Wish(Operation.APPLY, path, "other/net"))
    assert allowed(rules, Wish(Operation.PLAN, path, "other/net"))
    assert not allowed(rules, Wish(Operation.PLAN, path, "acme/network", pulls=True))
    assert not allowed(rules, Wish(Operation.APPLY, path, "acme/service/inner"))
    assert allowed(rules, Wish(Operation.APPLY, path)), "which module is not asked yet"
    assert why_not(rules, Wish(Operation.PLAN, path, "third/x")) == (
        "plan of third/x at environments/prod/a.yaml is not on this runner's allow-list; "
        "modules for which plan is allowed there: acme/*, other/net."
    )
    assert why_not(rules, Wish(Operation.PLAN, "environments/dev/a.yaml", pulls=True)) == (
        "plan of pull requests for environments/dev/a.yaml is not on this runner's allow-list; "
        "folders where plan of pull requests is allowed: environments/prod/**."
    )

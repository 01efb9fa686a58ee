"""The monitoring that is shipped in deploy/monitoring, as facts: what it asks for, and a copy with its times scaled down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
ALERTS, RECORDED = FOLDER / "alerts" / "alerts.yaml", FOLDER / "rules" / "rules.yaml"
GIVEN = frozenset({"job", "instance", "le", "alertname", "alertstate", "__name__"})  # labels that Prometheus adds
GIVEN_METRICS = frozenset({"up"})  # and what it writes by itself

_AGE = re.compile(r"> \d+ \* (?:60|3600)\b")
_RANGE = re.compile(r"\[\d+[mh]\]")


@dataclass
class Asked:
    """What an expression asks for: (metric, label, operator, value) of its selectors, and the labels that it groups by."""

    metrics: set[str] = field(default_factory=set)
    matchers: set[tuple[str, str, str, str]] = field(default_factory=set)
    grouped: set[str] = field(default_factory=set)


def groups(path: Path) -> list[dict[str, Any]]:
    """The groups of a file of rules."""
    found: list[dict[str, Any]] = yaml.safe_load(path.read_text())["groups"]
    return found


def rules(path: Path) -> list[dict[str, Any]]:
    """The rules of a file."""
    return [rule for group in groups(path) for rule in group["rules"]]


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards that are checked in, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "dashboards").glob("*.json"))}


def expressions() -> dict[str, str]:
    """Every expression, by where it stands."""
    found = {str(r.get("alert") or r["record"]): str(r["expr"]) for r in (*rules(RECORDED), *rules(ALERTS))}
    for name, board in dashboards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                expr = target["expr"].replace("$environment", ".*")
                found[f"{name}: {panel['title']}: {target['refId']}"] = expr
    return found


def asked(expr: str) -> Asked:
    """What the expression asks for. Raises ValueError where it is none."""
    found = Asked()
    for node in _nodes(promql.parse(expr)):
        if isinstance(node, promql.VectorSelector):
            _take(found, node)
        modifier = getattr(node, "modifier", None)
        if modifier is not None:
            found.grouped |= set(_grouping(modifier))
    return found


def _take(found: Asked, node: Any) -> None:
    found.metrics.add(node.name)
    for matcher in node.matchers.matchers:
        found.matchers.add((node.name, matcher.name, _operator(matcher), matcher.value))


def _operator(matcher: Any) -> str:
    return {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}[str(matcher.op).rpartition(".")[2]]


def _grouping(modifier: Any) -> Iterable[str]:
    """The labels of `by`, `on` and their like."""
    labels = getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None) or ()
    return [str(label) for label in labels]


def _nodes(node: Any) -> Iterator[Any]:
    """The expression and all that it is made of."""
    yield node
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        inner = getattr(node, name, None)
        for one in inner if isinstance(inner, list) else [inner]:
            if one is not None and hasattr(one, "prettify"):
                yield from _nodes(one)


def scaled(path: Path, *, waits: str, age: int, window: str, ages: Mapping[str, int]) -> str:
    """The file with every time small enough for a test, and nothing else changed.

    `for:` becomes `waits`, each threshold of an age `age` seconds (that of the alerts in `ages`: theirs), and each range of
    a selector `window`.
    """
    copy = groups(path)
    for rule in (rule for group in copy for rule in group["rules"]):
        seconds = ages.get(rule.get("alert", ""), age)
        rule["expr"] = _RANGE.sub(f"[{window}]", _AGE.sub(f"> {seconds}", rule["expr"]))
        if "for" in rule:
            rule["for"] = waits
    return yaml.safe_dump({"groups": copy}, sort_keys=False)

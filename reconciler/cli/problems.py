"""Problems in the words of those who show them: a terminal, a program, a code review."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from reconciler import __version__
from reconciler.model import Problem

Render = Callable[[Sequence[Problem]], str]


def text(problems: Sequence[Problem]) -> str:
    """`file:line:column: message`, as compilers say it."""
    return "\n".join(map(str, problems))


def as_json(problems: Sequence[Problem]) -> str:
    """A list of objects; line and column are 0 where the whole file is meant."""
    return json.dumps([_facts(problem) for problem in problems], indent=2)


def github(problems: Sequence[Problem]) -> str:
    """Workflow commands, which GitHub shows at the lines of a pull request."""
    return "\n".join(map(_command, problems))


def gitlab(problems: Sequence[Problem]) -> str:
    """A Code Quality report, which GitLab shows in a merge request."""
    return json.dumps([_quality(problem) for problem in problems], indent=2)


def sarif(problems: Sequence[Problem]) -> str:
    """SARIF 2.1.0, which code scanning reads."""
    rules = sorted({problem.reason for problem in problems})
    driver = {"name": "reconciler", "semanticVersion": __version__, "rules": [{"id": rule} for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(problem, rules.index(problem.reason)) for problem in problems],
    }
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2)


FORMATS: Mapping[str, Render] = {"text": text, "json": as_json, "github": github, "gitlab": gitlab, "sarif": sarif}


def _facts(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "path": place.path,
        "line": place.line,
        "column": place.column,
        "reason": problem.reason,
        "message": problem.message,
        "unit": problem.unit,
    }


def _command(problem: Problem) -> str:
    place = problem.place
    fields = {"file": place.path, "line": place.line, "col": place.column, "title": problem.reason}
    told = ",".join(f"{name}={_property(str(value))}" for name, value in fields.items() if value)
    return f"::error {told}::{_data(problem.message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _mark(problem: Problem) -> str:
    """Names the problem wherever its line moves to."""
    told = json.dumps([problem.place.path, problem.reason, problem.message])
    return hashlib.sha256(told.encode()).hexdigest()


def _quality(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "description": problem.message,
        "check_name": problem.reason,
        "fingerprint": _mark(problem),
        "severity": "blocker",
        "location": {"path": place.path, "lines": {"begin": max(place.line, 1)}},
    }


def _result(problem: Problem, rule: int) -> dict[str, Any]:
    place = problem.place
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(place.path)}}
    if place.line:
        location["region"] = {"startLine": place.line, "startColumn": place.column}
    return {
        "ruleId": problem.reason,
        "ruleIndex": rule,
        "level": "error",
        "message": {"text": problem.message},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"problem/v1": _mark(problem)},
    }

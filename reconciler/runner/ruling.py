"""The program that works out rules on a plan, in a process of its own: it is given bounds first, and ends with them.

stdin: `{"plan", "unit", "rules": [{"over", "expression"}]}`. stdout: a line of JSON for each rule, in their order:
`{"undecided"}` says why it cannot be worked out ("" where it can), `{"of"}` the addresses of which it is not true (up to `NAMED`),
`{"violations"}` how many there are. No value of the plan leaves it.
"""

from __future__ import annotations

import json
import math
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from reconciler.deciding.judge import MOST_NAMED
from reconciler.desired.rules import compiled
from reconciler.model import Over

CPU = 20  # seconds, for all rules of a plan
MEMORY = 2 << 30  # bytes of address space
NAMED = MOST_NAMED
_KEY = re.compile(r'Key not found in map : "(.*)"', re.DOTALL)
_INT64 = 2**63
_ABSENT = "what is unknown before the apply, and what is sensitive, is not there; ask has(...) first"

# What the library says, which may quote values of the plan, and what is said instead.
_WORDS = (
    ("Iteration budget", "it takes more steps than a rule may"),
    ("Applying SELECT", "it asks for a field of something that has none; before is null for what is new, after for what goes"),
    ("No matching overload", "an operator or a function is given a kind of value that it does not take"),
    ("Index error", "it asks for a member of a list that is not so long"),
)  # fmt: skip


def main() -> None:
    """Read what is asked, and answer."""
    _bound(resource.RLIMIT_CPU, CPU)
    _bound(resource.RLIMIT_AS, MEMORY)
    _bound(resource.RLIMIT_CORE, 0)
    asked = json.load(sys.stdin)
    plan, unit = _plain(asked["plan"]), asked["unit"]
    for rule in asked["rules"]:
        sys.stdout.write(json.dumps(answer(Over(rule["over"]), rule["expression"], plan, unit)) + "\n")
        sys.stdout.flush()


def answer(over: Over, text: str, plan: Mapping[str, Any], unit: Mapping[str, str]) -> dict[str, Any]:
    """What the rule says of the plan."""
    subjects = plan["resource_changes"] if over is Over.RESOURCE else [plan]
    program, undecided = compiled(text, over), ""
    of: list[str] = []
    violations = 0
    for subject in subjects:
        why, true = _worked_out(program, text, {over.value: subject, "unit": unit})
        if why:
            undecided = undecided or _located(why, subject, over)
        elif not true:
            violations += 1
            of += [str(subject["address"])] if over is Over.RESOURCE and len(of) < NAMED else []
    return {"undecided": undecided, "of": of, "violations": violations}


def _worked_out(program: Any, text: str, data: Mapping[str, Any]) -> tuple[str, bool]:
    """Why the expression cannot be worked out, or nothing; and whether it is true."""
    try:
        found = program.eval(data=data)
        kind, value = found.type().name(), found.value()
    except (RuntimeError, ValueError, TypeError) as error:
        kind, value = "ERROR", str(error)
    if kind == "ERROR":
        return _why(str(value), text), False
    return ("", value) if isinstance(value, bool) else (f"it gives {kind}, not true or false", False)


def _why(said: str, text: str) -> str:
    """In words that hold no value of the plan: a key is named only where the rule itself names it."""
    if found := _KEY.search(said):
        named = f"the key {found[1]}" if len(found[1]) > 1 and found[1] in text else "a key"
        return f"it asks for {named}, which is not there; {_ABSENT}"
    return next((ours for theirs, ours in _WORDS if theirs in said), "its value cannot be worked out")


def _located(why: str, subject: Mapping[str, Any], over: Over) -> str:
    return f"{why} ({subject['address']})" if over is Over.RESOURCE else why


def _plain(value: Any) -> Any:
    """The value as the language can hold it: whole numbers of 64 bits, and text that is text."""
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return float(value) if abs(value) < 10**300 else math.inf if value > 0 else -math.inf
    return value


def _bound(what: int, most: int) -> None:
    _soft, hard = resource.getrlimit(what)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (least, least))


def lines(said: bytes) -> Iterator[dict[str, Any]]:
    """The answers; the last one may be cut off where the program ended."""
    for line in said.splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield json.loads(line)


if __name__ == "__main__":
    main()

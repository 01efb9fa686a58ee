"""The rules of the host and of the environment, asked before a plan may be applied. What cannot be worked out holds.

They are worked out by a program of its own (`ruling`), which has bounds of time and memory, and sees nothing that is sensitive.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.desired.policy import from_the_next_merge_on
from reconciler.model import Hold, Rule, Unit
from reconciler.runner import ruling
from reconciler.runner.terraform.plan import Raw
from reconciler.runner.terraform.visible import visible

WITHIN = 60.0  # seconds: three times the program's own bound of processor time
PROGRAM = (sys.executable, "-P", "-m", "reconciler.runner.ruling")
PASSED_ON = ("HOME", "PYTHONPATH", "PYTHONUSERBASE")  # where a Python finds its own packages


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one rule says. `host`: it is the host's own."""

    rule: Rule
    host: bool
    undecided: str
    of: tuple[str, ...]
    violations: int

    @property
    def holds(self) -> bool:
        return bool(self.violations or self.undecided)


def judge_rules(plan: Raw, unit: Unit, hosts: Sequence[Rule]) -> Hold | None:
    """Why the rules do not let the plan pass, if so: the host's first, then those of environment.yaml.

    Raises:
        UnitError: "PlanInvalid": the plan cannot be read.
    """
    asked = [*((rule, True) for rule in hosts), *((rule, False) for rule in unit.environment.rules)]
    if not asked:
        return None
    said, why = _answers(_question(plan, unit, [rule for rule, _ in asked]))
    told = list(said)
    verdicts = [
        _verdict(rule, host, told[number] if number < len(told) else None, why)
        for number, (rule, host) in enumerate(asked)
    ]
    found = [one for one in verdicts if one.violations] or [one for one in verdicts if one.holds]
    return _hold(found, unit) if found else None


def _question(plan: Raw, unit: Unit, rules: Sequence[Rule]) -> bytes:
    about = {
        "id": unit.id,
        "environment": unit.environment.name,
        "module": unit.pin.module,
        "version": unit.pin.version,
        "state": unit.presence.value,
    }
    asked = [{"over": rule.over.value, "expression": rule.expression} for rule in rules]
    return json.dumps({"plan": visible(plan), "unit": about, "rules": asked}).encode()


def _answers(question: bytes) -> tuple[Iterator[dict[str, Any]], str]:
    """What the program says; and why it says no more, where it does not answer for all."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    try:
        ended = subprocess.run(
            PROGRAM, input=question, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, timeout=WITHIN, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return ruling.lines(error.stdout or b""), "it was not worked out in time"
    except OSError as error:
        return iter(()), f"the program that works it out does not start ({error.strerror})"
    most = f"all rules together may take {ruling.CPU} seconds and {ruling.MEMORY >> 30} GiB"
    return ruling.lines(ended.stdout), f"the program that works it out ended with {ended.returncode}; {most}"


def _verdict(rule: Rule, host: bool, said: dict[str, Any] | None, why: str) -> _Verdict:
    if said is None:
        return _Verdict(rule, host, why, (), 0)
    return _Verdict(rule, host, said["undecided"], tuple(said["of"]), said["violations"])


def _hold(found: Sequence[_Verdict], unit: Unit) -> Hold:
    first, path = found[0], unit.environment.place.path
    where = f"environments.{unit.environment.name}.rules of the host's runner.yaml" if first.host else path
    whose = f"the rule {first.rule.name} ({where})"
    others = [one.rule.name for one in found[1:]]
    besides = f" So do the rules {', '.join(others)}." if others else ""
    soon = "" if any(_stays(one, unit) for one in found) else from_the_next_merge_on(unit.environment, "rules")
    if not first.violations:
        what = f"Nobody can say whether this plan passes {whose}: {first.undecided}. Mend the rule, or the entry."
        return Hold("RuleUndecided", f"{what}{besides}{soon}")
    return Hold("RuleViolated", f"{first.rule.message} So says {whose}{_named(first)}.{besides}{soon}")


def _stays(one: _Verdict, unit: Unit) -> bool:
    """Whether the rule is in force after the next merge, too."""
    says = unit.environment.says
    return one.host or says is None or one.rule in says.rules


def _named(verdict: _Verdict) -> str:
    if not verdict.of:
        return ""
    more = verdict.violations - len(verdict.of)
    return f" of {', '.join(verdict.of)}" + (f" and {more} more" if more else "")

"""Rules are asked of the engine's own account of a plan, by a program that has bounds."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.policy import judged_with, policy_of
from reconciler.errors import UnitError
from reconciler.model import Hold, Outcome, Over, Rule, Unit
from reconciler.runner import ruling
from reconciler.runner.rules import judge_rules
from reconciler.runner.terraform.visible import visible
from tests.kit import facts as make
from tests.kit.plane import PROD, carry_out, ground, job, note, open_host

YAML = "environments/prod/environment.yaml"
HOSTS = "environments.prod.rules of the host's runner.yaml"


def over_plan(expression: str, name: str = "r", message: str = "Not so.") -> Rule:
    return Rule(name, Over.PLAN, expression, message)


def over_resource(expression: str, name: str = "r", message: str = "Not so.") -> Rule:
    return Rule(name, Over.RESOURCE, expression, message)


def change(address: str, *actions: str, after: Any = None, **words: Any) -> dict[str, Any]:
    about = {"actions": list(actions or ("create",)), "before": None, "after": after}
    return {"address": address, "type": address.partition(".")[0], "change": about | words}


def plan(*changes: dict[str, Any], **words: Any) -> dict[str, Any]:
    return {"resource_changes": list(changes), "resource_drift": [], "output_changes": {}} | words


def unit(*rules: Rule) -> Unit:
    environment = replace(make.environment(), rules=rules)
    return make.unit(environments=[environment])


def hold(said: dict[str, Any], *rules: Rule, hosts: tuple[Rule, ...] = ()) -> Hold | None:
    return judge_rules(said, unit(*rules), hosts)


def test_without_rules_no_program_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.runner.rules.PROGRAM", ("/nowhere",))
    assert hold(plan(change("a.b"))) is None
    found = hold(plan(change("a.b")), over_plan("true"))
    assert found is not None
    assert found.reason == "RuleUndecided"
    assert "does not start (No such file or directory)" in found.message


def test_what_is_true_passes_and_what_is_not_holds_with_its_message_and_addresses() -> None:
    buckets = [change(f"bucket.b{n}", after={"acl": "public" if n else "private"}) for n in range(8)]
    private = over_resource('resource.change.after.acl == "private"', "private", "Buckets are private here.")
    assert (
        hold(
            plan(buckets[0]), private, over_plan("size(plan.resource_changes) == 1"), over_plan('unit.id == "prod/net"')
        )
        is None
    )
    assert hold(plan(*buckets), private) == Hold(
        "RuleViolated",
        f"Buckets are private here. So says the rule private ({YAML}) of bucket.b1, bucket.b2, bucket.b3, bucket.b4, bucket.b5 and 2 more.",
    )


def test_the_hosts_rules_come_first_and_no_environment_loosens_them() -> None:
    same = over_plan("true", "small", "ours")
    found = hold(
        plan(change("a.b")),
        same,
        over_plan("false", "never"),
        hosts=(over_plan("false", "small", "The host says no."),),
    )
    assert found == Hold("RuleViolated", f"The host says no. So says the rule small ({HOSTS}). So do the rules never.")


def test_a_looser_rule_counts_from_the_next_merge_on() -> None:
    says = replace(make.environment(), rules=(over_plan("true"),))
    judged = judged_with(says, replace(policy_of(says), rules=(over_plan("false"),)))
    assert judged.rules == (over_plan("true"), over_plan("false"))
    found = judge_rules(plan(change("a.b")), make.unit(environments=[judged]), ())
    assert found is not None
    assert found.message.endswith(f"What {YAML} says of rules since this merge counts from the next one on.")


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (over_resource("resource.change.after.encrypted"), "it asks for the key encrypted, which is not there; what is unknown"),
        (over_resource("resource.change.after[resource.type] == 1"), "it asks for a key, which is not there; what is unknown"),
        (over_resource("resource.change.before.x == 1"), "it asks for a field of something that has none; before is null for"),
        (over_resource("resource.change.after.acl > 3"), "an operator or a function is given a kind of value that it does"),
        (over_resource("resource.change.actions[7] == 'x'"), "it asks for a member of a list that is not so long"),
        (over_resource("resource.change.after.acl"), "it gives STRING, not true or false"),
        (over_resource("int(resource.change.after.acl) == 1"), "its value cannot be worked out (bucket.b)"),
        (over_plan("[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3].all(e, true)))))"),
         "it takes more steps than a rule may"),
    ],
)  # fmt: skip
def test_what_cannot_be_worked_out_quotes_no_value(rule: Rule, said: str) -> None:
    shown = plan(change("bucket.b", after={"acl": "the-value-of-it"}))
    found = ruling.answer(rule.over, rule.expression, shown, {})
    assert said in found["undecided"]
    assert "the-value-of-it" not in found["undecided"]


def test_a_violation_is_told_before_what_cannot_be_worked_out() -> None:
    found = hold(
        plan(change("a.b", after={})), over_resource("resource.change.after.x == 1", "u"), over_plan("false", "v")
    )
    assert found is not None
    assert (found.reason, "rule v" in found.message, "rule u" in found.message) == ("RuleViolated", True, False)


@pytest.mark.parametrize("bound", ["RLIMIT_AS", "RLIMIT_CPU"])
def test_a_program_at_its_bound_holds(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, small = {"RLIMIT_AS": ("MEMORY", 60 << 20), "RLIMIT_CPU": ("CPU", 1)}[bound]
    program = f"import reconciler.runner.ruling as r; r.{name} = {small}; r.main()"
    monkeypatch.setattr("reconciler.runner.rules.PROGRAM", (sys.executable, "-c", program))
    slow = over_resource(" && ".join(['resource.change.after.x.matches("((x|.x){1,40})*y|.*")'] * 40))
    said = plan(*(change(f"a.b{n}", after={"x": "x" * 10_000}) for n in range(1_500)))
    found = hold(said, slow)  # without a bound it would take seven seconds
    assert found is not None
    assert found.reason == "RuleUndecided"
    assert "all rules together may take" in found.message


def test_a_program_that_dies_or_hangs_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    dies = 'import os, sys; print(\'{"undecided": "", "of": [], "violations": 0}\', flush=True); os.abort()'
    monkeypatch.setattr("reconciler.runner.rules.PROGRAM", (sys.executable, "-c", dies))
    found = hold(plan(change("a.b")), over_plan("true", "first"), over_plan("true", "second"))
    assert found is not None
    assert "the rule second" in found.message
    assert "ended with -6" in found.message
    hangs = "import time; time.sleep(300)"
    monkeypatch.setattr("reconciler.runner.rules.PROGRAM", (sys.executable, "-c", hangs))
    monkeypatch.setattr("reconciler.runner.rules.WITHIN", 0.5)
    found = hold(plan(change("a.b")), over_plan("true"))
    assert found is not None
    assert "it was not worked out in time" in found.message


def test_what_is_sensitive_is_not_there_to_be_asked_after() -> None:
    after = {
        "user": "ada",
        "password": "hunter22",
        "tags": {"a": "1", "b": "2"},
        "list": ["x", "y"],
        "blocks": [{"k": 1, "s": 2}],
    }
    marks = {"password": True, "tags": {"b": True}, "list": [False, True], "blocks": [{"s": True}]}
    said = plan(
        change("db.a", after=after, after_sensitive=marks), change("db.b", after={"x": 1}, after_sensitive=True),
        change("db.same", "no-op"), change("data.read", "read"),
        output_changes={"pw": {"actions": ["create"], "before": None, "after": "hunter22", "after_sensitive": True},
                        "same": {"actions": ["no-op"]}},
        variables={"password": {"value": "hunter22"}}, prior_state={"values": "hunter22"},
    )  # fmt: skip
    shown = visible(said)
    assert "hunter22" not in json.dumps(shown)
    first, second = shown["resource_changes"]
    assert first["change"]["after"] == {"user": "ada", "tags": {"a": "1"}, "blocks": [{"k": 1}]}
    assert "after" not in second["change"]
    assert shown["output_changes"] == {"pw": {"actions": ["create"], "before": None, "after_sensitive": True}}
    guess = hold(said, over_resource('!resource.change.after.password.startsWith("h")'))
    assert guess is not None
    assert guess.reason == "RuleUndecided"
    assert f"Nobody can say whether this plan passes the rule r ({YAML}): it asks for the key password" in guess.message


def test_a_plan_that_makes_no_sense_is_no_plan() -> None:
    with pytest.raises(UnitError, match="cannot be read"):
        hold({"resource_changes": [{"address": "a.b"}]}, over_plan("true"))


@pytest.mark.parametrize("value", [2**63, -(2**70), 10**400, 1.5, "\ud800", None, True, [], {"\udfff": 1}])
def test_any_value_of_json_can_be_looked_at(value: Any) -> None:
    shown = ruling._plain(plan(change("a.b", after={"x": value})))
    said = ruling.answer(Over.RESOURCE, "has(resource.change.after.x)", shown, {})
    assert said == {"undecided": "", "of": [], "violations": 0}


def test_a_job_is_held_by_a_rule_of_either_and_applies_without(tmp_path: Path) -> None:
    """Real Terraform: the host's rule holds what the environment's lets pass, and a plan within both is applied."""
    rules = [
        {"name": "no-bad-notes", "resource": 'resource.change.after.input != "bad"', "message": "No bad notes."},
        {
            "name": "terraform-data-only",
            "plan": 'plan.resource_changes.all(r, r.type == "terraform_data")',
            "message": "x",
        },
    ]
    made = ground(tmp_path, {"good": note("good"), "bad": note("bad")}, environments={"prod": {"rules": rules}})
    host = open_host(made)
    head = made.environments.head
    assert carry_out(host, job("prod/good", head, 1)).outcome is Outcome.SUCCEEDED
    held = carry_out(host, job("prod/bad", head, 2))
    assert (held.outcome, held.reason) == (Outcome.HELD, "RuleViolated")
    assert held.message == f"No bad notes. So says the rule no-bad-notes ({HOSTS}) of module.unit.terraform_data.this."
    assert host.memory.unit(held.job.unit).applied is None
    stricter = 'class: protected\nrules: [{name: none, resource: "false", message: Nothing changes.}]\n'
    head = made.environments.commit(
        {f"{PROD}/environment.yaml": stricter, f"{PROD}/good.yaml": note("better")}, "Stricter"
    )
    held = carry_out(host, job("prod/good", head, 3))
    assert held.message == f"Nothing changes. So says the rule none ({YAML}) of module.unit.terraform_data.this."

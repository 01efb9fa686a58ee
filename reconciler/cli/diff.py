"""`reconciler diff UNIT`."""

from __future__ import annotations

import click

from reconciler.cli.ask import Answer, Api, complete_units, output_option, server_option
from reconciler.cli.exits import DIFFERENCE, FINE
from reconciler.cli.show import as_json_text, line, progress, short, table, when


@click.command("diff")
@click.argument("unit", shell_complete=complete_units)
@server_option
@output_option
def command(unit: str, server: str, as_json: bool) -> int:
    """What waits to be applied to UNIT: the entry against what was applied, and the last plan.

    Addresses and actions only; values never leave the runner. Exits with 2 when there is a difference, whether or not it has been
    planned yet.
    """
    with Api(server) as api:
        seen = api.get(f"/api/v1/units/{unit}")
    plan = seen["plan"] if seen["plan"] and seen["plan"]["pending"] else None
    different = seen["sync"] != "Synced"
    if as_json:
        names = ("unit", "sync", "desired", "applied", "differs")
        as_json_text({**{name: seen[name] for name in names}, "different": different, "plan": plan})
    else:
        _show(seen, plan, different)
    return DIFFERENCE if different else FINE


def _show(seen: Answer, plan: Answer | None, different: bool) -> None:
    if not different:
        progress(f"{seen['unit']} is as its entry says.")
        return
    line("Applied", *_version(seen["applied"]) or ["never"])
    line("Desired", *_version(seen["desired"]) or ["no entry"])
    if seen["differs"]:
        line("Differs in", ", ".join(seen["differs"]))
    if plan is None:
        progress(f"No plan shows it yet; `reconciler explain {seen['unit']}` says what it waits for.")
        return
    line("Planned", when(plan["at"]), f"({plan['cause']})")
    print()
    table(("ACTION", "ADDRESS", "WHY"), [(_actions(c), c["address"], c["reason"]) for c in plan["changes"]])
    if plan["more"]:
        print(f"... and {plan['more']} more")
    if plan["outputs_changed"]:
        print("outputs change")


def _version(side: Answer | None) -> list[str]:
    return [f"{side['module']} {side['version']}", side["state"], "at " + short(side["commit"])] if side else []


def _actions(change: Answer) -> str:
    actions = change["actions"]
    return "replace" if {"create", "delete"} <= set(actions) else "/".join(actions)

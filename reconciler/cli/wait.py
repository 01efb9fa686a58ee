"""`reconciler wait UNIT|--commit SHA`."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import click

from reconciler.cli.ask import Answer, Api, complete_units, output_option, server_option
from reconciler.cli.exits import FINE, TIMEOUT, TROUBLE
from reconciler.cli.show import as_json_text, progress, table
from reconciler.cli.times import Duration

_PACE = 0.5  # seconds between two questions

# What still waits, as rows of the API's; why the daemon has no answer yet; and whether waiting for one helps.
Question = Callable[[], tuple[list[Answer], str, bool]]


@click.command("wait")
@click.argument("unit", required=False, shell_complete=complete_units)
@click.option("--commit", metavar="SHA", help="Wait until every unit is as this commit, or a newer one, says.")
@click.option("--timeout", type=Duration(), default="30m", show_default=True, help="How long at most.")
@server_option
@output_option
def command(unit: str | None, commit: str | None, timeout: timedelta, server: str, as_json: bool) -> int:
    """Wait until UNIT is as its entry says, or until a commit is applied everywhere.

    Ends early with 3 when waiting does not help: all that still waits is degraded or held, or the commit is not accepted and a
    person has to act. Exits with 4 when the time is up.
    """
    if (unit is None) == (commit is None):
        raise click.UsageError("say what to wait for: a UNIT, or --commit SHA")
    with Api(server) as api:
        ask = _unit(api, unit) if unit is not None else _commit(api, str(commit))
        code, waiting, why = _wait(ask, time.monotonic() + timeout.total_seconds())
    if as_json:
        as_json_text({"exit": code, "waiting": waiting, "message": why})
    elif waiting:
        table(("UNIT", "SYNC", "HEALTH", "REASON", "MESSAGE"), [_row(one) for one in waiting])
    elif why:
        progress(why)
    return code


def _row(one: Answer) -> list[str]:
    return [one[name] for name in ("unit", "sync", "health", "reason", "message")]


def _unit(api: Api, unit: str) -> Question:
    def ask() -> tuple[list[Answer], str, bool]:
        seen = api.get(f"/api/v1/units/{unit}")
        done = seen["sync"] == "Synced" and not seen["job"]
        names = ("unit", "sync", "health", "reason", "message", "held")
        return ([] if done else [{name: seen[name] for name in names}]), "", True

    return ask


def _commit(api: Api, sha: str) -> Question:
    before: list[
        object
    ] = []  # the last look at the branch when this began: what stopped it then may be put right by now

    def ask() -> tuple[list[Answer], str, bool]:
        seen = api.get(f"/api/v1/commits/{sha}")
        if seen["accepted"]:
            return seen["waiting"], "", True
        before.append(seen["verified_at"])
        why = f"the daemon has not accepted {sha[:12]} yet; see `reconciler status`"
        if (stopped := seen["stopped"]) is not None:
            why = f"the daemon has not accepted {sha[:12]}: {stopped['reason']}: {stopped['message']}"
        helps = not stopped or (seen["frozen"] is None and seen["verified_at"] == before[0])
        return [], why, helps

    return ask


def _wait(ask: Question, deadline: float) -> tuple[int, list[Answer], str]:
    """Ask until there is an answer or the time is up: the exit code, what still waits, and why nothing is known."""
    said = -1
    while True:
        waiting, why, helps = ask()
        if not waiting and not why:
            return FINE, [], ""
        if not helps:
            return TROUBLE, waiting, why
        if waiting and all(one["held"] or one["health"] == "Degraded" for one in waiting):
            return TROUBLE, waiting, "waiting does not help: `reconciler explain UNIT` says what does"
        if time.monotonic() >= deadline:
            return TIMEOUT, waiting, why or "the time is up"
        if waiting and len(waiting) != said:
            said = len(waiting)
            progress(f"{said} units wait")
        time.sleep(min(_PACE, max(deadline - time.monotonic(), 0.01)))

"""`reconciler status [SCOPE]`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from reconciler.cli.ask import Answer, Api, output_option, server_option
from reconciler.cli.exits import FINE, TROUBLE
from reconciler.cli.show import as_json_text, line, progress, short, table, when

_PAGE = 1000  # units asked for at once


@click.command("status")
@click.argument("scope", default="all")
@server_option
@output_option
@click.option("--sync", type=click.Choice(["Synced", "OutOfSync", "Unknown"]), help="Only units with this sync status.")
@click.option(
    "--health",
    type=click.Choice(["Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"]),
    help="Only units with this health.",
)
def command(scope: str, server: str, as_json: bool, sync: str | None, health: str | None) -> int:
    """How every unit in SCOPE fares: `all` (default), an environment or a unit.

    SYNC says whether the unit is as its entry says, HEALTH how it fares, REASON why it is not being changed. Exits with 3 when
    something in the scope is degraded or held, or a merged commit is not accepted.
    """
    chosen = {name: value for name, value in (("sync", sync), ("health", health)) if value}
    with Api(server) as api:
        whole = api.get("/api/v1/status")
        units = list(_units(api, scope, chosen))
    troubled = [unit for unit in units if unit["held"] or unit["health"] == "Degraded"]
    if as_json:
        as_json_text({**whole, "units": units})
    else:
        _show(whole, units)
    if not units:
        progress(f"No unit matches {scope}; `reconciler status` lists all there are.")
    stopped = whole["frozen"] or whole["trust"]["unproven"]
    return TROUBLE if troubled or stopped else FINE


def _units(api: Api, scope: str, chosen: dict[str, str]) -> Iterator[Answer]:
    offset: int | None = 0
    while offset is not None:
        page = api.get("/api/v1/units", scope=scope, offset=offset, limit=_PAGE, **chosen)
        yield from page["units"]
        offset = page["next"]


def _show_trust(trust: Answer) -> None:
    """What froze everything since when, and what of the branch is not accepted."""
    if trust["frozen"]:
        line(
            "Frozen since",
            when(trust["frozen"]["since"]) or "unknown",
            f"at the accepted head {trust['accepted_head']}",
        )
    if trust["unproven"]:
        found = trust["unproven"]
        line("Unproven", found["reason"], f"{short(found['commit'])}: {found['message']}")


def _show(whole: Answer, units: list[Answer]) -> None:
    line("Commit", short(whole["commit"]) or "none accepted yet")
    if whole["frozen"]:
        line("Frozen", whole["frozen"]["reason"], whole["frozen"]["message"])
    _show_trust(whole["trust"])
    for name, check in whole["checks"].items():
        if check["message"]:
            line(name.capitalize(), check["message"])
    for pause in whole["pauses"]:
        line("Paused", pause["scope"], f"by {pause['owner']} until {when(pause['until'])}: {pause['reason']}")
    for one in whole["break_glass"]:
        line("BREAK-GLASS", one["scope"], f"by {one['owner']} until {when(one['until'])}: {one['reason']}")
    for problem in whole["problems"]:
        line("Problem", f"{problem['file']}:{problem['line']}:{problem['column']}: {problem['message']}")
    if units:
        print()
        headings = ("UNIT", "SYNC", "HEALTH", "PHASE", "REASON", "MESSAGE")
        table(headings, [[unit[heading.lower()] for heading in headings] for unit in units])

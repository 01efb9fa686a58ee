"""`reconciler status [SCOPE]`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import click

from reconciler.cli.ask import Answer, Api, Silent, complete_scopes, output_option, server_option
from reconciler.cli.exits import FINE, TROUBLE
from reconciler.cli.show import as_json_text, line, progress, short, table, when
from reconciler.web.sentences import written

_PAGE = 1000  # units asked for at once
_PACE = 1.0  # seconds between two looks


@click.command("status")
@click.argument("scope", default="all", shell_complete=complete_scopes)
@server_option
@output_option
@click.option("--sync", type=click.Choice(["Synced", "OutOfSync", "Unknown"]), help="Only units with this sync status.")
@click.option(
    "--health",
    type=click.Choice(["Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"]),
    help="Only units with this health.",
)
@click.option("-w", "--watch", is_flag=True, help="Show it anew whenever something changes, until Ctrl-C.")
def command(scope: str, server: str, as_json: bool, sync: str | None, health: str | None, watch: bool) -> int:
    """How every unit in SCOPE fares: `all` (default), an environment or a unit.

    SYNC says whether the unit is as its entry says, HEALTH how it fares, REASON why it is not being changed. Exits with 3 when
    something in the scope is degraded or held, or a merged commit is not accepted. With --watch, -o json prints one document a line.
    """
    chosen = {name: value for name, value in (("sync", sync), ("health", health)) if value}
    with Api(server) as api:
        if watch:
            return _watch(lambda: _look(api, scope, chosen), as_json=as_json)
        whole, units = _look(api, scope, chosen)
    if as_json:
        as_json_text({**whole, "units": units})
    else:
        _show(whole, units)
    if not units:
        progress(f"No unit matches {scope}; `reconciler status` lists all there are.")
    troubled = [unit for unit in units if unit["held"] or unit["health"] == "Degraded"]
    stopped = whole["frozen"] or whole["trust"]["unproven"]
    return TROUBLE if troubled or stopped else FINE


def _look(api: Api, scope: str, chosen: dict[str, str]) -> tuple[Answer, list[Answer]]:
    return api.get("/api/v1/status"), list(_units(api, scope, chosen))


def _watch(look: Callable[[], tuple[Answer, list[Answer]]], *, as_json: bool) -> int:
    """Until Ctrl-C. A daemon that does not answer is told once, and asked again."""
    before: object = None
    try:
        while True:
            before = _again(look, before, as_json=as_json)
            time.sleep(_PACE)
    except KeyboardInterrupt:
        return FINE


def _again(look: Callable[[], tuple[Answer, list[Answer]]], before: object, *, as_json: bool) -> object:
    """Look, show what is another than `before`, and return what was seen."""
    try:
        whole, units = look()
    except Silent as error:
        if str(error) != before:
            progress(str(error))
        return str(error)
    seen = [{**whole, "heartbeat": None, "trust": {**whole["trust"], "verified_at": None}}, units]  # but for ages
    if seen != before and as_json:
        print(json.dumps({**whole, "units": units}, ensure_ascii=False), flush=True)
    elif seen != before:
        click.clear()
        _show(whole, units)
    return seen


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
    for change in whole["out_of_band"]:
        settled = f"{change['unsettled']} units to be looked at" if change["unsettled"] else "every unit was looked at"
        line("OUT OF BAND", change["environment"], f"{written(change)}; {settled}")
    for problem in whole["problems"]:
        line("Problem", f"{problem['file']}:{problem['line']}:{problem['column']}: {problem['message']}")
    if units:
        print()
        headings = ("UNIT", "SYNC", "HEALTH", "PHASE", "REASON", "MESSAGE")
        table(headings, [[unit[heading.lower()] for heading in headings] for unit in units])

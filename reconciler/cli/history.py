"""`reconciler history SCOPE`."""

from __future__ import annotations

import click

from reconciler.cli.ask import Answer, Api, complete_scopes, output_option, server_option
from reconciler.cli.show import as_json_text, named_pull, progress, table, when
from reconciler.web.sentences import told


@click.command("history")
@click.argument("scope", metavar="UNIT|SCOPE", default="all", shell_complete=complete_scopes)
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many events.")
@server_option
@output_option
def command(scope: str, limit: int, server: str, as_json: bool) -> None:
    """What happened to a unit, an environment or `all`, newest first, with the pauses that covered it.

    From the journal: every line was on disk before anything acted on it.
    """
    with Api(server) as api:
        seen = api.get("/api/v1/history", scope=scope, limit=limit)
    events, pulls = seen["events"], seen.get("pulls", {})
    if as_json:
        as_json_text(events)
        return
    if not events:
        progress(f"The journal has nothing of {scope}; `reconciler status` lists the units.")
        return
    headings = ("AT", "UNIT", "WHAT", "BY", "DETAILS")
    table(
        headings,
        [(when(e["at"]), e["unit"] or "", e["action"], e["actor"], _told(e, pulls)) for e in events],
    )


def _told(event: Answer, pulls: Answer) -> str:
    """What happened; of a new head also by which pull request it came."""
    text = told(event["action"], event["body"])
    pull = pulls.get(event["body"].get("commit")) if event["action"] == "head-accepted" else None
    return f"{text} by {named_pull(pull)}" if pull else text

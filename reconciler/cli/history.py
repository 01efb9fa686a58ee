"""`reconciler history SCOPE`."""

from __future__ import annotations

import click

from reconciler.cli.ask import Answer, Api, output_option, server_option
from reconciler.cli.show import as_json_text, progress, short, table, when


@click.command("history")
@click.argument("scope", metavar="UNIT|SCOPE", default="all")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many events.")
@server_option
@output_option
def command(scope: str, limit: int, server: str, as_json: bool) -> None:
    """What happened to a unit, an environment or `all`, newest first, with the pauses that covered it.

    From the journal: every line was on disk before anything acted on it.
    """
    with Api(server) as api:
        events = api.get("/api/v1/history", scope=scope, limit=limit)["events"]
    if as_json:
        as_json_text(events)
        return
    if not events:
        progress(f"The journal has nothing of {scope}; `reconciler status` lists the units.")
        return
    headings = ("AT", "UNIT", "WHAT", "BY", "DETAILS")
    table(headings, [(when(e["at"]), e["unit"] or "", e["action"], e["actor"], _details(e)) for e in events])


def _details(event: Answer) -> str:
    body = event["body"]
    match event["action"]:
        case "job-dispatched":
            job = body["dispatched"]["job"]
            return f"{job['operation']} at {short(job['commit'])} because of {body['dispatched']['cause']}, job {job['id']}"
        case "job-ended":
            result = body["result"]
            words = [result["outcome"], result["reason"], result["message"], f"(job {result['job']['id']})"]
            return " ".join(word for word in words if word)
        case "hold-changed" | "frozen":
            hold = body["hold"]
            return f"{hold['reason']}: {hold['message']}" if hold else "no hold any more"
        case "paused":
            return f"until {when(body['pause']['until'])}: {body['pause']['reason']}"
        case "history-accepted" | "head-accepted":
            return _head(body)
        case "check-scheduled":
            return when(body["next_check"])
        case "reconcile-requested":
            return f"{len(body['units'])} units"
        case "pull-shown":
            return f"pull request {body['pull']} at {short(body['head'])}: {body['reason']} {body['message']}"
        case "started":
            return f"version {body['version']}, fence {body['fence']}"
    return ""


def _head(body: Answer) -> str:
    if "commit" in body:
        return short(body["commit"])
    return f"{short(body['new'])} in place of {short(body['old'])}: {body['reason']}"

"""`reconciler pulls`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from reconciler.cli.ask import Answer, Api, output_option, server_option
from reconciler.cli.show import as_json_text, line, progress, short, table


@click.command("pulls")
@click.argument("number", type=int, required=False)
@server_option
@output_option
def command(number: int | None, server: str, as_json: bool) -> None:
    """What open pull requests would do, or the one of this NUMBER: every unit, and every object that would change.

    What stands here when a pull request is merged is all that its apply may do (`review` in environment.yaml).
    """
    with Api(server) as api:
        pulls = [pull for pull in api.get("/api/v1/pulls")["pulls"] if number in (None, pull["number"])]
    if as_json:
        as_json_text(pulls)
        return
    if not pulls:
        progress("No such pull request is open; drafts, and all where no forge is configured, are not looked at.")
    for pull in pulls:
        line(f"#{pull['number']}", pull["title"], f"by {pull['author']} at {short(pull['head'])}")
        if pull["reason"]:
            line("Not planned", pull["reason"], pull["message"])
        if pull["units"]:
            table(("UNIT", "STATE", "CHANGES", "MESSAGE"), list(_rows(pull)))


def _rows(pull: Answer) -> Iterator[list[str]]:
    for unit in pull["units"]:
        reason = "" if unit["state"] in ("planned", "follows") else f"{unit['reason']}: "
        yield [unit["unit"], unit["state"], str(len(unit["changes"]) + unit["more"]), reason + unit["message"]]
        for change in unit["changes"]:
            yield ["", "", "+".join(change["actions"]), change["address"]]

"""`reconciler orphans`."""

from __future__ import annotations

import click

from reconciler.cli import exits
from reconciler.cli.ask import Api, complete_scopes, output_option, server_option
from reconciler.cli.show import as_json_text, progress, table


@click.command("orphans")
@click.argument("scope", default="all", shell_complete=complete_scopes)
@server_option
@output_option
def command(scope: str, server: str, as_json: bool) -> int:
    """What nothing stands for: objects that a dead apply may have made and no state knows, and units whose entry is gone.

    Exit 3 when there is anything. `reconciler runner orphans` on the runner's host looks into the accounts themselves.
    """
    with Api(server) as api:
        seen = api.get("/api/v1/orphans", scope=scope)
    code = exits.TROUBLE if seen["strays"] or seen["units"] else exits.FINE
    if as_json:
        as_json_text(seen)
        return code
    if code == exits.FINE:
        progress("Nothing is known that no state or no entry stands for.")
    rows = [
        [one["unit"], one["type"], one["address"], one["id"], one["region"], one["remedy"]] for one in seen["strays"]
    ]
    rows += [[one["unit"], "unit", "", "", "", one["message"]] for one in seen["units"]]
    if rows:
        table(("UNIT", "TYPE", "ADDRESS", "ID", "REGION", "WHAT TO DO"), rows)
    return code

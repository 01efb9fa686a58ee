"""`reconciler pause`, `resume`, `break-glass` and `reconcile`: what goes over the admin socket, and for pipelines to the trigger."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import click

from reconciler.cli.ask import ACCEPT_HISTORY, Answer, complete_scopes, output_option, socket_option, tell
from reconciler.cli.exits import FINE
from reconciler.cli.identity import AUDIENCE, bearer
from reconciler.cli.show import as_json_text, progress
from reconciler.cli.times import Duration, Moment

_FILE = click.Path(path_type=Path)


@click.command("pause")
@click.argument("scope", shell_complete=complete_scopes)
@click.option("--reason", required=True, help="Why, in one line: it stands on every unit that is held.")
@click.option(
    "--until", required=True, type=Moment(), help="When it ends by itself, within 30 days: 2h, 3d, 2026-11-24T10:00Z."
)
@socket_option
@output_option
def pause(scope: str, reason: str, until: datetime, socket_path: Path, as_json: bool) -> None:
    """Stop all changes to SCOPE: `all`, an environment or a unit.

    Applies that run now end; nothing new begins. Plans go on, so that what waits can be seen. It works with git, the network, the
    states and the runner away. You are its owner.
    """
    _say(tell(socket_path, "pause", scope, reason=reason, until=until.isoformat()), as_json)


@click.command("resume")
@click.argument("scope", shell_complete=complete_scopes)
@socket_option
@output_option
def resume(scope: str, socket_path: Path, as_json: bool) -> None:
    """End the pause of SCOPE before its time. What waited is decided afresh at the newest commit."""
    _say(tell(socket_path, "resume", scope), as_json)


@click.group("break-glass")
def break_glass() -> None:
    """Work by hand in a scope for a while: bounded, audited, and with an alarm.

    It grants nothing: who may write by hand is up to the accounts. It keeps the daemon from putting back what people do.
    """


@break_glass.command("open")
@click.argument("scope")
@click.option("--reason", required=True, help="Why, in one line: it stands in the journal, the alarm, on every unit.")
@click.option(
    "--until",
    required=True,
    type=Moment(),
    help="When it ends by itself: 30m, 2026-11-24T10:00Z; within admin.break_glass.",
)
@socket_option
@output_option
def open_session(scope: str, reason: str, until: datetime, socket_path: Path, as_json: bool) -> None:
    """Open a session in SCOPE: `all`, an environment or a unit.

    No apply begins there; one that runs ends. The clock closes the session, whether or not anybody is still there. You are its owner.
    """
    _say(tell(socket_path, "break-glass-open", scope, reason=reason, until=until.isoformat()), as_json)


@break_glass.command("close")
@click.argument("scope")
@click.option("--accept-loss", is_flag=True, help="Let the next applies put back what was done by hand in SCOPE.")
@click.option("--reason", default="", help="With --accept-loss: why, in one line.")
@socket_option
@output_option
def close_session(scope: str, accept_loss: bool, reason: str, socket_path: Path, as_json: bool) -> None:
    """Close the session of SCOPE before its time, or end what still waits after one.

    Every unit is planned first. One that is in sync goes on; what was done by hand in another has to be merged or put back.
    """
    if accept_loss != bool(reason):
        raise click.UsageError("--accept-loss and --reason belong together: say what may be lost, and why")
    more = {"accept_loss": "yes", "reason": reason} if accept_loss else {}
    _say(tell(socket_path, "break-glass-close", scope, **more), as_json)


@click.command("reconcile")
@click.argument("scope", default="all", shell_complete=complete_scopes)
@click.option("--server", help="The daemon's trigger (https://...), for pipelines: instead of the admin socket.")
@click.option(
    "--wait", is_flag=True, help="With --server: show what happens, and exit by it: 0 fine, 3 held or degraded."
)
@click.option("--commit", metavar="SHA", help="With --server: what counts is this commit, or one that follows it.")
@click.option("--timeout", type=Duration(), default="30m", show_default=True, help="With --wait: how long at most.")
@click.option("--token-file", type=_FILE, help="A file with a token of the CI server, read anew for each request.")
@click.option("--token-env", metavar="NAME", help="The variable that holds it; not needed in GitHub Actions.")
@click.option("--audience", default=AUDIENCE, show_default=True, help="Of the token that GitHub is asked for.")
@click.option("--ca-file", type=_FILE, help="The authorities for https, instead of the system's.")
@click.option("--cert", type=_FILE, help="A certificate to show, instead of a token.")
@click.option("--key", type=_FILE, help="Its key, where it is in a file of its own.")
@socket_option
@output_option
def reconcile(
    scope: str,
    server: str | None,
    wait: bool,
    commit: str | None,
    timeout: timedelta,
    token_file: Path | None,
    token_env: str | None,
    audience: str,
    ca_file: Path | None,
    cert: Path | None,
    key: Path | None,
    socket_path: Path,
    as_json: bool,
) -> int:
    """Look at the units in SCOPE now: for drift, and what failed once more.

    It only wakes the daemon: nothing is applied that the next check would not have applied. With --server it is what a pipeline
    runs, after a merge: `reconciler reconcile prod --server https://... --commit SHA --wait`.
    """
    if server is None:
        if wait or commit or token_file or token_env or ca_file or cert or key:
            raise click.UsageError("that is for pipelines, by way of the trigger: say where it is with --server")
        _say(tell(socket_path, "reconcile", scope), as_json)
        return FINE
    from reconciler.cli.trigger import connection, run

    proof = bearer(token_file, token_env, audience, certificate=cert is not None)
    with connection(server, proof, ca_file, cert, key) as trigger:
        return run(trigger, scope, commit, timeout.total_seconds(), wait=wait, as_json=as_json)


@click.command("accept-history")
@click.argument("old")
@click.argument("new")
@click.option("--reason", required=True, help="Why, in one line: it stands in the journal with your name.")
@socket_option
@output_option
def accept_history(old: str, new: str, reason: str, socket_path: Path, as_json: bool) -> None:
    """Go on from NEW after the protected branch was rewritten; OLD is the head that was accepted before.

    Both are whole commits of 40 hex digits; `reconciler status` names them. Every commit that NEW has and OLD has not is proven
    first. The runner decides for itself: run `reconciler runner accept-history` on its host as well.
    """
    _say(tell(socket_path, ACCEPT_HISTORY, "all", old=old, new=new, reason=reason), as_json)


def _say(answer: Answer, as_json: bool) -> None:
    if as_json:
        as_json_text(answer)
    else:
        print(answer["message"])
    if answer["warning"]:
        progress(f"Warning: {answer['warning']}")

"""`reconciler pause`, `resume` and `reconcile`: what goes over the admin socket."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from reconciler.cli.ask import ACCEPT_HISTORY, Answer, output_option, socket_option, tell
from reconciler.cli.show import as_json_text, progress
from reconciler.cli.times import Moment


@click.command("pause")
@click.argument("scope")
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
@click.argument("scope")
@socket_option
@output_option
def resume(scope: str, socket_path: Path, as_json: bool) -> None:
    """End the pause of SCOPE before its time. What waited is decided afresh at the newest commit."""
    _say(tell(socket_path, "resume", scope), as_json)


@click.command("reconcile")
@click.argument("scope", default="all")
@socket_option
@output_option
def reconcile(scope: str, socket_path: Path, as_json: bool) -> None:
    """Look at the units in SCOPE now: for drift, and what failed once more.

    It only wakes the daemon: nothing is applied that the next check would not have applied.
    """
    _say(tell(socket_path, "reconcile", scope), as_json)


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

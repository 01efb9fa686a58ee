"""The command `reconciler`. Each command is a file of its own, imported when it is used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import cast

import click
from click.shell_completion import CompletionItem

from reconciler import __version__
from reconciler.cli.exits import ERROR, USAGE
from reconciler.errors import ReconcilerError

# name -> where its command is, and what `reconciler --help` says of it.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "run": ("reconciler.cli.run:command", "Run the daemon."),
    "runner": ("reconciler.cli.runner:command", "Run and inspect the isolated plane that holds the credentials."),
    "status": ("reconciler.cli.status:command", "How every unit fares."),
    "diff": ("reconciler.cli.diff:command", "What waits to be applied to a unit."),
    "explain": ("reconciler.cli.explain:command", "Why a unit is as it is, and what happens next."),
    "history": ("reconciler.cli.history:command", "What happened to a unit, newest first."),
    "pulls": ("reconciler.cli.pulls:command", "What open pull requests would do."),
    "orphans": ("reconciler.cli.orphans:command", "What no state knows, and units whose entry is gone."),
    "logs": ("reconciler.cli.logs:command", "The engine's output of a job."),
    "wait": ("reconciler.cli.wait:command", "Wait until a unit or a commit is applied."),
    "reconcile": ("reconciler.cli.admin:reconcile", "Look at units now instead of at their next check."),
    "pause": ("reconciler.cli.admin:pause", "Stop all changes to a scope for a while."),
    "resume": ("reconciler.cli.admin:resume", "End a pause before its time."),
    "break-glass": ("reconciler.cli.admin:break_glass", "Work by hand in a scope for a while, bounded and audited."),
    "accept-history": (
        "reconciler.cli.admin:accept_history",
        "Go on after the protected branch was rewritten.",
    ),
    "validate": ("reconciler.cli.validate:command", "Check a work tree of an environments repository, offline."),
    "new": ("reconciler.cli.new:command", "Write an entry from the variables of a module."),
    "doctor": ("reconciler.cli.doctor:command", "Look at everything around the daemon, with fixes in one line."),
    "promote": ("reconciler.cli.promote:command", "Write the change that brings a version to the next environment."),
    "schema": ("reconciler.cli.schema:command", "Print the JSON Schema of a file that users write."),
    "catalog": ("reconciler.cli.catalog:command", "Add versions of modules to the lock, and check them."),
    "audit": ("reconciler.cli.audit:command", "Check the runner's audit log, and ask who made which serial."),
    "guard": ("reconciler.cli.guard:command", "Who else could write in an environment's account."),
    "backup": ("reconciler.cli.backup:backup", "Write all that cannot be fetched again into one file."),
    "restore": ("reconciler.cli.backup:restore", "Bring back what `backup` wrote."),
    "config": ("reconciler.cli.config:command", "Show the configuration as the daemon reads it."),
    "init": ("reconciler.cli.init:command", "Write what an environments repository starts with."),
    "demo": ("reconciler.cli.demo:command", "Try everything in a folder: no accounts, no network."),
}


class Commands(click.Group):
    """Finds commands in `COMMANDS`, so that one of them costs the import of one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The names, in the order in which they are shown."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """The command, imported."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return cast("click.Command", getattr(import_module(module), name))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names that go on so, without importing anything; and the options of `reconciler` itself."""
        found = [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        """The list in `--help`, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="reconciler")
def cli() -> None:
    """GitOps for Terraform and OpenTofu: the merged pull request is the only way into production.

    SCOPE is `all`, an environment or a unit (`prod/network`). Data goes to stdout, progress and errors to stderr; `-o json` is for
    programs.

    Exit codes: 0 fine, 1 error, 2 there is a difference, 3 degraded or held, 4 timed out, 5 the daemon does not answer,
    64 wrong usage.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        code = cli.main(arguments, prog_name="reconciler", standalone_mode=False)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ReconcilerError as error:
        click.echo(f"Error: {error}", err=True)
        return getattr(error, "exit_code", ERROR)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Whoever read us has seen enough; without this the interpreter complains when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    return code if isinstance(code, int) else 0

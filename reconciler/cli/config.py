"""`reconciler config show`."""

from __future__ import annotations

from pathlib import Path

import click

from reconciler.cli.show import as_json_text
from reconciler.config.read import load_controller, load_runner, show


@click.group("config")
def command() -> None:
    """The host's two files, as the programs read them."""


@command.command("show")
@click.option("--config", "controller", type=click.Path(path_type=Path), help="A reconciler.yaml.")
@click.option("--runner", type=click.Path(path_type=Path), help="A runner.yaml.")
def shown(controller: Path | None, runner: Path | None) -> None:
    """Print the configuration in force as JSON: defaults and `RECONCILER_*` included, the values of variables hidden."""
    if (controller is None) == (runner is None):
        raise click.UsageError("say which file: --config reconciler.yaml or --runner runner.yaml")
    as_json_text(show(load_controller(controller)) if controller is not None else show(load_runner(Path(str(runner)))))

"""`reconciler runner`: the plane that holds the credentials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler import wire
from reconciler.config import RunnerConfig, load_runner

if TYPE_CHECKING:
    from reconciler.runner.memory import Memory

DEFAULT_CONFIG = "/etc/reconciler/runner.yaml"
CONFIG = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True
)


@click.group("runner")
def command() -> None:
    """The isolated plane: two verbs, plan and apply, on what its own configuration allows."""


@command.command()
@CONFIG
def serve(config_path: Path) -> None:
    """Listen for jobs until SIGTERM; running applies end first."""
    from reconciler.runner.host import Host  # the controller's commands never load the runner's code
    from reconciler.runner.service import Service
    from reconciler.runner.terraform.module import preload

    config = load_runner(config_path)
    host = Host(config)
    preload()
    host.warm()
    service = Service(host)
    service.serve(lambda: click.echo(f"runner: listening on {config.socket_path}", err=True))


@command.command()
@CONFIG
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def describe(config_path: Path, output: str) -> None:
    """What this runner may do, for whom, and with which engine."""
    about = wire.ask(load_runner(config_path).socket_path, {"verb": "describe"})["about"]
    if output == "json":
        click.echo(json.dumps(about, indent=2, sort_keys=True))
        return
    assert isinstance(about, dict)  # noqa: S101 - the runner's own answer
    for line in _lines(about):
        click.echo(line)


@command.command()
@CONFIG
@click.option("--reason", required=True, help="Why; shown wherever a job is held.")
def pause(config_path: Path, reason: str) -> None:
    """Stop every apply on this host. Works with the daemon dead: it is a file of the runner's memory."""
    _memory(load_runner(config_path)).pause(reason)
    click.echo("Every apply is held from now on; one that has begun ends. `reconciler runner resume` ends the pause.")


@command.command()
@CONFIG
def resume(config_path: Path) -> None:
    """End the runner's own pause."""
    _memory(load_runner(config_path)).resume()
    click.echo("Applies go on.")


def _memory(config: RunnerConfig) -> Memory:
    from reconciler.runner.memory import Memory  # late, see `serve`

    return Memory(config.memory_path)


def _lines(about: dict[str, object]) -> list[str]:
    """The answer for people: what is allowed first."""
    repository, engine = about["repository"], about["engine"]
    assert isinstance(repository, dict)  # noqa: S101 - as `Host.about` makes it
    assert isinstance(engine, dict)  # noqa: S101
    head = about["accepted_head"] or "none yet"
    lines = [
        f"Runs merged commits of {repository['url']}, branch {repository['branch']} (accepted head {head}).",
        f"Engine {engine['kind']} {engine['version']}; sandbox tier {about['sandbox_tier']}.",
    ]
    if about["paused"] is not None:
        lines.append(f"PAUSED: {about['paused']}")
    rules, environments = about["allow"], about["environments"]
    assert isinstance(rules, list)  # noqa: S101
    assert isinstance(environments, dict)  # noqa: S101
    lines += ["Allowed:"] + [f"  {' and '.join(r['operations'])}: {', '.join(r['folders'])}" for r in rules]
    lines += ["Environments:"] + [
        f"  {name}: {one['class']}, state {one['backend']}" for name, one in environments.items()
    ]
    return lines

"""`reconciler doctor`: everything around the two planes, looked at as they would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from rich.text import Text

from reconciler.cli.ask import output_option
from reconciler.cli.backup import planes_option, which_planes
from reconciler.cli.checkup import host, plane, sockets, trust
from reconciler.cli.checkup.finding import Finding, attempt, problem
from reconciler.cli.exits import ERROR, FINE
from reconciler.cli.show import as_json_text, console, plain, progress
from reconciler.config import ControllerConfig, RunnerConfig, load_controller, load_runner
from reconciler.desired.paths import LOCK_PATH
from reconciler.errors import ConfigError

C = TypeVar("C", ControllerConfig, RunnerConfig)
ENTER = "run doctor as the plane's user"
STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@planes_option
@click.option(
    "--lock",
    "lock_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"The lock to compare with the catalogs.  [default: {LOCK_PATH}, if there]",
)
@output_option
def command(controller: Path | None, runner: Path | None, lock_path: Path | None, as_json: bool) -> int:
    """Look at all that the planes need here: programs, files, repositories, the branch's protection, sockets, jail, states.

    Says ok, warning or problem of each, and what to do in one line. Changes nothing. Run it as each plane's user with that plane's
    file, or with both. Exits with 1 when there is a problem.
    """
    controller, runner = which_planes(controller, runner)
    lock_path = lock_path or (Path(LOCK_PATH) if Path(LOCK_PATH).exists() else None)
    found = []
    for one in _looks(controller, runner, lock_path):
        found.append(one)
        if not as_json:
            _show(one)
    counts = {level: sum(one.level == level for one in found) for level in STYLES}
    if as_json:
        as_json_text({"findings": [asdict(one) for one in found], **counts})
    progress(", ".join(f"{count} {level}" for level, count in counts.items()))
    return ERROR if counts["problem"] else FINE


def _looks(controller_path: Path | None, runner_path: Path | None, lock_path: Path | None) -> Iterator[Finding]:
    yield from attempt("git", "install git 2.39 or newer", host.git)
    controller, findings = _read("reconciler.yaml", controller_path, load_controller, secret=False)
    yield from findings
    runner, findings = _read("runner.yaml", runner_path, load_runner, secret=True)
    yield from findings
    if controller is not None and controller_path is not None:
        yield from _controller(controller, lock_path)
        yield from attempt("controller", "reconciler status", partial(sockets.controller, controller, controller_path))
    if runner is not None and runner_path is not None:
        yield from _runner(runner, lock_path if controller is None else None)
        yield from attempt(
            "runner", "reconciler runner describe", partial(sockets.runner, runner.socket_path, runner_path)
        )
    if controller is not None and runner is not None:
        yield from plane.together(controller, runner)
    if one := controller or runner:
        forge = one.environments_repo.forge
        server = forge.address if forge else None
        yield from attempt(
            "clock",
            "look whether the server can be reached",
            partial(host.clock, server, forge.ca_file if forge else None),
        )


def _read(name: str, path: Path | None, load: Callable[[Path], C], *, secret: bool) -> tuple[C | None, list[Finding]]:
    if path is None:
        return None, []
    try:
        config = load(path)
    except ConfigError as error:
        return None, [problem(name, str(error), f"correct {path}; `reconciler schema` has every field")]
    return config, list(attempt(name, f"look at {path}", partial(host.file, name, path, secret=secret)))


def _look(check: str, fix: str, look: Callable[..., Iterator[Finding]], *about: object) -> Iterator[Finding]:
    return attempt(check, fix, partial(look, check, *about))


def _both(config: ControllerConfig | RunnerConfig, who: str, lock_path: Path | None) -> Iterator[Finding]:
    """What each plane has to be able to do by itself."""
    yield from _look(f"{who}: secrets", "let this user read them", host.secrets, config)
    yield from _look(
        f"{who}: repository", "correct environments_repo, or the files that open it", trust.repository, config
    )
    yield from _look(
        f"{who}: signatures", "correct the files of environments_repo.signatures", trust.signatures, config
    )
    yield from _look(f"{who}: history", "correct environments_repo.genesis, or its signers", trust.history, config)
    yield from _look(f"{who}: protection", "correct environments_repo.forge, or its token", trust.protection, config)
    yield from _look(f"{who}: catalogs", "correct catalog_repos", trust.catalogs, config, lock_path)


def _controller(config: ControllerConfig, lock_path: Path | None) -> Iterator[Finding]:
    places = {"store": config.store_path.parent, "work": config.work_path}
    yield from _both(config, "controller", lock_path)
    yield from _look("controller: folders", ENTER, host.writable, places)
    yield from _look("controller: room", ENTER, host.room, places, 64)
    yield from _look("admin socket", ENTER, sockets.path, config.admin_socket)


def _runner(config: RunnerConfig, lock_path: Path | None) -> Iterator[Finding]:
    states = {
        f"states of {name}": one.backend.local.path for name, one in config.environments.items() if one.backend.local
    }
    places = {"memory": config.memory_path, "work": config.work_path}
    yield from _both(config, "runner", lock_path)
    yield from _look("runner: folders", ENTER, host.writable, places)
    yield from _look("runner: room", ENTER, host.room, {**places, **states}, config.least_room)
    yield from attempt("engine", "install tofu or terraform, and name it as engine", partial(plane.engine, config))
    yield from plane.states(config)
    yield from plane.accounts(config)
    yield from attempt(
        "runner socket",
        ENTER,
        partial(sockets.path, "runner socket", config.socket_path, shared=config.controller_uid is not None),
    )


def _show(one: Finding) -> None:
    text = Text.assemble((f"{one.level:<8}", STYLES[one.level]), f"{one.check:<24} {plain(one.message)}")
    console().print(text, soft_wrap=True)
    if one.fix:
        console().print(Text(f"{'':8}{'':24} -> {plain(one.fix)}"), soft_wrap=True)

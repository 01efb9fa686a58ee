"""`reconciler run`: the daemon."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from reconciler import __version__
from reconciler.config import load_controller
from reconciler.controller.daemon import Daemon, SystemClock, install_signals
from reconciler.controller.poller import REPOSITORY
from reconciler.logs import LibraryLog, open_log
from reconciler.observe import Observer
from reconciler.systemd import listening

DEFAULT_CONFIG = "/etc/reconciler/reconciler.yaml"


@click.command("run")
@click.option("--config", "config_path", type=click.Path(path_type=Path), default=DEFAULT_CONFIG, show_default=True)
@click.option(
    "--with-runner", "runner_path", type=click.Path(path_type=Path), help="Start a runner with this runner.yaml."
)
def command(config_path: Path, runner_path: Path | None) -> None:
    """Poll, decide and apply, until SIGTERM.

    --with-runner starts the runner as a child of this process: for trials, and for a single small host. Elsewhere the
    runner is a process of its own, under a user of its own: `reconciler runner serve`.
    """
    config = load_controller(config_path)
    log = open_log()
    logging.getLogger().addHandler(LibraryLog(log))
    observer = Observer(__version__, log, SystemClock().now, [REPOSITORY])
    systemd = listening()
    with _runner(runner_path):
        daemon = Daemon(config, config_path, observer, systemd)
        install_signals(daemon)
        daemon.run(lambda address: observer.listening(*address))


@contextmanager
def _runner(path: Path | None) -> Iterator[None]:
    """A runner for as long as the block lasts; its running applies end before this does."""
    if path is None:
        yield
        return
    argv = [sys.executable, "-m", "reconciler", "runner", "serve", "--config", str(path)]
    # A session of its own: a Ctrl-C on the terminal is for the daemon, which then ends the runner in order.
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        child.terminate()
        child.wait()

"""The runner's own needs: an engine, a jail, the states; and that both planes mean the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from reconciler.cli.checkup.finding import Finding, attempt, ok, problem, warning
from reconciler.config import ControllerConfig, Engine, RunnerConfig
from reconciler.model import Operation
from reconciler.runner.host import best_jail, open_access, open_backend, open_engine
from reconciler.runner.jail.tier import STRICT, TIERS
from reconciler.runner.terraform.binary import Engine as Found


def engine(config: RunnerConfig) -> Iterator[Finding]:
    """The engine that jobs would run, and the jail that it would run in."""
    with tempfile.TemporaryDirectory(prefix="reconciler-doctor-") as name:
        folder = Path(name)
        found = open_engine(config, folder)
        told = f"{found.kind} {found.version} ({found.binary})"
        if isinstance(config.engine, Engine):
            yield ok("engine", f"{told}, pinned")
        elif found.kind == "embedded":
            yield warning(
                "engine",
                f"embedded Terraform {found.version}: for trials",
                "install tofu or terraform, and pin it as engine",
            )
        else:
            pin = f'engine: {{binary: {found.binary}, version: "{found.version}", sha256: {found.sha256}}}'
            yield warning("engine", f"{told}: whatever is on PATH", pin)
        yield from attempt("jail", "see docs/operations.md", partial(_jail, config, found, folder))


def _jail(config: RunnerConfig, found: Found, folder: Path) -> Iterator[Finding]:
    """The best tier whose probes hold here; and what a better one lacks."""
    folder.chmod(0o711)  # jobs may run as other users
    wanted = config.sandbox.tier if config.sandbox else None
    best, missing = best_jail(config, found, folder / "probes")
    lacking = " ".join(missing.get(STRICT, "").split())
    if wanted is None:
        fix = f"sandbox: {{tier: {best}}}    # in runner.yaml" if best else lacking
        yield warning("jail", f"engines run without one; {best or 'none'} holds on this host", fix)
    elif best is None or TIERS.index(best) > TIERS.index(wanted):
        yield problem("jail", f"tier {wanted} is asked for, and {best or 'none'} is the best that holds here", lacking)
    else:
        yield ok("jail", f"tier {best} holds; {wanted} is asked for")
    if wanted and best not in (STRICT, None):
        yield warning("jail", f"{STRICT} would hold more than {best}", lacking)


def states(config: RunnerConfig) -> Iterator[Finding]:
    """Each environment's states can be listed with the credentials for plans."""
    for name in config.environments:
        check = f"states of {name}"
        yield from attempt(
            check,
            f"correct environments.{name} in runner.yaml: backend, credentials.plan",
            partial(_states, config, name),
        )


def _states(config: RunnerConfig, name: str) -> Iterator[Finding]:
    listed, check = config.environments[name], f"states of {name}"
    if listed.backend.local is not None:
        there = next(one for one in (listed.backend.local.path, *listed.backend.local.path.parents) if one.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            yield problem(
                check, f"this user may not write to {there}", f"run doctor as the runner's user, or chown {there} to it"
            )
            return
    access = open_access(config.installation, name, listed, Operation.PLAN)
    yield ok(check, f"{len(open_backend(listed, access).units(name))} states")


def accounts(config: RunnerConfig) -> Iterator[Finding]:
    """No account is a sandbox and protected at once: in a sandbox people write by hand."""
    of: dict[str, dict[str, list[str]]] = {}
    for name, listed in config.environments.items():
        for account in listed.allowed_account_ids:
            of.setdefault(account, {}).setdefault(listed.klass, []).append(name)
    shared = {account: kinds for account, kinds in of.items() if len(kinds) > 1}
    for account, kinds in shared.items():
        told = f"account {account} is of {', '.join(kinds['sandbox'])} (sandbox) and {', '.join(kinds['protected'])} (protected)"
        yield problem("accounts", told, "give the sandbox an account of its own")
    if not shared:
        yield ok("accounts", f"{len(of)} AWS accounts, none both sandbox and protected")


def together(controller: ControllerConfig, runner: RunnerConfig) -> Iterator[Finding]:
    """Both planes mean the same repository, by the same name, and meet at one socket."""
    ours, theirs = controller.environments_repo, runner.environments_repo
    pairs = {
        "installation": (controller.installation, runner.installation),
        "environments_repo.url": (ours.url, theirs.url),
        "environments_repo.branch": (ours.branch, theirs.branch),
        "environments_repo.genesis": (ours.genesis, theirs.genesis),
    }
    if controller.executor.fargate is not None:
        pairs["the spool"] = (controller.executor.fargate.spool, runner.task.spool or controller.executor.fargate.spool)
    else:
        pairs["the socket"] = (str(controller.local.socket), str(runner.socket_path))
    differing = {what: pair for what, pair in pairs.items() if pair[0] != pair[1]}
    for what, (one, other) in differing.items():
        yield problem(
            "planes", f"{what} is {one} for the controller and {other} for the runner", "write the same into both files"
        )
    if not differing:
        yield ok("planes", "both files mean the same repository, and meet at one place")
    if runner.controller_uid is None and controller.executor.fargate is None:
        yield warning(
            "planes",
            "both run as one user: whoever takes the controller has the credentials, too",
            "give each a user, and write controller_uid into runner.yaml (deploy/systemd has both)",
        )

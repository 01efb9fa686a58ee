"""Where the planes talk to each other and to people: sockets, and whether anybody answers."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

from reconciler import __version__, wire
from reconciler.cli.checkup.finding import Finding, ok, problem, warning
from reconciler.config import ControllerConfig
from reconciler.errors import PassError

LONGEST = 103  # bytes of a socket's path: the system's limit is 107, macOS's 103
_VERSION = re.compile(r'^reconciler_build_info\{.*version="([^"]*)"', re.MULTILINE)


def path(check: str, place: Path, *, shared: bool = False) -> Iterator[Finding]:
    """A socket's path, and who may reach it. `shared`: another user (controller_uid) connects, by a folder that it may enter."""
    size = len(str(place).encode())
    if size > LONGEST:
        yield problem(
            check,
            f"{place} has {size} bytes, and a socket's path {LONGEST} at most",
            "write a shorter path, as in /run/reconciler/runner.sock",
        )
        return
    if not place.parent.exists():
        yield ok(check, f"{place}; its folder is made at the start")
        return
    folder = place.parent.stat().st_mode
    if folder & stat.S_IWOTH:
        yield problem(check, f"anybody may put another socket in place of {place}", f"chmod o-w {place.parent}")
    elif place.exists() and not stat.S_ISSOCK(place.stat().st_mode):
        yield problem(check, f"{place} is no socket", f"move {place} away, or write another path")
    elif place.exists() and not shared and place.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield problem(check, f"{place} is open to other users", f"chmod 600 {place}")
    else:
        yield ok(check, str(place))


def runner(place: Path, config: Path) -> Iterator[Finding]:
    """The runner that listens there, and whether it is of this version. `config`: its file."""
    start = f"reconciler runner serve --config {config}"
    if not place.exists():
        yield warning("runner", f"nobody listens on {place}", start)
        return
    try:
        about = wire.ask(place, {"verb": "describe"})["about"]
    except PassError as error:
        yield problem("runner", str(error), start)
        return
    assert isinstance(about, dict)  # noqa: S101 - as `Host.about` makes it
    yield _same(
        "runner", str(about.get("version", "older")), f"listens on {place}, sandbox tier {about['sandbox_tier']}"
    )
    if about["paused"] is not None:
        yield warning("runner", f"paused: {about['paused']}", "reconciler runner resume")


def controller(config: ControllerConfig, path: Path) -> Iterator[Finding]:
    """The daemon, if it listens on this host without a proxy in between. `path`: of its file."""
    import httpx

    http = config.http
    if http.tls is not None or http.proxy is not None or http.oidc is not None:
        yield ok("controller", f"{http.listen} asks who one is, and so was not asked from here")
        return
    server = f"http://{config.http.listen}"
    try:
        with httpx.Client(timeout=10, trust_env=False) as client:
            said, measured = client.get(f"{server}/readyz"), client.get(f"{server}/metrics").text
        checks = said.json()["checks"]
    except httpx.TransportError:
        yield warning("controller", f"nobody answers at {server}", f"reconciler run --config {path}")
        return
    except (ValueError, KeyError, TypeError):
        yield problem(
            "controller", f"something else answers at {server}", "end it, or write another address into http.listen"
        )
        return
    found = _VERSION.search(measured)
    yield _same("controller", found[1] if found else "older", f"answers at {server}")
    for name, one in checks.items():
        if not one["ok"]:
            yield problem("controller", f"{name}: {one['message']}", "reconciler status")


def _same(check: str, version: str, told: str) -> Finding:
    if version != __version__:
        return problem(
            check,
            f"{told}; it is version {version}, and this is {__version__}",
            "upgrade both planes, and restart them",
        )
    return ok(check, f"{told}, version {version}")

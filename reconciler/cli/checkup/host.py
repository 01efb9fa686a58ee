"""The host itself: git, room, clock, and the files of both configurations."""

from __future__ import annotations

import email.utils
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.cli.checkup.finding import Finding, ok, problem, warning
from reconciler.config import ControllerConfig, RunnerConfig
from reconciler.errors import HeldError
from reconciler.git.command import Git
from reconciler.runner.credentials import OTHERS, read_secret

OLDEST_GIT = (2, 39)
LITTLE_ROOM = 1024  # MiB: below that it is time to look
SKEW = 300  # seconds that a commit's date may be ahead of us
DRIFTING = 30  # seconds
SECRET = ("token_file", "ssh_key", "key_file", "secret_file", "static_file")
WRITABLE = stat.S_IWGRP | stat.S_IWOTH

Config = ControllerConfig | RunnerConfig


def git() -> Iterator[Finding]:
    """The git that the planes would use, and its version."""
    said = Git(Path("/nonexistent")).run("version").decode().strip()
    found = re.search(r"(\d+)\.(\d+)", said)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < OLDEST_GIT:
        yield problem("git", f"{said} is too old", "install git 2.39 or newer")
    else:
        yield ok("git", said.removeprefix("git version "))


def file(check: str, path: Path, *, secret: bool) -> Iterator[Finding]:
    """Who else may write, or read, a configuration. `secret`: it is none of the others' business."""
    mode = path.stat().st_mode
    if mode & WRITABLE:
        yield problem(check, f"{path} may be written by others than its owner", f"chmod go-w {path}")
    elif secret and mode & OTHERS:
        yield warning(check, f"{path} may be read by any user, the controller's too", f"chmod o= {path}")
    else:
        yield ok(check, str(path))
    folder = path.resolve().parent
    if folder.stat().st_mode & stat.S_IWOTH and not folder.stat().st_mode & stat.S_ISVTX:
        yield problem(check, f"anybody may replace the files in {folder}", f"chmod o-w {folder}")


def secrets(check: str, config: Config) -> Iterator[Finding]:
    """Every file with a secret that the configuration names: there, readable, and closed to other users."""
    found = list(_secret_files(config.model_dump(by_alias=True), ""))
    flaws = []
    for name, path in found:
        try:
            read_secret(path, name)
        except HeldError as error:
            flaws.append(
                problem(
                    check,
                    str(error),
                    f"chmod o= {path}"
                    if error.reason == "SecretExposed"
                    else f"put the secret into {path}, readable by this plane's user",
                )
            )
    yield from flaws or [ok(check, f"{len(found)} files with secrets, none open to other users")]


def _secret_files(value: Any, name: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, list):
        for number, one in enumerate(value):
            yield from _secret_files(one, f"{name}[{number}]")
    if not isinstance(value, Mapping):
        return
    for key, one in value.items():
        here = f"{name}.{key}" if name else str(key)
        is_secret = key in SECRET or (key == "file" and ".secrets." in name)
        if is_secret and isinstance(one, str):
            yield here, Path(one)
        else:
            yield from _secret_files(one, here)


def room(check: str, paths: Mapping[str, Path], least: int) -> Iterator[Finding]:
    """MiB that are free where a plane writes. `least`: below that no job begins."""
    seen: dict[int, tuple[str, int]] = {}
    for what, path in paths.items():
        there = next(one for one in (path, *path.parents) if one.exists())
        seen.setdefault(there.stat().st_dev, (f"{what} ({there})", shutil.disk_usage(there).free >> 20))
    fix = "make room there"
    for where, free in seen.values():
        told = f"{free:,} MiB are free for {where}"
        if free < least:
            yield problem(check, f"{told}; below {least} no job begins (least_room)", fix)
        elif free < LITTLE_ROOM:
            yield warning(check, told, fix)
        else:
            yield ok(check, told)


def writable(check: str, paths: Mapping[str, Path]) -> Iterator[Finding]:
    """Whether this user may write where a plane does. Run as that plane's user it says so of the plane."""
    closed = []
    for what, path in paths.items():
        there = next(one for one in (path, *path.parents) if one.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            closed.append(
                problem(
                    check,
                    f"{what}: this user may not write to {there}",
                    f"run doctor as the plane's user, or chown {there} to it",
                )
            )
        elif there == path and path.is_dir() and path.stat().st_mode & OTHERS & ~stat.S_IXOTH:
            closed.append(problem(check, f"{what}: {path} is open to any user", f"chmod o= {path}"))
    yield from closed or [ok(check, ", ".join(f"{what} {path}" for what, path in paths.items()))]


def clock(server: str | None, ca_file: Path | None) -> Iterator[Finding]:
    """This host's clock against a server's that the planes talk to anyway; without any there is nothing to compare with."""
    import httpx

    now = datetime.now(UTC)
    if server is None:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M} UTC; no https server is configured to compare it with")
        return
    verify = str(ca_file) if ca_file else True
    said = httpx.head(server, timeout=10, verify=verify).headers.get("date", "")
    ahead = (datetime.now(UTC) - email.utils.parsedate_to_datetime(said)).total_seconds()
    told, fix = (
        f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {server}",
        "run an NTP client (chrony, systemd-timesyncd)",
    )
    if abs(ahead) > SKEW:
        yield problem("clock", f"{told}: dates of commits and tokens will be refused", fix)
    elif abs(ahead) > DRIFTING:
        yield warning("clock", told, fix)
    else:
        yield ok("clock", told)

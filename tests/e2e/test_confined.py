"""Both planes work as restricted as the units of deploy/systemd make them, and so does the jail with its drop-in."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.runner.jail.tier import find_bwrap
from tests.kit import confined
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's"),
]

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def behind(*files: str) -> tuple[str, ...]:
    """The words that put a program behind a unit's settings."""
    return (sys.executable, confined.__file__, ",".join(str(UNITS / name) for name in files))


@contextmanager
def told(path: Path) -> Iterator[list[bytes]]:
    """What a service tells its manager at this socket."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))

        def listen() -> None:
            while (said := manager.recv(64)) != b"":
                heard.append(said)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield heard
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", str(path))
            thread.join()


@pytest.mark.usefixtures("plain_provider")
def test_a_merge_is_applied_by_both_planes_behind_their_units(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/a"): data(1)}
    entries[at("prod/page")] = entry("file", {"path": "page", "content": "one"})
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.before = {"controller": behind("reconciler.service"), "runner": behind("reconciler-runner.service")}
        notify = home.ground.runtime / "notify"
        with told(notify) as heard:
            home.environment = {"NOTIFY_SOCKET": str(notify)}
            home.start()
            home.synced()
            home.ground.merge({at("prod/page"): entry("file", {"path": "page", "content": "two"})})
            home.synced()
            assert (home.ground.world / "page").read_text() == "two"
            assert restricted(home)
            home.until(lambda: heard.count(b"READY=1") == 2 and heard.count(b"WATCHDOG=1") > 2, "both say so")
            home.stop()
            home.until(lambda: heard.count(b"STOPPING=1") == 2, "both say that they end")


def restricted(home: House) -> bool:
    """Whether the kernel says so of both: a filter of calls, no capabilities, nothing new to be gained."""
    for process in (home.controller, home.runner):
        assert process is not None
        about = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
        )
        assert about["Seccomp"].strip() == "2"
        assert about["NoNewPrivs"].strip() == "1"
        assert int(about["CapBnd"], 16) == int(about["CapEff"], 16) == 0
    return True


def serve_jailed(home: House, *files: str) -> str:
    """What a runner that shall have a strict jail says behind these files; it answers, or it ended."""
    config = home.ground.runner_config
    config.write_text(config.read_text() + "sandbox: {tier: strict}\n")
    home.before = {"runner": behind(*files)}
    process = home.runner = home._spawn("runner", "runner", "serve", "--config", str(config))
    log = home.ground.logs / "runner.log"
    home.until(lambda: process.poll() is not None or "listening on" in log.read_text(), "it starts, or ends", 120)
    return log.read_text()


def test_the_jail_holds_behind_the_runner_s_unit_with_its_drop_in(tmp_path: Path) -> None:
    find_bwrap()
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data(1)}, CATALOG) as home:
        said = serve_jailed(home, "reconciler-runner.service", "jail.conf")
        if os.getuid() == 0:  # whom Linux lets have as many processes as he likes; all other probes hold
            assert "What got out: many-processes (" in said
            assert said.count(" where ") == 1
        else:
            home.start()
            home.synced()


def test_without_the_drop_in_a_runner_that_shall_have_a_jail_does_not_start(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data(1)}, CATALOG) as home:
        said = serve_jailed(home, "reconciler-runner.service")
        assert home.runner is not None
        assert home.runner.wait(60) != 0
        assert "a user namespace: Operation not permitted" in said


def test_without_its_open_path_bubblewrap_cannot_close_the_door_behind_it(tmp_path: Path) -> None:
    """What `ReadWritePaths` in the drop-in is for."""
    closed = tmp_path / "closed.conf"
    closed.write_text((UNITS / "jail.conf").read_text().replace("ReadWritePaths=", "#ReadWritePaths="))
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data(1)}, CATALOG) as home:
        said = serve_jailed(home, "reconciler-runner.service", str(closed))
        assert "max_user_namespaces" in said

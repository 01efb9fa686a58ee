"""The loop around the tick."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from reconciler.cli.ask import tell
from reconciler.config import load_controller
from reconciler.controller import daemon as module
from reconciler.controller.daemon import Daemon
from reconciler.controller.tick import Runtime
from reconciler.demo.playground import Playground, free_port, laid_over
from reconciler.errors import PassError, ReconcilerError
from reconciler.logs import open_log
from reconciler.observe import Observer
from tests.kit.house import ASKING

DEADLINE = 20.0  # seconds
MORE_THAN_ANYTHING_ELSE_ASKS_FOR = 10  # passes


def test_a_pass_that_failed_is_tried_again_though_nothing_else_wakes_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, enough = list[int](), threading.Event()

    def failing(_rt: Runtime) -> None:
        passes.append(1)
        if len(passes) == MORE_THAN_ANYTHING_ELSE_ASKS_FOR:
            enough.set()
        raise PassError("StoreFull", "Free space on its disk.")

    monkeypatch.setattr(module, "tick", failing)
    monkeypatch.setattr(module, "AFTER_FAILURE", timedelta(milliseconds=10))
    path = Playground.create(tmp_path / "ground").controller_config
    daemon = Daemon(load_controller(path), path, Observer("1", open_log(as_json=True), lambda: datetime.now(UTC)))
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        assert enough.wait(DEADLINE)
    finally:
        daemon.stop()
        thread.join(DEADLINE)
    assert not thread.is_alive()


@contextmanager
def living(path: Path) -> Iterator[tuple[Daemon, str]]:
    """A daemon that runs, and where it listens."""
    daemon = Daemon(load_controller(path), path, Observer("1", open_log(as_json=True), lambda: datetime.now(UTC)))
    up, where = threading.Event(), list[tuple[str, int]]()

    def ready(address: tuple[str, int]) -> None:
        where.append(address)
        up.set()

    thread = threading.Thread(target=daemon.run, args=(ready,))
    thread.start()
    try:
        assert up.wait(DEADLINE)
        yield daemon, "http://{}:{}".format(*where[0])
    finally:
        daemon.stop()
        thread.join(DEADLINE)
    assert not thread.is_alive()


def leads(address: str) -> bool:
    return bool(ASKING.get(f"{address}/readyz").json()["checks"]["leader"]["ok"])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # a poll, not a wait: the deadline is the wait


def test_a_standby_says_who_leads_refuses_everything_else_and_takes_over(tmp_path: Path) -> None:
    ground = Playground.create(tmp_path / "ground")
    first, second = ground.controller_config, ground.folder / "second.yaml"
    socket = ground.runtime / "second.sock"
    own = {"http": {"listen": f"127.0.0.1:{free_port()}"}, "admin": {"socket": str(socket)}}
    second.write_text(yaml.safe_dump(laid_over(yaml.safe_load(first.read_text()), own)))
    with living(second) as (_, address):
        until(lambda: leads(address))
        assert "reconciler_leader 1.0" in ASKING.get(f"{address}/metrics").text
    with living(first) as (leader, there):
        until(lambda: leads(there))
        with living(second) as (_, address):
            until(lambda: not leads(address))
            term = leader.store.term()
            assert term is not None
            assert ASKING.get(f"{address}/healthz").status_code == 200
            assert ASKING.get(f"{address}/readyz").status_code == 503
            refused = ASKING.get(f"{address}/api/v1/status")
            assert (refused.status_code, refused.json()["reason"]) == (503, "Standby")
            assert term.holder in refused.json()["error"]
            assert "reconciler_leader 0.0" in ASKING.get(f"{address}/metrics").text
            for action in ("pause", "resume", "reconcile"):
                with pytest.raises(ReconcilerError, match="stands by") as caught:
                    tell(socket, action, "all", reason="r", until="2099-01-01T00:00Z")
                assert term.holder in str(caught.value)
            leader.stop()
            until(lambda: leads(address))
            assert leader.store.term() != term


def test_a_daemon_that_was_replaced_ends_and_says_so(tmp_path: Path) -> None:
    path = Playground.create(tmp_path / "ground", controller={"store": {"lease": "1s"}}).controller_config
    config = load_controller(path)
    daemon = Daemon(config, path, Observer("1", open_log(as_json=True), lambda: datetime.now(UTC)))
    found: list[PassError] = []

    def run() -> None:
        try:
            daemon.run()
        except PassError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: daemon.checks()["leader"].ok)
    with closing(sqlite3.connect(config.store_path, timeout=DEADLINE)) as db, db:
        db.execute("UPDATE lease SET holder = 'elsewhere/1/2', fence = fence + 1")
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert [error.reason for error in found] == ["LeaseLost"]
    assert "elsewhere/1/2 has taken over" in str(found[0])

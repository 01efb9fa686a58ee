"""The loop around the tick."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler import daemon as module
from reconciler.config import load_controller
from reconciler.controller import Runtime
from reconciler.daemon import Daemon
from reconciler.demo.playground import Playground
from reconciler.errors import PassError
from reconciler.logs import open_log
from reconciler.observe import Observer

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

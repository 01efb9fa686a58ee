from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.branch.protected import open_branch
from reconciler.config import load_controller
from reconciler.controller.daemon import SystemClock
from reconciler.controller.poller import AcceptedInStore
from reconciler.executor.local import LocalExecutor
from reconciler.store.sqlite import SqliteStore
from tests.kit.graph import CATALOG, Graph
from tests.kit.house import House, house
from tests.kit.synced import record_synced

Found = dict[str, Any]

UNITS = Graph(chains=20, length=5, leaves=900)
WARM, POLLS = 200, 2000


def settle(home: House) -> int:
    """Take the first commit in, and record that all of it has been applied. Returns how many units there are."""
    config = load_controller(home.ground.controller_config)
    store = SqliteStore(config.store_path, SystemClock())
    try:
        branch = open_branch(config, AcceptedInStore(store))
        head = branch.source.poll()
        branch.source.accept(head)
        desired = branch.load(head.commit)
        assert not desired.problems
        facts = LocalExecutor(config.local.socket).describe()
        record_synced(store, desired, facts, datetime.now(UTC))
    finally:
        store.close()
    return len(desired.units)


def run_idle(home: House) -> Found:
    argv = [sys.executable, "-m", "tests.kit.idle", str(home.ground.controller_config), str(WARM), str(POLLS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: Found = json.loads(done.stdout)
    return found


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="memory and descriptors are read from /proc")
@pytest.mark.usefixtures("plain_planes")
def test_two_thousand_polls_with_nothing_to_do_keep_nothing(tmp_path: Path) -> None:
    with house(tmp_path / "house", UNITS.files(), CATALOG) as home:
        home.start_runner()
        assert settle(home) == 1000

        found = run_idle(home)

        before, after = found["before"], found["after"]
        assert after["memory"] <= 1.02 * before["memory"], found
        assert after["descriptors"] == before["descriptors"], found
        assert after["threads"] == before["threads"], found
        assert found["written"] == 0, "somebody found something to do"
        assert not list((home.ground.folder / "runner/spool").iterdir()), "a job was started"

"""Two minutes of what `make soak` does for two hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.play import Plan, failures, run

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="memory and descriptors are read from /proc")
def test_merges_drift_faults_and_restarts_leave_nothing_behind(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    # That of the whole test run, which is in its header. What is drawn is the seed's, when it comes is the machine's.
    seed = int(request.config.getoption("randomly_seed", 0))
    report = run(Plan(110, 300, seed, merge=2, trouble=2, drift="4m", patience=600), tmp_path / "house")
    assert failures(report) == [], report

"""A few units through what `make scale` takes thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scale.play import run

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="CPU and memory are read from /proc")
def test_each_unit_is_applied_once_for_each_change_and_nothing_else_is(tmp_path: Path) -> None:
    report = run(24, tmp_path / "house")
    assert report["wrong"] == [], report
    assert [part["jobs"] for part in report["parts"].values()] == [24, 0, 1, 24, 24]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="as above")
def test_so_it_is_on_the_aws_provider(tmp_path: Path, aws_mirror: Path) -> None:
    report = run(4, tmp_path / "house", aws_mirror)
    assert report["wrong"] == [], report
    assert [part["jobs"] for part in report["parts"].values()] == [4, 0, 1, 4, 4]

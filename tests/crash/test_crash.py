"""kill -9 at named points of the controller, the runner and the jobs; then everything starts again and must end well.

`make crash` plays every point with two hundred seeds; a test run plays half of the points once, drawn by its seed, in two houses.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.harness import falling_house
from tests.crash.points import POINTS
from tests.kit.forks import ForkServer

HOUSES = 2

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.crash, pytest.mark.timeout(900)]


def test_there_are_as_many_points_as_were_promised() -> None:
    assert len(POINTS) == len(set(map(str, POINTS))) >= 60


@pytest.mark.parametrize("part", range(HOUSES))
def test_everything_converges_and_nothing_happens_twice(
    part: int, quick_planes: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The seed of the whole test run, which is in its header: all workers have the same.
    seed = int(request.config.getoption("randomly_seed", 0))
    points = random.Random(seed).sample(POINTS, len(POINTS) // 2)[part::HOUSES]  # noqa: S311 - a story, not a secret
    with falling_house(tmp_path / "house", quick_planes, random.Random(seed + part)) as house:  # noqa: S311 - as above
        house.begin()
        for point in points:
            house.fall(point)
        assert house.check() == []

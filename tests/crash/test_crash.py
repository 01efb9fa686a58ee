"""kill -9 at named points of the controller, the runner and the jobs; then everything starts again and must end well.

`make crash` plays every point with two hundred seeds; a test run plays each point once, in two houses.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import ForkServer, falling_house, fork_server
from tests.crash.points import POINTS

HOUSES = 2

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.crash, pytest.mark.timeout(900)]


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    with fork_server() as running:
        yield running


def test_there_are_as_many_points_as_were_promised() -> None:
    assert len(POINTS) == len(set(map(str, POINTS))) >= 60


@pytest.mark.parametrize("part", range(HOUSES))
def test_everything_converges_and_nothing_happens_twice(
    part: int, server: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The seed of the whole test run, which is in its header: all workers have the same.
    seed = int(request.config.getoption("randomly_seed", 0))
    points = random.Random(seed).sample(POINTS, len(POINTS))[part::HOUSES]  # noqa: S311 - a story, not a secret
    with falling_house(tmp_path / "house", server, random.Random(seed + part)) as house:  # noqa: S311 - as above
        house.begin()
        for point in points:
            house.fall(point)
        assert house.check() == []

"""Calls that fail where processes die otherwise: it is told, nobody ends by it, nothing is lost, and all goes on by itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.crash.harness import falling_house
from tests.crash.points import FAULTS
from tests.kit.forks import ForkServer

HOUSES = 2
SAMPLE = (
    14  # faults in a house: each takes a retry, which comes after seconds; `make crash ARGS=--faults` has all of them
)

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.crash, pytest.mark.timeout(900)]


@pytest.mark.parametrize("part", range(HOUSES))
def test_a_fault_is_told_and_ends_nobody(
    part: int, quick_planes: ForkServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    seed = int(request.config.getoption("randomly_seed", 0))
    faults = random.Random(seed).sample(FAULTS, len(FAULTS))[part::HOUSES][:SAMPLE]  # noqa: S311 - a story, not a secret
    with falling_house(tmp_path / "house", quick_planes, random.Random(seed + part)) as house:  # noqa: S311 - as above
        house.begin()
        fallen = [house.fault(point, how) for point, how in faults]
        assert [one for one in fallen if one.deaths] == []
        assert house.check() == []

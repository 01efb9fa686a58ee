"""Modules that nobody wrote come to the same by each rung of the ladder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.runner.terraform.binary import find_engine
from tests.kit.generated import STEPS, steps
from tests.kit.rungs import Rung, compare, worker
from tests.kit.workbench import Workbench, pin

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(int(os.environ.get("RECONCILER_TEST_MODULES", "12")))  # `make rungs` plays 300
CHUNKS = 4


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Rung]]:
    """The first one is who says what is right."""
    folder = tmp_path_factory.mktemp("launcher")
    native, embedded = (find_engine(kind, None, None, folder) for kind in ("auto", "embedded"))
    with worker(native, folder) as warm:
        yield [
            Rung("native", lambda place: Workbench(native, place, pin=pin())),
            Rung("embedded", lambda place: Workbench(embedded, place, pin=pin())),
            warm,
        ]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_each_rung_makes_the_same_of_a_module(chunk: int, rungs: list[Rung], tmp_path: Path) -> None:
    refusing = 0
    for seed in SEEDS[chunk::CHUNKS]:
        told = steps(seed)
        assert len(told) == STEPS
        again = [*((one, False) for one in told), (told[-1], False), (told[-1], True)]
        different, refused = compare(rungs, tmp_path / str(seed), again)
        assert different == [], f"seed {seed}"
        refusing += bool(refused)
    assert 4 * refusing <= len(SEEDS[chunk::CHUNKS]), "most of them are to come to something"

"""Modules that nobody wrote come to the same by each rung of the ladder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.runner.terraform.binary import find_engine
from tests.kit.generated import STEPS, steps
from tests.kit.rungs import Rung, make
from tests.kit.workbench import Workbench, pin

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

SEEDS = range(int(os.environ.get("RECONCILER_TEST_MODULES", "12")))  # `make rungs` plays 300
CHUNKS = 4


@pytest.fixture(scope="module")
def rungs(tmp_path_factory: pytest.TempPathFactory) -> list[Rung]:
    """The first one is who says what is right."""
    launcher = tmp_path_factory.mktemp("launcher")
    native, embedded = (find_engine(kind, None, None, launcher) for kind in ("auto", "embedded"))
    return [
        Rung("native", lambda folder: Workbench(native, folder, pin=pin())),
        Rung("embedded", lambda folder: Workbench(embedded, folder, pin=pin())),
    ]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_each_rung_makes_the_same_of_a_module(chunk: int, rungs: list[Rung], tmp_path: Path) -> None:
    for seed in SEEDS[chunk::CHUNKS]:
        assert different(seed, rungs, tmp_path) == []


def different(seed: int, rungs: list[Rung], folder: Path) -> list[str]:
    """In which steps which rung makes something else of it than the first."""
    found: list[str] = []
    state: bytes | None = None
    told = steps(seed)
    assert len(told) == STEPS
    for number, (step, destroy) in enumerate([*((one, False) for one in told), (told[-1], False), (told[-1], True)]):
        made = [make(rung, folder / rung.name, step, state, destroy=destroy) for rung in rungs]
        for rung, one in zip(rungs, made, strict=True):
            found += [f"seed {seed}, step {number}, {rung.name}: {line}" for line in made[0].differs(one)]
        state = made[number % len(made)].left  # each goes on from what another has left
    return found

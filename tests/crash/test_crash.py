"""kill -9 at named points of the controller, the runner and the jobs; then everything starts again and must end well.

`make crash` plays every point with every seed; a test run plays each point once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.harness import Fall, ForkServer, falling_house, fork_server

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.crash, pytest.mark.timeout(240)]

SEEDS = 10
BESIDES: tuple[tuple[str, ...], ...] = ((), ("controller",), ("runner",), ("controller", "runner"))

# Role and point -> how often a story without a fall gets there, at the least (as counted with the point `*`).
POINTS = {
    ("controller", "accept:before"): 3,
    ("controller", "append:before"): 24,
    ("controller", "append:after"): 24,
    ("controller", "fetch:after"): 4,
    ("controller", "receive:before"): 20,
    ("controller", "send:after"): 20,
    ("controller", "start:before"): 9,
    ("controller", "start:after"): 9,
    ("controller", "transaction:after"): 24,
    ("runner", "create:before"): 9,
    ("runner", "create:after"): 9,
    ("runner", "fork:after"): 9,
    ("runner", "answer:before"): 20,
    ("runner", "answer:after"): 20,
    ("runner", "replace:before"): 9,
    ("runner", "state:after"): 9,
    ("job", "job:begins"): 9,
    ("job", "fence:after"): 14,
    ("job", "history:after"): 14,
    ("job", "trust:before"): 3,
    ("job", "trust:after"): 3,
    ("job", "begin:before"): 22,
    ("job", "begin:after"): 22,
    ("job", "bring:after"): 8,
    ("job", "init:after"): 8,
    ("job", "plan:after"): 8,
    ("job", "engine:after"): 28,
    ("job", "apply:before"): 6,
    ("job", "apply:after"): 6,
    ("job", "take-back:before"): 6,
    ("job", "take-back:after"): 6,
    ("job", "move:before"): 1,
    ("job", "move:after"): 1,
    ("job", "intent:before"): 6,
    ("job", "intent:after"): 6,
    ("job", "ended:before"): 6,
    ("job", "ended:after"): 6,
    ("job", "moved:before"): 1,
    ("job", "moved:after"): 1,
    ("job", "head:before"): 3,
    ("job", "head:after"): 3,
    ("job", "record:before"): 16,
    ("job", "take:before"): 16,
    ("job", "take:after"): 16,
    ("job", "remember:before"): 16,
    ("job", "remember:after"): 16,
    ("job", "fsync:before"): 100,
    ("job", "replace:before"): 66,
    ("job", "replace:after"): 66,
    ("job", "end:before"): 8,
    ("job", "end:after"): 8,
}
Run = tuple[str, str, int]


def runs() -> list[Run]:
    """All of them, or one of each point, each with another seed."""
    whole = os.environ.get("RECONCILER_TEST_CRASH") == "matrix"
    return [
        (role, point, seed)
        for number, (role, point) in enumerate(POINTS)
        for seed in (range(SEEDS) if whole else (number % SEEDS,))
    ]


def fall(role: str, point: str, seed: int) -> Fall:
    """The seed spreads the fall over the story, and says who is killed besides."""
    return Fall(role, point, 1 + seed * POINTS[role, point] // SEEDS, BESIDES[seed % len(BESIDES)])


@pytest.fixture(scope="session")
def server() -> Iterator[ForkServer]:
    with fork_server() as running:
        yield running


@pytest.mark.parametrize(("role", "point", "seed"), runs())
def test_everything_converges_and_nothing_happens_twice(
    role: str, point: str, seed: int, server: ForkServer, tmp_path: Path
) -> None:
    with falling_house(tmp_path / "house", server, fall(role, point, seed)) as house:
        house.play()
        assert house.fallen, "the story never got there"
        house.check()

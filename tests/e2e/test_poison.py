"""A few poisonous entries among many good ones, with real processes: each kind waits as it should, and holds up nobody.

`make poison` plays it with a thousand.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler import codec
from reconciler.model import Job
from reconciler.runner.terraform.leftover import Note
from tests.e2e.test_two_hundred import journal
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import ask, at, did, env, next_result, settled

MANY = int(os.environ.get("RECONCILER_TEST_POISON", "20"))  # units, poison included
PATIENCE = 60 + MANY  # seconds

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300 + 2 * MANY)]

GOOD = [f"good{number:04}" for number in range(MANY - 9)]
DIES = "prod/dies"
TYPED = {"names": [], "ports": {"http": "eighty"}, "count_of": 1, "on": True, "greeting": "hi"}
# What waits for new input, so that one job is all that it ever costs; each refused by something else.
ON_INPUT = {
    "typed": (entry("typed", TYPED), "InputInvalid"),
    "odd": (entry("picky", {"value": "odd"}), "InputInvalid"),
    "unknown": (entry("data", {"value": 1, "valeu": 2}), "InputUnknown"),
    "missing": (entry("typed", {"names": []}), "InputMissing"),
}
# What may pass by itself: a condition of the module's that may look at the world, and a cloud that is out of order.
ON_TIME = {
    "bad": (entry("picky", {"value": "bad"}), "PlanFailed"),
    "flaky": (entry("flaky", {"path": "flaky", "content": "x"}), "ApplyFailed"),
}
BROKEN = {"yaml": "module: [", "nobody": data("${{ nobody.value }}")}


@contextmanager
def killing(home: House, unit: str) -> Iterator[list[str]]:
    """Kill -9 every job of the unit as soon as its engine runs; the jobs that were."""
    killed: list[str] = []
    ending = threading.Event()
    spool = home.ground.folder / "runner" / "spool"

    def hunt() -> None:
        while not ending.wait(0.01):
            for folder in spool.glob("*"):
                with suppress(OSError, ValueError):
                    if folder.name in killed or codec.decode(Job, (folder / "job.json").read_bytes()).unit != unit:
                        continue
                    note = codec.decode(Note, (folder / "engine.json").read_bytes())
                    os.kill(note.keeper.pid, signal.SIGKILL)
                    killed.append(folder.name)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        yield killed
    finally:
        ending.set()
        hunter.join()


def retry_of(home: House, name: str) -> object:
    found = home.unit(f"prod/{name}")
    assert found["failure"], found
    return found["failure"]["retry_at"]


def test_the_others_converge_and_poison_has_a_price(tmp_path: Path) -> None:
    poison = {name: text for name, (text, _) in (ON_INPUT | ON_TIME).items()}
    entries = {at(f"prod/{name}"): data(name) for name in [*GOOD, "dies"]}
    entries |= {at(f"prod/{name}"): text for name, text in poison.items()}
    entries |= {at(f"prod/{name}"): text for name, text in BROKEN.items()}
    with house(tmp_path / "h", {env("prod"): environment(), **entries}, CATALOG) as home:
        (home.ground.world / "outage").touch()
        with killing(home, DIES) as killed:
            home.start()
            home.synced(*(f"prod/{name}" for name in GOOD), patience=PATIENCE)
            held = home.held(DIES, "Quarantined")
            for name, (_, reason) in (ON_INPUT | ON_TIME).items():
                home.held(f"prod/{name}", reason)
        assert len(killed) == 3
        assert held["health"] == "Degraded"
        assert "reconciler reconcile prod/dies" in held["message"]

        assert {name: retry_of(home, name) for name in ON_INPUT} == dict.fromkeys(ON_INPUT)
        assert all(retry_of(home, name) for name in ON_TIME)
        jobs = Counter(event.name for event in journal(home) if event.action == "job-dispatched")
        assert {name: jobs[name] for name in ON_INPUT} == dict.fromkeys(ON_INPUT, 1)
        assert {name: jobs[name] for name in GOOD} == dict.fromkeys(GOOD, 1)
        assert {name: jobs[name] for name in BROKEN} == dict.fromkeys(BROKEN, 0)
        assert jobs["dies"] == 3

        before = len(did(home, DIES))
        ask(home, "reconcile", DIES)  # whoever removed what killed it says so
        assert next_result(home, DIES, before)["outcome"] == "Succeeded"

        (home.ground.world / "outage").unlink()
        mended = {name: data(name) for name in [*ON_INPUT, "bad", *BROKEN]}
        home.ground.merge({at(f"prod/{name}"): text for name, text in mended.items()})
        ask(home, "reconcile", "prod/flaky")
        home.synced()
        settled(home)

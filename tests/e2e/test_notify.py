"""A webhook is told what happened in a real house: in order, nothing left out, whatever dies meanwhile."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from reconciler.demo.playground import free_port
from tests.kit.hook import hook
from tests.kit.house import house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_a_webhook_hears_of_everything_though_it_and_the_controller_were_away(tmp_path: Path) -> None:
    port = free_port()
    told = {"notify": [{"name": "ops", "url": f"http://127.0.0.1:{port}/hook"}]}
    entries = {env("prod"): environment(), at("prod/a"): data(1), at("prod/picky"): entry("picky", {"value": "good"})}
    with house(tmp_path / "h", entries, CATALOG, controller=told) as home:
        with hook(port) as first:
            home.start()
            home.synced()
            home.until(lambda: first.types().count("unit.applied") == 2, "both applies are told")
        # Nobody listens now; the loop goes on, and what happens is kept.
        home.ground.merge({at("prod/picky"): entry("picky", {"value": "bad"})})
        home.until(lambda: home.unit("prod/picky").get("health") == "Degraded", "it fails")
        metrics = httpx.get(f"{home.ground.address}/metrics", timeout=20).text
        assert 'reconciler_notifications_total{result="delivered",sink="ops"}' in metrics
        home.kill("controller")
        with hook(port) as second:
            home.start_controller()
            home.ground.merge({at("prod/picky"): entry("picky", {"value": "better"})})
            home.synced()
            home.until(lambda: "unit.applied" in second.types(), "the mended unit is told")
            kinds = second.types()
            assert kinds.index("unit.failed") < kinds.index("unit.applied")
            assert kinds[0] == "branch.accepted"
            everything = {one["id"]: one for one in (*first.taken, *second.taken)}
            numbers = [int(one["id"].partition("-")[0]) for one in everything.values()]
            assert numbers == sorted(numbers)

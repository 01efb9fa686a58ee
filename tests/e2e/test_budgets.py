"""A slow cloud delays nobody else, and one that throttles is asked less: with real Terraform, and one core for jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env, made, results, settled
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ONE = {"executor": {"local": {"workers": 1, "per_environment": 1}}}
THROTTLES = "ThrottlingException"


def metric(home: House, line: str) -> float:
    found = [text for text in home.text("/metrics").splitlines() if text.startswith(f"reconciler_{line} ")]
    return float(found[0].rpartition(" ")[2]) if found else -1.0


def test_an_apply_that_waits_for_its_cloud_holds_no_core(tmp_path: Path) -> None:
    entries = {
        env("stage"): environment(),
        env("prod"): environment(),
        at("stage/slow"): entry("slow", {"path": "slow", "content": "1"}),
        at("prod/a"): data("one"),
    }
    with house(tmp_path / "h", entries, CATALOG, controller=ONE) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the cloud of stage is slow")
        home.ground.merge({at("prod/a"): data("two"), at("prod/b"): data("three")})
        home.synced("prod/a", "prod/b")  # planned and applied meanwhile
        assert home.unit("stage/slow")["job"]
        assert metric(home, 'jobs_idle{environment="stage"}') == 1
        assert metric(home, "jobs_memory_bytes") > 0
        assert metric(home, "jobs_memory_limit_bytes") > 0
        (home.ground.world / "go").touch()
        home.synced()
        assert metric(home, 'jobs_idle{environment="stage"}') == 0
        assert all(one["used"]["cpu"] > 0 and one["used"]["memory"] > 0 for one in results(home, "all"))
        assert doubled(home.ground.world) == []


def test_what_waits_says_for_what(tmp_path: Path) -> None:
    small = {"executor": {"local": {"workers": 4, "per_environment": 4, "memory": 600, "job_memory": 400}}}
    entries = {env("prod"): environment(), at("prod/slow"): entry("slow", {"path": "slow", "content": "1"})}
    with house(tmp_path / "h", entries, CATALOG, controller=small) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the cloud is slow")
        home.ground.merge({at("prod/b"): data("one")})
        found = home.until(lambda: home.unit("prod/b")["queued"], "it waits for memory")
        assert found["limit"] == "memory"
        assert "600 MiB" in found["message"]
        said = home.command("explain", "prod/b").stdout
        assert "when it is its turn" in said
        assert "executor.local.memory" in said
        assert "executor.local.memory" in home.text("/units/prod/b")
        assert metric(home, 'queue_limit{environment="prod",limit="memory"}') == 1
        (home.ground.world / "go").touch()
        home.synced()
        assert metric(home, 'queue_limit{environment="prod",limit="memory"}') == 0


def test_an_account_that_throttles_is_asked_less(tmp_path: Path) -> None:
    units = {at(f"prod/{n}"): entry("flaky", {"path": n, "content": "1", "broken": THROTTLES}) for n in "abcdef"}
    shared = {"environments": {"prod": {"allowed_account_ids": ["111111111111"]}}}
    wide = {"executor": {"local": {"workers": 4, "per_environment": 4}}}
    with house(tmp_path / "h", {env("prod"): environment(), **units}, CATALOG, controller=wide, runner=shared) as home:
        (home.ground.world / THROTTLES).touch()
        home.start()
        home.until(lambda: metric(home, 'account_jobs_limit{environment="prod"}') >= 1, "fewer are let in")
        assert metric(home, 'jobs_throttled_total{environment="prod"}') >= 1
        shown = home.held("prod/a", "Throttled")
        assert THROTTLES in shown["message"]

        def told() -> str | None:
            places = [home.unit(f"prod/{n}")["queued"] for n in "abcdef"]
            return next((one["message"] for one in places if one and one["limit"] == "throttled"), None)

        assert "asked too often" in home.until(told, "some wait for their account")
        (home.ground.world / THROTTLES).unlink()
        home.synced(patience=120)
        settled(home)

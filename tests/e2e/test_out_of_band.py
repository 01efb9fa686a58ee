"""Somebody else writes in the account: it is on the page within a poll, and the environment's units are looked at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kit.house import ASKING, House, Json, house
from tests.kit.hurried import hurried
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import at, env
from tests.kit.trail import APPLIER, EMERGENCY, MALLORY, Trail, by_role, told

if TYPE_CHECKING:
    from tests.kit.aws import Aws

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]
KEYS = "[default]\naws_access_key_id = test\naws_secret_access_key = test\n"
POLL = 10.0  # seconds


def page(path: str, content: str) -> str:
    return entry("file", {"path": path, "content": content})


def causes(home: House, unit: str) -> list[str]:
    events: list[Json] = home.get(f"/api/v1/history?scope={unit}")["events"]
    return [one["body"]["dispatched"]["cause"] for one in events if one["action"] == "job-dispatched"]


def test_a_write_behind_its_back_is_seen_put_back_and_told(tmp_path: Path, aws: Aws) -> None:
    keys, trail = tmp_path / "keys", Trail(aws, "behind-its-back")
    keys.write_text(KEYS)
    entries = {
        env("prod"): environment(drift_interval="24h"),
        at("prod/a"): page("a", "as reviewed"),
        at("prod/b"): page("b", "as reviewed"),
        env("stage"): environment(drift_interval="24h"),
        at("stage/a"): page("c", "as reviewed"),
        env("dev"): environment(**{"class": "sandbox", "drift": "report"}),
    }
    own = {"AWS_SHARED_CREDENTIALS_FILE": str(keys), "AWS_EC2_METADATA_DISABLED": "true"}
    config = {"out_of_band": trail.config("prod", "dev")}
    with house(tmp_path / "h", entries, CATALOG, controller=config, environment=own) as home:
        # What the dead controller was handed comes again after a while.
        home.before = {"controller": hurried({"reconciler.trail.consumer:WAIT": 1, "reconciler.trail.sqs:HIDDEN": 10})}
        home.start()
        home.synced()

        world = home.ground.world / "a"
        world.write_text("by hand")
        began = time.monotonic()
        trail.send([told(), told(eventID="2", userIdentity=by_role(APPLIER)), "rubbish"])
        home.until(lambda: home.get("/api/v1/status")["out_of_band"], "it is on the page")
        assert time.monotonic() - began < POLL
        (seen,) = home.get("/api/v1/status")["out_of_band"]
        assert (seen["principal"], seen["calls"], seen["environment"]) == (MALLORY, ["s3:PutBucketPolicy"], "prod")
        assert MALLORY in ASKING.get(f"{home.address}/", headers={"accept": "text/html"}).text

        home.until(lambda: world.read_text() == "as reviewed", "it is put back")
        settled = lambda: home.get("/api/v1/status")["out_of_band"][0]["unsettled"] == 0  # noqa: E731
        home.until(settled, "every unit was looked at")
        for unit in ("prod/a", "prod/b"):
            assert causes(home, unit)[0] == "out-of-band"
            assert home.unit(unit)["out_of_band"] is None
        assert "out-of-band" not in causes(home, "stage/a")
        text = home.text("/metrics")
        assert 'reconciler_out_of_band_changes_total{by="other",environment="prod"} 1.0' in text
        assert 'reconciler_out_of_band_messages_total{result="invalid"} 1.0' in text
        home.until(lambda: not trail.left(), "nothing is left in the queue")

        home.kill("controller")
        trail.send([told(), told(eventID="3", userIdentity=by_role(EMERGENCY))])
        home.start_controller()
        both = lambda: len(home.get("/api/v1/status")["out_of_band"]) == 2  # noqa: E731
        home.until(both, "what came meanwhile is told, and what is known is not told again")
        home.until(lambda: not trail.left(), "nothing is left in the queue")
        found = {one["principal"]: one for one in home.get("/api/v1/status")["out_of_band"]}
        assert {name: (one["count"], one["break_glass"]) for name, one in found.items()} == {
            MALLORY: (1, False),
            EMERGENCY: (1, True),
        }
        told_of = home.command("status")
        assert f"{EMERGENCY} (break-glass) wrote in 111111111111" in told_of.stdout
        actions = [one for one in home.get("/api/v1/history?scope=prod")["events"] if one["action"] == "out-of-band"]
        assert [one["actor"] for one in actions] == ["cloudtrail", "cloudtrail"]

"""What was done, by whose merge, stands in the runner's audit log; what nobody merged raises an alarm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.runner.audit.anchor import FileAnchor
from reconciler.runner.record import Recorder
from tests.kit.aws import REGION, Aws, serving
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env, look

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

BUCKET = "acme-audit"
FLAKY = {"path": "f", "content": "1"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Aws]:
    with serving() as found:
        where = {"LocationConstraint": REGION}
        found.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration=where, ObjectLockEnabledForBucket=True
        )
        yield found


@pytest.fixture(params=["file", "s3"])
def anchor(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "file":
        return {"file": str(tmp_path / "anchor")}
    keys = tmp_path / "keys"
    keys.write_text("AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\n")
    keys.chmod(0o600)
    endpoint = request.getfixturevalue("cloud").endpoint
    where = {"bucket": BUCKET, "region": REGION, "endpoint": endpoint, "use_path_style": True, "retain": "7d"}
    return {"s3": {**where, "credentials": {"static_file": str(keys)}}}


def push(engine: Path, folder: Path, state: Path) -> None:
    """Somebody's `terraform state push`, with the serial one higher."""
    folder.mkdir()
    (folder / "main.tf").write_text(f'terraform {{\n  backend "local" {{\n    path = "{state}"\n  }}\n}}\n')
    document = json.loads(state.read_bytes())
    (folder / "new.json").write_text(json.dumps(document | {"serial": document["serial"] + 1}))
    for words in (("init", "-input=false"), ("state", "push", "new.json")):
        subprocess.run([engine, *words], cwd=folder, check=True, capture_output=True, timeout=60)


def verified(home: House, *words: str) -> tuple[int, dict[str, Any]]:
    done = home.command("audit", "verify", "--config", str(home.ground.runner_config), "-o", "json", *words)
    return done.returncode, json.loads(done.stdout or "{}")


def shown(home: House, *words: str) -> list[dict[str, Any]]:
    done = home.command("audit", "show", "--config", str(home.ground.runner_config), "-o", "json", *words)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def changes(home: House, unit: str) -> list[str]:
    return [one["change"] for one in shown(home, unit)]


def serials_are_explained(home: House, unit: str) -> None:
    """Every serial that the state ever had is in one record, and only one."""
    last = json.loads(home.ground.state(unit).read_bytes())["serial"]
    made: list[int] = []
    for one in shown(home, unit):
        before, after = ((one[side] or {"serial": -1})["serial"] for side in ("before", "after"))
        made += range(before + 1, after + 1)
    assert made == [*range(last + 1)]


def test_every_serial_has_its_record_and_the_anchor_vouches_for_it(
    anchor: dict[str, Any], engine: Path, tmp_path: Path
) -> None:
    first = {
        env("prod"): environment(),
        at("prod/a"): data("one"),
        at("prod/old"): data("stays"),
        at("prod/flaky"): entry("flaky", FLAKY),
    }
    runner = {"audit": {"anchor": anchor, "interval": "1s"}}
    with house(tmp_path / "h", first, CATALOG, runner=runner) as home:
        outage = home.ground.world / "outage"
        outage.touch()
        home.start()
        home.synced("prod/a", "prod/old")
        home.held("prod/flaky", "ApplyFailed")
        outage.unlink()
        began = home.ground.environments.head
        second = home.ground.merge(
            {
                at("prod/a"): data("two"),
                at("prod/old"): None,
                at("prod/new"): data("stays", moved_from="old"),
                at("prod/flaky"): entry("flaky", {**FLAKY, "content": "2"}),
            }
        )
        home.synced()
        assert changes(home, "prod/a") == ["applied", "applied"]
        assert [one["origin"]["change"]["commit"] for one in shown(home, "prod/a")] == [began, second]
        assert changes(home, "prod/new") == ["applied", "moved"]
        assert [one["unit"] for one in shown(home, "prod/new", "--serial", "1")] == ["prod/old"]
        assert changes(home, "prod/flaky") == ["failed", "applied"]

        push(engine, tmp_path / "by-hand", home.ground.state("prod/a"))
        found = look(home, "prod/a")
        assert (found["outcome"], found["reason"]) == ("Succeeded", "InSync")
        assert found["unexplained"]["found"]["serial"] == found["unexplained"]["recorded"]["serial"] + 1
        alarmed = home.held("prod/a", "SerialUnexplained")
        assert (alarmed["sync"], alarmed["health"], alarmed["held"]) == ("Synced", "Healthy", False)
        assert 'reconciler_unexplained_serials_total{environment="prod"} 1.0' in metrics(home)
        assert "ALARM" in home.command("explain", "prod/a").stdout
        look(home, "prod/a")  # the same serial is no second alarm
        assert 'reconciler_unexplained_serials_total{environment="prod"} 1.0' in metrics(home)

        home.ground.merge({at("prod/a"): data("three")})
        home.synced()
        assert home.unit("prod/a")["reason"] == ""
        assert changes(home, "prod/a") == ["applied", "applied", "unexplained", "applied"]
        for unit in ("prod/a", "prod/flaky"):
            serials_are_explained(home, unit)
        home.stop()
        code, said = verified(home)
        assert (code, said["fits"], said["beyond"], said["torn"]) == (0, True, 0, 0)
        assert said["anchored"] == said["records"] > 10

        segment = home.ground.folder / "runner" / "audit" / "000000000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join(lines[:-1]))
        assert verified(home)[0] == 2


def metrics(home: House) -> str:
    return httpx.get(f"{home.ground.address}/metrics", timeout=20).text


def test_an_anchor_that_is_away_stops_nothing_unless_it_is_required(tmp_path: Path) -> None:
    away = tmp_path / "mount"
    runner = {"audit": {"anchor": {"file": str(away / "anchor")}, "interval": "1s", "required": True, "grace": "1s"}}
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data("one")}, CATALOG, runner=runner) as home:
        recorder = Recorder(home.ground.folder / "runner" / "audit")
        recorder.log.clock = lambda: datetime.now(UTC) - timedelta(hours=1)
        recorder.event("paused", reason="it has waited for an hour")
        home.start()
        home.held("prod/a", "AuditNotAnchored")
        home.until(lambda: "reconciler_audit_failing 1.0" in metrics(home), "the alarm is on")
        assert not home.ground.state("prod/a").exists()
        away.mkdir()
        home.until((away / "anchor").exists, "the heads are put when the mount is back")
        home.ground.merge({at("prod/b"): data("two")})
        home.synced("prod/b")
        home.stop()
        records = json.loads((home.ground.folder / "runner" / "audit" / "head.json").read_bytes())["count"]
        assert max(one.count for one in FileAnchor(away / "anchor").heads().heads) == records


def test_who_paused_the_runner_is_recorded(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): data("one")}, CATALOG) as home:
        home.start()
        home.synced()
        config = ("--config", str(home.ground.runner_config))
        home.command("runner", "pause", *config, "--reason", "a break")
        home.command("runner", "resume", *config)
        log = home.ground.folder / "runner" / "audit" / "000000000001.jsonl"
        said = [json.loads(line) for line in log.read_bytes().splitlines()]
        kinds = [one["kind"] for one in said]
        assert kinds == ["head", "engine", "intent", "state", "paused", "resumed"]
        assert said[4]["body"]["reason"] == "a break"
        assert said[4]["body"]["actor"]
        assert verified(home)[0] == 0

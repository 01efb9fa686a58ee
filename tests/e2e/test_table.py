"""A controller whose store is a table, killed with kill -9; another one, with nothing on its disk, goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from reconciler.demo.playground import laid_over
from tests.kit.dynamo import make_table
from tests.kit.house import house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.story import at, env, made
from tests.provider.log import doubled

if TYPE_CHECKING:
    from tests.kit.aws import Aws

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]
REGION = "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


def test_who_comes_after_a_dead_controller_has_all_that_it_knew_from_the_table(
    tmp_path: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    entries = {
        env("prod"): environment(),
        at("prod/first"): entry("file", {"path": "first", "content": "one"}),
        at("prod/second"): entry("file", {"path": "second", "content": "after ${{ first.path }}"}),
    }
    table = {"table": "acme-reconciler", "region": REGION, "endpoint": aws.endpoint, "folder": str(tmp_path / "host-1")}
    store = {"store": {"path": None, "dynamodb": table, "lease": "6s"}}
    with house(tmp_path / "h", entries, CATALOG, controller=store, environment=KEYS) as home:
        early = home.command("run", "--config", str(home.ground.controller_config))
        assert early.returncode == 1
        assert "aws dynamodb create-table --table-name acme-reconciler" in early.stderr
        make_table(aws.client("dynamodb"), "acme-reconciler")

        home.start()
        home.synced()
        status = home.get("/api/v1/status")
        home.kill("controller")

        config = yaml.safe_load(home.ground.controller_config.read_text())
        other = laid_over(config, {"store": {"dynamodb": {"folder": str(tmp_path / "host-2")}}})
        home.ground.controller_config.write_text(yaml.safe_dump(other))
        home.start_controller()
        home.synced()
        assert home.get("/api/v1/status")["commit"] == status["commit"]
        home.ground.merge({at("prod/second"): entry("file", {"path": "second", "content": "again ${{ first.path }}"})})
        home.synced()

        assert made(home, "create", "created") == ["first", "second"]
        assert doubled(home.ground.world) == []
        actions = [one["action"] for one in home.get("/api/v1/history?scope=prod/second")["events"]]
        assert actions.count("job-dispatched") == actions.count("job-ended") >= 2

        path = str(home.ground.controller_config)
        fits = json.loads(home.command("audit", "verify", "--store", path, "-o", "json").stdout)
        assert fits["fits"], fits
        assert fits["records"] > len(actions)
        for words in (["backup", str(tmp_path / "b.tar")], ["restore", str(tmp_path / "b.tar")]):
            told = home.command(*words, "--config", path)
            assert told.returncode == 1
        assert not (tmp_path / "b.tar").exists()
        refused = home.command("backup", str(tmp_path / "b.tar"), "--config", path)
        assert "point-in-time recovery" in refused.stderr

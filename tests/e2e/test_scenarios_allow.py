"""The life of an allowance: it opens with its line, survives what goes wrong, and is spent by one success."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.example import LOCK, lock_of
from reconciler.demo.example import release as publish
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, DATA, data, entry, environment, release
from tests.kit.story import actions, ask, at, env, gate, judged, look, made, phase, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def keep(word: str, **fields: Any) -> str:
    """An entry whose one object is replaced when the word is another."""
    return entry("data", {"value": 1, "keep": word}, **fields)


def object_id(home: House) -> str:
    return str(json.loads(home.ground.state("prod/a").read_text())["outputs"]["id"]["value"])


def test_an_allowance_is_spent_by_the_next_success_and_opens_again_with_its_line(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): keep("0")}, CATALOG) as home:
        home.start()
        home.synced()
        first = object_id(home)

        home.ground.merge({at("prod/a"): keep("1")})
        held = home.held("prod/a", "DestroyLimit")
        assert "`allow_destroy: 1` in environments/prod/a.yaml" in held["message"]
        home.ground.merge({at("prod/a"): keep("1", allow_destroy=1)})
        home.synced()
        second = object_id(home)
        assert second != first

        home.ground.merge({at("prod/a"): keep("2", allow_destroy=1)})  # the line is the same: it is spent
        home.held("prod/a", "DestroyLimit")
        without = home.ground.merge({at("prod/a"): keep("2")})
        judged(home, "prod/a", without)
        home.ground.merge({at("prod/a"): keep("2", allow_destroy=1)})  # out and in again: it opens
        home.synced()
        assert object_id(home) not in (first, second)


def test_an_allowance_survives_a_failure_a_newer_commit_and_a_restart(tmp_path: Path) -> None:
    page = {"path": "f", "content": "1"}
    other = {"path": "g", "content": "1"}
    entries = {env("prod"): environment(), at("prod/flaky"): entry("flaky", page)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        (home.ground.world / "outage").touch()
        home.ground.merge({at("prod/flaky"): entry("flaky", other, allow_destroy=2)})
        home.held("prod/flaky", "ApplyFailed")
        home.ground.merge({"README.md": "A newer commit"})
        home.stop()
        (home.ground.world / "outage").unlink()
        home.start()
        ask(home, "reconcile", "prod")
        home.synced()
        assert sorted(set(made(home, "delete", "deleted"))) == ["f/first", "f/second", "g/second"]
        assert made(home, "create", "created")[-1] == "g/second"


def test_an_allowance_ends_after_a_week(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): keep("0")}, CATALOG) as home:
        home.start()
        home.synced()
        ask(home, "pause", "prod", reason="a long incident", until=_in(timedelta(days=20)))
        home.ground.merge({at("prod/a"): keep("1", allow_destroy=1)})
        home.until(lambda: (home.unit("prod/a")["plan"] or {}).get("pending"), "it is planned")
        settled(home)
        _age_allowances(home, days=8)
        ask(home, "resume", "prod")
        home.held("prod/a", "DestroyLimit")


def _in(time: timedelta) -> str:
    return (datetime.now(UTC) + time).isoformat()


def _age_allowances(home: House, days: int) -> None:
    """As if the runner had accepted their commit so many days earlier."""
    path = home.ground.folder / "runner" / "trust.json"
    trust = json.loads(path.read_text())
    opened = trust["allowances"]["prod/a"]["opened"]
    for name, at_ in opened.items():
        opened[name] = (datetime.fromisoformat(at_) - timedelta(days=days)).isoformat()
    assert opened
    path.write_text(json.dumps(trust))


def test_no_allowance_goes_beyond_the_hosts_own_limit(tmp_path: Path) -> None:
    capped = {"environments": {"prod": {"max_destroy": 0}}}
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): keep("0")}, CATALOG, runner=capped) as home:
        home.start()
        home.synced()
        home.ground.merge({at("prod/a"): keep("1", allow_destroy=9), env("prod"): environment(limits={"destroy": 9})})
        assert "max_destroy is 0" in home.held("prod/a", "DestroyLimit")["message"]


def test_an_older_version_needs_its_line(tmp_path: Path) -> None:
    more = {**CATALOG, "v1.1.0": release(data=DATA.replace("always", "from now on"))}
    entries = {env("prod"): environment(), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        publish(home.ground.catalog, {"v1.1.0": more["v1.1.0"]})
        lock = lock_of(home.ground.catalog, more, "acme")
        home.ground.merge({LOCK: lock, at("prod/a"): data(1, version="1.1.0")})  # locked and used by one merge
        home.start()
        home.synced()
        home.ground.merge({at("prod/a"): data(1)})
        held = home.held("prod/a", "Downgrade")
        assert "allow_downgrade: true" in held["message"]
        assert "environments/prod/a.yaml" in held["message"]
        home.ground.merge({at("prod/a"): data(1, allow_downgrade=True)})
        home.synced()
        assert home.unit("prod/a")["applied"]["version"] == "1.0.0"


def test_replace_is_asked_for_by_a_line_once(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): keep("0")}, CATALOG) as home:
        home.start()
        home.synced()
        first = object_id(home)
        home.ground.merge({at("prod/a"): keep("0", replace=["terraform_data.this"])})
        home.synced()
        assert object_id(home) != first
        assert actions(results(home, "prod/a")[-1]) == [("terraform_data.this", "delete/create")]
        second = object_id(home)
        assert look(home, "prod/a")["reason"] == "InSync"
        home.ground.merge({at("prod/a"): entry("data", {"value": 2, "keep": "0"}, replace=["terraform_data.this"])})
        home.synced()
        assert object_id(home) == second


def test_a_looser_limit_counts_from_the_next_merge_on(tmp_path: Path) -> None:
    loose = environment(limits={"destroy": 5})
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/a"): keep("0")}, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({at("prod/a"): keep("1"), env("prod"): loose})
        assert "counts from the next one on" in home.held("prod/a", "DestroyLimit")["message"]
        home.ground.merge({"README.md": "The next merge"})
        ask(home, "reconcile", "prod/a")
        home.synced()
        home.ground.merge({at("prod/a"): keep("2"), env("prod"): environment()})  # a tighter one counts at once
        home.held("prod/a", "DestroyLimit")


def test_an_allowance_that_is_taken_back_while_its_job_plans_does_not_count(tmp_path: Path) -> None:
    page, other = {"path": "f", "content": "1"}, {"path": "g", "content": "1"}
    entries = {env("prod"): environment(), at("prod/page"): entry("file", page)}
    variables = {"environments": {"prod": {"env": gate(tmp_path)}}}
    with house(tmp_path / "h", entries, CATALOG, runner=variables) as home:
        home.start()
        home.synced()
        (tmp_path / "closed").touch()
        home.ground.merge({at("prod/page"): entry("file", other, allow_destroy=1)})
        phase(home, "prod/page", "Planning")
        home.ground.merge({at("prod/page"): entry("file", other)})
        (tmp_path / "closed").unlink()
        assert "1 are allowed" not in home.held("prod/page", "DestroyLimit")["message"]
        assert made(home, "delete", "deleted") == []
        assert (home.ground.world / "f").exists()

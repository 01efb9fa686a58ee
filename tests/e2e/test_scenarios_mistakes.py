"""Whatever is wrong is said at the unit, with the place and the remedy, and everything else goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.demo.example import LOCK, lock_of
from reconciler.demo.example import release as publish
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, DATA, data, entry, environment, release
from tests.kit.story import ask, at, did, env, look, results, settled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

HEAD = "module: acme/data\nversion: 1.0.0\n"


@dataclass(frozen=True)
class Mistake:
    """What an entry says, and what must be said of it: the reason, the place, a word of the remedy."""

    text: str
    reason: str
    place: str
    remedy: str


def _typed(**over: Any) -> str:
    good: dict[str, Any] = {"names": ["a"], "ports": {"a": 1}, "count_of": 1, "on": True, "greeting": "hi"}
    inputs = {name: value for name, value in (good | over).items() if value is not None}
    return entry("typed", inputs)


MISTAKES = {
    "yaml": Mistake(f"{HEAD}inputs: {{value: [1\n", "YamlInvalid", ":3:19", "check the indentation"),
    "twice": Mistake(f"{HEAD}version: 1.0.0\ninputs: {{value: 1}}\n", "YamlInvalid", ":3:1", "version"),
    "field": Mistake(f"{HEAD}input: {{value: 1}}\n", "SchemaInvalid", ":3:1", "inputs"),
    "module": Mistake(entry("dada", {"value": 1}), "CatalogPinMissing", ":2:12", "did you mean"),
    "version": Mistake(data(1, version="1.4"), "CatalogPinMissing", ":3:13", "acme/data has 1.0.0"),
    "nothing": Mistake(f"{HEAD}inputs:\n  value: ${{{{ nowhere.value }}}}\n", "ReferenceMissing", ":4:10", "no unit"),
    "cycle-a": Mistake(f"{HEAD}inputs:\n  value: ${{{{ cycle-b.value }}}}\n", "DependencyCycle", ":4:10", "break it"),
    "cycle-b": Mistake(f"{HEAD}inputs:\n  value: ${{{{ cycle-a.value }}}}\n", "DependencyCycle", ":4:10", "break it"),
    "output": Mistake(data("${{ good.size }}"), "OutputMissing", "output.yaml:5:13", "constant"),
    "path": Mistake(data("${{ good.value.deeper }}"), "ReferenceMissing", ":5:12", "it is a string"),
    "secretive": Mistake(
        data("${{ secret.nobody }}"),
        "SecretMissing",
        "secretive.yaml:5:13",
        "runner.yaml lists no secret of these names: nobody",
    ),
    "type": Mistake(_typed(ports="eighty"), "InputInvalid", ":8:12", "map of number"),
    "missing": Mistake(_typed(on=None), "InputMissing", ":4:12", "on"),
    "unknown": Mistake(_typed(off=1), "InputUnknown", ":14:10", "Remove the line"),
    "odd": Mistake(entry("picky", {"value": "odd"}), "InputInvalid", ":5:12", "Nothing odd, please."),
    "bad": Mistake(entry("picky", {"value": "bad"}), "PlanFailed", "modules/picky/main.tf:12", "take a good one"),
    "nostate": Mistake(data(1, adopt={"state": "s3://b/k"}), "SchemaInvalid", ":8:12", "s3://bucket/key"),
    "others": Mistake(
        data(1, adopt={"state": "s3://theirs/net"}), "AdoptNotAllowed", "environments.prod.adopt", "add it there"
    ),
    "digest": Mistake(data(1, version="9.0.1"), "CatalogDigestMismatch", "catalog.git at", "reconciler catalog add"),
    "fork": Mistake(
        data(1, version="9.0.2"), "CatalogUnreachable", "catalog-lock.yaml: acme/data 9.0.2", "merge it there"
    ),
}


def lock_with_lies(home: House) -> str:
    """The lock with a version whose digest is another's, and one whose commit only a fork has."""
    fork = home.ground.catalog.commit(release(data=DATA.replace("always", "never")), "A fork", branch="fork")
    text = lock_of(home.ground.catalog, CATALOG, "acme")
    lock = yaml.safe_load(text)
    versions = lock["modules"]["acme/data"]["versions"]
    versions["9.0.1"] = versions["1.0.0"] | {"digest": "sha256:" + "0" * 64}
    versions["9.0.2"] = versions["1.0.0"] | {"commit": str(fork)}
    return json.dumps(lock)


def test_each_mistake_is_told_at_its_unit_and_all_else_goes_on(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/good"): data("1")}
    six = {"executor": {"local": {"workers": 6, "per_environment": 6}}}
    with house(tmp_path / "h", entries, CATALOG, controller=six) as home:
        home.start()
        home.synced()
        wrong = {at(f"prod/{name}"): mistake.text for name, mistake in MISTAKES.items()}
        after = {at("prod/follower"): data("${{ bad.value }}"), at("prod/good"): data("2"), LOCK: lock_with_lies(home)}
        home.ground.merge(wrong | after)
        home.synced("prod/good")
        for name, mistake in MISTAKES.items():
            shown = home.held(f"prod/{name}", mistake.reason)
            told = f"{shown['reason']}: {shown['message']}"
            assert mistake.reason in told, (name, told)
            assert mistake.place in told, (name, told)
            assert mistake.remedy in told, (name, told)
            assert shown["health"] == "Degraded", (name, told)
        assert home.unit("prod/follower")["reason"] in ("DependencyNotReady", "OutputMissing")
        assert sorted(
            path.name for path in home.ground.state("prod/x").parent.iterdir() if path.suffix == ".tfstate"
        ) == ["good.tfstate"]

        home.ground.merge(dict.fromkeys(wrong) | {at("prod/follower"): None})
        home.synced()
        assert [one["unit"] for one in home.units()] == ["prod/good"]


def test_a_broken_environment_or_lock_stops_its_own_units_only(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), env("dev"): environment(), at("prod/a"): data(1), at("dev/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.ground.merge({env("dev"): "class: protectedd\n", at("dev/a"): data(2), at("prod/a"): data(2)})
        home.synced("prod/a")
        assert home.held("dev/a", "EnvironmentInvalid")["health"] == "Degraded"
        lock = home.ground.read(LOCK)
        home.ground.merge({LOCK: "lock_version: 1\nmodules: [\n", env("dev"): environment()})
        held = home.held("prod/a", "LockInvalid")
        assert LOCK in held["message"]
        home.ground.merge({LOCK: lock})
        home.synced()
        assert did(home, "prod/a") == [("apply", "Applied")] * 2
        assert did(home, "dev/a") == [("apply", "Applied")] * 2


def test_an_unreachable_catalog_stops_only_what_needs_a_new_tree(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/old"): data(1), at("prod/new"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        more = {**CATALOG, "v1.1.0": release(data=DATA.replace("always", "from now on"))}
        publish(home.ground.catalog, {"v1.1.0": more["v1.1.0"]})
        lock = lock_of(home.ground.catalog, more, "acme")
        away = home.ground.catalog.folder.rename(tmp_path / "away.git")
        home.ground.merge({LOCK: lock, at("prod/new"): data(1, version="1.1.0"), at("prod/old"): data(2)})
        home.synced("prod/old")
        held = home.held("prod/new", "GitUnreachable", saying="catalog.git")
        assert held["health"] == "Degraded"
        assert held["message"].startswith("environments/prod/new.yaml:3:13: ")
        away.rename(home.ground.catalog.folder)
        ask(home, "reconcile", "prod/new")
        home.synced()


def test_an_unreachable_environments_repository_leaves_the_last_good_commit_in_force(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/page"): entry("file", {"path": "page", "content": "x"})}
    often = {"environments_repo": {"poll_interval": "1s"}}
    with house(tmp_path / "h", entries, CATALOG, controller=often) as home:
        home.start()
        home.synced()
        before = home.head()
        away = home.ground.environments.folder.rename(tmp_path / "away.git")
        home.until(lambda: _failed_polls(home) > 0, "a poll fails")
        (home.ground.folder / "runner" / "fetched").unlink()  # as if the runner's last look were long ago
        (home.ground.world / "page").write_text("by hand")
        assert look(home, "prod/page")["reason"] == "Applied"  # drift is still put back
        assert (home.ground.world / "page").read_text() == "x"
        assert home.head() == before
        away.rename(home.ground.environments.folder)
        home.ground.merge({at("prod/page"): entry("file", {"path": "page", "content": "y"})})
        home.synced()
        settled(home)
        assert [one["outcome"] for one in results(home, "prod/page")] == ["Succeeded"] * 3


def _failed_polls(home: House) -> float:
    import httpx

    text = httpx.get(f"{home.ground.address}/metrics", timeout=20).text
    lines = [line for line in text.splitlines() if line.startswith("reconciler_git_polls_total") and "fail" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)

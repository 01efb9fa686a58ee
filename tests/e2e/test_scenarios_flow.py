"""Values flow from unit to unit, and only those work whose values change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.house import House, house
from tests.kit.modules import CATALOG, DATA, data, entry, environment, release
from tests.kit.story import at, did, env, gate, made, phase, results, seen, settled, started
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def state_outputs(home: House, unit: str) -> dict[str, object]:
    state = json.loads(home.ground.state(unit).read_text())
    return {name: output["value"] for name, output in state["outputs"].items()}


def test_a_chain_is_deployed_in_order_and_its_values_keep_their_types(tmp_path: Path) -> None:
    zones = {"zones": [{"name": "a", "size": 3}, {"name": "b", "size": 4}], "ports": {"http": 80, "https": 443}}
    entries = {
        env("prod"): environment(),
        at("prod/base"): data({**zones, "on": True, "ratio": 1.5}),
        at("prod/typed"): entry(
            "typed",
            {
                "names": ["${{ base.value.zones[0].name }}", "${{ base.value.zones[1].name }}"],
                "ports": "${{ base.value.ports }}",
                "count_of": "${{ base.value.zones[1].size }}",
                "on": "${{ base.value.on }}",
                "greeting": "zone-${{ base.value.zones[0].name }}-${{ base.value.ratio }}-$${{ as it is }}",
            },
        ),
        at("prod/first"): entry("file", {"path": "first", "content": "${{ base.value.zones[0].name }}"}),
        at("prod/second"): entry("file", {"path": "second", "content": 'after ${{ first.path }}: ${file("/x")}'}),
        at("prod/third"): entry("file", {"path": "third", "content": "after ${{ second.path }}"}),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        all_ = json.loads(str(state_outputs(home, "prod/typed")["all"]))
        assert all_ == [["a", "b"], {"http": 80, "https": 443}, 4, True, "zone-a-1.5-${{ as it is }}"]
        assert made(home, "create", "created") == ["first", "second", "third"]
        assert (home.ground.world / "second").read_text() == 'after first: ${file("/x")}'
        assert did(home, "prod") == [("apply", "Applied")] * 5
        assert doubled(home.ground.world) == []


def test_only_those_work_whose_values_change(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(limits={"free_replace": ["terraform_data"]}),
        at("prod/a"): data("one"),
        at("prod/reads"): data("${{ a.value }}"),
        at("prod/reads-constant"): data("${{ a.constant }}"),
        at("prod/reads-reader"): data("${{ reads.constant }}"),
        at("prod/follows"): data("x", depends_on=["a"]),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        first = started(home, "prod")
        assert first[0] == "prod/a"
        assert sorted(first) == ["prod/a", "prod/follows", "prod/reads", "prod/reads-constant", "prod/reads-reader"]
        assert first.index("prod/reads") < first.index("prod/reads-reader")

        home.ground.merge({at("prod/a"): data("two")})
        home.synced()
        settled(home)
        assert started(home, "prod")[5:] == ["prod/a", "prod/reads"]
        assert results(home, "prod")[-1]["cause"] == "upstream"
        assert state_outputs(home, "prod/reads")["value"] == "two"

        home.ground.merge({at("prod/a"): data("two", replace=[]), "README.md": "nothing of ours"})
        home.synced()
        settled(home)
        assert started(home, "prod")[7:] == []  # the same text means the same

        home.ground.merge({at("prod/a"): entry("data", {"value": "two", "keep": "another"})})
        home.synced()
        settled(home)
        assert started(home, "prod")[7:] == ["prod/a"]  # changed, and none of what others read


def test_a_newer_commit_replaces_queued_work_and_what_it_overtakes_is_no_failure(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        at("prod/slow"): entry("slow", {"path": "slow", "content": "1"}),
        at("prod/waits"): data("old"),
    }
    one = {"executor": {"local": {"workers": 1, "per_environment": 1, "per_account": 1}}}
    with house(tmp_path / "h", entries, CATALOG, controller=one) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the slow one is at it")
        for text in ("newer", "newest"):
            home.ground.merge({at("prod/waits"): data(text)})
        home.until(lambda: home.head() == home.ground.environments.head, "the newest head is known")
        queue = home.get("/api/v1/status")["queued"]
        assert [one["unit"] for one in queue] == ["prod/waits"]
        (home.ground.world / "go").touch()
        home.synced()
        assert did(home, "prod/waits") == [("apply", "Applied")]
        assert state_outputs(home, "prod/waits")["value"] == "newest"
        assert doubled(home.ground.world) == []


def test_a_job_that_a_newer_commit_overtakes_applies_nothing_and_is_no_failure(tmp_path: Path) -> None:
    page = {"path": "page", "content": "1"}
    variables = {"environments": {"prod": {"env": gate(tmp_path)}}}
    with house(tmp_path / "h", {env("prod"): environment()}, CATALOG, runner=variables) as home:
        (tmp_path / "closed").touch()
        home.ground.merge({at("prod/page"): entry("file", page)})
        home.start()
        phase(home, "prod/page", "Planning")
        home.ground.merge({at("prod/page"): entry("file", {**page, "content": "2"})})
        home.until(lambda: home.head() == home.ground.environments.head, "the newest head is known")
        (home.ground.folder / "runner" / "fetched").unlink()  # as if the runner's last look were long ago
        (tmp_path / "closed").unlink()
        home.synced()
        assert [one["outcome"] for one in results(home, "prod/page")] == ["Superseded", "Succeeded"]
        assert (home.ground.world / "page").read_text() == "2"
        assert seen(home, "page", "update") == []
        assert home.unit("prod/page")["failure"] is None


def test_a_sandbox_follows_a_branch_of_the_catalog(tmp_path: Path) -> None:
    lively = DATA.replace("always the same", "from the branch")
    often = {"environments_repo": {"poll_interval": "1s"}}
    sandbox = {env("play"): environment(**{"class": "sandbox"})}
    with house(tmp_path / "h", sandbox, CATALOG, controller=often) as home:
        home.ground.catalog.commit(release(data=lively), "Try something", branch="try")
        unit = json.loads(data("x")) | {"ref": "try"}
        del unit["version"]
        home.ground.merge({at("play/unit"): json.dumps(unit)})
        home.start()
        home.synced()
        assert state_outputs(home, "play/unit")["constant"] == "from the branch"

        home.ground.catalog.commit(release(data=lively.replace("from the", "further on the")), "More", branch="try")
        home.until(lambda: state_outputs(home, "play/unit")["constant"] == "further on the branch", "it follows")
        home.synced()
        assert [one["cause"] for one in results(home, "play/unit")] == ["desired", "catalog"]

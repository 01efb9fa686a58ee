"""An apply that failed half way: who waits, who goes on, how it heals; and what must be shown to nobody."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.house import House, house
from tests.kit.middleman import kill_apply
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import actions, at, did, env, look, made, results, runner_does
from tests.provider.log import doubled

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

FLAKY = {"path": "f", "content": "1"}
SECRET = "Zx9-very/secret+value&<that>-nobody-sees"


def test_a_failed_half_apply_is_healed_by_the_next_commit(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        at("prod/flaky"): entry("flaky", FLAKY),
        at("prod/reader"): data("${{ flaky.path }}"),
        at("prod/other"): data("on its own"),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        outage = home.ground.world / "outage"
        outage.touch()
        home.start()
        home.synced("prod/other")
        shown = home.held("prod/flaky", "ApplyFailed")
        assert (shown["sync"], shown["health"]) == ("OutOfSync", "Degraded")
        assert "files_flaky.second" in shown["message"]
        assert "outage is there" in shown["message"]
        assert shown["failure"]["retry_at"] > shown["failure"]["at"]
        waiting = home.held("prod/reader", "DependencyNotReady")
        assert waiting["health"] == "Missing"
        assert not home.ground.state("prod/reader").exists()

        outage.unlink()
        home.ground.merge({at("prod/flaky"): entry("flaky", {**FLAKY, "content": "2"})})
        home.synced()
        # What the half apply left tainted is its own: replacing it is no destruction that somebody must allow.
        healed = results(home, "prod/flaky")[-1]
        assert actions(healed) == [("files_flaky.second", "delete/create")]
        assert made(home, "create", "created") == ["f/first", "f/second", "f/second"]
        assert (home.ground.world / "f" / "second").read_text() == "2"
        assert doubled(home.ground.world) == []
        assert did(home, "prod/reader")[-1] == ("apply", "Applied")


def test_it_is_tried_again_by_itself_and_its_dependents_keep_what_they_have(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        at("prod/flaky"): entry("flaky", FLAKY),
        at("prod/reader"): data("${{ flaky.path }}"),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        outage = home.ground.world / "outage"
        outage.touch()
        home.ground.merge(
            {
                at("prod/flaky"): entry("flaky", {**FLAKY, "content": "2"}),
                at("prod/reader"): data("new ${{ flaky.path }}"),
            }
        )
        home.held("prod/flaky", "ApplyFailed")
        shown = home.held("prod/reader", "DependencyNotReady")
        assert (shown["sync"], shown["health"]) == ("OutOfSync", "Progressing")
        assert len([one for one in did(home, "prod/reader") if one[0] == "apply"]) == 1
        outage.unlink()
        home.synced()  # nobody merges: the back-off ends
        assert (home.ground.world / "f" / "second").read_text() == "2"


def test_somebody_elses_taint_is_counted(tmp_path: Path) -> None:
    """Only what the unit's own unfinished apply left tainted is free; a state that was edited is not."""
    page = {"path": "page", "content": "x"}
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/page"): entry("file", page)}, CATALOG) as home:
        home.start()
        home.synced()
        file = home.ground.state("prod/page")
        state = json.loads(file.read_text())
        state["serial"] += 1
        state["resources"][0]["instances"][0]["status"] = "tainted"
        file.write_text(json.dumps(state))
        found = look(home, "prod/page")
        assert found["reason"] == "DestroyLimit"
        assert made(home, "delete", "deleted") == []


def _forms() -> Iterator[bytes]:
    raw = SECRET.encode()
    yield raw
    yield base64.b64encode(raw).rstrip(b"=")[:-1]
    yield json.dumps(SECRET).encode()[1:-1]
    yield hashlib.sha256(raw).hexdigest().encode()


def test_a_secret_and_a_sensitive_output_are_nowhere_in_clear(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        at("prod/db"): entry("secret", {"path": "db", "secret": "${{ secret.password }}"}),
        at("prod/app"): entry("secret", {"path": "app", "secret": "postgres://u:${{ db.token }}@host"}),
        at("prod/plain"): data("${{ db.token }}"),
    }
    with house(tmp_path / "h", entries, CATALOG) as home:
        (home.ground.folder / "secrets" / "prod" / "password").write_text(SECRET)
        home.start()
        home.synced()
        assert (home.ground.world / "app").read_text() == f"postgres://u:{SECRET}@host"
        # Drift, a changed secret, a failure and a plan have been written down as well.
        (home.ground.world / "db").write_text("by hand")
        assert look(home, "prod/db")["reason"] == "Applied"
        home.ground.merge(
            {
                at("prod/typed"): entry(
                    "typed", {"names": "${{ db.token }}", "ports": {}, "count_of": 1, "on": True, "greeting": "x"}
                )
            }
        )
        home.held("prod/typed", "InputInvalid")
        home.ground.merge({at("prod/typed"): None})
        runner_does(home, "prod/app", home.head(), "plan")
        jobs = [one["job"]["id"] for one in results(home, "prod")]
        assert len(jobs) > 4
        for path in _said(jobs):
            answer = httpx.get(f"{home.ground.address}{path}", timeout=20).content
            assert not _shows(answer), path
        home.stop()
        assert list(_files_that_show(home)) == []
        assert list(home.ground.folder.glob("runner/spool/*/work")) == []


def _said(jobs: list[str]) -> Iterator[str]:
    yield from ("/", "/metrics", "/readyz", "/api/v1/status", "/api/v1/units", "/api/v1/history?scope=all&limit=1000")
    yield from (f"/api/v1/units/prod/{name}" for name in ("db", "app", "plain"))
    yield from (f"/api/v1/jobs/{job}/log" for job in jobs)


def _shows(text: bytes) -> bool:
    return any(form in text for form in _forms())


def _files_that_show(home: House) -> Iterator[str]:
    """Everything of the controller's, all logs, and what the runner keeps besides the states."""
    for name in ("controller", "logs", "runner", "environments.git", "run"):
        for path in sorted((home.ground.folder / name).rglob("*")):
            if path.is_file() and _shows(path.read_bytes()):
                yield str(path.relative_to(home.ground.folder))


@pytest.mark.usefixtures(
    "plain_provider"
)  # it dies with its group at once; a quick one a moment later, and may yet create
def test_an_engine_killed_in_the_midst_of_a_creation_holds_the_unit_until_somebody_has_looked(tmp_path: Path) -> None:
    """Of this provider nobody can search for objects: a person does, and says so."""
    slow = {"path": "slow", "content": "1"}
    with house(tmp_path / "h", {env("prod"): environment(), at("prod/slow"): entry("slow", slow)}, CATALOG) as home:
        home.start()
        home.until(lambda: made(home, "create", "waiting"), "the apply runs")
        kill_apply(home.ground.folder / "runner" / "spool")
        (home.ground.world / "slow").write_text("1")  # the cloud does what it was asked to, and nobody hears of it
        (home.ground.world / "go").touch()
        shown = home.held("prod/slow", "Uncertain")
        assert (
            "files_slow module.unit.files_slow.this (its creation had begun): look whether it is there"
            in shown["message"]
        )
        assert "`reconciler runner settle prod/slow --reason R` on the runner's host" in shown["message"]
        assert [one["address"] for one in home.get("/api/v1/orphans")["strays"]] == ["module.unit.files_slow.this"]
        assert look(home, "prod/slow")["reason"] == "Uncertain"
        home.ground.merge({at("prod/slow"): entry("slow", {**slow, "content": "2"})})  # another plan is no excuse
        newest = home.ground.environments.head
        home.until(lambda: home.get("/api/v1/status")["resolved"] == newest, "the merge is seen")
        home.until(lambda: results(home, "prod/slow")[-1]["commit"] == newest, "a job of it ends")
        home.held("prod/slow", "Uncertain")
        assert look(home, "prod/slow")["reason"] == "Uncertain"
        assert len(made(home, "create", "waiting")) == 1

        (home.ground.world / "slow").unlink()
        config = ("--config", str(home.ground.runner_config))
        home.until(lambda: home.unit("prod/slow")["job"] is None, "no job is at work")
        settled = home.command("runner", "settle", "prod/slow", *config, "--reason", "it was there, and I removed it")
        assert settled.returncode == 0, settled.stderr
        assert "module.unit.files_slow.this" in settled.stdout
        look(home, "prod/slow")
        home.synced()
        assert (home.ground.world / "slow").read_text() == "2"
        assert doubled(home.ground.world) == []
        assert home.command("orphans").returncode == 0
        again = home.command("runner", "settle", "prod/slow", *config, "--reason", "once more")
        assert (again.returncode, "nothing is suspected of prod/slow" in again.stderr) == (1, True)
        log = (home.ground.folder / "runner" / "audit").rglob("*")
        assert any(b"it was there, and I removed it" in one.read_bytes() for one in log if one.is_file())

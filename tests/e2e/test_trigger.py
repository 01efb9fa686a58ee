"""A pipeline that knows nothing but an address and its token: it wakes, sees the log as if it ran there, and exits by the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.demo.playground import free_port
from tests.kit.house import House, house
from tests.kit.issuer import SUBJECT, Issuer
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import at, env, results

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@contextmanager
def pipeline(folder: Path, files: dict[str, str], **caller: Any) -> Iterator[tuple[House, list[str]]]:
    """A house whose controller CI may call, and the words by which its pipeline does."""
    folder.mkdir()
    issuer, port = Issuer(folder / "issuer"), free_port()
    token = folder / "token"
    token.write_text(issuer.token(exp=issuer.claims()["iat"] + 3600))
    trigger = {"listen": f"127.0.0.1:{port}", "oidc": [issuer.config(**caller)]}
    try:
        with house(folder / "h", files, CATALOG, controller={"trigger": trigger}) as home:
            home.start()
            home.synced()
            yield home, ["--server", f"http://127.0.0.1:{port}", "--token-file", str(token)]
    finally:
        issuer.close()


def test_after_a_merge_the_pipeline_shows_the_log_and_ends_well_or_says_who_is_held(tmp_path: Path) -> None:
    files = {
        env("prod"): environment(),
        at("prod/a"): data(0),
        at("prod/gone"): entry("file", {"path": "x", "content": "1"}),
    }
    with pipeline(tmp_path / "p", files, scopes=["prod"]) as (home, words):
        commit = home.ground.merge({at("prod/a"): data(1)})
        done = home.command("reconcile", "prod", *words, "--wait", "--commit", commit)
        assert done.returncode == 0, done.stderr
        assert "prod/a | " in done.stdout
        assert "Apply complete!" in done.stdout
        assert "prod/a: apply Succeeded" in done.stderr
        assert home.unit("prod/a")["applied"]["commit"] == commit
        [asked] = [e for e in home.get("/api/v1/history?scope=prod")["events"] if e["action"] == "job-ended"][:1]
        assert asked["unit"] == "prod/a"

        held = home.ground.merge({at("prod/gone"): entry("file", {"path": "x", "content": "1"}, state="absent")})
        found = home.command("reconcile", "prod", *words, "--wait", "--commit", held, "-o", "json")
        assert found.returncode == 3, found.stderr
        told = {unit["unit"]: unit for unit in json.loads(found.stdout)["units"]}
        assert (told["prod/gone"]["reason"], told["prod/a"]["sync"]) == ("DestroyLimit", "Synced")

        late = home.command("reconcile", "prod", *words, "--wait", "--commit", "0" * 40, "--timeout", "1s")
        assert (late.returncode, "CommitAwaited" in late.stderr) == (4, True)
        other = home.command("reconcile", "all", *words)
        assert (other.returncode, "may not wake all" in other.stderr) == (1, True)
        away = home.command("reconcile", "prod", "--server", f"http://127.0.0.1:{free_port()}", *words[2:], "--wait")
        assert (away.returncode, "does not answer" in away.stderr) == (5, True)


def test_without_a_commit_everything_in_scope_is_looked_at_and_the_journal_says_for_whom(tmp_path: Path) -> None:
    files = {env("prod"): environment(), at("prod/a"): data(0), at("prod/b"): data(0)}
    with pipeline(tmp_path / "p", files) as (home, words):
        before = {unit: len(results(home, unit)) for unit in ("prod/a", "prod/b")}
        done = home.command("reconcile", "prod/a", *words, "--wait")
        assert done.returncode == 0, done.stderr
        assert {unit: len(results(home, unit)) - n for unit, n in before.items()} == {"prod/a": 1, "prod/b": 0}
        asked = [e for e in home.get("/api/v1/history?scope=prod/a")["events"] if e["action"] == "reconcile-requested"]
        assert [e["actor"] for e in asked] == [f"trigger:{SUBJECT}"]

        assert 'reconciler_trigger_requests_total{result="accepted"} 1.0' in _metrics(home)


def _metrics(home: House) -> str:
    import httpx

    return httpx.get(f"{home.ground.address}/metrics", trust_env=False).text

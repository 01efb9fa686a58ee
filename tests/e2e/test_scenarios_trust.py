"""The runner believes nobody: rewritten history, and whatever a controller in wrong hands might ask of it."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.demo.forge import Files, Forge
from reconciler.errors import PassError
from reconciler.model import Commit, Result
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.story import ask, at, did, env, look, made, raw, results, runner_does, settled, started

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

PAGE = {"path": "page", "content": "as reviewed"}
OFTEN = {"environments_repo": {"poll_interval": "1s"}}


def told(result: Result) -> tuple[str, str]:
    return result.outcome.value, result.reason


def rewrite(forge: Forge, start: Commit, files: Files) -> None:
    """Put the branch elsewhere in one step, as a forced push does: a poll sees the old head or the new one."""
    forge.point("elsewhere", start)
    forge.point("main", forge.commit(files, "Nobody reviewed this", branch="elsewhere"))


def test_rewritten_history_stops_every_apply_and_plans_go_on(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/page"): entry("file", PAGE), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG, controller=OFTEN) as home:
        home.start()
        home.synced()
        forge = home.ground.environments
        first = forge.head
        forge.merge({at("prod/a"): data(2)}, "Two")
        home.synced()
        good = forge.head
        # Somebody with too many rights puts the branch back and builds on that.
        rewrite(forge, first, {at("prod/a"): data("evil"), at("prod/new"): data("evil")})
        home.until(lambda: home.get("/api/v1/status")["frozen"], "everything is frozen")
        assert home.get("/api/v1/status")["frozen"]["reason"] == "HistoryRewritten"
        assert home.head() == good

        (home.ground.world / "page").write_text("by hand")
        found = look(home, "prod/page")  # drift is looked for, shown, and not put back
        assert (found["job"]["operation"], found["reason"]) == ("plan", "Planned")
        assert home.held("prod/page", "HistoryRewritten")["drift_since"] is not None
        assert (home.ground.world / "page").read_text() == "by hand"
        assert home.command("status").returncode == 3

        (home.ground.folder / "runner" / "fetched").unlink(missing_ok=True)  # a fetch counts for five seconds
        # The runner itself refuses too, whoever asks, for the good commit and for the evil one.
        assert told(runner_does(home, "prod/page", good)) == ("Held", "HistoryRewritten")
        assert told(runner_does(home, "prod/page", good, "plan")) == ("Succeeded", "Planned")
        assert told(runner_does(home, "prod/new", forge.head, "plan")) != ("Succeeded", "Planned")
        assert told(runner_does(home, "prod/new", forge.head)) == ("Held", "HistoryRewritten")
        assert not home.ground.state("prod/new").exists()
        assert did(home, "prod/a") == [("apply", "Applied")] * 2

        # It survives a restart of both planes.
        home.stop()
        home.start()
        assert home.get("/api/v1/status")["frozen"]["reason"] == "HistoryRewritten"
        before = len(started(home, "all"))
        ask(home, "reconcile", "prod")
        settled(home, good)
        events = home.get("/api/v1/history?scope=all&limit=1000")["events"]
        operations = [e["body"]["dispatched"]["job"]["operation"] for e in events if e["action"] == "job-dispatched"]
        assert set(operations[: len(operations) - before]) <= {"plan"}


def test_a_rewrite_ends_when_each_plane_is_told_and_not_when_it_is_put_back(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/page"): entry("file", PAGE), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG, controller=OFTEN) as home:
        home.start()
        home.synced()
        forge = home.ground.environments
        good = forge.merge({at("prod/a"): data(2)}, "Two")
        home.synced()
        (home.ground.world / "page").write_text("by hand")
        rewrite(forge, forge.at(f"{good}^1"), {at("prod/a"): data("evil")})
        home.until(lambda: frozen(home), "everything is frozen")
        assert told(runner_does(home, "prod/page", good)) == ("Held", "HistoryRewritten")

        # Put back, it stays so: somebody has to say that history may go on.
        evil, runner = forge.head, str(home.ground.runner_config)
        forge.point("main", good)
        home.until(lambda: f"accept-history {good} {good}" in frozen(home)["message"], "it is seen to be back")
        (home.ground.folder / "runner" / "fetched").unlink(missing_ok=True)
        assert told(runner_does(home, "prod/page", good)) == ("Held", "HistoryRewritten")
        assert "FROZEN since" in home.command("runner", "describe", "--config", runner).stdout
        # Neither plane takes another's word, and none takes a word that is not so.
        wrong = home.command("runner", "accept-history", evil, good, "--config", runner, "--reason", "known")
        assert (wrong.returncode, f"accepted head here is {good}" in wrong.stderr) == (1, True)
        assert frozen(home)["reason"] == "HistoryRewritten"

        # The runner first, with its service running; then the controller. What was put off is done then.
        merged = home.ground.merge({at("prod/a"): data(3)})
        done = home.command("runner", "accept-history", good, merged, "--config", runner, "--reason", "known")
        assert (done.returncode, done.stderr) == (0, "")
        assert home.head() == good
        done = home.command("accept-history", good, merged, "--reason", "we know who, and why")
        assert (done.returncode, done.stderr) == (0, "")
        home.synced()
        assert home.head() == merged
        ask(home, "reconcile", "prod/page")
        home.until(lambda: (home.ground.world / "page").read_text() == "as reviewed", "drift is put back again")
        status = home.get("/api/v1/status")
        assert (status["frozen"], status["trust"]["base"]) == (None, merged)
        about = json.loads(home.command("runner", "describe", "--config", runner, "-o", "json").stdout)
        assert (about["accepted_head"], about["trust"]["base"], about["trust"]["frozen"]) == (merged, merged, None)
        assert about["trust"]["history_accepted"]["reason"] == "known"
        accepted = [
            e for e in home.get("/api/v1/history?scope=all&limit=1000")["events"] if e["action"] == "history-accepted"
        ]
        assert [e["body"]["reason"] for e in accepted] == ["we know who, and why"]


def test_a_server_that_lags_holds_applies_until_it_has_caught_up(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG, controller=OFTEN) as home:
        home.start()
        home.synced()
        forge = home.ground.environments
        first = forge.head
        second = forge.merge({at("prod/a"): data(2)}, "Two")
        home.synced()
        forge.point("main", first)
        home.until(lambda: frozen(home), "everything is frozen")
        assert frozen(home)["reason"] == "HistoryRolledBack"
        (home.ground.folder / "runner" / "fetched").unlink(missing_ok=True)
        assert told(runner_does(home, "prod/a", second)) == ("Held", "HistoryRolledBack")
        assert home.head() == second
        forge.point("main", second)
        forge.merge({at("prod/a"): data(3)}, "Three")
        home.synced()
        assert home.get("/api/v1/status")["frozen"] is None


def frozen(home: House) -> dict[str, str]:
    """What froze everything, as the daemon says it; nothing, if nothing did."""
    return home.get("/api/v1/status")["frozen"] or {}


def test_the_runner_does_only_what_its_own_configuration_allows(tmp_path: Path) -> None:
    entries = {
        env("prod"): environment(),
        env("dev"): environment(),
        env("elsewhere"): environment(),
        env("play"): environment(),
        at("prod/a"): data(1),
        at("prod/deep/b"): data(1),
        at("dev/a"): data(1),
        at("elsewhere/a"): data(1),
        at("play/a"): data(1),
        at("dev/reads"): data("${{ /prod/a.value }}"),
    }
    strict = {
        "allow": [
            {
                "operations": ["plan", "apply"],
                "refs": "merged",
                "folders": ["environments/prod/*", "environments/p*y/**"],
            },
            {"operations": ["plan"], "refs": "merged", "folders": ["environments/**"]},
        ],
        "environments": {"elsewhere": None, "play": {"class": "sandbox"}, "prod": {"readable_by": None}},
    }
    with house(tmp_path / "h", entries, CATALOG, runner=strict) as home:
        home.start()
        home.synced("prod/a")
        commit = home.head()
        assert told(runner_does(home, "prod/a", commit)) == ("Succeeded", "InSync")
        for unit in ("dev/a", "prod/deep/b"):
            refused = runner_does(home, unit, commit)
            assert told(refused) == ("Held", "NotAllowed")
            assert "environments/prod/*" in refused.message
            assert told(runner_does(home, unit, commit, "plan")) == ("Succeeded", "Planned")
            home.held(unit, "NotAllowed")
        for unit, reason in (("elsewhere/a", "EnvironmentNotHosted"), ("play/a", "PolicyMismatch")):
            assert told(runner_does(home, unit, commit, "plan")) == ("Held", reason)
            home.held(unit, reason)
        unread = runner_does(home, "dev/reads", commit, "plan")
        assert told(unread) == ("Held", "NotReadable")
        assert "environments.prod.readable_by" in unread.message
        assert told(runner_does(home, "prod/nobody", commit)) == ("Superseded", "Superseded")
        states = {
            str(p.relative_to(home.ground.folder / "states"))
            for p in (home.ground.folder / "states").rglob("*.tfstate")
        }
        assert states == {"prod/a.tfstate"}

        # Another commit than a merged one, whether it exists or not.
        evil = home.ground.environments.commit({at("prod/a"): data("evil")}, "Not merged", branch="change")
        for other in (evil, "0" * 40):
            assert told(runner_does(home, "prod/a", other)) == ("Held", "CommitNotAccepted")
        # A side of a merge is not the branch: only what was merged is.
        home.ground.merge({at("prod/a"): data(2)})
        home.synced("prod/a")
        side = home.ground.environments.at("refs/heads/change")
        assert told(runner_does(home, "prod/a", side)) == ("Held", "CommitNotAccepted")
        # A controller that another one has replaced.
        assert told(runner_does(home, "prod/a", home.head(), fence=0)) == ("Failed", "FenceStale")
        # An older commit means the newest.
        assert runner_does(home, "prod/a", commit).commit == home.head()


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "null", "[]", '"job"',
        '{"id":"x","operation":"destroy","unit":"prod/a","commit":"C","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod/a","commit":"C","fence":9,"var":"x"}',
        '{"id":"../../x","operation":"apply","unit":"prod/a","commit":"C","fence":9}',
        '{"id":"x","operation":"apply","unit":"../a","commit":"C","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod/a/../b","commit":"C","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod","commit":"C","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod/a","commit":"HEAD","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod/a","commit":"--upload-pack=x","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod/a","commit":"C","fence":-1}',
        '{"id":"x\\n","operation":"apply","unit":"prod/a","commit":"C","fence":9}',
        '{"id":"x","operation":"apply","unit":"prod/a\\n","commit":"C\\n","fence":9}',
    ],
)  # fmt: skip
def test_a_job_of_wrong_words_is_refused(lone_runner: House, text: str) -> None:
    with pytest.raises(PassError) as refused:
        raw(lone_runner, {"verb": "start", "job": text.replace("C", "0" * 40)})
    assert refused.value.reason == "BadRequest"
    assert list((lone_runner.ground.folder / "runner" / "spool").iterdir()) == []


def test_nonsense_on_the_socket_hurts_nobody(lone_runner: House) -> None:
    path = str(lone_runner.ground.runtime / "runner.sock")
    for noise in (b"", b"\n", b"\x00" * 100 + b"\n", b"[1]\n", b'{"verb"\n', b"{" * 5000 + b"\n", b"x" * (1 << 21)):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            try:
                peer.sendall(noise)
            except OSError:
                continue  # it was cut off, as it should be
    refusals: list[tuple[dict[str, object], str]] = [
        ({"verb": "exec"}, "UnknownVerb"),
        ({}, "UnknownVerb"),
        ({"verb": ["start"]}, "UnknownVerb"),
        ({"verb": "poll", "job": "../../key"}, "BadRequest"),
        ({"verb": "log", "job": "/etc/passwd"}, "BadRequest"),
        ({"verb": "cancel", "job": ".."}, "BadRequest"),
    ]
    for request, reason in refusals:
        with pytest.raises(PassError) as refused:
            raw(lone_runner, request)
        assert refused.value.reason == reason
    never = {"state": "lost", "applying": False, "died": "", "phases": []}
    assert raw(lone_runner, {"verb": "poll", "job": "never-heard-of"}) == never
    assert raw(lone_runner, {"verb": "log", "job": "never-heard-of", "offset": -1}) == {"data": ""}
    socket_mode = (lone_runner.ground.runtime / "runner.sock").stat().st_mode & 0o777
    assert socket_mode == 0o600


@pytest.fixture(scope="module")
def lone_runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    entries = {env("prod"): environment(), at("prod/a"): data(1)}
    with house(tmp_path_factory.mktemp("lone") / "h", entries, CATALOG) as home:
        home.start_runner()
        yield home


def test_the_runners_own_pause_works_with_the_daemon_dead(tmp_path: Path) -> None:
    entries = {env("prod"): environment(), at("prod/a"): data(1)}
    with house(tmp_path / "h", entries, CATALOG) as home:
        home.start()
        home.synced()
        home.stop()
        config = str(home.ground.runner_config)
        assert home.command("runner", "pause", "--config", config, "--reason", "an incident").returncode == 0
        home.ground.merge({at("prod/a"): data(2)})
        home.start()
        held = home.held("prod/a", "Paused")
        assert "an incident" in held["message"]
        assert results(home, "prod/a")[-1]["plan"]["changes"] != []
        assert json.loads(home.ground.state("prod/a").read_text())["outputs"]["value"]["value"] == 1
        assert home.command("runner", "resume", "--config", config).returncode == 0
        ask(home, "reconcile", "prod/a")
        home.synced()


def test_only_one_runner_listens_on_a_socket(tmp_path: Path) -> None:
    with house(tmp_path / "h", {env("prod"): environment()}, CATALOG) as home:
        home.start_runner()
        second = home.command("runner", "serve", "--config", str(home.ground.runner_config))
        assert second.returncode == 1
        assert "another runner" in second.stderr
        first = home.runner
        assert first is not None
        os.kill(first.pid, signal.SIGKILL)
        first.wait(20)
        home.start_runner()  # the dead one's socket is in nobody's way
        assert raw(home, {"verb": "describe"})["about"]
        assert made(home, "create", "created") == []

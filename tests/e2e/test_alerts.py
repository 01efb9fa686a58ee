"""A real Prometheus scrapes a real daemon, and the alerts of deploy/monitoring fire and clear as things go wrong.

The rules are the shipped ones with their times scaled down: `for:` is a second, ages are five (the loop's: fifteen, for an
idle one beats every ten), ranges of selectors fifteen. What takes a forge, a bucket, a jail or a second daemon goes wrong in
test_alerts_rare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from reconciler.model import Commit
from tests.e2e.test_poison import killing
from tests.e2e.test_scenarios_signatures import merge
from tests.e2e.test_scenarios_trust import rewrite
from tests.kit.house import house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.prometheus import prometheus
from tests.kit.rules import GIVEN_METRICS, asked, expressions
from tests.kit.signing import SshKey, SshKeys
from tests.kit.stall import asleep, standing_still
from tests.kit.story import ask, at, env, look
from tests.kit.watched import PATIENCE, RARE, Story, Watched, play

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = {"path": "page", "content": "as reviewed"}


@dataclass
class Signed(Watched):
    """Its merges are signed with the key; `folder` is where it lies."""

    key: SshKey
    folder: Path


@pytest.fixture
def watched(tmp_path: Path, ssh_keys: SshKeys) -> Iterator[Signed]:
    """Five environments in order: each has its own way to go wrong. The audit's anchor is away from the beginning."""
    key, signers = ssh_keys["ada"], tmp_path / "signers"
    signers.write_text(key.line())
    trust = {"environments_repo": {"signatures": {"allowed_signers": str(signers)}, "poll_interval": "1s"}}
    controller = trust | {"executor": {"local": {"workers": 4, "per_environment": 1, "per_account": 1}}}
    runner = trust | {"audit": {"anchor": {"file": str(tmp_path / "away" / "anchor")}, "interval": "1s"}}
    entries = {
        env("dev"): environment(**{"class": "sandbox", "drift": "report"}),
        at("dev/page"): entry("file", PAGE),
        env("often"): environment(drift_interval="2s"),
        at("often/a"): data(1),
        env("prod"): environment(),
        at("prod/a"): data(1),
        at("prod/picky"): entry("picky", {"value": "good"}),
        env("slow"): environment(),
        at("slow/a"): data(1),
    }
    with house(tmp_path / "h", entries, CATALOG, controller=controller, runner=runner) as home:
        home.start()
        home.synced()
        where = urlsplit(home.ground.address).netloc
        ages = {"ReconcilerLoopStalled": 15}
        with prometheus(tmp_path / "prometheus", where, age=5, window="15s", ages=ages) as server:
            found = Signed(home, server, key, tmp_path)
            home.until(lambda: server.value("count_over_time(up[1m])") >= 8, "it is scraped", PATIENCE)
            yield found


def test_each_alert_fires_and_clears(watched: Signed) -> None:
    assert watched.firing() <= {"AuditFailing", "AuditNotAnchored"}
    play(watched, STORY)
    unseen = {
        metric for expr in expressions().values() for metric in asked(expr).metrics
    } - watched.prometheus.metrics()
    assert (
        unseen <= GIVEN_METRICS | RARE
    )  # every name in a rule or a dashboard was scraped from, or recorded by, what ran here


def _an_anchor_that_is_away(watched: Signed) -> None:
    with watched.alarmed("AuditFailing"), watched.alarmed("AuditNotAnchored"):
        (watched.folder / "away").mkdir()


def _a_pause(watched: Signed) -> None:
    paused = watched.home.command("pause", "prod", "--reason", "a look at the alert", "--until", "1h")
    assert paused.returncode == 0, paused.stderr
    with watched.alarmed("PausedTooLong", scope="prod"):
        resumed = watched.home.command("resume", "prod")
        assert resumed.returncode == 0, resumed.stderr


def _drift(watched: Signed) -> None:
    page = watched.home.ground.world / "page"
    page.write_text("by hand")
    look(watched.home, "dev/page")
    with watched.alarmed("DriftOpen", unit="dev/page"), watched.alarmed("OutOfSync", unit="dev/page"):
        watched.fires("ErrorBudgetBurn", environment="dev")
        page.write_text("as reviewed")
        look(watched.home, "dev/page")
    watched.clears("ErrorBudgetBurn")


def _a_unit_that_fails(watched: Signed) -> None:
    merge(watched.home, {at("prod/picky"): entry("picky", {"value": "bad"})}, watched.key)
    with watched.alarmed("Degraded", unit="prod/picky"):
        merge(watched.home, {at("prod/picky"): entry("picky", {"value": "better"})}, watched.key)


def _a_unit_whose_jobs_die(watched: Signed) -> None:
    with killing(watched.home, "prod/a"):
        merge(watched.home, {at("prod/a"): data(2)}, watched.key)
        watched.fires("Quarantined", environment="prod")
    ask(watched.home, "reconcile", "prod/a")
    watched.clears("Quarantined")
    watched.home.synced("prod/a", patience=PATIENCE)


def _work_by_hand(watched: Signed) -> None:
    home, page = watched.home, watched.home.ground.world / "page"
    opened = home.command("break-glass", "open", "dev", "--reason", "a look at the alert", "--until", "30m")
    assert opened.returncode == 0, opened.stderr
    with watched.alarmed("BreakGlassActive", scope="dev"):
        page.write_text("by hand")
        closed = home.command("break-glass", "close", "dev")
        assert closed.returncode == 0, closed.stderr
    with watched.alarmed("BreakGlassUnsettled", environment="dev"):
        page.write_text("as reviewed")
        # The first look at it may have begun before that, and end now.
        home.until(
            lambda: look(home, "dev/page") and home.unit("dev/page")["sync"] == "Synced", "it is as before", PATIENCE
        )


def _a_session_that_nobody_can_end(watched: Signed) -> None:
    """Its time is up while the loop hangs."""
    home, controller = watched.home, watched.home.controller
    assert controller is not None
    until = datetime.now(UTC) + timedelta(seconds=20)
    ask(home, "break-glass-open", "dev", reason="a look at the alert", until=until.isoformat())
    home.until(
        lambda: 'reconciler_break_glass_active{scope="dev"} 1.0' in home.text("/metrics"), "it is open", PATIENCE
    )
    with standing_still(controller.pid):
        watched.fires("BreakGlassOutlivesExpiry", scope="dev")
    watched.clears("BreakGlassOutlivesExpiry", "BreakGlassActive", "LoopStalled")


def _a_state_that_somebody_wrote(watched: Signed) -> None:
    state = watched.home.ground.state("prod/a")
    document = json.loads(state.read_bytes())
    state.write_text(json.dumps(document | {"serial": document["serial"] + 1}))
    look(watched.home, "prod/a")
    with watched.alarmed("UnexplainedSerial", environment="prod"):
        pass  # nobody has to do anything: it is over when it is long ago


def _a_state_that_is_gone(watched: Signed) -> None:
    state = watched.home.ground.state("slow/a")
    kept = state.read_bytes()
    state.unlink()
    look(watched.home, "slow/a")
    with watched.alarmed("StateEndangered", environment="slow"):
        state.write_bytes(kept)
        look(watched.home, "slow/a")


def _a_queue(watched: Signed) -> None:
    slow = {at(f"slow/{n}"): entry("slow", {"path": n, "content": "x"}) for n in ("b", "c")}
    merge(watched.home, slow, watched.key)
    with watched.alarmed("QueueStuck", environment="slow"):
        (watched.home.ground.world / "go").touch()
    watched.home.synced(patience=PATIENCE)


def _a_merge_that_nobody_signed(watched: Signed) -> None:
    forge = watched.home.ground.environments
    good = forge.head
    forge.merge({at("prod/a"): data(3)}, "quick")
    with watched.alarmed("UnverifiedHead", repository="environments"):
        forge.point("main", good)


def _a_server_that_is_away(watched: Signed) -> None:
    folder = watched.home.ground.environments.folder
    away = folder.with_suffix(".away")
    folder.rename(away)
    with watched.alarmed("GitStale", repository="environments"):
        away.rename(folder)


def _a_branch_that_was_rewritten(watched: Signed) -> None:
    home, forge = watched.home, watched.home.ground.environments
    good = Commit(home.head())
    rewrite(forge, forge.at(f"{good}^1"), {at("prod/a"): data("evil")})
    with watched.alarmed("HistoryRewritten", reason="HistoryRewritten"):
        forge.point("main", good)
        words = ("accept-history", good, good, "--reason", "it was us")
        for more in (words, ("runner", *words, "--config", str(home.ground.runner_config))):
            done = home.command(*more)
            assert done.returncode == 0, done.stderr
    home.synced(patience=PATIENCE)


def _a_runner_that_is_dead(watched: Signed) -> None:
    """Between two looks at the unit: one that is being looked at is not overdue, and its job's end shows when the runner is back."""
    home = watched.home
    home.kill("runner")
    while home.unit("often/a")["job"] is not None:
        home.start_runner()
        home.until(lambda: home.unit("often/a")["job"] is None, "no job of it runs", PATIENCE)
        home.kill("runner")
    with watched.alarmed("NotReady", check="runner"), watched.alarmed("UnitStale", environment="often"):
        home.start_runner()


def _a_loop_that_hangs(watched: Signed) -> None:
    controller = watched.home.controller
    assert controller is not None
    with standing_still(controller.pid):
        watched.fires("LoopStalled")
    watched.clears("LoopStalled")


def _a_host_that_slept(watched: Signed) -> None:
    controller = watched.home.controller
    assert controller is not None
    with asleep(controller.pid):
        watched.fires("Down")
    watched.fires("ScheduleMissed")
    watched.clears("Down", "ScheduleMissed")


def _a_daemon_that_is_gone(watched: Signed) -> None:
    watched.home.kill("controller")
    with watched.alarmed("Down"):
        watched.home.start_controller()
        httpx.get(f"{watched.home.ground.address}/healthz", timeout=10).raise_for_status()


STORY: Story[Signed] = (
    (_an_anchor_that_is_away, ("AuditFailing", "AuditNotAnchored")),
    (_a_pause, ("PausedTooLong",)),
    (_drift, ("DriftOpen", "OutOfSync", "ErrorBudgetBurn")),
    (_a_unit_that_fails, ("Degraded",)),
    (_a_unit_whose_jobs_die, ("Quarantined",)),
    (_work_by_hand, ("BreakGlassActive", "BreakGlassUnsettled")),
    (_a_session_that_nobody_can_end, ("BreakGlassOutlivesExpiry",)),
    (_a_state_that_somebody_wrote, ("UnexplainedSerial",)),
    (_a_state_that_is_gone, ("StateEndangered",)),
    (_a_queue, ("QueueStuck",)),
    (_a_merge_that_nobody_signed, ("UnverifiedHead",)),
    (_a_server_that_is_away, ("GitStale",)),
    (_a_branch_that_was_rewritten, ("HistoryRewritten",)),
    (_a_runner_that_is_dead, ("NotReady", "UnitStale")),
    (_a_loop_that_hangs, ("LoopStalled",)),
    (_a_host_that_slept, ("Down", "ScheduleMissed")),
    (_a_daemon_that_is_gone, ("Down",)),
)

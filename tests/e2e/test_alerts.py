"""A real Prometheus scrapes a real daemon, and the alerts of deploy/monitoring fire and clear as things go wrong.

The rules are the shipped ones with their times scaled down: `for:` is a second, ages are five (the loop's: fifteen, for an
idle one beats every ten), ranges of selectors fifteen. What cannot be driven without a forge, a jail, or a bucket that
somebody has locked has its tests in deploy/monitoring/tests.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from reconciler.model import Commit
from tests.e2e.test_scenarios_signatures import merge
from tests.e2e.test_scenarios_trust import rewrite
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, data, entry, environment
from tests.kit.prometheus import Prometheus, prometheus
from tests.kit.rules import ALERTS, GIVEN_METRICS, asked, expressions, rules
from tests.kit.signing import SshKey, SshKeys
from tests.kit.stall import standing_still
from tests.kit.story import at, env, look

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = 120.0  # seconds
PAGE = {"path": "page", "content": "as reviewed"}

# No test here drives these, and why.
NOT_DRIVEN = {
    "ReconcilerBranchUnprotected": "takes a forge",
    "ReconcilerBranchProtectionUnknown": "takes a forge that then falls silent for an hour",
    "ReconcilerStateLockStuck": "takes a state in a bucket",
    "ReconcilerUncertainApply": "is over within a second here: the next job looks at once",
    "ReconcilerEgressRefused": "takes a jail",
    "ReconcilerTriggerAbused": "takes an issuer of tokens",
    "ReconcilerNoLeader": "takes a second daemon",
    "ReconcilerSplitLeader": "takes a daemon that does not notice that it lost its lease",
    "ReconcilerNotificationsFailing": "takes a webhook; test_notify has one that is away",
}


@dataclass
class Watched:
    """A house, and the Prometheus that watches it."""

    home: House
    prometheus: Prometheus
    key: SshKey
    folder: Path

    def fires(self, name: str, **labels: str) -> dict[str, Any]:
        """Wait until the alert fires for these labels; its text has to be whole."""

        def there() -> dict[str, Any] | None:
            found = self.prometheus.firing(f"Reconciler{name}")
            return next((one for one in found if labels.items() <= one["labels"].items()), None)

        alert: dict[str, Any] = self.home.until(there, f"{name} fires for {labels}: {self}", PATIENCE)
        notes = alert["annotations"]
        assert "error expanding" not in str(notes)
        assert "<no value>" not in str(notes)
        FIRED.add(alert["labels"]["alertname"])
        return alert

    def clears(self, *names: str) -> None:
        """Wait until none of these fires any more."""
        gone = {f"Reconciler{name}" for name in names}

        def quiet() -> bool:
            return not gone & {one["labels"]["alertname"] for one in self.prometheus.firing()}

        self.home.until(quiet, f"{names} clear", PATIENCE)

    @contextmanager
    def alarmed(self, name: str, **labels: str) -> Iterator[None]:
        """The alert fires before the block, which puts things right, and clears after it."""
        self.fires(name, **labels)
        yield
        self.clears(name)


FIRED: set[str] = set()


@pytest.fixture
def watched(tmp_path: Path, ssh_keys: SshKeys) -> Iterator[Watched]:
    """Five environments in order: each has its own way to go wrong. The audit's anchor is away from the beginning."""
    key, signers = ssh_keys["ada"], tmp_path / "signers"
    signers.write_text(key.line())
    trust = {"environments_repo": {"signatures": {"allowed_signers": str(signers)}, "poll_interval": "1s"}}
    controller = trust | {"executor": {"local": {"workers": 4, "per_environment": 1}}}
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
            found = Watched(home, server, key, tmp_path)
            home.until(lambda: server.value("count_over_time(up[1m])") >= 8, "it is scraped", PATIENCE)
            yield found


def test_each_alert_fires_and_clears(watched: Watched) -> None:
    FIRED.clear()
    _nothing_fires_that_should_not(watched)
    for goes_wrong in (
        _an_anchor_that_is_away,
        _a_pause,
        _drift,
        _a_unit_that_fails,
        _a_state_that_somebody_wrote,
        _a_state_that_is_gone,
        _a_queue,
        _a_merge_that_nobody_signed,
        _a_server_that_is_away,
        _a_branch_that_was_rewritten,
        _a_runner_that_is_dead,
        _a_loop_that_hangs,
        _a_host_that_slept,
        _a_daemon_that_is_gone,
    ):
        goes_wrong(watched)
    assert {rule["alert"] for rule in rules(ALERTS)} == FIRED | NOT_DRIVEN.keys()
    _every_metric_was_seen(watched)


def _nothing_fires_that_should_not(watched: Watched) -> None:
    assert {one["labels"]["alertname"] for one in watched.prometheus.firing()} <= {
        "ReconcilerAuditFailing",
        "ReconcilerAuditNotAnchored",
    }


def _an_anchor_that_is_away(watched: Watched) -> None:
    with watched.alarmed("AuditFailing"), watched.alarmed("AuditNotAnchored"):
        (watched.folder / "away").mkdir()


def _a_pause(watched: Watched) -> None:
    paused = watched.home.command("pause", "prod", "--reason", "a look at the alert", "--until", "1h")
    assert paused.returncode == 0, paused.stderr
    with watched.alarmed("PausedTooLong", scope="prod"):
        watched.home.command("resume", "prod")


def _drift(watched: Watched) -> None:
    page = watched.home.ground.world / "page"
    page.write_text("by hand")
    look(watched.home, "dev/page")
    with watched.alarmed("DriftOpen", unit="dev/page"), watched.alarmed("OutOfSync", unit="dev/page"):
        watched.fires("ErrorBudgetBurn", environment="dev")
        page.write_text("as reviewed")
        look(watched.home, "dev/page")
    watched.clears("ErrorBudgetBurn")


def _a_unit_that_fails(watched: Watched) -> None:
    merge(watched.home, {at("prod/picky"): entry("picky", {"value": "bad"})}, watched.key)
    with watched.alarmed("Degraded", unit="prod/picky"):
        merge(watched.home, {at("prod/picky"): entry("picky", {"value": "better"})}, watched.key)


def _a_state_that_somebody_wrote(watched: Watched) -> None:
    state = watched.home.ground.state("prod/a")
    document = json.loads(state.read_bytes())
    state.write_text(json.dumps(document | {"serial": document["serial"] + 1}))
    look(watched.home, "prod/a")
    with watched.alarmed("UnexplainedSerial", environment="prod"):
        pass  # nobody has to do anything: it is over when it is long ago


def _a_state_that_is_gone(watched: Watched) -> None:
    state = watched.home.ground.state("slow/a")
    kept = state.read_bytes()
    state.unlink()
    look(watched.home, "slow/a")
    with watched.alarmed("StateEndangered", environment="slow"):
        state.write_bytes(kept)
        look(watched.home, "slow/a")


def _a_queue(watched: Watched) -> None:
    slow = {at(f"slow/{n}"): entry("slow", {"path": n, "content": "x"}) for n in ("b", "c")}
    merge(watched.home, slow, watched.key)
    with watched.alarmed("QueueStuck", environment="slow"):
        (watched.home.ground.world / "go").touch()
    watched.home.synced(patience=PATIENCE)


def _a_merge_that_nobody_signed(watched: Watched) -> None:
    forge = watched.home.ground.environments
    good = forge.head
    forge.merge({at("prod/a"): data(3)}, "quick")
    with watched.alarmed("UnverifiedHead", repository="environments"):
        forge.point("main", good)


def _a_server_that_is_away(watched: Watched) -> None:
    folder = watched.home.ground.environments.folder
    away = folder.with_suffix(".away")
    folder.rename(away)
    with watched.alarmed("GitStale", repository="environments"):
        away.rename(folder)


def _a_branch_that_was_rewritten(watched: Watched) -> None:
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


def _a_runner_that_is_dead(watched: Watched) -> None:
    watched.home.kill("runner")
    with watched.alarmed("NotReady", check="runner"), watched.alarmed("UnitStale", environment="often"):
        watched.home.start_runner()


def _a_loop_that_hangs(watched: Watched) -> None:
    controller = watched.home.controller
    assert controller is not None
    with standing_still(controller.pid):
        watched.fires("LoopStalled")
    watched.clears("LoopStalled")


def _a_host_that_slept(watched: Watched) -> None:
    controller = watched.home.controller
    assert controller is not None
    controller.send_signal(signal.SIGSTOP)
    watched.fires("Down")
    controller.send_signal(signal.SIGCONT)
    watched.fires("ScheduleMissed")
    watched.clears("Down", "ScheduleMissed")


def _a_daemon_that_is_gone(watched: Watched) -> None:
    watched.home.kill("controller")
    with watched.alarmed("Down"):
        watched.home.start_controller()
        httpx.get(f"{watched.home.ground.address}/healthz", timeout=10).raise_for_status()


def _every_metric_was_seen(watched: Watched) -> None:
    """Every name in a rule or a dashboard was scraped from, or recorded by, what ran here; a forge's and a webhook's are not."""
    wanted = {metric for expr in expressions().values() for metric in asked(expr).metrics} - GIVEN_METRICS
    unseen = wanted - watched.prometheus.metrics()
    absent = ("reconciler_branch_protection", "reconciler_notifications_total")
    assert all(name.startswith(absent) for name in unseen), unseen

"""As test_alerts, for what takes a forge, a webhook, CI, a state in S3, a dead engine, a second daemon or a jail to go wrong.

Some times of the planes are scaled as the rules' are: how often the forge is asked what guards the branch, how long a webhook that
did not answer is left alone, how long a look at the queue of the trail takes, and how long a job waits for a state's lock.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from reconciler.demo.forge import Files
from reconciler.demo.playground import free_port, laid_over
from tests.crash.harness import deadly
from tests.crash.launcher import Order
from tests.kit.forge import ForgeSite, forge_site
from tests.kit.forks import Plane
from tests.kit.hook import hook
from tests.kit.house import ASKING, Json, house
from tests.kit.hurried import hurried
from tests.kit.issuer import Issuer
from tests.kit.modules import CATALOG, data, entry, environment, excused, release
from tests.kit.prometheus import prometheus
from tests.kit.stall import asleep
from tests.kit.story import at, env, look
from tests.kit.terraform import static_engine
from tests.kit.triggered import bearer
from tests.kit.watched import PATIENCE, RARE, Story, Watched, play

if TYPE_CHECKING:  # the server is a large program: only who needs it waits for it
    from tests.kit.aws import Aws
    from tests.kit.trail import Trail

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="jails are made of Linux's namespaces"),
]

LOCK = "prod/a.tfstate.tflock"
LOOKS = 3  # seconds between two looks at the forge's rules
LEASE = 120  # seconds: longer than an alert takes to fire
BORN = {"path": "born", "content": "once"}
COLLECTOR = "collector.example"
TRAIL = "reconciler-trail"
# How long a look at the queue waits, and how long it rests after one that failed.
QUEUE = {"reconciler.trail.consumer:WAIT": 1, "reconciler.trail.consumer:LAST_WAIT": 2}
# Calls somebody else. The audit lets no module do that; here the host has excused it.
TELLTALE = f"""\
data "terraform_remote_state" "elsewhere" {{
  backend = "http"
  config  = {{ address = "http://{COLLECTOR}/?take=this" }}
}}
"""
RELEASES = {"v1.0.0": {**CATALOG["v1.0.0"], **release(telltale=TELLTALE)}}


@dataclass
class Furnished(Watched):
    """What stands around the house. `doors` are closed at its end, `webhook` is the port of a receiver that nobody has started."""

    site: ForgeSite
    issuer: Issuer
    aws: Aws
    doors: ExitStack
    webhook: int
    trail: Trail

    def merge(self, files: Files) -> None:
        """Merge a pull request that was approved."""
        repo = self.site.repos["acme/environments"]
        pull = repo.open(self.site.people["ada"], files, f"change-{len(repo.pulls)}")
        pull.review(self.site.people["bob"])
        pull.merge()

    @property
    def orders(self) -> Path:
        """What the provider's processes are to die of."""
        return self.home.ground.folder / "orders.json"

    @property
    def trigger(self) -> str:
        """Where CI servers call."""
        said = yaml.safe_load(self.home.ground.controller_config.read_text())
        return f"http://{said['trigger']['listen']}"


@pytest.fixture
def watched(tmp_path: Path, aws: Aws) -> Iterator[Furnished]:
    """Two environments: prod's states are in S3, dev's objects are files. The webhook is away from the beginning."""
    from tests.kit.aws import ACCOUNT, prod
    from tests.kit.trail import Trail

    keys, trail = (tmp_path / "keys.env", "worker-key-0123456789"), Trail(aws, TRAIL)
    own = tmp_path / "own-keys"
    own.write_text("[default]\naws_access_key_id = test\naws_secret_access_key = test\n")
    issuer, webhook = Issuer(tmp_path / "issuer"), free_port()
    with ExitStack() as doors:
        doors.callback(issuer.close)
        site = doors.enter_context(forge_site(tmp_path / "forge"))
        forge = {"environments_repo": {"forge": site.config("github", "acme/environments"), "poll_interval": "1s"}}
        controller = {
            **forge,
            "store": {"lease": f"{LEASE}s"},
            "trigger": {"listen": f"127.0.0.1:{free_port()}", "oidc": [issuer.config()]},
            "notify": [{"name": "ops", "url": f"http://127.0.0.1:{webhook}/hook"}],
            "out_of_band": trail.config(),
        }
        deaths = deadly(tmp_path / "python", tmp_path / "h" / "orders.json")
        hosts = {"prod": prod(aws, ACCOUNT, plan=keys, apply=keys), "dev": {"env": deaths}}
        entries = {env("prod"): environment(), at("prod/a"): data(1), env("dev"): environment()}
        home = doors.enter_context(
            house(
                tmp_path / "h",
                entries,
                RELEASES,
                controller=controller,
                runner=laid_over(forge, {"environments": hosts, **excused("telltale", "remote-state")}),
                environment={"AWS_SHARED_CREDENTIALS_FILE": str(own)},
            )
        )
        home.before = {
            "controller": hurried(
                {"reconciler.controller.protection:EVERY": LOOKS, "reconciler.controller.notify:LAST_WAIT": 2, **QUEUE}
            ),
            "runner": hurried({"reconciler.runner.holding:PATIENCE": 2}),
        }
        made = site.repository("acme/environments", home.ground.environments)
        for login in ("ada", "bob"):
            site.person(login)
            made.access[login] = "write"
        home.start()
        home.synced(patience=PATIENCE)
        ages = {"ReconcilerBranchProtectionUnknown": 4 * LOOKS, "ReconcilerOutOfBandBlind": 15}
        where = urlsplit(home.address).netloc
        server = doors.enter_context(prometheus(tmp_path / "prometheus", where, age=5, window="15s", ages=ages))
        found = Furnished(home, server, site, issuer, aws, doors, webhook, trail)
        home.until(lambda: server.value("count_over_time(up[1m])") >= 8, "it is scraped", PATIENCE)
        yield found


def test_each_alert_fires_and_clears(watched: Furnished) -> None:
    assert watched.firing() <= {"NotificationsFailing"}
    play(watched, STORY)
    assert watched.prometheus.metrics() >= RARE


def _a_webhook_that_is_away(watched: Furnished) -> None:
    with watched.alarmed("NotificationsFailing", sink="ops"):
        receiver = watched.doors.enter_context(hook(watched.webhook))
        watched.home.until(lambda: "unit.applied" in receiver.types(), "it is told what it missed", PATIENCE)
        assert receiver.types()[0] == "branch.accepted"


def _a_pipeline_whose_token_has_expired(watched: Furnished) -> None:
    now = int(time.time())
    stale = watched.issuer.token(iat=now - 900, nbf=now - 900, exp=now - 600)

    def asks(token: str) -> int:
        where = f"{watched.trigger}/v1/reconcile"
        return ASKING.post(where, json={"scope": "dev"}, headers=bearer(token)).status_code

    assert {asks(stale) for _ in range(30)} == {401}
    with watched.alarmed("TriggerAbused", result="unauthenticated"):
        assert asks(watched.issuer.token()) == 202


def _a_rule_that_is_switched_off(watched: Furnished) -> None:
    shield = watched.site.repos["acme/environments"].shield
    shield.force_push = True
    with watched.alarmed("BranchUnprotected", repository="environments", rule="force_push_forbidden"):
        shield.force_push = False


def _a_forge_that_is_away(watched: Furnished) -> None:
    watched.site.fault = "down"
    with watched.alarmed("BranchProtectionUnknown", repository="environments"):
        watched.site.fault = ""


def _a_write_behind_its_back(watched: Furnished) -> None:
    from tests.kit.trail import told

    watched.trail.send([told()])
    watched.fires("OutOfBandChange", environment="prod")
    watched.clears("OutOfBandChange")


def _a_queue_that_is_gone(watched: Furnished) -> None:
    from tests.kit.trail import Trail

    watched.aws.client("sqs").delete_queue(QueueUrl=watched.trail.url)
    with watched.alarmed("OutOfBandBlind", queue="out_of_band"):
        assert Trail(watched.aws, TRAIL).url == watched.trail.url


def _a_lock_that_nobody_lets_go(watched: Furnished) -> None:
    info = {"ID": "8f2c", "Operation": "OperationTypeApply", "Who": "eve@laptop", "Created": "2026-01-01T00:00:00Z"}
    watched.aws.put({LOCK: json.dumps(info).encode()})
    assert look(watched.home, "prod/a")["reason"] == "StateLocked"
    with watched.alarmed("StateLockStuck", environment="prod"):
        assert "eve@laptop" in watched.home.unit("prod/a")["message"]
        watched.aws.client("s3").delete_object(Bucket=_bucket(), Key=LOCK)
        look(watched.home, "prod/a")
    watched.home.synced("prod/a")


def _bucket() -> str:
    from tests.kit.aws import BUCKET

    return BUCKET


def _an_engine_that_dies_before_it_hears_that_its_object_is_there(watched: Furnished) -> None:
    home, born = watched.home, watched.home.ground.world / "born"
    Order(1, "engine", "call:after", 1).write(watched.orders)
    watched.merge({at("dev/born"): entry("file", BORN)})
    with watched.alarmed("UncertainApply", environment="dev"):
        home.held("dev/born", "Uncertain", patience=PATIENCE)
        born.unlink()
        words = ("runner", "settle", "dev/born", "--reason", "looked, and deleted it")
        home.until(
            lambda: home.command(*words, "--config", str(home.ground.runner_config)).returncode == 0,
            "no job of it looks just now",
        )
        look(home, "dev/born")
    home.synced(patience=PATIENCE)
    assert born.exists()


def _a_leader_that_is_stopped(watched: Furnished) -> None:
    """Its standby waits for the lease to run out."""
    controller = watched.home.controller
    assert controller is not None
    standby, where = _second(watched, {})
    try:
        watched.prometheus.scrape(urlsplit(watched.home.address).netloc, where)
        query = "reconciler_leader == 0"
        watched.home.until(lambda: watched.prometheus.ask("query", query=query)["result"], "it stands by", PATIENCE)
        with asleep(controller.pid):
            watched.fires("NoLeader")
        watched.clears("NoLeader")
    finally:
        standby.send_signal(signal.SIGTERM)
        standby.wait(60)


def _two_that_lead(watched: Furnished) -> None:
    """Another store, and the same environments: neither can know of the other but by the runner."""
    own = {"store": {"path": str(watched.home.ground.folder / "second" / "reconciler.db")}}
    second, where = _second(watched, own)
    try:
        watched.prometheus.scrape(urlsplit(watched.home.address).netloc, where)
        watched.fires("SplitLeader")
    finally:
        second.send_signal(signal.SIGTERM)
        second.wait(60)
    watched.clears("SplitLeader")
    watched.prometheus.scrape(urlsplit(watched.home.address).netloc)


def _second(watched: Furnished, own: Json) -> tuple[Plane, str]:
    """Start another daemon with the first one's configuration, over which its own is laid; it, and where it listens."""
    ground = watched.home.ground
    config = yaml.safe_load(ground.controller_config.read_text())
    where = f"127.0.0.1:{free_port()}"
    elsewhere: dict[str, Any] = {
        "http": {"listen": where},
        "admin": {"socket": str(ground.runtime / "second.sock")},
        "trigger": None,
        "notify": None,
        "out_of_band": None,
    }
    path = ground.folder / "second.yaml"
    path.write_text(yaml.safe_dump(laid_over(config, elsewhere | own)))
    return watched.home._spawn("second", "run", "--config", str(path)), where


def _a_module_that_calls_home(watched: Furnished) -> None:
    """Both planes begin anew: the runner with a jail, the controller with a higher fence than the one that led beside it."""
    home = watched.home
    home.stop()
    static_engine()
    config = yaml.safe_load(home.ground.runner_config.read_text())
    home.ground.runner_config.write_text(yaml.safe_dump({**config, "sandbox": {"tier": "strict"}}))
    home.start()
    watched.merge({at("prod/a"): entry("telltale")})
    with watched.alarmed("EgressRefused", environment="prod"):
        failed = home.held("prod/a", "PlanFailed", f"The jail refused connections to {COLLECTOR}:80")
        assert failed["health"] == "Degraded"
        watched.merge({at("prod/a"): data(1)})
    home.synced(patience=PATIENCE)


STORY: Story[Furnished] = (
    (_a_webhook_that_is_away, ("NotificationsFailing",)),
    (_a_pipeline_whose_token_has_expired, ("TriggerAbused",)),
    (_a_rule_that_is_switched_off, ("BranchUnprotected",)),
    (_a_forge_that_is_away, ("BranchProtectionUnknown",)),
    (_a_write_behind_its_back, ("OutOfBandChange",)),
    (_a_queue_that_is_gone, ("OutOfBandBlind",)),
    (_a_lock_that_nobody_lets_go, ("StateLockStuck",)),
    (_an_engine_that_dies_before_it_hears_that_its_object_is_there, ("UncertainApply",)),
    (_a_leader_that_is_stopped, ("NoLeader",)),
    (_two_that_lead, ("SplitLeader",)),
    (_a_module_that_calls_home, ("EgressRefused",)),
)

"""The real AWS provider in the strict jail, states in S3: it works through the proxy, and reaches nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from reconciler.demo.example import LOCK
from tests.kit.aws import ACCOUNT, NEEDS_AWS, REGION, Aws, locked, prod, provider_pin
from tests.kit.house import House, Json, house
from tests.kit.modules import entry, environment, release
from tests.kit.story import at, env, look, results, settled
from tests.kit.terraform import static_engine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="jails are made of Linux's namespaces"),
]

PATIENCE = 300.0  # seconds: as in test_aws_house
ELSEWHERE = "ssm.elsewhere.example"
NOTE = (
    NEEDS_AWS
    + """\
variable "text" { type = string }
resource "aws_ssm_parameter" "this" {
  name  = "/note"
  type  = "String"
  value = var.text
}
"""
)
CATALOG = {"v1.0.0": release(note=NOTE)}


def runner(folder: Path, aws: Aws, mirror: Path) -> Json:
    keys = (folder / "keys.env", "worker-key-0123456789")
    return {
        "provider_mirror": {"path": str(mirror)},
        "environments": {"prod": prod(aws, ACCOUNT, plan=keys, apply=keys)},
        "sandbox": {"tier": "strict"},
    }


def providers(**aws: object) -> str:
    return environment(providers={"aws": {"region": REGION, "max_retries": 1, **aws}})


def test_deploys_through_the_jail_and_reaches_nothing_else(tmp_path: Path, aws: Aws, aws_mirror: Path) -> None:
    static_engine()
    entries = {
        env("prod"): providers(),
        at("prod/note"): entry("note", {"text": "first"}),
        LOCK: locked(tmp_path, CATALOG, provider_pin(aws_mirror)),
    }
    with house(tmp_path / "h", entries, CATALOG, runner=runner(tmp_path, aws, aws_mirror)) as home:
        home.start()
        home.synced(patience=PATIENCE)
        settled(home)
        assert aws.parameter("/note") == "first"
        assert "prod/note.tfstate" in aws.objects()
        assert metric(home, 'build_info{engine="') == 1
        assert 'sandbox_tier="strict"' in metrics(home)
        assert metric(home, 'egress_refused_total{environment="prod"}') == 0
        another_job_spares_its_init(home)
        another_host_is_refused(home, aws)


def another_job_spares_its_init(home: House) -> None:
    """With the state in a bucket, and with a provider that nobody hashes again."""
    assert "Initializing the backend" in home.command("logs", "prod/note").stdout
    assert look(home, "prod/note")["reason"] == "InSync"
    said = home.command("logs", "prod/note").stdout
    assert "Initializing" not in said
    assert "aws_ssm_parameter.this" in said


def another_host_is_refused(home: House, aws: Aws) -> None:
    changed = {
        env("prod"): providers(endpoints={"ssm": f"http://{ELSEWHERE}"}),
        at("prod/note"): entry("note", {"text": "second"}),
    }
    home.ground.environments.commit(changed, "Another endpoint")
    failed = home.until(
        lambda: [r for r in results(home, "prod/note") if r["outcome"] == "Failed"], "it fails", PATIENCE
    )[0]
    assert f"The jail refused connections to {ELSEWHERE}:80" in failed["message"]
    assert "environments.prod.egress" in failed["message"]
    assert failed["refused"] >= 1
    assert metric(home, 'egress_refused_total{environment="prod"}') >= failed["refused"]
    assert f"refused a connection to {ELSEWHERE}:80: it is not listed" in home.command("logs", "prod/note").stdout
    assert aws.parameter("/note") == "first"


def metrics(home: House) -> str:
    return httpx.get(f"{home.ground.address}/metrics", timeout=20).text


def metric(home: House, name: str) -> float:
    lines = [line for line in metrics(home).splitlines() if line.startswith(f"reconciler_{name}")]
    return float(lines[0].rpartition(" ")[2])

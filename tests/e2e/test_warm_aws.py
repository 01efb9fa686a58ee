"""Workers with the real AWS provider in the strict jail: keys are each job's own, and a provider that stays ends with its worker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import load_runner
from reconciler.demo.example import LOCK
from reconciler.demo.playground import Playground
from reconciler.model import Result
from reconciler.runner.host import Host
from tests.kit import plane, warm
from tests.kit.aws import NEEDS_AWS, REGION, Aws, locked, provider_pin
from tests.kit.modules import entry, environment, release
from tests.kit.terraform import static_engine, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="warm workers take Linux"),
]

NOTE = (
    NEEDS_AWS
    + """\
variable "name" { type = string }
resource "aws_ssm_parameter" "this" {
  name  = var.name
  type  = "String"
  value = "x"
}
"""
)
CATALOG = {"v1.0.0": release(note=NOTE)}
SKIPS = {"skip_credentials_validation": True, "skip_requesting_account_id": True, "skip_metadata_api_check": True}
NAMES = "ab"
# Prints other keys each time, and notes for what.
KEYS = """\
import json, os, secrets, sys
key = "AKIA" + secrets.token_hex(8).upper()
with open(sys.argv[1], "a") as told:
    told.write(os.environ["RECONCILER_OPERATION"] + " " + os.environ["RECONCILER_JOB"] + " " + key + "\\n")
print(json.dumps({"Version": 1, "AccessKeyId": key, "SecretAccessKey": "secret", "SessionToken": "session"}))
"""


class Site:
    """A host with two units on AWS, in the strict jail."""

    def __init__(self, folder: Path, aws: Aws, mirror: Path, **more: Any) -> None:
        (folder / "keys.py").write_text(KEYS)
        self.told = folder / "told"
        ways = {  # YAML would make one of what is the same object
            name: {"command": [sys.executable, str(folder / "keys.py"), str(self.told)]} for name in ("plan", "apply")
        }
        files = {
            "environments/prod/environment.yaml": environment(providers={"aws": {"region": REGION, **SKIPS}}),
            LOCK: locked(folder, CATALOG, provider_pin(mirror)),
            **{f"environments/prod/{name}.yaml": entry("note", {"name": f"/{name}"}) for name in NAMES},
        }
        prod = {"env": {"AWS_ENDPOINT_URL": aws.endpoint}, "credentials": ways}
        self.ground = Playground.create(
            folder / "ground",
            files,
            CATALOG,
            runner={
                "provider_mirror": {"path": str(mirror)},
                "environments": {"prod": prod},
                "sandbox": {"tier": "strict"},
                "warm": warm.config(**more),
            },
        )
        self.host = Host(load_runner(self.ground.runner_config))
        self.jobs = 0

    def run(self, name: str) -> Result:
        self.jobs += 1
        (self.host.memory.folder / "fetched").unlink(missing_ok=True)
        return plane.carry_out(self.host, plane.job(f"prod/{name}", self.ground.environments.head, self.jobs))

    def handed(self) -> list[list[str]]:
        return [line.split() for line in self.told.read_text().splitlines()]


@pytest.fixture(params=[[], ["hashicorp/aws"]], ids=["alone", "with its own provider"])
def site(request: pytest.FixtureRequest, tmp_path: Path, aws: Aws, aws_mirror: Path) -> Iterator[Site]:
    static_engine()
    made = Site(tmp_path, aws, aws_mirror, own_providers=request.param)
    with warm.brokered(made.host):
        yield made
    until(lambda: not warm.programs(made.host), "every worker has ended with its broker")
    until(lambda: not _debug_providers(made.host), "every provider has ended with its worker")


def test_each_job_plans_with_keys_of_its_own_and_finds_what_has_drifted(site: Site, aws: Aws) -> None:
    for name in NAMES:
        assert site.run(name).reason == "Applied"
    assert site.run("a").reason == "InSync"
    site.told.unlink()
    for name in NAMES:
        assert site.run(name).reason == "InSync"
    warm.until_pool(site.host, made=1, workers=1, lent=1, lent_now=0, changes=0)
    assert "fell_back" not in warm.pool(site.host)
    handed = [key for operation, _, key in site.handed() if operation == "plan"]
    assert len(set(handed)) == len(handed) >= len(NAMES)
    assert not any(key.encode() in path.read_bytes() for key in handed for path in _files(site.ground.folder))
    # What was changed by hand is found by a worker, and put right by the engine.
    aws.client("ssm").put_parameter(Name="/b", Value="by hand", Type="String", Overwrite=True)
    found = site.run("b")
    assert (found.reason, found.cause) == ("Applied", "drift")
    assert aws.parameter("/b") == "x"
    warm.until_pool(site.host, changes=1, lent=2, lent_now=0)
    assert site.run("a").reason == "InSync"


def test_a_provider_that_died_costs_its_worker_and_a_job_an_engine_more(site: Site) -> None:
    for name in NAMES:
        assert site.run(name).reason == "Applied"
    for _ in range(2):
        assert site.run("a").reason == "InSync"
    warm.until_pool(site.host, workers=1, lent_now=0)
    stay = _debug_providers(site.host)
    assert bool(stay) is bool(site.host.warmth and site.host.warmth.own_providers)
    warm.end(stay)
    assert site.run("b").reason == "InSync"
    assert json.dumps(warm.pool(site.host))
    assert site.run("a").reason == "InSync"


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _debug_providers(host: Host) -> list[int]:
    """Providers that this host's workers have started to stay."""
    assert host.warmth is not None
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words, at = path.read_bytes().split(b"\0"), (path.parent / "cwd").readlink()
        except OSError:
            continue
        if b"terraform-provider-aws" in words[0] and b"-debug" in words and at.is_relative_to(host.warmth.home):
            found.append(int(path.parent.name))
    return found

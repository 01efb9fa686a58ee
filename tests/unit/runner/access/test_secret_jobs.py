"""Whole jobs with a real engine, of a unit whose secret AWS keeps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.demo.playground import Playground
from reconciler.model import Operation, Outcome, UnitId
from reconciler.runner.host import Host
from tests.kit.aws import REGION, Aws, serving
from tests.kit.plane import PROD, carry_out, ground, job, note, open_host

NAME = "prod/db"
FIRST, SECOND = "canary-one-0123456789", "canary-two-0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with serving() as found:
        yield found


@pytest.fixture
def aws(server: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server.reset()
    server.client("secretsmanager").create_secret(Name=NAME, SecretString=FIRST)
    return server


def made(folder: Path, aws: Aws) -> Playground:
    """Prod with one unit, which reads one secret."""
    keys = folder / "keys.env"
    keys.write_text("AWS_ACCESS_KEY_ID=own\nAWS_SECRET_ACCESS_KEY=own-secret-0123\n")
    keys.chmod(0o600)
    prod = {
        "env": {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_REGION": REGION},
        "secrets": {"db_password": {"file": None, "secretsmanager": NAME}},
        "credentials": {name: {"static_file": str(keys)} for name in ("plan", "apply")},
    }
    return ground(folder, {"a": note("${{ secret.db_password }}")}, environments={"prod": prod})


def rotate(aws: Aws, value: str) -> None:
    aws.client("secretsmanager").put_secret_value(SecretId=NAME, SecretString=value)


def published(host: Host) -> str:
    return host.facts().environments["prod"].secrets["db_password"]


def holding(made: Playground, *canaries: str) -> list[Path]:
    """The files with any of them in clear: only states may be."""
    files = [path for path in made.folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [path for path in files if any(one.encode() in path.read_bytes() for one in canaries)]


def test_a_rotation_is_found_by_the_next_job_and_applied(tmp_path: Path, aws: Aws) -> None:
    here = made(tmp_path, aws)
    host = open_host(here)
    asked = [job("prod/a", here.environments.head, number) for number in range(4)]
    first = carry_out(host, asked[0])
    assert (first.outcome, first.reason) == (Outcome.SUCCEEDED, "Applied"), first.message
    assert published(host) == host.memory.seal(FIRST)
    again = carry_out(host, asked[1])
    assert (again.reason, again.fingerprint) == ("InSync", first.fingerprint)
    rotate(aws, SECOND)
    assert published(host) == host.memory.seal(FIRST)
    rotated = carry_out(host, asked[2])
    assert (rotated.reason, rotated.cause) == ("Applied", "upstream")
    assert published(host) == host.memory.seal(SECOND)
    assert carry_out(host, asked[3]).fingerprint == rotated.fingerprint != first.fingerprint
    state = here.state("prod/a")
    assert SECOND in state.read_text()
    assert set(holding(here, FIRST, SECOND)) <= {*state.parent.rglob("*")}


def test_a_plan_finds_it_too_and_changes_nothing(tmp_path: Path, aws: Aws) -> None:
    """Where drift is only reported, the controller learns of it from what is published, and asks for an apply."""
    here = made(tmp_path, aws)
    host = open_host(here)
    carry_out(host, job("prod/a", here.environments.head))
    rotate(aws, SECOND)
    shown = carry_out(host, job("prod/a", here.environments.head, 2, operation=Operation.PLAN))
    assert (shown.reason, shown.cause) == ("Planned", "upstream")
    assert published(host) == host.memory.seal(SECOND)
    assert FIRST in here.state("prod/a").read_text()


def test_without_it_nothing_is_planned(tmp_path: Path, aws: Aws) -> None:
    here = made(tmp_path, aws)
    host = open_host(here)
    carry_out(host, job("prod/a", here.environments.head))
    before = here.state("prod/a").read_bytes()
    aws.client("secretsmanager").delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)
    held = carry_out(host, job("prod/a", here.environments.head, 2))
    assert (held.outcome, held.reason, held.plan) == (Outcome.HELD, "SecretMissing", None)
    assert held.message.startswith(f"secret db_password of prod: secretsmanager: {NAME}: there is no such secret")
    assert here.state("prod/a").read_bytes() == before
    assert published(host) == host.memory.seal(FIRST)
    assert host.memory.unit(UnitId("prod/a")).applying is None


def test_what_goes_needs_none_that_is_not_there_and_waits_for_one_that_may_come(tmp_path: Path, aws: Aws) -> None:
    here = made(tmp_path, aws)
    carry_out(open_host(here), job("prod/a", here.environments.head))
    gone = note("${{ secret.db_password }}", "state: absent\nallow_destroy: 1\n")
    head = here.merge({f"{PROD}/a.yaml": gone}, "It goes")
    config = here.runner_config.read_text()
    here.runner_config.write_text(config.replace(aws.endpoint, "http://127.0.0.1:9"))
    held = carry_out(open_host(here), job("prod/a", head, 2))
    assert (held.outcome, held.reason) == (Outcome.HELD, "SecretUnavailable")
    here.runner_config.write_text(config)
    aws.client("secretsmanager").delete_secret(SecretId=NAME, ForceDeleteWithoutRecovery=True)
    assert carry_out(open_host(here), job("prod/a", head, 3)).reason == "Applied"

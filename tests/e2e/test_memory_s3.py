"""A house whose runner remembers in a bucket: the disk of its host is gone between any two jobs, and nothing is done twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import load_runner
from reconciler.durable import FileLock
from reconciler.errors import UnitError
from reconciler.model import Operation, Outcome, UnitId
from reconciler.runner.bucket import Bucket
from reconciler.runner.host import Host
from reconciler.runner.unitlock import Here
from tests.kit.aws import BUCKET, REGION, Aws, serving
from tests.kit.house import house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.plane import carry_out, ground, job, note
from tests.kit.story import at, env, look, made

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

UNIT = UnitId("prod/app")


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with serving() as server:
        server.reset()
        yield server


def in_s3(aws: Aws, work: Path, prefix: str = "memory") -> dict[str, Any]:
    """What runner.yaml says of it."""
    keys = work.with_name("keys")
    keys.write_text("AWS_ACCESS_KEY_ID=test\nAWS_SECRET_ACCESS_KEY=test\n")
    keys.chmod(0o600)
    s3 = {"bucket": BUCKET, "region": REGION, "prefix": prefix, "endpoint": aws.endpoint, "use_path_style": True}
    return {"memory": {"path": None, "s3": {**s3, "credentials": {"static_file": str(keys)}}}, "work": str(work)}


def lose(work: Path) -> None:
    """The disk is gone."""
    for inner, _, _ in os.walk(work):  # pinned trees are read-only
        Path(inner).chmod(0o700)
    shutil.rmtree(work)


def test_deploy_change_drift_and_destroy_each_on_a_new_disk(tmp_path: Path, aws: Aws) -> None:
    work, first = (
        tmp_path / "work",
        {env("prod"): environment(), at("prod/app"): entry("file", {"path": "a", "content": "one"})},
    )
    with house(tmp_path / "h", first, CATALOG, runner=in_s3(aws, work)) as home:
        home.start()
        home.synced()
        file = home.ground.world / "a"

        def anew() -> None:
            home.kill("runner")
            lose(work)
            home.start_runner()

        anew()
        home.ground.merge({at("prod/app"): entry("file", {"path": "a", "content": "two"})})
        home.synced()
        assert "two" in file.read_text()

        anew()
        file.write_text(file.read_text().replace("two", "tampered"))
        found = look(home, "prod/app")
        assert (found["cause"], found["reason"]) == ("drift", "Applied")
        assert "two" in file.read_text()

        anew()
        home.ground.merge(
            {at("prod/app"): entry("file", {"path": "a", "content": "two"}, state="absent", allow_destroy=1)}
        )
        home.until(lambda: not file.exists(), "it is destroyed")
        home.synced()
        assert made(home, "create", "created") == ["a"]

        verified = home.command("audit", "verify", "--config", str(home.ground.runner_config), "-o", "json")
        assert json.loads(verified.stdout)["fits"], verified.stdout
        shown = home.command("audit", "show", "prod/app", "--config", str(home.ground.runner_config), "-o", "json")
        assert [one["change"] for one in json.loads(shown.stdout)] == ["applied"] * 4
        refused = home.command("backup", str(tmp_path / "b"), "--runner", str(home.ground.runner_config))
        assert refused.returncode != 0
        assert "put-bucket-versioning" in refused.stderr
        assert not {key for key in aws.objects() if "/locks/" in key}


def test_two_hosts_want_a_unit_and_one_of_them_has_it(tmp_path: Path, aws: Aws) -> None:
    made = ground(tmp_path, {"app": note()}, **in_s3(aws, tmp_path / "w1", "two"))
    try:
        one = Host(load_runner(made.runner_config))
        made.runner_config.write_text(made.runner_config.read_text().replace("/w1", "/w2"))
        two = Host(load_runner(made.runner_config), Here(task="arn:two"))
        head = made.environments.head
        with one.memory.unit_lock(UNIT) as lock:
            assert isinstance(lock, FileLock)
            result = carry_out(two, job("prod/app", head))
            assert (result.outcome, result.reason) == (Outcome.FAILED, "UnitBusy")
        assert carry_out(two, job("prod/app", head, 2)).outcome is Outcome.SUCCEEDED
        again = carry_out(one, job("prod/app", head, 3))
        assert (again.outcome, again.reason) == (Outcome.SUCCEEDED, "InSync")
        with pytest.raises(UnitError), two.memory.unit_lock(UNIT), one.memory.unit_lock(UNIT):
            pass
    finally:
        made.close()


def test_a_job_asks_the_bucket_so_often(tmp_path: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/operations.md has the numbers: the first apply of an installation, a later one, and jobs that find nothing to do."""
    made = ground(tmp_path, {f"u{number}": note() for number in range(3)}, **in_s3(aws, tmp_path / "w1", "count"))
    try:
        host, head, asked = Host(load_runner(made.runner_config)), made.environments.head, list[str]()
        call = Bucket._call

        def counted(self: Bucket, verb: str, *args: Any, **more: Any) -> Any:
            asked.append(verb)
            return call(self, verb, *args, **more)

        monkeypatch.setattr(Bucket, "_call", counted)
        counts = []
        for number, (unit, operation) in enumerate(
            (("u0", Operation.APPLY), ("u1", Operation.APPLY), ("u1", Operation.PLAN), ("u1", Operation.APPLY))
        ):
            asked.clear()
            assert (
                carry_out(host, job(f"prod/{unit}", head, number + 1, operation=operation)).outcome is Outcome.SUCCEEDED
            )
            counts.append(len(asked))
            assert "list_objects_v2" not in asked
        first, later, *looks = counts
        assert first <= 85
        assert later <= 55
        assert max(looks) <= 16
    finally:
        made.close()

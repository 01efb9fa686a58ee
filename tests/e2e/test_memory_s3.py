"""A house whose runner remembers in a bucket: the disk of its host is gone between any two jobs, and nothing is done twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import main
from reconciler.config import load_runner
from reconciler.durable import FileLock
from reconciler.errors import SupersededError, UnitError
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Commit, Operation, Outcome, Phase, Result, UnitId
from reconciler.remote.calls import objects_of
from reconciler.runner.audit.objects import ObjectLog
from reconciler.runner.audit.verify import verify
from reconciler.runner.bucket import Bucket
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from reconciler.runner.spool import JobFolder
from reconciler.runner.unitlock import Here
from tests.kit.aws import BUCKET, REGION, Aws, serving
from tests.kit.ecs import lose
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


def test_a_runner_that_lost_its_disk_goes_on(tmp_path: Path, aws: Aws, capsys: pytest.CaptureFixture[str]) -> None:
    """The service, with drift; a change and a removal, each on a disk of its own, are in test_fargate.py."""
    work = tmp_path / "work"
    first = {env("prod"): environment(), at("prod/app"): entry("file", {"path": "a", "content": "one"})}
    with house(tmp_path / "h", first, CATALOG, runner=in_s3(aws, work)) as home:
        home.start()
        home.synced()
        home.kill("runner")
        lose(work)
        home.start_runner()
        file = home.ground.world / "a"
        file.write_text(file.read_text().replace("one", "tampered"))
        found = look(home, "prod/app")
        assert (found["cause"], found["reason"]) == ("drift", "Applied")
        assert "one" in file.read_text()
        assert made(home, "create", "created") == ["a"]
        assert not {key for key in aws.objects() if "/locks/" in key}
        config = str(home.ground.runner_config)
        assert main(["audit", "verify", "--config", config, "-o", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["fits"]
        assert main(["audit", "show", "prod/app", "--config", config, "-o", "json"]) == 0
        assert [one["change"] for one in json.loads(capsys.readouterr().out)] == ["applied"] * 2
        assert main(["backup", str(tmp_path / "b"), "--runner", config]) != 0
        assert "put-bucket-versioning" in capsys.readouterr().err


class _Refusing(JobFolder):
    """Its controller is replaced at the last moment."""

    def begin(self, phase: Phase, *, secured: bool = False) -> None:
        JobFolder.begin(self, phase, secured=secured)
        if phase is Phase.APPLYING:
            raise SupersededError("It was replaced.")


def test_an_apply_that_is_refused_as_it_begins_has_made_nothing_that_a_later_one_would_look_for(
    tmp_path: Path, aws: Aws
) -> None:
    made = ground(tmp_path, {"app": note()}, **in_s3(aws, tmp_path / "w1", "refused"))
    try:
        one, head = Host(load_runner(made.runner_config)), made.environments.head
        asked = job("prod/app", head)
        folder = _Refusing(one.spool.job(asked.id).path)
        life = folder.create(asked)
        assert life is not None
        run_job(one, asked, folder, life)
        life.release()
        state = folder.state()
        assert isinstance(state, Result)
        assert (state.outcome, state.message) == (Outcome.SUPERSEDED, "It was replaced.")
        assert one.memory.unit(UNIT).applying is None
        lose(tmp_path / "w1")
        two = Host(load_runner(made.runner_config))
        assert carry_out(two, job("prod/app", head, 2)).outcome is Outcome.SUCCEEDED
    finally:
        made.close()


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


def test_what_another_host_accepted_is_fetched_before_it_is_read(tmp_path: Path, aws: Aws) -> None:
    made = ground(tmp_path, {"app": note()}, **in_s3(aws, tmp_path / "w1", "heads"))
    try:
        one = Host(load_runner(made.runner_config))
        made.runner_config.write_text(made.runner_config.read_text().replace("/w1", "/w2"))
        two = Host(load_runner(made.runner_config))
        first = made.environments.head
        assert two.history.newest(first, Operation.APPLY).commit == first  # a moment ago: it suffices for what comes
        later = made.merge({at("prod/app"): note("two")})
        assert one.history.newest(later, Operation.APPLY).commit == later
        assert two.history.newest(later, Operation.APPLY).commit == later
    finally:
        made.close()


def test_a_head_that_another_host_accepts_during_a_fetch_is_no_rollback(
    tmp_path: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ground(tmp_path, {"app": note()}, **in_s3(aws, tmp_path / "w1", "race"))
    try:
        one = Host(load_runner(made.runner_config))
        made.runner_config.write_text(made.runner_config.read_text().replace("/w1", "/w2"))
        two = Host(load_runner(made.runner_config))
        one.history.newest(made.environments.head, Operation.APPLY)
        wanted, later = made.merge({at("prod/app"): note("two")}), list[Commit]()
        fetch = EnvironmentsSource._fetch

        def slowly(self: EnvironmentsSource) -> tuple[Commit | None, Commit]:
            found = fetch(self)
            if not later:  # of the second host's first fetch
                later.append(made.merge({at("prod/app"): note("three")}))
                one.history.newest(later[0], Operation.APPLY)
            return found

        monkeypatch.setattr(EnvironmentsSource, "_fetch", slowly)
        assert two.history.newest(wanted, Operation.APPLY).commit == later[0]
        assert two.memory.trust().frozen is None
        verified = verify(
            list(ObjectLog(two.memory.cabinet.within("audit")).segments()), least=two.record.log.mark().count
        )
        assert verified.wrong is None
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

        def listed(*args: Any) -> Iterator[Any]:
            asked.append("list_objects_v2")
            return objects_of(*args)

        monkeypatch.setattr(Bucket, "_call", counted)
        monkeypatch.setattr("reconciler.runner.bucket.objects_of", listed)
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

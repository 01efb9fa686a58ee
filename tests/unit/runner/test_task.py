"""What a task believes of those who start it, and what of its job is in the spool before anything is changed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from reconciler import codec
from reconciler.cli.runner import command
from reconciler.config import load_runner
from reconciler.errors import ConfigError, PassError, SupersededError
from reconciler.model import Commit, Job, JobId, Operation, Phase, UnitId
from reconciler.remote.bucket import Bucket, open_bucket
from reconciler.remote.spool import Answering, Asking
from reconciler.runner.container import METADATA, arn_of_task, trusted
from reconciler.runner.memory import Memory
from reconciler.runner.spool import Spool
from reconciler.runner.task import Courier, SpooledFolder, follow
from tests.kit.aws import REGION, serving
from tests.kit.ecs import KEYS, SPOOL, SPOOL_BUCKET

ONE = Job(JobId("20261124T100001-aa"), Operation.APPLY, UnitId("prod/net"), Commit("c" * 40), 3)
CONFIG: dict[str, Any] = {
    "environments_repo": {
        "url": "https://example.com/e.git", "branch": "main", "genesis": "c" * 40, "signatures": "off",
    },
    "memory": {"path": "memory"},
    "allow": [],
    "engine": "auto",
    "environments": {
        "prod": {
            "class": "protected",
            "backend": {"local": {"path": "states"}},
            "credentials": {"plan": {"environment": {"TOKEN": "PLAN_TOKEN"}}, "apply": {"environment": {"TOKEN": "APPLY_TOKEN"}}},
        }
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch, serving() as aws:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        aws.client("s3").create_bucket(Bucket=SPOOL_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        yield open_bucket(f"{SPOOL}/unit", REGION, aws.endpoint)


@pytest.fixture
def spool(bucket: Bucket, request: pytest.FixtureRequest) -> Bucket:
    """A folder of its own for each test."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return Bucket(bucket._client, bucket._bucket, f"{bucket._prefix}/{name}")


@pytest.fixture
def folder(spool: Bucket, tmp_path: Path) -> Iterator[SpooledFolder]:
    plain = Spool(tmp_path / "spool").job(ONE.id)
    lock = plain.create(ONE)
    assert lock is not None
    memory = Memory(tmp_path / "memory")
    memory.check_fence(ONE)
    yield SpooledFolder(plain.path, Answering(spool), memory, ONE.id)
    lock.release()


def test_that_an_apply_begins_is_in_the_spool_before_it_does(folder: SpooledFolder, spool: Bucket) -> None:
    folder.begin(Phase.VERIFYING)
    assert list(Asking(spool).phases(ONE.id)) == []  # that is brought there by the task, in its own time
    folder.begin(Phase.APPLYING)
    assert [phase for phase, _ in Asking(spool).phases(ONE.id)] == [Phase.VERIFYING, Phase.APPLYING]
    assert not folder.cancelled()


def test_no_apply_begins_once_another_controller_leads(folder: SpooledFolder, spool: Bucket) -> None:
    Asking(spool).lead(4)
    with pytest.raises(SupersededError):
        folder.begin(Phase.APPLYING)
    with pytest.raises(PassError, match="fence 3; 4 was seen"):
        folder.memory.check_fence(ONE)


def test_no_apply_begins_that_was_cancelled_meanwhile(folder: SpooledFolder, spool: Bucket) -> None:
    Asking(spool).cancel(ONE.id)
    assert folder.cancelled()
    with pytest.raises(SupersededError):
        folder.begin(Phase.APPLYING)


def test_no_apply_begins_of_which_the_spool_cannot_be_told(folder: SpooledFolder) -> None:
    away = SpooledFolder(
        folder.path, Answering(open_bucket(SPOOL, REGION, "http://127.0.0.1:9")), folder.memory, ONE.id
    )
    with pytest.raises(PassError) as told:
        away.begin(Phase.APPLYING)
    assert told.value.reason == "RunnerUnavailable"


def test_the_fence_of_the_memory_follows_and_never_goes_back(folder: SpooledFolder, spool: Bucket) -> None:
    Asking(spool).lead(2)
    follow(folder.spool, folder.memory)
    assert folder.memory.fence() == 3
    Asking(spool).lead(9)
    follow(folder.spool, folder.memory)
    assert folder.memory.fence() == 9
    spool.write("lead.json", json.dumps({"fence": 2**60}).encode())  # a taken controller's
    with pytest.raises(PassError, match="fence"):
        follow(folder.spool, folder.memory)
    spool.write("lead.json", b"nonsense")
    with pytest.raises(PassError, match="is not understood"):
        folder.cancelled()


def test_of_two_tasks_one_takes_the_job(spool: Bucket) -> None:
    one, other = Answering(spool), Answering(spool)
    assert one.take(ONE.id, "arn:one")
    assert one.take(ONE.id, "arn:one")  # the answer was lost, and it asks again
    assert not other.take(ONE.id, "arn:two")


def test_what_the_job_leaves_is_brought_as_it_comes(folder: SpooledFolder, spool: Bucket) -> None:
    asking, courier = Asking(spool), Courier(folder.spool, ONE.id, folder)
    courier.bring()
    assert asking.log_from(ONE.id, 0) == b""
    folder.begin(Phase.PLANNING)
    folder.log.write_bytes(b"one\n")
    courier.bring()
    with folder.log.open("ab") as log:
        log.write(b"two\n")
    courier.bring()
    courier.bring()
    assert spool.names(f"jobs/{ONE.id}/log/") == ["0000000000000000", "0000000000000004"]
    assert asking.log_from(ONE.id, 4) == b"two\n"
    assert [phase for phase, _ in asking.phases(ONE.id)] == [Phase.PLANNING]
    asking.cancel(ONE.id)
    courier.bring()
    assert folder.path.joinpath("cancel").exists()
    courier.bring_end("killed by SIGKILL")
    assert (asking.died(ONE.id), asking.result(ONE.id)) == ("killed by SIGKILL", None)


# --- the container


def config(tmp_path: Path, **more: Any) -> Path:
    path = tmp_path / "runner.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **more}))
    return path


def test_only_variables_count_that_the_system_sets_or_the_host_names(tmp_path: Path) -> None:
    said = {
        "PATH": "/bin", "AWS_REGION": "eu-west-1", METADATA: "http://169.254.170.2/v4/x", "PLAN_TOKEN": "p", "APPLY_TOKEN": "a",
        "AWS_ENDPOINT_URL": "https://thief.example", "HTTPS_PROXY": "http://thief", "AWS_CA_BUNDLE": "/tmp/x", "PYTHONPATH": "/tmp",
        "GIT_SSH_COMMAND": "sh", "AWS_ACCESS_KEY_ID": "thief", "LD_PRELOAD": "/tmp/x.so", "RECONCILER_X": "y",
    }  # fmt: skip
    kept = trusted(said, load_runner(config(tmp_path)))
    assert set(kept) == {"PATH", "AWS_REGION", METADATA, "PLAN_TOKEN", "APPLY_TOKEN"}


def test_who_the_task_is_says_the_agent_and_nobody_else() -> None:
    class Agent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/v4/x/task" else 404)
            self.end_headers()
            self.wfile.write(b'{"TaskARN": "arn:aws:ecs:x:1:task/c/1"}')

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Agent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_port}"
        assert arn_of_task({METADATA: f"{here}/v4/x"}) == "arn:aws:ecs:x:1:task/c/1"
        with pytest.raises(ConfigError, match="start the task again"):
            arn_of_task({METADATA: f"{here}/v4/y"})
        server.shutdown()
    for elsewhere in ("http://10.0.0.7/v4/x", "http://169.254.170.2.thief.example/v4", ""):
        with pytest.raises(ConfigError, match="no task of ECS"):
            arn_of_task({METADATA: elsewhere})


@pytest.mark.parametrize("option", ["--config", "--spool", "--job"])
def test_no_word_of_the_task_definition_can_be_said_again(option: str) -> None:
    said = CliRunner().invoke(command, ["task", option, "one", option, "two"])
    assert said.exit_code == 2
    assert "it is said twice" in said.output


def test_the_spool_is_the_one_that_the_host_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path, task={"spool": "s3://ours/prod"})
    said = CliRunner().invoke(command, ["task", "--config", str(path), "--spool", "s3://theirs/prod", "--job", "x"])
    assert said.exit_code == 2
    assert "say where jobs are asked for" in said.output


def test_a_job_is_asked_for_in_the_words_of_the_local_spool(spool: Bucket) -> None:
    Asking(spool).ask(ONE)
    found = Answering(spool).asked(ONE.id)
    assert found is not None
    assert found.data == codec.encode(ONE)

"""States read, kept, moved and retired: as files and in a real S3 server."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import boto3
import pytest
from moto.server import ThreadedMotoServer

from reconciler.errors import UnitError
from reconciler.model import StateMark, UnitId
from reconciler.runner.terraform.rescue import bring_back
from reconciler.runner.terraform.s3 import S3Backend
from reconciler.runner.terraform.state import WORK_STATE, Backend, LocalBackend, StateResource, parse_state, secrets_of
from reconciler.runner.terraform.workspace import Value

OLD, NEW = UnitId("prod/net/old"), UnitId("prod/new")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "test"}


def state(serial: int = 1, lineage: str = "lineage-a", **more: Any) -> bytes:
    return json.dumps(
        {"version": 4, "serial": serial, "lineage": lineage, "outputs": {}, "resources": []} | more
    ).encode()


def test_state_is_parsed() -> None:
    raw = state(
        7,
        outputs={"id": {"value": 2**70, "type": "number"}, "s": {"value": ["x"], "type": "string", "sensitive": True}},
        resources=[
            {
                "module": "module.unit", "mode": "managed", "type": "a_b", "name": "c",
                "instances": [
                    {"index_key": 0, "status": "tainted"}, {"index_key": 'k"${x}'}, {"index_key": 0, "deposed": "00"},
                ],
            },
            {"mode": "managed", "type": "a_b", "name": "alone", "instances": [{}]},
            {"mode": "data", "type": "a_b", "name": "read", "instances": [{}]},
        ],
    )  # fmt: skip
    parsed = parse_state(raw)
    assert parsed.mark == StateMark("lineage-a", 7)
    assert parsed.outputs == {"id": Value(2**70), "s": Value(["x"], sensitive=True)}
    assert parsed.resources == (
        StateResource("module.unit.a_b.c[0]", "a_b", tainted=True),
        StateResource('module.unit.a_b.c["k\\"$${x}"]', "a_b", tainted=False),
        StateResource("module.unit.a_b.c[0]", "a_b", tainted=False),
        StateResource("a_b.alone", "a_b", tainted=False),
    )
    assert parsed.raw == raw


def test_secrets_of_a_state() -> None:
    step = {"type": "get_attr", "value": "secret"}
    index = {"type": "index", "value": {"value": 1, "type": "number"}}
    instance = {
        "attributes": {"secret": ["aaaa", "bbbb"], "open": "cccc"},
        "sensitive_attributes": [[step, index], [{"type": "get_attr", "value": "open"}, index]],
    }
    raw = state(
        outputs={"s": {"value": {"k": "out-secret"}, "sensitive": True}, "o": {"value": "open"}},
        resources=[{"mode": "managed", "type": "a_b", "name": "c", "instances": [instance]}],
    )
    # A path that does not fit hides what it reached: too much rather than too little.
    assert secrets_of(parse_state(raw)) == {"out-secret", "bbbb", "cccc"}


@pytest.mark.parametrize(
    "raw",
    [b"", b"\xff", b"[]", b"{}", state(version=3), state(outputs={"x": {}}), state(resources=[{"mode": "managed"}]),
     state(outputs={"x": {"value": 0}}).replace(b'"value": 0', b'"value": 1e999')],
)  # fmt: skip
def test_what_is_no_state_is_refused(raw: bytes) -> None:
    with pytest.raises(UnitError, match="Restore it") as refused:
        parse_state(raw)
    assert refused.value.reason == "StateInvalid"


# --- both backends -----------------------------------------------------------------------------------------------


class Kept(Protocol):
    """A backend, and a way to look behind it."""

    backend: Backend

    def put(self, name: str, raw: bytes) -> None: ...
    def names(self) -> set[str]: ...


class Files:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend: Backend = LocalBackend(folder)

    def put(self, name: str, raw: bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(raw)

    def names(self) -> set[str]:
        return {f.relative_to(self.folder).as_posix() for f in self.folder.rglob("*") if f.is_file()}


class Objects:
    def __init__(self, endpoint: str, bucket: str) -> None:
        self.bucket = bucket
        self.backend: Backend = S3Backend(bucket, "eu-west-1", {"use_path_style": True}, CREDENTIALS, endpoint)
        self.client = boto3.client(
            "s3", region_name="eu-west-1", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
        )
        self.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

    def put(self, name: str, raw: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=name, Body=raw)

    def names(self) -> set[str]:
        return {o["Key"] for o in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["files", "objects"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    if request.param == "files":
        return Files(tmp_path / "states")
    name = "".join(c if c.isalnum() else "-" for c in tmp_path.name.lower())
    return Objects(request.getfixturevalue("moto"), f"states-{name}")


def test_read(kept: Kept) -> None:
    assert kept.backend.read(OLD) is None
    kept.put("prod/net/old.tfstate", state(3))
    found = kept.backend.read(OLD)
    assert found is not None
    assert found.mark.serial == 3


def test_which_units_of_an_environment_have_a_state(kept: Kept) -> None:
    assert kept.backend.units("prod") == ()
    for name in ("prod/new.tfstate", "prod/net/old.tfstate", "prod/net/old.tfstate.backup", "production/x.tfstate"):
        kept.put(name, state(1))
    kept.put("prod/.reconciler.json", b"{}")
    assert set(kept.backend.units("prod")) == {OLD, NEW}


def test_a_claim_is_written_once_unless_it_is_replaced(kept: Kept) -> None:
    assert kept.backend.claim("prod") is None
    kept.backend.write_claim("prod", b"first", anew=True)
    kept.backend.write_claim("prod", b"second", anew=True)
    assert kept.backend.claim("prod") == b"first"
    kept.backend.write_claim("prod", b"third", anew=False)
    assert kept.backend.claim("prod") == b"third"
    assert kept.backend.claim("stage") is None
    assert kept.names() == {"prod/.reconciler.json"}


def test_garbage_is_named(kept: Kept) -> None:
    kept.put("prod/net/old.tfstate", b"")
    with pytest.raises(UnitError, match=r"prod/net/old\.tfstate"):
        kept.backend.read(OLD)


def test_move_keeps_the_old_one_aside(kept: Kept) -> None:
    kept.put("prod/net/old.tfstate", state(3))
    kept.backend.move(OLD, NEW)
    assert kept.names() == {"prod/new.tfstate", "prod/net/old.tfstate.moved-lineage--3"}
    found = kept.backend.read(NEW)
    assert found is not None
    assert found.raw == state(3)


def test_move_goes_on_where_it_stopped(kept: Kept) -> None:
    kept.put("prod/net/old.tfstate", state(3))
    kept.put("prod/new.tfstate", state(3))  # copied, not yet set aside
    kept.backend.move(OLD, NEW)
    kept.backend.move(OLD, NEW)  # and once more after its end
    assert kept.names() == {"prod/new.tfstate", "prod/net/old.tfstate.moved-lineage--3"}


def test_move_of_nothing_and_onto_another(kept: Kept) -> None:
    with pytest.raises(UnitError) as refused:
        kept.backend.move(OLD, NEW)
    assert refused.value.reason == "StateLost"
    kept.put("prod/net/old.tfstate", state(3))
    kept.put("prod/new.tfstate", state(1, "lineage-b"))
    with pytest.raises(UnitError) as refused:
        kept.backend.move(OLD, NEW)
    assert refused.value.reason == "StateConflict"
    assert kept.names() == {"prod/new.tfstate", "prod/net/old.tfstate"}


def test_retired_state_is_not_read_and_not_lost(kept: Kept) -> None:
    kept.put("prod/new.tfstate", state(3))
    kept.backend.retire(NEW)
    kept.backend.retire(NEW)
    assert kept.backend.read(NEW) is None
    assert kept.names() == {"prod/new.tfstate.forgotten-lineage--3"}


def test_the_last_good_state_is_kept_aside_and_comes_back_by_the_command_that_is_told(kept: Kept) -> None:
    kept.backend.keep(NEW)  # there is none yet
    assert kept.backend.restoring(NEW) is None
    kept.put("prod/new.tfstate", state(3))
    kept.backend.keep(NEW)
    kept.put("prod/new.tfstate", state(4))
    kept.backend.keep(NEW)
    kept.put("prod/new.tfstate", b"cut o")
    told = kept.backend.restoring(NEW)
    assert told is not None
    assert kept.backend.units("prod") == (NEW,)  # the copy is no unit
    assert kept.names() == {"prod/new.tfstate", "prod/new.tfstate.kept"}
    if isinstance(kept, Files):
        subprocess.run(shlex.split(told), check=True)
    else:
        assert isinstance(kept, Objects)
        assert told == f"aws s3 cp s3://{kept.bucket}/prod/new.tfstate.kept s3://{kept.bucket}/prod/new.tfstate"
        source = {"Bucket": kept.bucket, "Key": "prod/new.tfstate.kept"}
        kept.client.copy_object(Bucket=kept.bucket, Key="prod/new.tfstate", CopySource=source)
    found = kept.backend.read(NEW)
    assert found is not None
    assert found.raw == state(4)


def test_a_state_is_put_over_the_very_one_that_was_looked_at(kept: Kept) -> None:
    first, second, third = (parse_state(state(serial)) for serial in (1, 2, 3))
    kept.backend.put(NEW, first, None)
    for over in (None, second):
        with pytest.raises(UnitError, match="changed by somebody else") as refused:
            kept.backend.put(NEW, third, over)
        assert refused.value.reason == "StateForeign"
    kept.backend.put(NEW, second, first)
    assert kept.backend.read(NEW) == second


# --- files only --------------------------------------------------------------------------------------------------


def again(backend: LocalBackend, work: Path) -> None:
    """Bring back what is in the folder, over the state as it is."""
    kept = backend.read(NEW)
    bring_back(backend, NEW, work, kept.mark if kept else None)


def test_state_is_brought_and_taken_back(tmp_path: Path) -> None:
    backend, work = LocalBackend(tmp_path / "states"), tmp_path / "work"
    work.mkdir()
    backend.bring(NEW, work)
    again(backend, work)  # nothing was written
    assert backend.read(NEW) is None
    assert backend.block(NEW, work) == {"local": {"path": str(work / WORK_STATE)}}

    (work / WORK_STATE).write_bytes(state(1))
    again(backend, work)
    again(backend, work)
    (work / WORK_STATE).write_bytes(b"left over")
    backend.bring(NEW, work)
    assert (work / WORK_STATE).read_bytes() == state(1)
    (work / WORK_STATE).write_bytes(state(2))
    again(backend, work)
    kept = tmp_path / "states/prod"
    assert (kept / "new.tfstate").read_bytes() == state(2)
    assert {f.stat().st_mode & 0o777 for f in kept.iterdir()} == {0o600}


def test_left_over_state_of_another_unit_does_not_stay(tmp_path: Path) -> None:
    (tmp_path / WORK_STATE).write_bytes(state(9))
    LocalBackend(tmp_path / "states").bring(NEW, tmp_path)
    assert not (tmp_path / WORK_STATE).exists()


@pytest.mark.parametrize("new", [state(4), state(5, resources=[], x=1), state(6, "lineage-b"), b"garbage"])
def test_foreign_or_older_state_is_not_taken_back(tmp_path: Path, new: bytes) -> None:
    backend = LocalBackend(tmp_path / "states")
    Files(tmp_path / "states").put("prod/new.tfstate", state(5))
    (tmp_path / WORK_STATE).write_bytes(new)
    with pytest.raises(UnitError) as refused:
        again(backend, tmp_path)
    assert refused.value.reason in ("StateForeign", "StateInvalid")
    found = backend.read(NEW)
    assert found is not None
    assert found.raw == state(5)


# --- S3 only -----------------------------------------------------------------------------------------------------


def test_block_of_s3() -> None:
    backend = S3Backend(
        "states", "eu-west-1", {"use_path_style": True, "use_lockfile": False}, {}, "http://127.0.0.1:1"
    )
    assert backend.block(NEW, Path("/work")) == {
        "s3": {
            "bucket": "states", "key": "prod/new.tfstate", "region": "eu-west-1", "encrypt": True, "use_path_style": True,
            "endpoints": {"s3": "http://127.0.0.1:1"}, "use_lockfile": True,
        }
    }  # fmt: skip


def test_missing_bucket_and_unreachable_server_are_not_missing_states(moto: str) -> None:
    for backend in (
        S3Backend("no-such-bucket", "eu-west-1", {"use_path_style": True}, CREDENTIALS, moto),
        S3Backend("states", "eu-west-1", {"use_path_style": True}, CREDENTIALS, "http://127.0.0.1:9"),
    ):
        with pytest.raises(UnitError, match=r"runner\.yaml") as refused:
            backend.read(NEW)
        assert refused.value.reason == "StateUnavailable"
        assert refused.value.transient

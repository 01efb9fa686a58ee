"""Who holds a state in S3: real jobs in processes of their own, a real Terraform beside them, and a server that answers as AWS does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import codec
from reconciler.demo.playground import Playground
from reconciler.errors import SupersededError, UnitError
from reconciler.model import Job, Operation, Outcome, UnitId
from reconciler.runner import holding
from reconciler.runner.holding import BROKEN, KEPT, Hold, Holder, died_here, held, holder_of
from reconciler.runner.host import Host
from reconciler.runner.memory import Applying
from reconciler.runner.terraform import leftover
from reconciler.runner.terraform.rescue import ERRORED_STATE
from reconciler.runner.terraform.state import parse_state
from reconciler.runner.terraform.statelock import LockInfo, StateLock
from reconciler.runner.terraform.statelock import parse as parse_lock
from tests.kit.aws import BUCKET, REGION, Aws, serving
from tests.kit.plane import NOW, carry_out, ground, job, note, open_host, put
from tests.kit.terraform import until

APP = UnitId("prod/app")
LOCK = "prod/app.tfstate.tflock"
PERSONS = LockInfo(
    "1b2c", "OperationTypeApply", "", "ada@laptop", "1.11.4", "2026-01-02T03:04:05Z", f"{BUCKET}/prod/app.tfstate"
)


@dataclass
class Place:
    """A host whose states are in the bucket."""

    ground: Playground
    host: Host
    aws: Aws

    def job(self, number: int, operation: Operation = Operation.APPLY) -> Job:
        return job(APP, self.ground.environments.head, number, operation=operation, fence=number)

    def lock(self) -> StateLock:
        found = self.host.environment("prod", Operation.APPLY).backend.lock(APP)
        assert found is not None
        return found

    def hold(self, number: int, **words: Any) -> Any:
        return held(self.host, self.host.environment("prod", Operation.APPLY).backend, APP, self.job(number), **words)

    def said(self) -> LockInfo | None:
        """What the lock says, as it lies in the bucket."""
        contents = self.aws.contents()
        return parse_lock(contents[LOCK]) if LOCK in contents else None

    def recorded(self) -> list[tuple[str, Any]]:
        records = (self.host.record.log.find(seq) for seq in range(1, self.host.record.log.mark().count + 1))
        return [(one.kind, one.body) for one in records if one is not None and one.kind in (BROKEN, KEPT)]

    @contextmanager
    def elsewhere(self, number: int) -> Iterator[int]:
        """A job in a process of its own, which holds the state and does nothing."""
        pid = os.fork()
        if pid == 0:
            try:
                life = self.host.spool.job(self.job(number).id).create(self.job(number))
                assert life is not None
                with self.hold(number):
                    signal.pause()
            finally:
                os._exit(1)
        try:
            until(lambda: self.said() is not None, "the lock")
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with serving() as aws:
        yield aws


@pytest.fixture
def place(tmp_path: Path, server: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    server.reset()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
    bucket = {"bucket": BUCKET, "region": REGION, "use_path_style": True, "endpoint": server.endpoint}
    prod = {"backend": {"local": None, "s3": bucket}, "env": {"AWS_ENDPOINT_URL": server.endpoint, **keys}}
    made = ground(tmp_path, {"app": note()}, environments={"prod": prod})
    monkeypatch.setattr(holding, "PATIENCE", 0.0)
    monkeypatch.setattr(holding, "LOOK_EVERY", 0.01)
    yield Place(made, open_host(made), server)
    made.close()


def refused(place: Place, number: int) -> str:
    result = carry_out(place.host, place.job(number))
    assert (result.outcome, result.reason, result.transient) == (Outcome.FAILED, "StateLocked", True), result
    return result.message


# --- jobs


def test_a_job_holds_the_state_while_it_works_and_no_longer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[LockInfo | None] = []
    check = Hold.check

    def looked(self: Hold) -> None:
        seen.append(place.said())
        check(self)

    monkeypatch.setattr(Hold, "check", looked)
    assert carry_out(place.host, place.job(1)).reason == "Applied"
    assert place.said() is None
    (info,) = seen
    assert info is not None
    holder = holder_of(info)
    assert holder is not None
    assert (holder.unit, holder.job, holder.fence, holder.pid) == (APP, place.job(1).id, 1, os.getpid())
    assert (info.operation, info.path) == ("OperationTypeApply", f"{BUCKET}/prod/app.tfstate")
    assert place.recorded() == []


def test_a_job_that_was_killed_is_proven_dead_and_its_lock_broken_and_audited(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    with place.elsewhere(1):
        before = place.said()
    assert before is not None
    assert place.said() == before  # nobody released it
    assert carry_out(place.host, place.job(2)).reason == "Applied"
    assert place.said() is None
    ((kind, body),) = place.recorded()
    assert kind == BROKEN
    assert (body["lock"], body["holder"], body["job"]) == (before.id, place.job(1).id, place.job(2).id)
    assert body["proof"] == f"no process of {place.job(1).id} lives on this host"
    assert f"the lock of {place.job(1).id} was broken" in capfd.readouterr().err


def test_a_holder_that_sleeps_keeps_its_lock(place: Place) -> None:
    with place.elsewhere(1) as pid:
        os.kill(pid, signal.SIGSTOP)
        before = place.said()
        said = refused(place, 2)
        assert f"is job {place.job(1).id} of this runner's memory" in said
        assert "nothing proves here that all of it has ended" in said
        assert place.said() == before
        assert place.recorded() == []


def test_an_engine_that_outlives_its_job_keeps_its_lock(place: Place) -> None:
    """As an engine does, a program inherits the job's lock: the job's own process is gone, and proves nothing."""
    with place.elsewhere(1):
        pass
    folder = place.host.spool.job(place.job(1).id)
    before = place.said()
    with (
        folder.lock.open() as lock,
        subprocess.Popen(["flock", "--no-fork", str(folder.lock), "sleep", "600"], stdin=lock) as engine,
    ):
        until(folder.alive, "the engine")
        refused(place, 2)
        assert place.said() == before
        engine.kill()
    assert carry_out(place.host, place.job(3)).reason == "Applied"


# --- others


def test_a_persons_lock_is_never_broken_and_its_holder_named(place: Place) -> None:
    assert place.lock().take(PERSONS)
    said = refused(place, 1)
    assert said.startswith(
        "The state is locked by ada@laptop (lock 1b2c) since 2026-01-02T03:04:05Z (OperationTypeApply;"
    )
    assert f"{place.host.engine.product} force-unlock 1b2c" in said
    assert place.said() == PERSONS
    place.aws.put({LOCK: b"what is this"})
    assert "locked by unknown (lock unknown)" in refused(place, 2)
    assert place.recorded() == []


@pytest.mark.e2e
def test_a_real_terraform_respects_our_lock_and_shows_whose_it_is(place: Place, tmp_path: Path) -> None:
    run = by_hand(place, tmp_path)
    assert run("init").returncode == 0
    with place.hold(7):
        told = run("plan", "-no-color")
    assert told.returncode != 0
    assert "Error acquiring the state lock" in told.stderr
    assert f"job {place.job(7).id}@" in told.stderr
    assert '"fence":7' in told.stderr
    assert run("plan", "-no-color").returncode == 0


@pytest.mark.e2e
def test_the_lock_of_a_real_terraform_that_was_killed_stays_until_a_person_ends_it(
    place: Place, tmp_path: Path
) -> None:
    run = by_hand(place, tmp_path)
    assert run("init").returncode == 0
    with start(place, tmp_path, "apply", "-no-color") as left:
        try:
            until(lambda: place.said() is not None, "the lock")
        finally:
            left.kill()
    info = place.said()
    assert info is not None
    assert holder_of(info) is None
    assert f"force-unlock {info.id}" in refused(place, 1)
    assert place.said() == info
    assert run("force-unlock", "-force", info.id).returncode == 0
    assert carry_out(place.host, place.job(2)).reason == "Applied"


def start(place: Place, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A Terraform that somebody runs by hand, in a root of the same state."""
    env = dict(place.host.config.environments["prod"].env) | {"TF_CLI_CONFIG_FILE": os.devnull}
    return subprocess.Popen(
        [place.host.engine.binary, *arguments], cwd=folder / "hand", env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def by_hand(place: Place, folder: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    (folder / "hand").mkdir()
    block = place.host.environment("prod").backend.block(APP, folder)
    root = {"terraform": {"backend": block}, "resource": {"terraform_data": {"by_hand": {}}}}
    (folder / "hand/main.tf.json").write_text(json.dumps(root))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with start(place, folder, *arguments) as process:
            out, err = process.communicate("no\n", timeout=90)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return run


# --- what is checked, and what is removed


def test_a_hold_that_was_taken_away_changes_nothing_and_removes_nobody_elses(place: Place) -> None:
    with place.hold(1) as hold:
        hold.check()
        found = place.lock().look()
        assert found is not None
        assert place.lock().drop(found.tag)
        with pytest.raises(UnitError, match="nobody has it now") as lost:
            hold.check()
        assert (lost.value.reason, lost.value.transient) == ("StateLocked", True)
        assert place.lock().take(PERSONS)
        with pytest.raises(UnitError, match="ada@laptop"):
            hold.check()
    assert place.said() == PERSONS


def test_what_is_kept_waits_for_the_next_job(place: Place) -> None:
    with place.elsewhere(1):  # as one that is killed, a job that keeps it leaves it behind
        pass
    info = place.said()
    assert info is not None
    kept = Hold(place.lock(), info)
    kept.keep()
    kept.release()
    assert place.said() == info
    with place.hold(2) as hold:
        assert hold.after == place.job(1).id
    assert place.said() is None


def test_only_the_very_lock_that_was_looked_at_is_replaced_or_removed(place: Place) -> None:
    lock, ours = place.lock(), replace(PERSONS, id="ours")
    tag = lock.take(PERSONS)
    assert tag is not None
    assert lock.take(ours) is None
    assert lock.take(PERSONS) == tag  # an answer that was lost: it is asked once more
    assert lock.replace('"another"', ours) is None
    mine = lock.replace(tag, ours)
    assert mine is not None
    assert lock.drop(tag) is False
    assert place.said() == ours
    assert lock.drop(mine)
    assert lock.replace(mine, ours) is None
    assert lock.look() is None


def test_a_lock_that_changed_meanwhile_is_nobodys_to_break(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with place.elsewhere(1):
        pass
    took = False

    def somebody_is_faster(holder: Holder) -> str | None:
        nonlocal took
        found = place.lock().look()
        assert found is not None
        took = took or bool(place.lock().replace(found.tag, PERSONS))
        return "dead"

    monkeypatch.setattr(holding, "PATIENCE", 0.2)
    monkeypatch.setattr(holding, "died_here", lambda _host: somebody_is_faster)
    with pytest.raises(UnitError, match="ada@laptop"), place.hold(2):
        pass
    assert [kind for kind, _ in place.recorded()] == [BROKEN, KEPT]
    assert place.said() == PERSONS


def test_whoever_waits_can_be_cancelled(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "PATIENCE", 600.0)
    assert place.lock().take(PERSONS)
    with pytest.raises(SupersededError, match="while it waited"), place.hold(1, unwanted=lambda: True):
        pass


# --- what a dead job could not write


def serial(raw: bytes) -> int:
    return parse_state(raw).mark.serial


def left_unwritten(place: Place, *, lock: bool) -> bytes:
    """Job 1 applied. Job 2 died with a newer state in its workspace, and maybe with the lock; that state."""
    assert carry_out(place.host, place.job(1)).reason == "Applied"
    if lock:
        with place.elsewhere(2):
            pass
    raw = place.aws.contents()["prod/app.tfstate"]
    newer = raw.replace(b'"serial": %d' % serial(raw), b'"serial": %d' % (serial(raw) + 5))
    put(place.host.spool.job(place.job(2).id).work / ERRORED_STATE, newer)
    memory = place.host.memory.unit(APP)
    place.host.memory.save(replace(memory, applying=Applying(place.job(2).id, NOW, "plan")))
    return newer


@pytest.mark.parametrize("lock", [True, False])
def test_a_state_that_could_not_be_written_is_written_by_the_next_job(lock: bool, place: Place) -> None:
    newer = left_unwritten(place, lock=lock)
    result = carry_out(place.host, place.job(3))
    assert result.outcome is Outcome.SUCCEEDED, result.message
    assert place.aws.contents()["prod/app.tfstate"] == newer
    assert not place.host.spool.job(place.job(2).id).work.exists()
    assert {"prod/app.tfstate.kept"} < place.aws.objects()


def test_what_an_apply_wrote_on_its_way_is_replaced_by_what_it_wrote_last_and_nobody_elses_is(place: Place) -> None:
    newer = left_unwritten(place, lock=True)
    between = newer.replace(b'"serial": %d' % serial(newer), b'"serial": %d' % (serial(newer) - 1))
    place.aws.put({"prod/app.tfstate": between})
    found = place.said()
    assert found is not None
    place.aws.client("s3").delete_object(Bucket=BUCKET, Key=LOCK)  # somebody had the state since
    held = carry_out(place.host, place.job(3))
    assert (held.outcome, held.reason) == (Outcome.HELD, "StateUnwritten"), held.message
    assert "state push" in held.message
    assert place.aws.contents()["prod/app.tfstate"] == between
    assert place.lock().take(found)  # as it was: nobody can have had it
    assert carry_out(place.host, place.job(4)).outcome is Outcome.SUCCEEDED
    assert place.aws.contents()["prod/app.tfstate"] == newer


def test_a_state_that_is_cut_off_is_told_with_the_copy_that_was_kept_aside(place: Place) -> None:
    assert carry_out(place.host, place.job(1)).reason == "Applied"
    good = place.aws.contents()["prod/app.tfstate"]
    assert place.aws.contents()["prod/app.tfstate.kept"] == good
    for number, broken in enumerate(({"prod/app.tfstate": good[:50]}, {}), 2):
        place.aws.client("s3").delete_object(Bucket=BUCKET, Key="prod/app.tfstate")
        place.aws.put(broken)
        told = carry_out(place.host, place.job(number))
        assert told.reason in ("StateInvalid", "StateLost")
        assert f"`aws s3 cp s3://{BUCKET}/prod/app.tfstate.kept s3://{BUCKET}/prod/app.tfstate`" in told.message


# --- proofs


@pytest.mark.parametrize(
    ("changes", "proven"),
    [
        ({}, "no process of"),
        ({"memory": "another"}, None),
        ({"spool": "1:1"}, None),  # a copy of the memory: what runs beside the other one is not seen here
        ({"boot": "another"}, "the host was started anew"),
        ({"boot": "another", "machine": "another"}, None),
        ({"boot": "another", "machine": ""}, None),
        ({"job": "../../etc"}, None),
    ],
)
def test_what_proves_that_nothing_of_a_holder_lives(
    changes: dict[str, Any], proven: str | None, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "boot", lambda: "this boot")
    monkeypatch.setattr(holding, "machine", lambda: "this machine")
    with place.elsewhere(1):
        info = place.said()
        assert info is not None
        holder = holder_of(info)
        assert holder is not None
        assert died_here(place.host)(holder) is None  # it lives
    found = died_here(place.host)(replace(holder, **changes))
    assert found is None if proven is None else found is not None and proven in found


def test_a_process_of_that_number_and_birth_is_no_dead_one(place: Place) -> None:
    with place.elsewhere(1):
        info = place.said()
    assert info is not None
    holder = holder_of(info)
    assert holder is not None
    me = leftover.find(os.getpid())
    assert me is not None
    assert died_here(place.host)(replace(holder, pid=me.pid, born=me.born)) is None


def test_a_host_without_a_boot_id_proves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "boot", str)
    with place.elsewhere(1):
        info = place.said()
    assert info is not None
    holder = holder_of(info)
    assert holder is not None
    assert died_here(place.host)(holder) is None


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"ID": 5}', b'"text"', b"\xff", b'{"ID":"x","Info":"{}"}'])
def test_a_lock_that_no_runner_wrote_has_no_holder(raw: bytes) -> None:
    assert holder_of(parse_lock(raw)) is None


def test_what_a_holder_says_comes_back(place: Place) -> None:
    with place.hold(3):
        info = place.said()
    assert info is not None
    holder = holder_of(info)
    assert holder is not None
    assert codec.encode(holder).decode() == info.info

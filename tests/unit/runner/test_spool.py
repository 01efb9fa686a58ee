from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.model import Commit, JobId, Outcome, Phase, Result
from reconciler.ports import Lost, Running
from reconciler.runner import spool as module
from reconciler.runner.spool import JobFolder, Spool
from tests.kit.plane import NOW, job

JOB = job("prod/net", Commit("c" * 40))
RESULT = Result(JOB, Outcome.SUCCEEDED, "Applied", "Done.", NOW, NOW)


@contextmanager
def no_space() -> Iterator[None]:
    """Every write to a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def folder(spool: Spool) -> JobFolder:
    return spool.job(JOB.id)


def test_a_job_is_started_once(folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    assert folder.create(JOB) is None
    assert folder.job() == JOB
    assert folder.path.stat().st_mode & 0o777 == 0o700
    lock.release()
    assert folder.create(JOB) is None


def test_a_job_of_an_older_version_is_still_read(folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    lock.release()
    known = json.loads((folder.path / "job.json").read_bytes())
    del known["pull"]
    (folder.path / "job.json").write_text(json.dumps(known))
    assert folder.job() == JOB


def test_it_runs_while_its_lock_is_held_and_is_in_the_phase_that_began_last(folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    assert folder.state() == Running(Phase.QUEUED)
    for phase in (Phase.VERIFYING, Phase.PLANNING, Phase.APPLYING):
        folder.begin(phase)
        assert folder.state() == Running(phase)
    folder.end(RESULT)
    assert folder.state() == RESULT
    lock.release()
    assert folder.state() == RESULT


@pytest.mark.parametrize(
    ("phases", "applying"),
    [
        ([], False),
        ([Phase.VERIFYING], False),
        ([Phase.VERIFYING, Phase.PLANNING], False),
        ([Phase.VERIFYING, Phase.PLANNING, Phase.APPLYING], True),
    ],
)
def test_a_dead_job_without_a_result_is_lost(phases: list[Phase], applying: bool, folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    for phase in phases:
        folder.begin(phase)
    lock.release()
    assert folder.state() == Lost(applying)
    assert not folder.alive()


def test_so_is_one_that_died_before_it_had_anything_but_a_folder(folder: JobFolder) -> None:
    assert folder.state() == Lost(applying=False)
    folder.path.mkdir()
    assert folder.state() == Lost(applying=False)
    assert folder.job() is None
    assert folder.create(JOB) is None


def test_a_job_that_could_not_be_written_is_lost_and_not_running_for_ever(folder: JobFolder) -> None:
    with no_space(), pytest.raises(OSError, match="File too large"):
        folder.create(JOB)
    assert folder.state() == Lost(applying=False)


def test_a_phase_that_cannot_be_journaled_does_not_begin(folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    folder.begin(Phase.PLANNING)
    with no_space(), pytest.raises(OSError, match="File too large"):
        folder.begin(Phase.APPLYING)
    lock.release()
    assert folder.state() == Lost(applying=False)


def test_cancelling_is_a_word_left_in_the_folder(folder: JobFolder) -> None:
    folder.cancel()
    assert not folder.path.exists()
    folder.create(JOB)
    assert not folder.cancelled()
    folder.cancel()
    folder.cancel()
    assert folder.cancelled()


def test_cleaning_takes_the_workspace_alone(folder: JobFolder) -> None:
    folder.create(JOB)
    folder.clean()
    folder.work.mkdir()
    (folder.work / "tfplan").write_text("secret")
    folder.log.write_text("log")
    folder.clean()
    assert not folder.work.exists()
    assert folder.log.exists()


def test_the_oldest_dead_jobs_are_forgotten(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 2)
    names = [f"2026112{day}T100000-0" for day in range(7)]
    locks = {name: spool.job(JobId(name)).create(JOB) for name in names}
    for name in (*names[:2], *names[3:]):
        lock = locks[name]
        assert lock is not None
        lock.release()
    spool.job(JobId(names[0])).end(RESULT)
    spool.job(JobId(names[3])).work.mkdir()  # the only good state may be there
    (spool.folder / "note").write_text("no job")
    spool.prune()
    assert [folder.path.name for folder in spool.jobs()] == [names[2], names[3], names[5], names[6]]


# --- after a loss of power


@pytest.mark.parametrize("left", [b"", b"\0" * 40, b'{"id": "job-1", "oper', b"[]"])
def test_a_job_that_was_not_on_disk_yet_is_no_job(left: bytes, folder: JobFolder) -> None:
    folder.create(JOB)
    (folder.path / "job.json").write_bytes(left)
    assert folder.job() is None


@pytest.mark.parametrize("torn", [b'{"at": "20', b"\0" * 20, b"{}", b"[]", b'{"phase": "Dreaming"}'])
def test_a_torn_last_line_is_passed_over(torn: bytes, folder: JobFolder) -> None:
    folder.create(JOB)
    folder.begin(Phase.VERIFYING)
    with (folder.path / "events.jsonl").open("ab") as events:
        events.write(torn)
    assert folder.phase() is Phase.VERIFYING


@pytest.mark.parametrize("left", [b"", b"\0" * 20, b'{"at": "20'])
def test_where_no_phase_can_be_read_it_may_have_been_applying(left: bytes, folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    (folder.path / "events.jsonl").write_bytes(left)
    lock.release()
    assert folder.state() == Lost(applying=True)


def test_the_job_is_on_disk_before_its_apply_begins(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.create(JOB)
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    folder.begin(Phase.PLANNING)
    assert synced == []
    folder.begin(Phase.APPLYING)
    assert synced == ["job.json", folder.path.name, folder.path.parent.name, "events.jsonl"]


def test_a_phase_is_added_and_nothing_is_written_anew(folder: JobFolder) -> None:
    folder.create(JOB)
    folder.begin(Phase.VERIFYING)
    was = (folder.path / "events.jsonl").stat().st_ino
    folder.begin(Phase.PLANNING)
    folder.begin(Phase.APPLYING)
    assert (folder.path / "events.jsonl").stat().st_ino == was
    assert [phase for phase, _ in folder.phases()] == [Phase.VERIFYING, Phase.PLANNING, Phase.APPLYING]


def test_what_is_outside_of_the_workspace_goes_with_it(folder: JobFolder) -> None:
    folder.create(JOB)
    folder.work.mkdir()
    folder.temporary.mkdir()
    (folder.temporary / "socket").touch()
    folder.clean()
    assert not folder.temporary.exists()
    assert not folder.work.exists()


def test_a_link_in_its_place_goes_and_what_it_leads_to_stays(folder: JobFolder, tmp_path: Path) -> None:
    folder.create(JOB)
    (tmp_path / "kept").touch()
    folder.temporary.symlink_to(tmp_path)
    folder.clean()
    assert not folder.temporary.is_symlink()
    assert (tmp_path / "kept").exists()


@pytest.mark.parametrize("left", [b"", b"\0" * 20, b'{"job": '])
def test_what_a_loss_of_power_left_of_a_result_is_none(left: bytes, folder: JobFolder) -> None:
    lock = folder.create(JOB)
    assert lock is not None
    folder.begin(Phase.APPLYING)
    (folder.path / "result.json").write_bytes(left)
    lock.release()
    assert folder.state() == Lost(applying=True)


def test_a_folder_that_is_on_disk_already_is_not_brought_there_twice(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.create(JOB)
    folder.begin(Phase.PLANNING)
    folder.secure()
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    folder.begin(Phase.APPLYING, secured=True)
    assert synced == ["events.jsonl"]

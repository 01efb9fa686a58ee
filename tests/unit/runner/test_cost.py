"""What a job saves, and what it must not save at."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.durable import write_atomic
from reconciler.model import Commit, Job, JobId, Operation, Phase, UnitId
from reconciler.runner.spool import Spool
from reconciler.runner.terraform.engine import COLLECTOR, Conversation, deadline_in, find_engine
from reconciler.runner.terraform.workspace import ROOT_FILE

JOB = Job(JobId("20261123T100000-aa"), Operation.APPLY, UnitId("prod/app"), Commit("0" * 40), 1)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were brought to disk."""
    found: list[str] = []
    fsync: Callable[[int], None] = os.fsync

    def noted(handle: int) -> None:
        found.append(str(Path(f"/proc/self/fd/{handle}").readlink()) if Path("/proc/self/fd").exists() else "?")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_only_what_must_survive_a_loss_of_power_waits_for_the_disk(synced: list[str], tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"1", durable=False)
    assert not synced
    assert (tmp_path / "a").read_bytes() == b"1"

    write_atomic(tmp_path / "a", b"2")
    assert len(synced) == 2  # the file, and its name

    write_atomic(tmp_path / "a", b"3", named=False)
    assert len(synced) == 3
    assert (tmp_path / "a").read_bytes() == b"3"


def test_an_apply_is_on_disk_before_it_begins_with_its_folder(synced: list[str], tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    folder = spool.job(JOB.id)
    lock = folder.create(JOB)
    assert lock is not None
    folder.begin(Phase.VERIFYING)
    folder.begin(Phase.PLANNING)
    assert not synced

    folder.begin(Phase.APPLYING)

    assert len(synced) == 4  # the job, its phase, and the names of both
    assert synced[1:3] == [str(folder.path), str(spool.folder)] or "?" in synced
    assert folder.phase() is Phase.APPLYING
    lock.release()


@pytest.mark.parametrize(("given", "seen"), [({}, COLLECTOR["GOGC"]), ({"GOGC": "50"}, "50")])
def test_the_host_s_word_on_the_engine_s_memory_wins(
    given: dict[str, str], seen: str, engine: Path, tmp_path: Path
) -> None:
    program = tmp_path / "shows"
    program.write_text(f'#!/bin/sh\n[ "$1" = version ] && exec {engine} "$@"\necho "GOGC is $GOGC"\n')
    program.chmod(0o755)
    work, log = tmp_path / "work", tmp_path / "log.txt"
    talk = Conversation(find_engine(str(program), None, None, tmp_path), work, given, log)
    (work / ROOT_FILE).write_text("{}")
    talk.init(deadline_in(60))

    assert log.read_text() == f"GOGC is {seen}\n"

"""How an engine ends whose job was killed: real processes, and a clock that the test turns."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.runner.terraform.leftover import Note, Process, attend, find, forget, read, write
from tests.kit.terraform import until

DEADLINE, GRACE = 1000.0, 60.0
HEEDS = "trap 'echo asked >> asked' INT; touch started; while :; do sleep 0.01; done"
CHILD = "sleep 600 & echo $! > child.new; mv child.new child; wait"


class Left:
    """An engine in a group of its own whose keeper has died."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder, self.path = folder, folder / "engine.json"
        self.popen = subprocess.Popen(("/bin/sh", "-c", script), cwd=folder, start_new_session=True)
        engine = find(self.popen.pid)
        assert engine is not None
        self.note = Note(engine, replace(engine, born=engine.born - 1), "apply", signal.SIGINT, DEADLINE, GRACE)
        write(self.path, self.note)

    def asked(self) -> float | None:
        found = read(self.path)
        assert found is not None
        return found.asked


@pytest.fixture
def left(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Left]:
    made = Left(tmp_path, request.param)
    yield made
    made.popen.kill()
    made.popen.wait()


@pytest.mark.parametrize("left", [HEEDS], indirect=True)
def test_it_is_asked_once_at_its_deadline_and_killed_after_its_grace(left: Left) -> None:
    until((left.folder / "started").exists, "the start")
    attend(left.path, DEADLINE - 1)
    assert left.asked() is None
    attend(left.path, DEADLINE + 1)
    assert left.asked() == DEADLINE + 1
    until((left.folder / "asked").exists, "the signal")
    attend(left.path, DEADLINE + GRACE)
    assert left.popen.poll() is None
    attend(left.path, DEADLINE + 1 + GRACE)
    assert left.popen.wait(60) == -signal.SIGKILL
    assert (left.folder / "asked").read_text() == "asked\n"


@pytest.mark.parametrize("left", [HEEDS], indirect=True)
def test_while_its_job_lives_it_is_left_to_that(left: Left) -> None:
    own = find(os.getpid())
    assert own is not None
    write(left.path, replace(left.note, keeper=own))
    attend(left.path, DEADLINE * 2)
    assert left.asked() is None
    assert left.popen.poll() is None


@pytest.mark.parametrize("left", [HEEDS], indirect=True)
def test_another_process_of_its_number_is_not_meant(left: Left) -> None:
    until((left.folder / "started").exists, "the start")
    for born in (
        left.note.engine.born - 1,
        left.note.engine.born + 1,
    ):  # what it has started by now is younger than both
        write(left.path, replace(left.note, engine=Process(left.popen.pid, born), asked=0.0))
        attend(left.path, DEADLINE * 2)
    assert left.popen.poll() is None


@pytest.mark.parametrize("left", [CHILD], indirect=True)
def test_what_a_dead_engine_left_is_killed_at_once(left: Left) -> None:
    until((left.folder / "child").exists, "the child")
    child = find(int((left.folder / "child").read_text()))
    assert child is not None
    left.popen.kill()
    left.popen.wait()
    assert child.lives()
    attend(left.path, 0.0)
    until(lambda: not child.lives(), "the end of the child")


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", None])
def test_a_note_that_cannot_be_read_ends_nobody(text: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    if text is not None:
        path.write_bytes(text)
    attend(path, DEADLINE * 2)
    assert path.exists() == (text is not None)


@pytest.mark.parametrize("left", ["sleep 600"], indirect=True)
def test_of_an_engine_that_has_ended_the_file_says_nothing_and_is_kept_for_the_next(left: Left) -> None:
    was = left.path.stat()
    forget(left.path)
    assert read(left.path) is None
    attend(left.path, DEADLINE + 1)
    assert left.popen.poll() is None
    write(left.path, replace(left.note, step="show"))
    found = read(left.path)
    assert found is not None
    assert found.step == "show"
    assert (left.path.stat().st_ino, left.path.stat().st_size) == (was.st_ino, was.st_size)

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.model import JobId, Load
from reconciler.runner import load
from reconciler.runner.load import PERIOD, STEP, Meter, host_memory, survey, used

JOB = JobId("job-1")


class Host:
    """A `/proc` of the test's own, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.time = folder, 100.0
        self.meter = Meter(lambda: self.time, folder)

    def process(self, pid: int, parent: int, cpu: float, mebibytes: int = 0, name: str = "engine") -> None:
        ticks = int(cpu * load._TICK)
        fields = ["S", parent, pid, pid, *[0] * 7, ticks, 0, 0, 0, *[0] * 6, (mebibytes << 20) // load._PAGE, 0]
        (self.folder / str(pid)).mkdir(exist_ok=True)
        (self.folder / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(map(str, fields))}\n")

    def ends(self, pid: int) -> None:
        (self.folder / str(pid) / "stat").unlink()

    def look(self, pid: int = 10, after: float = 2.0) -> Load:
        self.time += after
        return self.meter.load({pid: JOB}, JOB)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_job_computes_until_it_was_seen_to_wait(host: Host) -> None:
    host.process(10, 1, 1.0)
    host.process(11, 10, 5.0)
    assert host.look() == Load(False, 0)
    host.process(11, 10, 5.1)
    assert host.look().waits
    host.process(11, 10, 7.0)
    assert not host.look().waits


def test_all_that_descends_from_a_job_is_its_own(host: Host) -> None:
    host.process(10, 1, 0, 30)
    host.process(11, 10, 0, 40, name="terraform (a) b")
    host.process(12, 11, 0, 50)
    host.process(99, 1, 0, 900)
    assert host.look().memory == 2 * STEP
    host.process(12, 11, 2.0, 10)
    assert host.look() == Load(False, 2 * STEP)  # it was as much once, and a provider computes


def test_a_process_that_left_proves_no_waiting(host: Host) -> None:
    host.process(10, 1, 0)
    host.process(11, 10, 9.0)
    host.look()
    host.ends(11)
    assert not host.look().waits
    assert host.look().waits


def test_a_job_whose_plan_is_made_by_a_worker_computes(host: Host) -> None:
    host.process(10, 1, 0)
    host.process(11, 10, 0, name="warm-stand-in")
    host.look()
    assert not host.look().waits
    host.ends(11)
    assert host.look().waits


def test_it_looks_once_in_a_while_however_often_it_is_asked(host: Host) -> None:
    host.process(10, 1, 0)
    host.look()
    assert host.look(after=PERIOD).waits
    host.process(10, 1, 9.0)
    assert host.look(after=PERIOD / 2).waits
    assert not host.look(after=PERIOD / 2).waits


def test_what_cannot_be_seen_counts_as_computing(host: Host, tmp_path: Path) -> None:
    assert host.look(77) == Load()
    assert host.meter.load({}, JOB) == Load()
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "stat").write_text("10 (torn")
    assert host.look() == Load()
    assert Meter(proc=tmp_path / "nowhere").load({10: JOB}, JOB) == Load()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_this_very_system_is_read() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        seen = survey()
        assert seen[child.pid].parent == os.getpid()
        assert seen[os.getpid()].cpu > 0
        assert seen[os.getpid()].memory > 1 << 20
    finally:
        child.communicate(b"\n")
    assert used().cpu > 0
    assert used().memory > 1


def test_the_memory_of_a_host_is_that_of_the_narrowest_group(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "groups"
    (proc / "self").mkdir(parents=True)
    assert host_memory(proc, groups) == 0
    (proc / "meminfo").write_text("MemFree: 1 kB\nMemTotal:       4194304 kB\n")
    assert host_memory(proc, groups) == 4096
    (proc / "self" / "cgroup").write_text("0::/system.slice/runner.service\n")
    (groups / "system.slice" / "runner.service").mkdir(parents=True)
    (groups / "system.slice" / "runner.service" / "memory.max").write_text("max\n")
    (groups / "system.slice" / "memory.max").write_text(f"{2 << 30}\n")
    assert host_memory(proc, groups) == 2048

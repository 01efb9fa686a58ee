"""A disk that fills in the middle of an apply: a real Terraform, the whole runner on a tmpfs, and the world elsewhere.

The state must be there when there is room again, and nothing is made twice.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.model import Job, Outcome, Result
from reconciler.ports import Lost
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from tests.kit.modules import excused
from tests.kit.plane import CATALOG, ENVIRONMENT, PROD, carry_out, job, open_host
from tests.kit.terraform import until
from tests.provider.log import calls, doubled

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]

SIZE = 192  # MiB of the disk
LEFT = [0, 2, 64, 1024]  # KiB that the filler leaves
MADE = 6  # objects
AFTER = [1, 3, MADE]  # objects that are there when the disk fills

# Each object is a line in the log of calls, with how often it was made: what an apply that is repeated would show.
MODULE = f"""\
variable "world" {{ type = string }}
resource "terraform_data" "this" {{
  count = {MADE}
  input = join("", [for n in range(400) : "object ${{count.index}} "])
  provisioner "local-exec" {{
    interpreter = ["/bin/sh", "-c"]
    environment = {{ WORLD = var.world, NAME = count.index }}
    command     = <<-EOT
      outcome=created; [ -e $WORLD/$NAME ] && outcome=exists
      touch $WORLD/$NAME
      printf '{{"at": 0, "pid": 0, "op": "create", "type": "this", "path": "%s", "outcome": "%s"}}\\n' $NAME $outcome >> $WORLD/calls.log
      sleep 2
    EOT
  }}
}}
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("a tmpfs can be mounted by root only")
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, left: int) -> None:
    """Use up the disk, but for so many KiB."""
    room = os.statvfs(disk)
    with suppress(OSError), (disk / "filler").open("ab", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(1, room.f_bavail * room.f_frsize - left * 1024))
    if not left:
        with suppress(OSError), (disk / "filler2").open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)


def empty(disk: Path) -> None:
    for name in ("filler", "filler2"):
        (disk / name).unlink(missing_ok=True)


def begin(host: Host, asked: Job) -> int:
    """The job in a process of its own, as the service forks it: a full disk may end it without a result."""
    folder = host.spool.job(asked.id)
    life = folder.create(asked)
    assert life is not None
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run_job(host, asked, folder, life)
            code = 0
        finally:
            os._exit(code)
    life.release()
    return pid


def house(disk: Path, world: Path) -> tuple[Playground, Host]:
    world.mkdir()
    releases: dict[str, Files] = {"v1.0.0": {**CATALOG["v1.0.0"], "modules/many/main.tf": MODULE}}
    entry = f'module: acme/many\nversion: "1.0.0"\ninputs: {{world: {world}}}\n'
    runner = {**excused("many"), "least_room": 16}
    made = Playground.create(disk / "ground", {**ENVIRONMENT, f"{PROD}/app.yaml": entry}, releases, runner=runner)
    return made, open_host(made)


def when(happened: Callable[[], bool], do: Callable[[], None]) -> threading.Thread:
    def watch() -> None:
        deadline = time.monotonic() + 120
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.002)
        do()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("after", AFTER)
def test_a_disk_that_fills_costs_no_state_and_doubles_nothing(
    after: int, left: int, disk: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    world = tmp_path / "world"
    made, host = house(disk, world)
    first, second = (job("prod/app", made.environments.head, number) for number in (1, 2))
    pid = begin(host, first)
    filler = when(lambda: len(calls(world, op="create")) >= after, lambda: fill(disk, left))
    os.waitpid(pid, 0)
    filler.join()
    there = len(calls(world, op="create"))
    assert there >= after
    folder = host.spool.job(first.id)
    until(lambda: not folder.alive(), "the engine's end", seconds=120)

    state = folder.state()
    assert isinstance(state, Result | Lost)
    assert left or after == MADE or not (isinstance(state, Result) and state.outcome is Outcome.SUCCEEDED)
    empty(disk)
    healed = carry_out(host, second)
    assert healed.outcome is Outcome.SUCCEEDED, (healed.reason, healed.message, state, capfd.readouterr().err[-2000:])
    assert doubled(world) == []
    assert len(calls(world, op="create", outcome="created")) == MADE
    made.close()


def test_a_job_without_room_is_not_begun_and_goes_on_when_there_is(disk: Path, tmp_path: Path) -> None:
    made, host = house(disk, tmp_path / "world")
    fill(disk, 8 * 1024)
    refused = carry_out(host, job("prod/app", made.environments.head, 1))
    assert (refused.outcome, refused.reason, refused.transient) == (Outcome.FAILED, "DiskFull", True), refused.message
    assert "MiB left" in refused.message
    assert calls(tmp_path / "world") == []
    empty(disk)
    done = carry_out(host, job("prod/app", made.environments.head, 2))
    assert done.outcome is Outcome.SUCCEEDED, done.message
    made.close()

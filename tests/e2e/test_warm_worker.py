"""A worker with the real library, in jails of each tier and without one: what it does, what is left in it, and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.runner.jail.tier import FALLBACK, NONE, STRICT
from reconciler.runner.jail.trial import own_python
from reconciler.runner.terraform.engine import deadline_in
from tests.kit import warm
from tests.kit.terraform import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="warm workers take Linux"),
]
SECONDS = 120.0
FIRST, SECOND = "of-the-first-job", "of-the-second"


@pytest.fixture(params=[NONE, STRICT, FALLBACK])
def bench(request: pytest.FixtureRequest) -> Iterator[warm.Bench]:
    with warm.worker(request.param) as made:
        yield made


def apply(bench: warm.Bench, **resources: object) -> str:
    """Plan and apply, and what the log says."""
    talk = bench.talk(**resources)
    assert talk.plan(deadline_in(SECONDS)).changed
    ended = talk.apply(deadline_in(SECONDS))
    log = (bench.folder / "log").read_text()
    return f"{ended.failure}\n{log}" if ended.failure else ""


def test_a_conversation_is_as_with_an_engine_and_leaves_nothing(bench: warm.Bench) -> None:
    talk = bench.talk(one={"input": FIRST})
    plan = talk.plan(deadline_in(SECONDS))
    assert [change["address"] for change in plan.json["resource_changes"]] == ["terraform_data.one"]
    assert talk.apply(deadline_in(SECONDS)).failure is None
    state = (bench.seat.folder / "unit.tfstate").read_text()
    assert FIRST in state
    bench.clean()
    assert bench.left() == ["tmp"]
    assert not bench.talk(one={"input": FIRST}).plan(deadline_in(SECONDS)).changed
    # The next job's root is another, and nothing of the first is in its plan.
    (bench.seat.folder / "unit.tfstate").unlink()
    bench.clean()
    other = bench.talk(two={"input": SECOND}).plan(deadline_in(SECONDS))
    assert [change["address"] for change in other.json["resource_changes"]] == ["terraform_data.two"]
    assert FIRST not in "".join(path.read_text(errors="replace") for path in bench.inside.rglob("*") if path.is_file())
    assert bench.errors == ""


def test_what_is_wrong_is_told_and_the_worker_goes_on(bench: warm.Bench) -> None:
    talk = bench.talk(one={"input": "${nothing.there}"})
    with pytest.raises(Exception, match="undeclared resource"):
        talk.plan(deadline_in(SECONDS))
    assert bench.seat.whole
    bench.clean()
    assert bench.talk(one={"input": FIRST}).plan(deadline_in(SECONDS)).changed


def test_a_jailed_worker_starts_no_python_although_it_is_one() -> None:
    with warm.worker(STRICT) as bench:
        tried = {"local-exec": {"command": "x", "interpreter": [str(own_python()), "-c"]}}
        assert "permission denied" in apply(bench, one={"provisioner": tried})


STRAY = """\
import os, time
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 3)
    with open({file!r}, "w") as told:
        told.write(str(os.getpid()))
    time.sleep(600)
"""


def test_what_a_command_left_running_is_ended_before_the_next_job(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with warm.worker(NONE) as bench:
        program = {"command": STRAY.format(file=str(file)), "interpreter": [sys.executable, "-c"]}
        assert apply(bench, one={"provisioner": {"local-exec": program}}) == ""
        pid = int(until(lambda: file.exists() and file.read_text(), "the stray has begun"))
        os.kill(pid, 0)
        bench.clean()
        assert not Path(f"/proc/{pid}").exists()


def test_it_ends_when_nobody_holds_its_socket(bench: warm.Bench) -> None:
    assert bench.talk(one={"input": FIRST}).plan(deadline_in(SECONDS)).changed
    bench.started.control.shutdown(socket.SHUT_RDWR)
    until(lambda: not _lives(bench.started.child.pid), "the worker has ended")


def test_a_plan_that_was_killed_with_its_worker_is_lost_at_once(bench: warm.Bench) -> None:
    os.killpg(bench.started.child.pid, signal.SIGKILL)
    with pytest.raises(Exception, match="worker is gone"):
        bench.talk(one={"input": FIRST}).plan(deadline_in(SECONDS))
    assert not bench.seat.whole


def _lives(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None

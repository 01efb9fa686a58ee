"""A jail from its start to its end: signals reach what runs in it, locks live as long as it does, and nothing survives it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.durable import FileLock, is_locked
from reconciler.errors import UnitError
from reconciler.model import UnitId
from reconciler.runner.jail import probe
from reconciler.runner.jail.cell import Cell
from reconciler.runner.jail.keeper import Jailer, Kept
from reconciler.runner.jail.space import Limits
from reconciler.runner.jail.tier import BEYOND, FIRST_USER, STRICT, TASK, TIERS, find_bwrap
from reconciler.runner.jail.trial import Sinks, own_python
from reconciler.runner.jail.users import MOST, children, number_of
from reconciler.runner.terraform.engine import Conversation, Engine, EngineError, deadline_in, find_engine
from reconciler.runner.terraform.process import Command, Ended, Outlet, Stop
from reconciler.runner.terraform.rescue import bring_back
from reconciler.runner.terraform.state import WORK_STATE, LocalBackend
from tests.kit.jails import Yard, yard
from tests.kit.terraform import static_engine, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="jails are made of Linux's namespaces")

SECONDS = 60.0
HOLD = "import fcntl, os, signal, sys, time\nlife = open('life', 'w')\nfcntl.flock(life, fcntl.LOCK_EX)\n"
READY = "open('ready', 'w').close()\n"
HEEDS = HOLD + "signal.signal({0}, lambda *_: sys.exit(7))\n" + READY + "time.sleep(60)\n"
DEAF = (
    HOLD + "signal.signal({0}, lambda *_: None)\nif os.fork() == 0: os.setsid()\n" + READY + "while 1: time.sleep(60)\n"
)


@dataclass
class Bench:
    """A jail with an interpreter in it, and a work folder."""

    place: Yard
    limits: Limits = field(default_factory=Limits)
    env: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.place.folder

    @property
    def work(self) -> Path:
        return self.place.work

    @property
    def errors(self) -> str:
        return (self.folder / "err").read_text()

    def start(self, code: str, *locks: FileLock) -> Command:
        self.work.mkdir(exist_ok=True)
        argv = (self.place.python, "-IS", "-c", code)
        return Command(
            argv, self.work, self.env, output=Outlet(self.folder / "out"), errors=Outlet(self.folder / "err"),
            jail=self.place.jailer(limits=self.limits), locks=tuple(lock.fileno() for lock in locks),
        )  # fmt: skip

    def ready(self) -> None:
        until((self.work / "ready").exists, "it runs")

    def alive(self) -> bool:
        return is_locked(self.work / "life")


@pytest.fixture(params=TIERS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with yard(request.param) as place:
        found = Bench(place)
        yield found
        assert not found.alive()
        assert left_to_us() == []


@pytest.fixture
def strict() -> Iterator[Bench]:
    with yard(STRICT) as place:
        yield Bench(place)


def left_to_us() -> list[int]:
    """Processes of jobs' users, dead ones too, that nobody but this process could wait for."""
    return [pid for pid in children() if FIRST_USER <= number_of(pid, "Uid") < FIRST_USER + MOST]


def ended(
    command: Command, number: signal.Signals = signal.SIGTERM, seconds: float = SECONDS, grace: float = 20
) -> Ended:
    return command.wait(Stop(time.monotonic() + seconds, number, grace), lambda: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_what_runs_inside(bench: Bench, number: signal.Signals) -> None:
    command = bench.start(HEEDS.format(int(number)))
    bench.ready()
    command.ask(number)
    assert ended(command) == Ended(7, stopped=True, killed=False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_heed_it_is_killed_with_all_that_it_started(bench: Bench, number: signal.Signals) -> None:
    command = bench.start(DEAF.format(int(number)))
    bench.ready()
    assert bench.alive()
    assert ended(command, number, seconds=0, grace=0.2).killed
    until(lambda: not bench.alive(), "nothing survives")


def test_what_is_asked_before_it_began_ends_at_once(bench: Bench) -> None:
    command = bench.start("import time\ntime.sleep(600)\n")
    command.ask(signal.SIGINT)
    began = time.monotonic()
    found = ended(command)
    assert found.stopped
    assert not found.killed
    assert found.code
    assert time.monotonic() - began < 60


def test_its_end_is_its_own(bench: Bench) -> None:
    assert ended(bench.start("raise SystemExit(2)")) == Ended(2, stopped=False, killed=False)
    assert ended(bench.start("import os\nos._exit(11)")).code == 11


def test_an_apply_that_does_not_heed_its_interrupt_is_killed_and_nobody_knows_what_it_did(bench: Bench) -> None:
    """Plans are asked with TERM, applies with INT; after the grace all of it is killed, and the job says so."""
    work, script = bench.work, bench.folder / "engine"
    work.mkdir(mode=0o700)
    (work / "main.tf.json").write_text("{}")
    (work / "tfplan").touch()
    heed = DEAF.format(int(signal.SIGINT))
    script.write_text(f"#!{bench.place.python} -IS\n{heed}")
    script.chmod(0o755)
    engine = Engine("terraform", script, "1.11.4", "registry.terraform.io")
    talk = Conversation(engine, work, {}, bench.folder / "log", jail=bench.place.jailer(script))
    found = talk.apply(deadline_in(2), grace=0.3)
    assert (found.interrupted, found.killed) == (True, True)
    until(lambda: not bench.alive(), "nothing survives")


def test_a_jail_that_cannot_be_made_did_nothing(strict: Bench) -> None:
    bench = strict
    bench.work.mkdir()
    jail = Jailer(Cell(find_bwrap(), bench.work, (bench.folder / "missing",), bench.folder / "refused"))
    command = Command(
        ("/x", "run"),
        bench.work,
        {},
        output=Outlet(bench.folder / "out"),
        errors=Outlet(bench.folder / "err"),
        jail=jail,
    )
    assert ended(command) == Ended(1, stopped=False, killed=False)
    assert "missing" in bench.errors


def test_locks_live_as_long_as_it_does_and_are_not_its_own(bench: Bench) -> None:
    lock = FileLock(bench.folder / "lock")
    lock.take()
    code = HOLD + "signal.signal(15, lambda *_: sys.exit(0))\n"
    code += (
        "found = []\nfor n in range(3, 256):\n  try:\n    os.fstat(n)\n    found += [n] if n != life.fileno() else []\n"
    )
    code += "  except OSError: pass\nprint(found, flush=True)\n" + READY + "time.sleep(60)\n"
    command = bench.start(code, lock)
    lock.release()
    bench.ready()
    assert is_locked(lock.path)
    command.ask(signal.SIGTERM)
    ended(command)
    assert not is_locked(lock.path)
    assert (bench.folder / "out").read_text() == "[]\n"


def test_who_kills_its_keeper_kills_it(bench: Bench) -> None:
    command = bench.start(DEAF.format(15))
    bench.ready()
    os.kill(command.pid, signal.SIGKILL)
    assert ended(command).code == -signal.SIGKILL
    until(lambda: not bench.alive(), "it dies with its keeper")


def test_it_outlives_the_job_that_started_it(bench: Bench) -> None:
    """An apply is not torn by the death of the runner: it ends by itself, with its locks, its way out and its limits."""
    lock = FileLock(bench.folder / "lock")
    lock.take()
    pid = os.fork()
    if pid == 0:
        code = HOLD + READY + "while not os.path.exists('go'): time.sleep(0.01)\n" + "import socket\n"
        code += "if os.environ.get('HTTPS_PROXY') is None: sys.exit()\n"
        code += "s = socket.create_connection(('127.0.0.1', 3128))\ns.sendall(b'CONNECT a.example:1 HTTP/1.1\\r\\n\\r\\n')\n"
        code += "open('said', 'wb').write(s.recv(100))\n"
        bench.start(code, lock)
        os._exit(0)
    lock.release()
    os.waitpid(pid, 0)
    bench.ready()
    assert is_locked(lock.path)
    (bench.work / "go").touch()
    until(lambda: not is_locked(lock.path), "it ends by itself")
    if bench.place.tier == STRICT:
        assert (bench.work / "said").read_bytes().startswith(b"HTTP/1.1 403 ")


def test_what_fills_the_disk_is_ended(bench: Bench) -> None:
    bench.limits = Limits(work=4 << 20)
    code = HOLD + READY + "for n in range(8): open(str(n), 'wb').write(b'x' * (1 << 20))\ntime.sleep(60)\n"
    found = ended(bench.start(code))
    assert (found.code, found.killed) == (128 + signal.SIGKILL, False)
    assert "its folder holds more than 4 MiB" in bench.errors


def test_temporary_files_that_lie_elsewhere_are_its_own_and_count_too(bench: Bench) -> None:
    """Where the path of its folder is too long for a provider's socket."""
    elsewhere = bench.folder / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    bench.limits, bench.env = Limits(work=4 << 20), {"TMPDIR": str(elsewhere)}
    code = (
        HOLD + "for n in range(8): open(os.environ['TMPDIR'] + f'/{n}', 'wb').write(b'x' * (1 << 20))\ntime.sleep(60)\n"
    )
    assert ended(bench.start(code)).code == 128 + signal.SIGKILL
    assert "its folder holds more than 4 MiB" in bench.errors


def test_what_makes_too_many_files_is_ended(bench: Bench) -> None:
    bench.limits = Limits(files=50)
    code = HOLD + READY + "for n in range(100): open(str(n), 'w').close()\ntime.sleep(60)\n"
    assert ended(bench.start(code)).code == 128 + signal.SIGKILL
    assert "more than 50 files" in bench.errors


def test_a_keeper_is_waited_for_as_a_process_is(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(3)
    kept = Kept(pid)
    assert kept.wait(SECONDS) == kept.returncode == kept.wait() == 3


LINKS = """\
import os, shutil, sys
step, outside = sys.argv[1], {outside!r}
os.rmdir("tmp") if not os.path.islink("tmp") else None
for name in ("init.out", "init.err", "plan.out", "plan.err", "apply.out", "apply.err", "show.out", "tmp", "unit.tfstate"):
    target = outside if name == "tmp" else outside + "/canary"
    if os.path.lexists(name):
        os.unlink(name)
    os.symlink(target, name)
print("OVERWRITTEN", flush=True)
try:
    open(os.environ["TMPDIR"] + "/escaped", "w").close()
except OSError:
    pass
"""


@pytest.mark.parametrize("step", ["init", "plan"])
def test_links_that_an_engine_leaves_behind_lead_nowhere(strict: Bench, step: str) -> None:
    """The runner reads and writes beside the engine, in the same folder: neither follows what that left there."""
    folder, work = strict.folder, strict.work
    outside, script = folder / "outside", folder / "engine"
    work.mkdir(mode=0o700)
    outside.mkdir()
    (outside / "canary").write_text("CANARY")
    (work / "main.tf.json").write_text("{}")
    script.write_text(f"#!{own_python()} -IS\n" + LINKS.format(outside=str(outside)))
    script.chmod(0o755)
    engine = Engine("terraform", script, "1.11.4", "registry.terraform.io")
    for _ in range(2):  # the second finds what the first left
        talk = Conversation(engine, work, {}, folder / "log", jail=strict.place.jailer(script))
        with suppress(OSError, EngineError):
            getattr(talk, step)(deadline_in(SECONDS))
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"canary": "CANARY"}
    assert "CANARY" not in (folder / "log").read_text()
    assert (outside / "canary").stat().st_uid == os.getuid()
    with pytest.raises((OSError, UnitError)):
        bring_back(LocalBackend(folder / "states"), UnitId("prod/a"), work_with_state(work, outside), None)
    assert not (folder / "states").exists()


def work_with_state(work: Path, outside: Path) -> Path:
    """The workspace, with a link to somebody else's state in the place of its own."""
    (work / WORK_STATE).unlink(missing_ok=True)
    (work / WORK_STATE).symlink_to(outside / "canary")
    return work


PROVISIONER = """\
resource "terraform_data" "probe" {
  provisioner "local-exec" {
    interpreter = %s
    command     = %s
  }
}
"""


def test_a_module_that_tries_it_in_a_real_engine(bench: Bench) -> None:
    """A provisioner, with an interpreter that is there only because the test shows it."""
    folder, work, readable = bench.folder, bench.work, bench.place.readable
    engine = find_engine(str(static_engine()), None, None, folder / "scratch")
    work.mkdir(mode=0o700)
    probes = bench.place.probes()
    with Sinks(folder / "outside") as sinks:
        command = json.dumps(json.dumps(sinks.context(readable)))
        (work / "main.tf").write_text(PROVISIONER % (json.dumps(probes), command))
        (work / "main.tf.json").write_text("{}")
        (work / "values.tfvars.json").write_text("{}")
        jail = bench.place.jailer(engine.binary, readable)
        talk = Conversation(engine, work, {}, folder / "log", jail=jail)
        talk.init(deadline_in(SECONDS))
        assert talk.plan(deadline_in(SECONDS)).changed
        applied = talk.apply(deadline_in(SECONDS))
        assert (applied.failure, applied.killed) == (None, False)
        found = re.search(r"\(local-exec\): (\{.*\})", (folder / "log").read_text())
        assert found is not None
        answers = json.loads(found[1])
        assert answers.keys() == probe.TRIES.keys()
        escaped = {name for name, said in {**answers, **sinks.got()}.items() if said is not None}
        assert escaped - BEYOND[bench.place.tier] <= {"see-any-process"}  # the engine's own, which started it
    assert not is_locked(work / "survivor")


def test_who_runs_it_is_nobody_else(bench: Bench) -> None:
    """Where the runner is root each job has a user of its own, and gives it back when it has ended."""
    if bench.place.sandbox.users is None:
        pytest.skip(f"the tier {bench.place.tier} has no users of its own here")
    code = (
        HOLD
        + "signal.signal(15, lambda *_: sys.exit(0))\nprint(os.getuid(), flush=True)\n"
        + READY
        + "time.sleep(60)\n"
    )
    command = bench.start(code)
    bench.ready()
    other = bench.place.sandbox.users.take()
    mine = int((bench.folder / "out").read_text())
    assert mine >= bench.place.sandbox.users.first
    assert (bench.work / "life").stat().st_uid == mine != other.uid
    command.ask(signal.SIGTERM)
    ended(command)


def test_more_processes_than_it_may_have_are_not_made(bench: Bench) -> None:
    """As a limit of each job's, so that no job starves another. The task's own limit is the task's affair."""
    if bench.place.tier == TASK:
        pytest.skip("the task's own limit counts, which is not ours to set")
    bench.limits = Limits(processes=40)
    code = HOLD + "made = 0\ntry:\n  while made < 200:\n    if os.fork() == 0: time.sleep(60)\n    made += 1\n"
    code += "except OSError: print(made, flush=True)\n"
    ended(bench.start(code))
    assert 0 < int((bench.folder / "out").read_text() or -1) <= 40, bench.errors


MANY = 'resource "terraform_data" "many" {\n  count = 400\n  input = "x"\n}\n'


def test_an_engine_that_writes_too_much_ends_with_a_reason(strict: Bench) -> None:
    """Its output is a file, too. Terraform goes on when it can print no more, and plans to the end as if nothing were missing."""
    engine = find_engine(str(static_engine()), None, None, strict.folder / "scratch")
    strict.work.mkdir(mode=0o700)
    (strict.work / "main.tf").write_text(MANY)
    (strict.work / "main.tf.json").write_text("{}")
    (strict.work / "values.tfvars.json").write_text("{}")
    jail = strict.place.jailer(engine.binary, limits=Limits(file=64 << 10))
    talk = Conversation(engine, strict.work, {}, strict.folder / "log", jail=jail)
    talk.init(deadline_in(SECONDS))
    with pytest.raises(UnitError, match="plan printed more than") as raised:
        talk.plan(deadline_in(SECONDS))
    assert raised.value.reason == "OutputTooLarge"
    assert (strict.work / "plan.out").stat().st_size == 64 << 10

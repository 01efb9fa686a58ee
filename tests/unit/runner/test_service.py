from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import codec, wire
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.errors import ConfigError, PassError
from reconciler.executor.local import LocalExecutor
from reconciler.model import Job, Operation, Outcome, Phase, Result
from reconciler.ports import Lost, Running
from reconciler.runner.load import host_memory
from reconciler.runner.request import checked_job
from reconciler.runner.service import AT_ONCE, READ_BY_JOBS, Service, listen
from reconciler.runner.spool import JobFolder
from reconciler.runner.terraform import leftover
from reconciler.runner.terraform.binary import find_engine
from tests.kit import plane
from tests.kit.modules import excused
from tests.kit.plane import CATALOG, ENVIRONMENT, PROD, job, note, open_host
from tests.kit.terraform import until

WAITING = """\
resource "terraform_data" "this" {
  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-c"]
    command     = "echo x >> $FILES_ROOT/begun; until [ -e $FILES_ROOT/go ]; do sleep 0.02; done"
  }
}
"""
RELEASES: dict[str, Files] = {"v1.0.0": {**CATALOG["v1.0.0"], "modules/waiting/main.tf": WAITING}}
ENTRIES: Files = {
    **ENVIRONMENT,
    f"{PROD}/app.yaml": note(),
    f"{PROD}/slow.yaml": 'module: acme/waiting\nversion: "1.0.0"\n',
}
STRANGERS = (64_001, 64_002)  # user ids that nobody has


@dataclass(slots=True)
class Runner:
    ground: Playground
    process: subprocess.Popen[str]

    @property
    def path(self) -> Path:
        return self.ground.runtime / "runner.sock"

    @property
    def executor(self) -> LocalExecutor:
        return LocalExecutor(self.path)

    def ask(self, **request: Any) -> wire.Message:
        return wire.ask(self.path, request)

    def job(self, unit: str = "prod/app", number: int = 1, **words: Any) -> Job:
        return job(unit, self.ground.environments.head, number, **words)

    def result(self, asked: Job) -> Result:
        ended = until(lambda: not isinstance(found := self.executor.poll(asked.id), Running) and found, "the job ends")
        assert isinstance(ended, Result)
        return ended

    def begun(self) -> bool:
        return (self.ground.world / "begun").exists()


def start(made: Playground, *program: str) -> subprocess.Popen[str]:
    argv = [sys.executable, *(program or ("-m", "reconciler")), "runner", "serve", "--config", str(made.runner_config)]
    return subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True)


@contextmanager
def running(made: Playground, *program: str) -> Iterator[Runner]:
    """A runner that listens; at the end it is gone. `program`: how Python starts it, if otherwise."""
    process = start(made, *program)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("runner: listening on"), line + process.stderr.read()
        yield Runner(made, process)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def playground(folder: Path, **runner: Any) -> Playground:
    return Playground.create(folder / "ground", ENTRIES, RELEASES, runner=excused("waiting") | runner)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A runner that is only asked."""
    made = playground(tmp_path_factory.mktemp("shared"))
    with running(made) as runner:
        yield runner
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Runner]:
    made = playground(tmp_path)
    with running(made) as runner:
        yield runner
    made.close()


# --- what it is asked


def test_the_socket_is_its_owners_alone(shared: Runner) -> None:
    assert shared.path.stat().st_mode & 0o777 == 0o600
    assert shared.path.parent.stat().st_mode & 0o777 == 0o700


def test_it_describes_itself(shared: Runner) -> None:
    assert shared.executor.describe() == replace(open_host(shared.ground).facts(), memory=host_memory())
    assert shared.ask(verb="describe")["about"] == {**open_host(shared.ground).about()}


@pytest.mark.parametrize("verb", ["destroy", "", None, 3, ["start"]])
def test_there_are_six_verbs_and_no_other(verb: object, shared: Runner) -> None:
    with pytest.raises(PassError, match=r"there are cancel, describe, lead, log, poll, start") as refused:
        shared.ask(verb=verb)
    assert refused.value.reason == "UnknownVerb"


def test_who_leads_is_kept_and_nobody_leads_with_less(own: Runner) -> None:
    own.executor.lead(7)
    own.executor.lead(7)
    assert own.executor.describe().fence == 7
    with pytest.raises(PassError, match="7 leads already") as refused:
        own.executor.lead(6)
    assert refused.value.reason == "FenceStale"


@pytest.mark.parametrize("fence", [0, -1, 2**53 + 1, "7", None, True, 1.5])
def test_a_fence_is_a_number(fence: object, shared: Runner) -> None:
    with pytest.raises(PassError, match="fence: write a number"):
        shared.ask(verb="lead", fence=fence)


@pytest.mark.parametrize("name", ["../app", "..", "", "a/b", "a\n", "-a", "a" * 65, ".", "ä", None, {"a": 1}])
@pytest.mark.parametrize("verb", ["poll", "cancel", "log"])
def test_a_job_is_named_by_letters_digits_and_dashes(verb: str, name: object, shared: Runner) -> None:
    if name is None:
        name = "None/"
    with pytest.raises(PassError, match="A job id is up to 64") as refused:
        shared.ask(verb=verb, job=name)
    assert refused.value.reason == "BadRequest"


GOOD = {"id": "j-1", "operation": "apply", "unit": "prod/app", "commit": "c" * 40, "fence": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "../x"},
        {"id": ""},
        {"operation": "destroy"},
        {"unit": "prod"},
        {"unit": "prod/../x"},
        {"unit": "/prod/app"},
        {"unit": "prod/app\n"},
        {"commit": "main"},
        {"commit": "C" * 40},
        {"commit": "c" * 41},
        {"fence": -1},
        {"fence": "1"},
        {"variables": {"a": "b"}},
        {"pull": 7},  # with an apply
        {"pull": 0, "operation": "plan"},
        {"pull": -7, "operation": "plan"},
        {"pull": "7", "operation": "plan"},
        {"pull": 2**31 + 1, "operation": "plan"},
        {"pull": True, "operation": "plan"},
    ],
)
def test_a_job_is_six_words_and_each_is_checked(wrong: dict[str, object], shared: Runner) -> None:
    text = json.dumps(GOOD | wrong)
    with pytest.raises(PassError) as refused:
        checked_job(text)
    assert refused.value.reason == "BadRequest"
    with pytest.raises(PassError):
        shared.ask(verb="start", job=text)
    assert checked_job(json.dumps(GOOD)).unit == "prod/app"
    assert checked_job(json.dumps(GOOD | {"operation": "plan", "pull": 7})).pull == 7


def test_of_a_job_that_nobody_started_nothing_is_known(shared: Runner) -> None:
    asked = shared.job(number=9)
    assert shared.executor.poll(asked.id) == Lost(applying=False)
    shared.executor.cancel(asked.id)
    assert shared.executor.log(asked.id, 0) == b""
    assert not open_host(shared.ground).spool.job(asked.id).path.exists()
    for offset in (-1, "0", None, 1.5, 2**44, 2**53, 2**64):
        assert shared.ask(verb="log", job=asked.id, offset=offset) == {"data": ""}


def test_a_caller_that_hangs_up_in_the_middle_is_no_matter(shared: Runner) -> None:
    for words in (b"", b'{"verb": "desc', b'{"verb": "describe"}\n'):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(shared.path))
            peer.sendall(words)
    assert shared.ask(verb="describe")


# --- what it does


def test_a_job_is_started_once_and_its_end_wakes_who_watches(own: Runner) -> None:
    asked = own.job()
    with socket.socket(socket.AF_UNIX) as watcher:
        watcher.settimeout(60)
        watcher.connect(str(own.path))
        wire.send(watcher, {"verb": "watch"})
        own.executor.start(asked)
        own.executor.start(asked)
        assert watcher.recv(1) == b"\n"
    result = own.result(asked)
    assert (result.outcome, result.reason) == (Outcome.SUCCEEDED, "Applied"), result.message
    own.executor.start(asked)
    assert own.executor.poll(asked.id) == result
    log = own.executor.log(asked.id, 0)
    assert b"Apply complete" in log
    assert own.executor.log(asked.id, 5) == log[5:]
    assert own.executor.log(asked.id, 1 << 40) == b""
    assert not open_host(own.ground).spool.job(asked.id).work.exists()


def test_a_second_service_on_the_same_memory_ends_at_once(own: Runner) -> None:
    with start(own.ground) as second:
        _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "another runner works on" in said
    assert own.ask(verb="describe")


def test_it_takes_the_place_of_a_dead_one(own: Runner) -> None:
    own.process.kill()
    own.process.wait()
    assert own.path.exists()
    with running(own.ground) as next_one:
        assert next_one.ask(verb="describe")


def test_a_damaged_folder_does_not_stop_it(tmp_path: Path) -> None:
    made = playground(tmp_path)
    host = open_host(made)
    asked = job("prod/app", made.environments.head)
    folder = host.spool.job(asked.id)
    lock = folder.create(asked)
    assert lock is not None
    lock.release()
    folder.work.mkdir()
    damaged = host.memory.folder / "units" / "prod" / "app.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"")
    with start(made) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            assert said.startswith(f"runner: {folder.path}: "), said
            until(lambda: _describes(made), "it answers")
        finally:
            process.kill()
    assert folder.work.exists()
    made.close()


def _describes(made: Playground) -> bool:
    try:
        return bool(wire.ask(made.runtime / "runner.sock", {"verb": "describe"}))
    except PassError:
        return False


def test_sigterm_begins_nothing_more_answers_on_and_ends_with_the_last_apply(own: Runner) -> None:
    asked = own.job("prod/slow")
    own.executor.start(asked)
    until(own.begun, "the apply has begun")
    own.process.send_signal(signal.SIGTERM)
    refused = until(lambda: _refusal(own), "it begins nothing more")
    assert refused == "RunnerStopping"
    assert own.executor.poll(asked.id) == Running(Phase.APPLYING)
    (own.ground.world / "go").touch()
    assert own.process.wait(60) == 0
    state = open_host(own.ground).spool.job(asked.id).state()
    assert isinstance(state, Result)
    assert state.outcome is Outcome.SUCCEEDED
    assert not own.path.exists()


def _refusal(runner: Runner) -> str | None:
    """A job that would do nothing: its commit is nobody's."""
    number = len(list((runner.ground.folder / "runner" / "spool").iterdir())) + 10
    try:
        runner.ask(verb="start", job=codec.encode(job("prod/app", "a" * 40, number)).decode())  # type: ignore[arg-type]
    except PassError as error:
        return error.reason
    return None


def test_an_apply_outlives_its_service_and_the_next_one_ends_after_it(own: Runner) -> None:
    asked = own.job("prod/slow")
    own.executor.start(asked)
    until(own.begun, "the apply has begun")
    own.process.kill()
    own.process.wait()
    with running(own.ground) as next_one:
        assert next_one.executor.poll(asked.id) == Running(Phase.APPLYING)
        busy = next_one.job("prod/slow", 2)
        next_one.executor.start(busy)
        assert next_one.result(busy).reason == "UnitBusy"
        next_one.process.send_signal(signal.SIGTERM)
        until(lambda: _refusal(next_one), "it begins nothing more")
        assert next_one.process.poll() is None
        (own.ground.world / "go").touch()
        assert next_one.process.wait(60) == 0
    state = open_host(own.ground).spool.job(asked.id).state()
    assert isinstance(state, Result)
    assert state.outcome is Outcome.SUCCEEDED
    assert (own.ground.world / "begun").read_text() == "x\n"


def test_an_engine_whose_job_was_killed_is_ended_when_its_time_is_over(own: Runner) -> None:
    asked = own.job("prod/slow")
    own.executor.start(asked)
    until(own.begun, "the apply has begun")
    path = open_host(own.ground).spool.job(asked.id).note
    note = leftover.read(path)
    assert note is not None
    assert (note.step, note.signal, note.asked) == ("apply", signal.SIGINT, None)
    leftover.write(path, replace(note, deadline=0.0))
    os.kill(note.keeper.pid, signal.SIGKILL)
    assert until(lambda: not isinstance(found := own.executor.poll(asked.id), Running) and found, "it ends") == Lost(
        True
    )
    assert not note.engine.lives()


def test_the_workspace_of_a_killed_job_goes_though_nobody_asks_after_the_job(own: Runner) -> None:
    host = open_host(own.ground)

    def killed(number: int) -> JobFolder | None:
        """Kill a job that plans; None: it was quicker."""
        asked = own.job(number=number, operation=Operation.PLAN)
        own.executor.start(asked)
        folder = host.spool.job(asked.id)
        path = folder.note
        until(lambda: leftover.read(path) or not folder.alive(), "an engine runs")
        if (note := leftover.read(path)) is not None:
            with suppress(ProcessLookupError):
                os.kill(note.keeper.pid, signal.SIGKILL)
        until(lambda: not folder.alive(), "the job is dead")
        return folder if isinstance(folder.state(), Lost) else None

    folder = next(filter(None, map(killed, range(1, 20))))
    until(lambda: not folder.work.exists(), "its workspace is gone")
    assert not folder.temporary.exists()


def test_a_job_that_is_killed_while_its_service_lives_on_says_so(tmp_path: Path) -> None:
    made = playground(tmp_path, engine=patient(tmp_path, tmp_path))
    with running(made) as runner:
        spool, died = open_host(made).spool, {}
        for number, how in enumerate((signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM), 1):
            asked = runner.job(number=number, operation=Operation.PLAN)
            runner.executor.start(asked)
            path = spool.job(asked.id).note
            note = until(lambda path=path: leftover.read(path), "an engine runs")  # type: ignore[misc]
            os.kill(note.keeper.pid, how)
            os.killpg(note.engine.pid, signal.SIGKILL)
            lost = until(lambda one=asked: isinstance(f := runner.executor.poll(one.id), Lost) and f, "it is lost")  # type: ignore[misc]
            died[how] = until(lambda one=asked: runner.executor.poll(one.id), "asked again").died if lost else ""  # type: ignore[misc]
        assert runner.ask(verb="describe")
    assert died == {signal.SIGKILL: "killed by SIGKILL", signal.SIGSEGV: "killed by SIGSEGV", signal.SIGTERM: ""}
    made.close()


def test_only_so_many_jobs_begin_at_once(own: Runner) -> None:
    """Whoever has the controller could else start processes until the host gives up, and an apply on it."""
    served = Service(open_host(own.ground))
    served._inherited |= {own.job(number=number).id for number in range(AT_ONCE)}
    asked = own.job(number=AT_ONCE)
    with pytest.raises(PassError, match="begin another when one has ended") as refused:
        served._do({"verb": "start", "job": codec.encode(asked).decode()})
    assert refused.value.reason == "RunnerBusy"
    assert not open_host(own.ground).spool.job(asked.id).path.exists()
    served._let_go()
    served._wakeup.close()


def test_a_cancelled_job_does_not_apply(own: Runner) -> None:
    asked = own.job("prod/slow")
    own.executor.start(asked)
    own.executor.cancel(asked.id)
    result = own.result(asked)
    assert (result.outcome, result.reason) == (Outcome.SUPERSEDED, "Superseded")
    assert not own.begun()


def patient(folder: Path, world: Path) -> dict[str, str]:
    """The engine of this host, whose plans last until somebody ends them."""
    found = find_engine(None, None, None, folder)
    wrapper = folder / "patient"
    wait = f"trap 'exit 1' TERM; touch {world}/planning; until [ -e {world}/go ]; do sleep 0.02; done"
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = plan ] && {{ {wait}; }}\nexec {found.binary} "$@"\n')
    wrapper.chmod(0o755)
    digest = hashlib.sha256(wrapper.read_bytes()).hexdigest()
    return {"binary": str(wrapper), "version": found.version, "sha256": f"sha256:{digest}"}


def test_a_plan_that_nobody_wants_any_more_ends_at_once(tmp_path: Path) -> None:
    made = playground(tmp_path, engine=patient(tmp_path, tmp_path))
    with running(made) as runner:
        asked = runner.job(operation=Operation.PLAN)
        runner.executor.start(asked)
        until((tmp_path / "planning").exists, "the engine plans")
        runner.executor.cancel(asked.id)
        result = runner.result(asked)
    assert (result.outcome, result.reason) == (Outcome.SUPERSEDED, "Superseded")
    made.close()


def test_an_apply_whose_time_is_over_is_interrupted_and_says_so(tmp_path: Path) -> None:
    path, text = next((path, text) for path, text in ENVIRONMENT.items() if path.endswith("environment.yaml"))
    assert isinstance(text, str)
    late = {**ENTRIES, path: f"{text}timeouts: {{apply: 3s}}\n"}
    made = Playground.create(tmp_path / "ground", late, RELEASES, runner=excused("waiting"))
    with running(made) as runner:
        asked = runner.job("prod/slow")
        runner.executor.start(asked)
        result = runner.result(asked)
    assert (result.outcome, result.reason, result.transient) == (Outcome.FAILED, "EngineTimeout", True)
    assert result.message.startswith("The apply did not end within timeouts.apply and was interrupted")
    assert "Raise timeouts.apply in environment.yaml" in result.message
    made.close()


def test_a_plan_changes_nothing(own: Runner) -> None:
    asked = own.job(operation=Operation.PLAN)
    own.executor.start(asked)
    result = own.result(asked)
    assert (result.outcome, result.reason, result.applied) == (Outcome.SUCCEEDED, "Planned", None)
    assert not own.ground.state("prod/app").exists()


# --- who may talk to it


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be other users")
def test_the_controller_may_be_another_user_and_nobody_else(tmp_path: Path) -> None:
    controller, stranger = STRANGERS
    home = Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp"))
    home.chmod(0o711)
    try:
        path = home / "run" / "runner.sock"
        made = playground(tmp_path, controller_uid=controller, socket=str(path))
        with running(made):
            assert path.stat().st_mode & 0o777 == 0o666
            assert path.parent.stat().st_mode & 0o777 == 0o711
            assert as_user(controller, path) == "described"
            assert as_user(stranger, path) == "NotAllowed"
            assert as_user(0, path) == "described"
        made.close()
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be other users")
def test_otherwise_the_system_keeps_other_users_out(own: Runner) -> None:
    assert as_user(STRANGERS[0], own.path) == "RunnerUnavailable"


def as_user(uid: int, path: Path) -> str:
    """What a user hears who asks for the description."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(uid)
        try:
            wire.ask(path, {"verb": "describe"})
            said = "described"
        except PassError as error:
            said = error.reason
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        return file.read()


def test_a_folder_that_keeps_the_controller_out_is_said_at_start(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(
        ConfigError, match=r"user 64001 \(controller_uid\) cannot enter .*: let the socket be in a folder of its own"
    ):
        listen(closed / "s", STRANGERS[0])
    assert list(closed.iterdir()) == []


def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    with listen(tmp_path / "s"):
        with pytest.raises(ConfigError, match="another runner listens on"):
            listen(tmp_path / "s")
        assert (tmp_path / "s").exists()
    with listen(tmp_path / "s"):
        pass


@pytest.mark.parametrize(
    ("word", "value"),
    [("id", "../x"), ("unit", "prod"), ("commit", "HEAD"), ("fence", -1), ("fence", "1"), ("operation", "destroy"),
     ("pull", 0), ("pull", 7), ("target", "x"), ("job", None)],
)  # fmt: skip
def test_a_refused_job_names_the_word_that_is_wrong_and_not_what_was_written(word: str, value: object) -> None:
    said = "null" if word == "job" else json.dumps(GOOD | {"operation": "apply", word: value})
    with pytest.raises(PassError) as refused:
        checked_job(said)
    assert str(refused.value).startswith(f"{word}: ")
    assert "\n" not in str(refused.value)


def test_a_job_builds_nothing_that_it_could_have_inherited(tmp_path: Path) -> None:
    made = plane.ground(tmp_path, {"a": plane.note()})
    host = plane.open_host(made)
    codec._adapter.cache_clear()
    codec.prepare(*READ_BY_JOBS)
    built = codec._adapter.cache_info().misses
    for number in (1, 2):
        assert plane.carry_out(host, job("prod/a", made.environments.head, number)).outcome is Outcome.SUCCEEDED
    assert codec._adapter.cache_info().misses == built


GREEDY = """
import sys
from reconciler.cli import main
from reconciler.runner import job
real = job._said
def said(host, asked, *rest):
    if asked.unit == "prod/app":
        held = bytearray(3 << 30)
    return real(host, asked, *rest)
job._said = said
sys.exit(main())
"""
ASKING = """\
resource "terraform_data" "this" {
  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-c"]
    command     = "ulimit -d > $FILES_ROOT/limit"
  }
}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a job's memory is limited where its engine can be freed of that")
def test_a_job_that_takes_too_much_memory_ends_as_one_and_an_engine_may_take_what_it_needs(tmp_path: Path) -> None:
    releases = {"v1.0.0": {**RELEASES["v1.0.0"], "modules/waiting/main.tf": ASKING}}
    made = Playground.create(tmp_path / "ground", ENTRIES, releases, runner=excused("waiting"))
    with running(made, "-c", GREEDY) as runner:
        greedy = runner.job("prod/app", 1)
        runner.executor.start(greedy)
        found = runner.result(greedy)
        assert (found.outcome, found.reason) == (Outcome.FAILED, "MemoryExceeded")
        other = runner.job("prod/slow", 2)
        runner.executor.start(other)
        assert runner.result(other).outcome is Outcome.SUCCEEDED
    assert (made.world / "limit").read_text() == "unlimited\n"
    made.close()

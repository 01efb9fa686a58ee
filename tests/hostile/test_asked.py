"""However a runner is asked: what starts is what its allow-list and the merged branch say, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest

from reconciler import wire
from reconciler.config import load_runner
from reconciler.demo.playground import Playground
from reconciler.durable import FileLock
from reconciler.errors import PassError
from reconciler.model import Job
from reconciler.runner.allow import Wish, allowed
from reconciler.runner.host import Host
from reconciler.runner.service import Service
from reconciler.runner.spool import KEPT, JobFolder
from tests.hostile.asked import Known, enumerated, generated, is_job
from tests.kit.plane import CATALOG, note
from tests.kit.terraform import engine_binary, until

MANY = int(os.environ.get("RECONCILER_TEST_REQUESTS", "20000"))  # `make asked` has a million
OVER_THE_SOCKET = 10_000
ALLOW = [
    {"operations": ["plan", "apply"], "refs": "merged", "folders": ["environments/prod/*"]},
    {"operations": ["plan"], "refs": "merged", "folders": ["environments/stage/**", "environments/gone/**"]},
]
UNITS = ("prod/app", "prod/deep/app", "stage/app", "stage/deep/er/app", "dev/app")
ELSEWHERE = ("prod/none", "gone/app", "nowhere/app", "prod/environment")


def ground(folder: Path, **runner: object) -> Playground:
    files = {f"environments/{unit}.yaml": note() for unit in UNITS}
    files |= {f"environments/{name}/environment.yaml": "class: protected\n" for name in ("prod", "stage", "dev")}
    return Playground.create(folder / "ground", files, CATALOG, runner={"allow": ALLOW, **runner})


def known(made: Playground) -> Known:
    """The head, a commit that was never merged, and one that nobody has."""
    unmerged = made.environments.commit({"environments/prod/app.yaml": note("unmerged")}, "Unmerged", branch="other")
    return Known((*UNITS, *ELSEWHERE), (made.environments.head, unmerged, "c" * 40))


@dataclass
class Begun:
    """The jobs that a service has begun, as far as its process goes."""

    jobs: list[Job] = field(default_factory=list)


class Still(Service):
    """A service that forks for nobody: it only says for which job it would."""

    def __init__(self, host: Host, begun: Begun) -> None:
        super().__init__(host)
        self._begun = begun

    def _fork(self, job: Job, folder: JobFolder, life: FileLock) -> int:
        self._children.clear()  # those before have ended, as far as anybody sees
        self._begun.jobs.append(job)
        return -len(self._begun.jobs)

    def close(self) -> None:
        self._selector.close()
        self._wakeup.close()
        self._poke.close()


def files_in(folder: Path) -> dict[str, int]:
    """Every file but those of jobs, with its length."""
    found = (path for path in folder.rglob("*") if "spool" not in path.parts and path.is_file())
    return {str(path): path.stat().st_size for path in found}


@pytest.mark.timeout(120 + MANY // 100)
def test_in_process_only_a_job_of_six_sound_words_is_begun(tmp_path: Path) -> None:
    made = ground(tmp_path)
    begun = Begun()
    host = Host(load_runner(made.runner_config))
    names = known(made)
    service = Still(host, begun)
    may = enumerated(made.runner_config, made.environments.folder)
    before = files_in(made.folder)
    sound = 0
    try:
        for line in islice(generated(MANY, names, sound=min(0.01, 2000 / MANY)), MANY):
            count = len(begun.jobs)
            refused = None
            try:
                service._do(wire.unpack(line))
            except (PassError, ValueError) as error:
                refused = error
            if len(begun.jobs) == count:
                assert refused is None or not is_job(line), (line, refused)
                continue
            assert is_job(line), line
            asked = json.loads(json.loads(line)["job"])
            job = begun.jobs[-1]
            assert (job.id, job.operation, job.unit, job.commit, job.fence) == tuple(
                asked[name] for name in ("id", "operation", "unit", "commit", "fence")
            )
            sound += 1
        folders = {path.name for path in (made.folder / "runner" / "spool").iterdir()}
        names_of = {job.id for job in begun.jobs}
        assert folders <= names_of  # the oldest are forgotten
        assert len(folders) >= min(len(names_of), KEPT)
        assert sound >= min(MANY, 2000) // 200
        assert files_in(made.folder).keys() - before.keys() == set()
        for job in begun.jobs:  # what the process that was not forked would be let do
            path = f"environments/{job.unit}.yaml"
            wish = Wish(job.operation, path, "acme/note", job.pull is not None)
            there = job.unit in UNITS and allowed(host.rules, wish)
            assert there == (job.pull is None and (job.operation, job.unit) in may), job
    finally:
        service.close()
        made.close()


ENGINE = """\
#!{python}
import os, sys
with open({log!r}, "a") as log:
    print(os.getcwd(), *sys.argv[1:2], file=log)
os.execv({engine!r}, [{engine!r}, *sys.argv[1:]])
"""


def watched_engine(folder: Path) -> Path:
    """The engine, which writes down where it was started, and for what."""
    path = folder / "terraform"
    text = ENGINE.format(python=sys.executable, log=str(folder / "started"), engine=str(engine_binary(folder)))
    path.write_text(text)
    path.chmod(0o755)
    return path


def say(path: Path, line: bytes) -> bytes:
    """One request, as the bytes that they are; the answer, or nothing where the runner hung up."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(60)
        peer.connect(str(path))
        with suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(line + b"\n")
            return peer.recv(1 << 16)
    return b""


@pytest.mark.timeout(400)
def test_over_its_socket_nothing_starts_that_is_not_enumerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "engine"
    folder.mkdir()
    watched_engine(folder)
    made = ground(tmp_path)
    may = enumerated(made.runner_config, made.environments.folder)
    assert may == {("plan", "prod/app"), ("apply", "prod/app"), ("plan", "stage/app"), ("plan", "stage/deep/er/app")}
    names = known(made)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    argv = [sys.executable, "-m", "reconciler", "runner", "serve", "--config", str(made.runner_config)]
    runner = subprocess.Popen(argv, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True)
    assert runner.stderr is not None
    try:
        assert runner.stderr.readline().startswith(b"runner: listening on")
        path = made.runtime / "runner.sock"
        (folder / "started").unlink(missing_ok=True)  # it was asked for its version
        jobs: dict[str, tuple[str, str]] = {}
        for line in islice(generated(4, names, sound=0.004), OVER_THE_SOCKET):
            if b'"watch"' in line:
                continue
            answer = say(path, line)
            if answer == b'{"ok":true}\n' and is_job(line):
                job = json.loads(json.loads(line)["job"])
                jobs.setdefault(job["id"], (job["operation"], job["unit"]))
        assert len(jobs) >= 20
        spool = made.folder / "runner" / "spool"
        assert {one.name for one in spool.iterdir()} == {*jobs}
        for name in jobs:
            until(lambda f=spool / name: (f / "result.json").exists(), f"{name} ends", seconds=240)  # type: ignore[misc]
        seen = started(folder / "started", jobs)
        assert {one for one, _ in seen} <= may
        assert {one for one, _ in seen} & {("plan", "stage/app"), ("plan", "stage/deep/er/app")}  # not all was refused
        assert {one for one, command in seen if command == "apply"} <= {("apply", "prod/app")}
    finally:
        runner.send_signal(signal.SIGTERM)
        runner.wait(60)
        runner.stderr.close()
        made.close()


def started(log: Path, jobs: dict[str, tuple[str, str]]) -> set[tuple[tuple[str, str], str]]:
    """What the engine was started for: each job's operation and unit, and its own command."""
    lines = [line.rsplit(" ", 1) for line in log.read_text().splitlines()]
    return {(jobs[Path(where).parent.name], command) for where, command in lines if Path(where).name == "work"}

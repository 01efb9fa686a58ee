"""A house whose processes die where they are told to, the story that is played in it, and what must hold at its end."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pytest

from reconciler.daemon import SystemClock
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.runner.audit.chain import read
from reconciler.runner.audit.log import AuditLog
from reconciler.runner.audit.verify import segments_of, verify
from reconciler.runner.memory import Memory
from reconciler.store.sqlite import SqliteStore
from tests.kit.house import PATIENCE, House
from tests.kit.modules import excused
from tests.provider.log import calls, doubled

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = "environments/prod"
OBJECT = """\
terraform {
  required_providers {
    files = { source = "reconciler/files" }
  }
}
variable "path" { type = string }
variable "content" { type = string }
resource "files_file" "this" {
  path    = var.path
  content = var.content
}
output "id" { value = files_file.this.content }
"""
# Terraform's builtin resource: quick, and its creation stands in the same log as the provider's.
NOTE = """\
variable "path" { type = string }
variable "note" { type = string }
resource "terraform_data" "this" {
  input = var.note
  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-c"]
    environment = { OBJECT = var.path }
    command     = <<-EOT
      (set -C; : > "$FILES_ROOT/$OBJECT") 2> /dev/null && became=created || became=exists
      printf '{"at": 0, "pid": %d, "op": "create", "type": "note", "path": "%s", "outcome": "%s"}\\n' \
        $$ "$OBJECT" $became >> "$FILES_ROOT/calls.log"
    EOT
  }
}
output "id" { value = terraform_data.this.output }
"""
CATALOG: dict[str, Files] = {"v1.0.0": {"modules/object/main.tf": OBJECT, "modules/note/main.tf": NOTE}}
OBJECTS = ("app", "mid", "net", "side")  # what exists at the end, each created once


def thing(path: str, content: str) -> str:
    return f'module: acme/object\nversion: "1.0.0"\ninputs: {{path: {path}, content: "{content}"}}\n'


def note(path: str, text: str) -> str:
    return f'module: acme/note\nversion: "1.0.0"\ninputs: {{path: {path}, note: "{text}"}}\n'


FIRST: Files = {
    f"{ENVIRONMENT}/environment.yaml": "class: protected\n",
    f"{ENVIRONMENT}/net.yaml": thing("net", "one"),
    f"{ENVIRONMENT}/mid.yaml": note("mid", "mid of ${{ net.id }}"),
    f"{ENVIRONMENT}/app.yaml": note("app", "app of ${{ mid.id }}, ${{ side.id }}"),
    f"{ENVIRONMENT}/side.yaml": note("side", "side"),
}
RENAMED: Files = {
    f"{ENVIRONMENT}/side.yaml": None,
    f"{ENVIRONMENT}/beside.yaml": note("side", "side") + "moved_from: side\n",
    f"{ENVIRONMENT}/app.yaml": note("app", "app of ${{ mid.id }}, ${{ beside.id }}"),
}
CHANGED: Files = {f"{ENVIRONMENT}/net.yaml": thing("net", "two")}


@dataclass(slots=True)
class Process:
    """A child of the fork server, with the part of `Popen` that a house uses."""

    pid: int
    handle: int

    def poll(self) -> int | None:
        """-9 once it is dead, however it died; None while it lives."""
        return -9 if select.select([self.handle], [], [], 0)[0] else None

    def wait(self, seconds: float) -> int:
        if not select.select([self.handle], [], [], seconds)[0]:
            raise subprocess.TimeoutExpired("a plane", seconds)
        return -9

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.handle, number)

    def kill(self) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)


@dataclass(slots=True)
class ForkServer:
    """`tests.crash.launcher`, running."""

    process: subprocess.Popen[str]

    def start(self, role: str, words: Sequence[str], log: Path, death: dict[str, Any] | None) -> Process:
        order = {"role": role, "words": list(words), "log": str(log), "death": death}
        asked, answers = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        asked.write(json.dumps(order) + "\n")
        asked.flush()
        pid = int(answers.readline())
        return Process(pid, os.pidfd_open(pid))


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    argv = [sys.executable, "-m", "tests.crash.launcher"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True) as process:
        yield ForkServer(process)


@dataclass(frozen=True, slots=True)
class Fall:
    """Who dies where, and for the how manieth time; `besides`: which daemons are killed with it, at once."""

    role: str
    point: str
    nth: int
    besides: tuple[str, ...] = ()


class FallingHouse(House):
    """A house in which one process falls, and everything that is dead is started again."""

    server: ForkServer
    fall: Fall
    followed: bool
    starts: Counter[str]

    @property
    def tally(self) -> Path:
        return self.ground.folder / "tally"

    @property
    def fallen(self) -> bool:
        return Path(f"{self.tally}.killed").exists()

    def _spawn(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        self.starts[name] += 1
        death = {"role": self.fall.role, "point": self.fall.point, "nth": self.fall.nth, "tally": str(self.tally)}
        return cast("subprocess.Popen[bytes]", self.server.start(name, words, self.ground.logs / f"{name}.log", death))

    def until(self, holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        def living() -> Any:
            self.revive()
            return holds()

        return super().until(living, what, patience)

    def revive(self) -> None:
        """Start again what died; nothing may have died by itself."""
        if self.fallen and not self.followed:
            self.followed = True
            for name in self.fall.besides:
                process: Process | None = getattr(self, name)
                if process is not None:
                    process.kill()
                    process.wait(PATIENCE)
        for name, words in (
            ("runner", ("runner", "serve", "--config", str(self.ground.runner_config))),
            ("controller", ("run", "--config", str(self.ground.controller_config))),
        ):
            process = getattr(self, name)
            if process is not None and process.poll() is not None:
                if self.starts[name] > 1 or not self.fallen:
                    pytest.fail(f"the {name} died, and not by us\n{self.tails()}")
                setattr(self, name, self._spawn(name, *words))

    # --- the story

    def play(self) -> None:
        """First deploy; a change with a rename; a change while somebody meddles."""
        self.start()
        self.synced()
        self.ground.merge(RENAMED)
        self.synced()
        (self.ground.world / "net").write_text("meddled", encoding="utf-8")
        self.ground.merge(CHANGED)
        self.synced()
        self.until(lambda: not self.engines(), "no engine runs any more")

    def engines(self) -> list[str]:
        """What runs in a job's folder: engines, providers, and what they started."""
        spool = str(self.ground.folder / "runner" / "spool")
        return [link for link in working_folders() if link.startswith(spool)]

    # --- what must hold

    def check(self) -> None:
        """Everything exists once, nobody lost or doubled a state, nothing is left behind."""
        self.stop()
        self._check_world()
        self._check_states()
        self._check_records()
        assert self._leftovers() == []
        assert _verified(self.ground.folder / "controller" / "reconciler.db") > 0

    def _check_world(self) -> None:
        world = self.ground.world
        assert doubled(world) == []
        created = Counter(call.path for call in calls(world, op="create", outcome="created"))
        assert created == dict.fromkeys(OBJECTS, 1)
        assert (world / "net").read_text(encoding="utf-8") == "two"
        assert sorted(p.name for p in world.iterdir() if not p.name.startswith((".", "calls"))) == sorted(OBJECTS)

    def _check_states(self) -> None:
        """One lineage per unit, the memory's; and the outputs are those of the last commit."""
        states, memory = self.ground.folder / "states" / "prod", Memory(self.ground.folder / "runner")
        for name in ("net", "mid", "app", "beside"):
            state = json.loads((states / f"{name}.tfstate").read_bytes())
            kept = [json.loads(p.read_bytes())["lineage"] for p in states.glob(f"{name}.tfstate*")]
            known = memory.unit(f"prod/{name}")  # type: ignore[arg-type]
            assert set(kept) == {state["lineage"]}
            assert known.mark is not None
            assert (known.mark.lineage, known.mark.serial) == (state["lineage"], state["serial"])
            assert known.applied is not None
            assert known.applying is None
        app = json.loads((states / "app.tfstate").read_bytes())
        assert app["outputs"]["id"]["value"] == "app of mid of two, side"
        assert not (states / "side.tfstate").exists()

    def _check_records(self) -> None:
        """The audit log fits; every serial has one record, every apply's end at most one; nothing is unexplained."""
        folder = self.ground.folder / "runner" / "audit"
        verdict = verify(segments_of(folder), least=AuditLog(folder).mark().count)
        assert (verdict.wrong, verdict.torn) == (None, 0)
        lines = [line for _, data in segments_of(folder) for line in data.splitlines()]
        states = [record.body for record in map(read, lines) if record.kind == "state"]
        assert {one["change"] for one in states} <= {"applied", "failed", "recovered", "moved"}
        ends = [one["intent"] for one in states if one["intent"] is not None]
        assert len(ends) == len(set(ends))
        made: dict[str, list[int]] = {}
        for one in states:
            if one["change"] != "moved" and one["after"]:
                before = one["before"]["serial"] if one["before"] else -1
                made.setdefault(one["after"]["lineage"], []).extend(range(before + 1, one["after"]["serial"] + 1))
        final = [json.loads(p.read_bytes()) for p in (self.ground.folder / "states" / "prod").glob("*.tfstate")]
        assert made == {state["lineage"]: [*range(state["serial"] + 1)] for state in final}
        assert [(one["moved_from"], one["unit"]) for one in states if one["change"] == "moved"] == [
            ("prod/side", "prod/beside")
        ]

    def _leftovers(self) -> list[str]:
        """Workspaces that no unfinished apply needs, and half-written files."""
        runner = self.ground.folder / "runner"
        memory = Memory(runner)
        unfinished = {unit.applying.job for unit in memory.units() if unit.applying is not None}
        work = [p for p in (runner / "spool").glob("*/work") if p.parent.name not in unfinished]
        return sorted(str(p.relative_to(runner)) for p in work)


def working_folders() -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.append(str((process / "cwd").readlink()))
            except OSError:
                continue  # it has ended, or is somebody else's
    return found


def _verified(path: Path) -> int:
    store = SqliteStore(path, SystemClock())
    try:
        return store.verify()
    finally:
        store.close()


@contextmanager
def falling_house(folder: Path, server: ForkServer, fall: Fall) -> Iterator[FallingHouse]:
    """A house in which nothing runs yet; at its end nothing runs any more."""
    ground = Playground.create(folder, FIRST, CATALOG, runner=excused("note"))
    house = FallingHouse(ground)
    house.server, house.fall, house.followed, house.starts = server, fall, False, Counter()
    try:
        yield house
    finally:
        for name in ("controller", "runner"):
            house.kill(name)
        ground.close()

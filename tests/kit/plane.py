"""A runner's host over a playground, in this process: its parts are tested on real files, repositories and engines."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconciler.config import load_runner
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.model import (
    Applied,
    Commit,
    Digest,
    Fingerprint,
    Job,
    JobId,
    Operation,
    Presence,
    Result,
    StateMark,
    UnitId,
)
from reconciler.runner.host import Host
from reconciler.runner.job import run_job
from reconciler.runner.memory import UnitMemory

NOW = datetime(2026, 11, 24, tzinfo=UTC)
PROD = "environments/prod"
LINEAGE = "11111111-aaaa-bbbb-cccc-222222222222"
NOTE = """\
variable "note" { type = string }
resource "terraform_data" "this" { input = var.note }
output "id" { value = terraform_data.this.output }
"""
CATALOG: dict[str, Files] = {"v1.0.0": {"modules/note/main.tf": NOTE}}
ENVIRONMENT: Files = {f"{PROD}/environment.yaml": "class: protected\n"}


class NotedEngine:
    """The engine behind a script that notes each command, and the folder that it was given in."""

    def __init__(self, folder: Path, engine: Path) -> None:
        self.file, self._said = folder / "engine", folder / "said"
        self._said.touch()
        self.file.write_text(
            f'#!/bin/sh\necho "$PWD $1" >> {shlex.quote(str(self._said))}\nexec {shlex.quote(str(engine))} "$@"\n'
        )
        self.file.chmod(0o755)
        said = subprocess.run([engine, "version", "-json"], capture_output=True, check=True).stdout
        self.version: str = json.loads(said)["terraform_version"]

    def sha256(self) -> str:
        """Of the script: it is what the runner starts."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    def config(self) -> dict[str, str]:
        """What runner.yaml says of it."""
        return {"binary": str(self.file), "version": self.version, "sha256": self.sha256()}

    def inits(self) -> list[str]:
        """The folders in which `init` was run."""
        return [folder for folder, word in self.commands() if word == "init"]

    def commands(self) -> list[tuple[str, str]]:
        """Each command in a root: the folder, and the word. Not the question which version it is."""
        lines = (line.rpartition(" ") for line in self._said.read_text().splitlines())
        return [(folder, word) for folder, _, word in lines if word != "version"]


def note(text: str = "one", more: str = "") -> str:
    """An entry of the module `note`."""
    return f'module: acme/note\nversion: "1.0.0"\ninputs:\n  note: "{text}"\n{more}'


def ground(folder: Path, entries: Files | None = None, **runner: Any) -> Playground:
    """A playground with one environment, prod, and these entries of it by name."""
    files = {f"{PROD}/{name}.yaml": text for name, text in (entries or {}).items()}
    return Playground.create(folder / "ground", {**ENVIRONMENT, **files}, CATALOG, runner=runner)


def open_host(made: Playground) -> Host:
    """The runner's host."""
    return Host(load_runner(made.runner_config))


def job(unit: str, commit: Commit, number: int = 1, *, operation: Operation = Operation.APPLY, fence: int = 1) -> Job:
    """A job of the unit."""
    return Job(JobId(f"20261124T1000{number:02}-0000000000"), operation, UnitId(unit), commit, fence)


def carry_out(host: Host, asked: Job) -> Result:
    """Run a job in this process, and return what it left as its result."""
    folder = host.spool.job(asked.id)
    life = folder.create(asked)
    assert life is not None
    run_job(host, asked, folder, life)
    life.release()
    state = folder.state()
    assert isinstance(state, Result)
    return state


def state(
    serial: int = 1, *, lineage: str = LINEAGE, outputs: Mapping[str, Any] | None = None, tainted: str = ""
) -> bytes:
    """A state file. `outputs`: a value, or (value,) for a sensitive one. `tainted` names an object that is so."""
    said = {
        name: {"value": value[0], "type": "string", "sensitive": True} if isinstance(value, tuple) else {"value": value}
        for name, value in (outputs or {}).items()
    }
    instance: dict[str, Any] = {"attributes": {}} | ({"status": "tainted"} if tainted else {})
    resources = [{"mode": "managed", "type": "thing", "name": tainted or "this", "instances": [instance]}]
    document = {"version": 4, "serial": serial, "lineage": lineage, "outputs": said, "resources": resources}
    return json.dumps(document).encode()


def applied(version: str = "1.0.0", **words: Any) -> Applied:
    """What was applied to a unit, at some time."""
    digest = Digest("sha256:" + "0" * 64)
    facts: dict[str, Any] = {
        "job": JobId("job-0"),
        "commit": Commit("c" * 40),
        "at": NOW,
        "fingerprint": Fingerprint(digest, digest, digest, digest),
        "module": "acme/note",
        "version": version,
        "presence": Presence.PRESENT,
        "reads": frozenset(),
        "outputs": {},
        "state": StateMark(LINEAGE, 1),
    }
    return Applied(**(facts | words))


def remembered(unit: str, **words: Any) -> UnitMemory:
    """The memory of a unit that was applied once."""
    facts: dict[str, Any] = {"unit": UnitId(unit), "applied": applied(), "mark": StateMark(LINEAGE, 1)}
    return UnitMemory(**(facts | words))


def put(path: Path, data: bytes) -> None:
    """Write a file, and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)

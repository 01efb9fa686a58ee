"""Warm workers of the wheel's library, beside whatever engine is under test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ConfigError
from reconciler.runner.host import Host
from reconciler.runner.jail.tier import NONE, STRICT
from reconciler.runner.terraform.binary import Engine, embedded_library
from reconciler.runner.terraform.engine import Conversation, lasting_environment
from reconciler.runner.terraform.initialized import Initialized, lay_out
from reconciler.runner.terraform.sealed import seal
from reconciler.runner.terraform.state import WORK_STATE
from reconciler.runner.terraform.workspace import VALUES_FILE
from reconciler.runner.warm.beside import Beside
from reconciler.runner.warm.broker import STATUS
from reconciler.runner.warm.loan import Loan, Seat
from reconciler.runner.warm.spec import Spec
from reconciler.runner.warm.start import Started, Starter
from reconciler.runner.warmly import BACKEND, CONFIGURED
from tests.kit.jails import yard
from tests.kit.terraform import until

VERSION = "1.15.5"  # of Terraform in the wheel that requirements/dev.txt pins


def library() -> Path:
    """The wheel's library; the test is skipped, and says why, where there is no wheel."""
    try:
        return embedded_library()
    except ConfigError as error:
        pytest.skip(f"no warm workers here: {error}")


def config(**more: Any) -> dict[str, Any]:
    """What runner.yaml says of them."""
    found = library()
    return {"version": VERSION, "sha256": seal(found).sha256, **more}


@contextmanager
def brokered(host: Host) -> Iterator[Beside]:
    """A broker beside this process, as the runner's service has one; jobs of the host ask it meanwhile."""
    beside = Beside(host.warmth)
    beside.start(lambda: None)
    host.door = beside.door
    try:
        yield beside
    finally:
        host.door = None
        beside.finish()


def pool(host: Host) -> Mapping[str, int]:
    """What the broker says of its workers."""
    assert host.warmth is not None
    try:
        return dict(json.loads((host.warmth.home / STATUS).read_bytes()))
    except FileNotFoundError:
        return {}


def until_pool(host: Host, **counts: int) -> None:
    """Wait until the broker says these numbers."""
    until(lambda: counts.items() <= pool(host).items(), f"the pool comes to {counts}, and is at {pool(host)}")


def programs(host: Host) -> list[int]:
    """The processes that run a worker's program, the outermost of each jail among them."""
    assert host.warmth is not None
    return programs_below(host.warmth.home)


def programs_below(home: Path) -> list[int]:
    """The same, of a runner whose workers are there."""
    return [
        pid for pid, words in _running() if os.fsencode(home) in words and b"reconciler.runner.warm.inside" in words
    ]


def end(pids: list[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        os.kill(pid, number)


def _running() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes()
        except OSError:
            continue


@dataclass
class Bench:
    """One worker in a jail of a tier, or without one, and a root for it."""

    folder: Path
    started: Started
    seat: Seat
    root: dict[str, Any] = field(default_factory=dict)

    @property
    def inside(self) -> Path:
        """The worker's own folder."""
        return self.started.folder / "work"

    @property
    def errors(self) -> str:
        return (self.started.folder / "errors").read_text()

    def talk(self, **resources: Any) -> Conversation:
        """A conversation in a fresh root with these resources of `terraform_data`, and the state of before."""
        root = {"terraform": {"backend": {"local": {"path": WORK_STATE}}}, "resource": {"terraform_data": resources}}
        (self.seat.folder / "main.tf.json").write_text(json.dumps(root))
        (self.seat.folder / VALUES_FILE).write_text("{}")
        shutil.rmtree(self.seat.folder / ".terraform", ignore_errors=True)
        lay_out(Initialized({"Modules": []}, CONFIGURED), self.seat.folder, BACKEND, {})
        engine = Engine("terraform", Path("/not/started"), VERSION, "registry.terraform.io")
        return Conversation(engine, self.seat.folder, {}, self.folder / "log", jail=self.seat)

    def clean(self) -> None:
        """As the broker has it cleaned between two jobs."""
        control = self.started.control
        control.settimeout(30)
        control.send(b'{"do": "clean", "nonce": "n"}')
        assert json.loads(control.recv(1000)) == {"clean": "n"}
        control.settimeout(None)

    def left(self) -> list[str]:
        """What is in the worker's folder."""
        return sorted(path.relative_to(self.inside).as_posix() for path in self.inside.rglob("*"))


@contextmanager
def worker(tier: str, owned: Mapping[str, str] | None = None, mirror: Path | None = None) -> Iterator[Bench]:
    """A worker of a tier, or of none. Skips, and says why, where the machine has not that tier."""
    found = library()
    with yard(tier if tier != NONE else STRICT) as ground:
        for name in ("home", "trees", "mirror"):
            (ground.folder / name).mkdir(mode=0o755)
        (ground.folder / "job").mkdir()
        spec = Spec(
            ("prod",), (), mirror or ground.folder / "mirror", ground.folder / "trees", lasting_environment({}),
            owned=owned or {},
        )  # fmt: skip
        sandbox = None if tier == NONE else ground.sandbox
        started = Starter(ground.folder / "home", found, sandbox).start(spec, 1)
        owner, owned_by = socket.socketpair()
        try:
            yield Bench(ground.folder, started, Seat(Loan(spec, 1, started.control, owner), ground.folder / "job"))
        finally:
            started.end()
            started.bury()
            owner.close()
            owned_by.close()

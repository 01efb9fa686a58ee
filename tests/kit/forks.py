"""Planes that start at once: `tests.kit.fork_server` has imported them already, and forks.

Two seconds of imports are most of what it costs to start a plane, and tests start hundreds. What runs is the same program, in a
process of its own; only its command line is another's. A house starts its planes as production does where it puts words before
theirs, and where its test takes the fixture `plain_planes`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, cast

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUICK: ForkServer | None = None  # where houses have their planes from


class Plane(Protocol):
    """A process, with the part of `subprocess.Popen` that tests use."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


@dataclass(slots=True)
class ForkServer:
    """`tests.kit.fork_server`: runs from the first start on."""

    process: subprocess.Popen[str] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def start(
        self,
        words: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        first: str = "",
        told: Mapping[str, str] | None = None,
    ) -> Process:
        """`reconciler WORDS`, in this folder, its output at the end of the log. `first`: MODULE:FUNCTION, is called before with `told`."""
        about = {"words": words, "log": str(log), "first": first, "told": told or {}}
        pid = self.ask(
            {**about, "cwd": str(Path.cwd()), "environment": dict(os.environ if environment is None else environment)}
        )
        return Process(self, pid, os.pidfd_open(pid))

    def ask(self, order: Mapping[str, Any]) -> int:
        with self.lock:
            if self.process is None:
                argv, pipe = [sys.executable, "-m", "tests.kit.fork_server"], subprocess.PIPE
                self.process = subprocess.Popen(
                    argv, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, start_new_session=True
                )
            asked, answers = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
            asked.write(json.dumps(order) + "\n")
            asked.flush()
            return int(answers.readline())

    def end(self) -> None:
        if self.process is not None:
            self.process.communicate()  # its input ends, and so does it


@dataclass(slots=True)
class Process:
    """A child of the fork server."""

    server: ForkServer
    pid: int
    handle: int
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self.handle], [], [], 0)[0]:
            self.returncode = self.server.ask({"wait": self.pid})
            os.close(self.handle)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self.handle], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a plane", timeout or 0)
        return cast("int", self.poll())

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self.handle, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer()
    try:
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session", autouse=True)
def quick_planes() -> Iterator[ForkServer]:
    """Every house of the session has its planes from one fork server."""
    global QUICK  # noqa: PLW0603 - where a house is made, no fixture reaches
    with fork_server() as QUICK:
        yield QUICK
    QUICK = None


@pytest.fixture
def plain_planes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planes are started as they are in production."""
    monkeypatch.setattr(sys.modules[__name__], "QUICK", None)

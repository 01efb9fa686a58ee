"""Both planes of a playground as real processes, and how people look at them: the API and the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

from reconciler.config import load_runner
from reconciler.demo.playground import Playground
from reconciler.durable import is_locked
from reconciler.errors import ConfigError, PassError

T = TypeVar("T")
Row = Mapping[str, Any]  # a unit of the API

PACE = 0.1  # seconds between two looks
START_SECONDS = 60.0
END_SECONDS = 120.0  # a job that runs when the planes end is let to its own end
LAST_WORDS = 20.0  # seconds that a daemon which answers no more has to end
TAIL = 25  # lines of a log that are shown when something went wrong

_open = build_opener(ProxyHandler({})).open  # 127.0.0.1 is behind nobody's proxy


class Planes:
    """`reconciler run --with-runner` on a playground's configurations."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What both planes print."""
        return self.playground.logs / "reconciler.log"

    @property
    def environment(self) -> dict[str, str]:
        """How the command line finds this daemon."""
        return {
            "RECONCILER_SERVER": self.playground.address,
            "RECONCILER_ADMIN_SOCKET": str(self.playground.runtime / "admin.sock"),
        }

    def start(self) -> None:
        """Start, and return when the daemon and its runner answer.

        Raises:
            ConfigError: they ended instead.
        """
        config, runner = self.playground.controller_config, self.playground.runner_config
        argv = [sys.executable, "-m", "reconciler", "run", "--config", str(config), "--with-runner", str(runner)]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for this process, which then ends the planes in order.
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), start_new_session=True
            )
        self.until(self._ready, "the daemon answers", START_SECONDS)

    def stop(self) -> None:
        """End both planes in order, and return when no job of theirs runs any more.

        Raises:
            PassError: a job did not end.
        """
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()  # it ends its runner too, and waits for neither network nor jobs
        self._process = None
        deadline = time.monotonic() + END_SECONDS
        while running := list(self._jobs()):
            if time.monotonic() > deadline:
                raise PassError("JobsRunning", f"jobs still run: {', '.join(map(str, running))}; see log.txt in them")
            time.sleep(PACE)

    def until(self, happened: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
        """Wait for an event and return its truthy value.

        Raises:
            ConfigError: it did not happen in time, or the daemon ended.
        """
        deadline = time.monotonic() + seconds
        while not (found := self._asked(happened, what)):
            self._check_alive(what)
            if time.monotonic() > deadline:
                raise ConfigError(f"not within {seconds:g} s: {what}")
            time.sleep(PACE)
        return found

    def _asked(self, happened: Callable[[], T | None], what: str) -> T | None:
        try:
            return happened()
        except ConfigError:
            with suppress(subprocess.TimeoutExpired):  # no answer, perhaps because it is just ending
                if self._process is not None:
                    self._process.wait(LAST_WORDS)
            self._check_alive(what)
            raise

    def _check_alive(self, what: str) -> None:
        code = self._process.poll() if self._process is not None else None
        if code is not None:
            raise ConfigError(f"the daemon ended with code {code} before this: {what}")

    # --- looking

    def get(self, path: str) -> Any:
        """An answer of the API. Raises ConfigError where there is none."""
        try:
            with _open(self.playground.address + path, timeout=10) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise ConfigError(f"{path}: {error.read().decode(errors='replace')[:300]}") from error
        except (URLError, OSError) as error:
            raise ConfigError(f"{self.playground.address}{path}: {error}") from error

    def units(self) -> dict[str, Row]:
        """Every unit by its id."""
        return {row["unit"]: row for row in self.get("/api/v1/units?limit=1000")["units"]}

    def unit(self, name: str) -> Row:
        """All about one unit."""
        found: Row = self.get(f"/api/v1/units/{quote(name)}")
        return found

    def events(self, since: int = 0) -> list[Row]:
        """The journal's events after a number, oldest first (at most a thousand)."""
        found = self.get("/api/v1/history?limit=1000")["events"]
        return [event for event in reversed(found) if event["seq"] > since]

    def mark(self) -> int:
        """The number of the newest event."""
        return max((event["seq"] for event in self.get("/api/v1/history?limit=1")["events"]), default=0)

    def dispatched(self, since: int) -> list[Row]:
        """The jobs that were begun after an event: `{job, cause, ...}`."""
        return [e["body"]["dispatched"] for e in self.events(since) if e["action"] == "job-dispatched"]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this daemon, to its end."""
        argv = [sys.executable, "-m", "reconciler", *words]
        env = {**_environment(), **self.environment}
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)

    def tail(self) -> str:
        """The log's last lines."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-TAIL:])

    def _ready(self) -> bool:
        try:
            return bool(self.get("/readyz")["ready"])
        except ConfigError:
            return False

    def _jobs(self) -> Iterator[Path]:
        """The folders of jobs of which any process lives, the engine's own included."""
        spool = load_runner(self.playground.runner_config).memory_path / "spool"
        for lock in spool.glob("*/lock"):
            if is_locked(lock):
                yield lock.parent


def _environment() -> dict[str, str]:
    """This process's own, without settings that are meant for other daemons."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}


@contextmanager
def running(playground: Playground) -> Iterator[Planes]:
    """Both planes for as long as the block lasts."""
    planes = Planes(playground)
    try:
        planes.start()
        yield planes
    finally:
        planes.stop()

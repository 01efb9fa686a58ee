"""A playground with both planes running in it, as real processes that can be stopped, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler import wire
from reconciler.demo.example import Releases
from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.errors import PassError
from tests.kit import forks
from tests.kit.forks import Plane

PATIENCE = 60.0  # seconds
LOOK_AGAIN = 0.03, 0.2  # seconds between two looks, at first and at last: each costs what is looked at some of its time
# One client for all: each new one would load the system's authorities, which takes longer than what is asked. No
# connection is kept: who answers may be killed and started again.
ASKING = httpx.Client(verify=False, trust_env=False, timeout=20, limits=httpx.Limits(max_keepalive_connections=0))  # noqa: S501 - plain HTTP of this host
Json = dict[str, Any]


@dataclass(slots=True)
class House:
    """A playground and its processes. `environment` is added to theirs; `before` are the words in front of each one's."""

    ground: Playground
    environment: Mapping[str, str] = field(default_factory=dict)
    before: dict[str, Sequence[str]] = field(default_factory=dict)
    controller: Plane | None = None
    runner: Plane | None = None
    listens: str = ""

    # --- processes

    def start(self) -> None:
        """Start whatever does not run, and wait until the controller answers."""
        self.start_runner()
        self.start_controller()

    def start_runner(self) -> None:
        """Start the runner, and wait until it listens."""
        if self.runner is None or self.runner.poll() is not None:
            self.runner = self._spawn("runner", "runner", "serve", "--config", str(self.ground.runner_config))
            self.until(self._runner_answers, "the runner answers")

    def _runner_answers(self) -> bool:
        with suppress(PassError):  # the socket of one that was killed is still there
            return bool(wire.ask(self.ground.runtime / "runner.sock", {"verb": "describe"}))
        return False

    def start_controller(self) -> None:
        """Start the controller, and wait until it answers."""
        if self.controller is None or self.controller.poll() is not None:
            self.controller = self._spawn("controller", "run", "--config", str(self.ground.controller_config))
            self.until(lambda: self.get("/api/v1/status"), "the controller answers")

    def _spawn(self, name: str, *words: str) -> Plane:
        path, environment, before = (
            self.ground.logs / f"{name}.log",
            {**os.environ, **self.environment},
            self.before.get(name),
        )
        if forks.QUICK is not None and before is None:
            return forks.QUICK.start(words, path, environment)
        with path.open("ab") as log:
            return subprocess.Popen(
                [*(before or ()), sys.executable, "-m", "reconciler", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )

    def stop(self, patience: float = PATIENCE) -> None:
        """End both in order: running applies end first."""
        for process in (self.controller, self.runner):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in (self.controller, self.runner):
            if process is not None:
                process.wait(patience)
        self.controller = self.runner = None

    def kill(self, which: str) -> None:
        """kill -9 the `controller` or the `runner`."""
        process: Plane | None = getattr(self, which)
        if process is not None:
            process.kill()
            process.wait(PATIENCE)
            setattr(self, which, None)

    # --- what can be seen

    @property
    def address(self) -> str:
        """Where the controller listens: read once, since it is asked for at every look."""
        if not self.listens:
            self.listens = self.ground.address
        return self.listens

    def get(self, path: str) -> Json:
        """An answer of the controller's API."""
        answer = ASKING.get(f"{self.address}{path}")
        found: Json = answer.json()
        return found

    def text(self, path: str) -> str:
        """An answer of the controller's that is no JSON."""
        return ASKING.get(f"{self.address}{path}").text

    def unit(self, unit: str) -> Json:
        """All that is known of a unit; empty while it is unknown."""
        answer = ASKING.get(f"{self.address}/api/v1/units/{unit}")
        found: Json = answer.json() if answer.status_code == 200 else {}
        return found

    def units(self) -> list[Json]:
        """The status of every unit."""
        found: list[Json] = []
        while True:
            page = self.get(f"/api/v1/units?limit=500&offset={len(found)}")
            found += page["units"]
            if not page["units"] or len(found) >= page["total"]:
                return found

    def head(self) -> str:
        """The accepted head."""
        return str(self.get("/api/v1/status")["commit"])

    def calls(self) -> list[Json]:
        """The provider's log of every call: the oracle."""
        log = self.ground.world / "calls.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    # --- waiting

    def until(self, holds: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
        """Wait for an event and return what it is; fail with the logs' tails when it does not come."""
        deadline, pause = time.monotonic() + patience, LOOK_AGAIN[0]
        while time.monotonic() < deadline:
            with suppress(httpx.HTTPError, KeyError, json.JSONDecodeError):
                if found := holds():
                    return found
            time.sleep(pause)  # a poll, not a wait: the deadline is the wait
            pause = min(1.1 * pause, LOOK_AGAIN[1])
        pytest.fail(f"it never came true within {patience} s that {what}\n{self.tails()}")

    def synced(self, *units: str, commit: str | None = None, patience: float = PATIENCE) -> None:
        """Wait until the units (all, if none is named) are Synced and Healthy at the commit, or at the newest one."""
        wanted = commit or self.ground.environments.head

        def in_order() -> bool:
            if self.get("/api/v1/status")["resolved"] != wanted:  # accepted is not enough: units may be those of before
                return False
            found = [u for u in self.units() if not units or u["unit"] in units]
            return len(found) >= max(len(units), 1) and all(
                (u["sync"], u["health"]) == ("Synced", "Healthy") for u in found
            )

        self.until(in_order, f"{units or 'all'} are Synced at {wanted[:12]}", patience)

    def held(self, unit: str, reason: str, saying: str = "", patience: float = PATIENCE) -> Json:
        """Wait until the unit shows this reason, with these words in its message, and return all that is known of it."""

        def shown() -> Json | None:
            one = self.unit(unit)
            return one if one and one.get("reason") == reason and saying in (one["message"] or "") else None

        found: Json = self.until(shown, f"{unit} shows {reason} {saying}", patience)
        return found

    def tails(self) -> str:
        """The ends of the logs, and every unit's status."""
        texts = [
            f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in sorted(self.ground.logs.glob("*.log"))
        ]
        with suppress(httpx.HTTPError, KeyError, json.JSONDecodeError):
            texts.append(
                "\n".join(f"{u['unit']} {u['sync']} {u['health']} {u['reason']} {u['message']}" for u in self.units())
            )
        return "\n".join(texts)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `reconciler` as a person would."""
        env = {
            **os.environ,
            **self.environment,
            "RECONCILER_SERVER": self.ground.address,
            "RECONCILER_ADMIN_SOCKET": str(self.ground.runtime / "admin.sock"),
        }
        argv: Sequence[str] = [sys.executable, "-m", "reconciler", *words]
        return subprocess.run(argv, capture_output=True, text=True, env=env, timeout=PATIENCE, check=False)


@contextmanager
def house(
    folder: Path,
    entries: Files | None = None,
    catalog: Releases | None = None,
    *,
    controller: Json | None = None,
    runner: Json | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[House]:
    """A house with nothing running yet; at the end nothing runs any more."""
    ground = Playground.create(folder, entries, catalog, controller=controller, runner=runner)
    built = House(ground, environment or {})
    try:
        yield built
    finally:
        built.stop()
        ground.close()

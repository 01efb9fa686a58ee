"""Jobs on this host: a client of the runner's socket."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler import codec, wire
from reconciler.errors import PassError
from reconciler.model import Job, JobId, Load, Phase, Result, RunnerFacts
from reconciler.ports import Lost, Running

RECONNECT = 1.0  # seconds between two tries to hear from a runner that went away


class LocalExecutor:
    """The runner behind a unix socket. Implements `ports.Executor`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopped = threading.Event()
        self._listener: threading.Thread | None = None

    def start(self, job: Job) -> None:
        """See `Executor`."""
        wire.ask(self._path, {"verb": "start", "job": codec.encode(job).decode()})

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        """See `Executor`."""
        answer = wire.ask(self._path, {"verb": "poll", "job": job_id})
        with self._understood("poll"):
            match answer["state"]:
                case "result":
                    return codec.decode(Result, str(answer["result"]).encode())
                case "running":
                    return Running(Phase(str(answer["phase"])), _load(answer.get("load")))
                case _:
                    return Lost(applying=bool(answer["applying"]), died=str(answer.get("died", "")))

    def phases(self, job_id: JobId) -> Sequence[tuple[Phase, datetime]]:
        """The phases that the job went through, and when each began. Raises PassError when the runner does not answer."""
        answer = wire.ask(self._path, {"verb": "poll", "job": job_id})
        with self._understood("poll"):
            said: Any = answer.get("phases", [])
            return [(Phase(str(phase)), datetime.fromisoformat(str(at))) for phase, at in said]

    def cancel(self, job_id: JobId) -> None:
        """See `Executor`."""
        wire.ask(self._path, {"verb": "cancel", "job": job_id})

    def lead(self, fence: int) -> None:
        """See `Executor`."""
        wire.ask(self._path, {"verb": "lead", "fence": fence})

    def describe(self) -> RunnerFacts:
        """See `Executor`."""
        answer = wire.ask(self._path, {"verb": "describe"})
        with self._understood("describe"):
            return codec.decode(RunnerFacts, str(answer["facts"]).encode())

    def log(self, job_id: JobId, offset: int) -> bytes:
        """See `Executor`."""
        answer = wire.ask(self._path, {"verb": "log", "job": job_id, "offset": offset})
        with self._understood("log"):
            return base64.b64decode(str(answer["data"]))

    def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever a job ends, from a thread of its own, until `close`."""
        self._listener = threading.Thread(target=self._listen, args=(wake,), name="runner-events", daemon=True)
        self._listener.start()

    @property
    def place(self) -> str:
        """Where the runner is, and what to look at where it does not answer."""
        return f"on {self._path}; start it with `reconciler runner serve`."

    def trouble(self) -> str:
        """What keeps jobs waiting that were handed over: nothing, on this host."""
        return ""

    def close(self) -> None:
        """Stop listening."""
        self._stopped.set()
        if self._listener is not None:
            self._listener.join(timeout=2 * RECONNECT)

    @contextmanager
    def _understood(self, verb: str) -> Iterator[None]:
        """An answer that is not what this version knows is the runner's fault, not the end of the daemon."""
        try:
            yield
        except (ValueError, KeyError) as error:
            what = f"{self._path}: the runner's answer to `{verb}` is not understood: {error!r}"
            raise PassError("AnswerInvalid", f"{what}; let the runner and the controller be of one version.") from error

    def _listen(self, wake: Callable[[], None]) -> None:
        while not self._stopped.is_set():
            try:
                self._follow(wake)
            except OSError:
                self._stopped.wait(RECONNECT)

    def _follow(self, wake: Callable[[], None]) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(RECONNECT)
            peer.connect(str(self._path))
            wire.send(peer, {"verb": "watch"})
            wake()  # whatever ended while nobody listened
            while not self._stopped.is_set():
                try:
                    if not peer.recv(4096):
                        raise ConnectionResetError
                except TimeoutError:
                    continue
                wake()


def _load(said: Any) -> Load:
    """What the runner measured; one of an older version measures nothing. Raises ValueError."""
    return Load() if said is None else codec.decode(Load, json.dumps(said))

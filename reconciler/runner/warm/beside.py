"""The runner's side: what its host's configuration makes of workers, and the broker's process beside the service."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from reconciler.config.runner import Warm
from reconciler.errors import ConfigError
from reconciler.runner.jail.tier import FALLBACK, TASK, Sandbox
from reconciler.runner.terraform.binary import Engine, embedded_library, sealed_library
from reconciler.runner.terraform.sealed import Sealed, intact
from reconciler.runner.warm.broker import Broker, own_home
from reconciler.runner.warm.loan import Door
from reconciler.runner.warm.pool import Limits
from reconciler.runner.warm.start import Starter, remove_home

AT_THE_END = 10.0  # seconds that the broker may take to end its workers
AGAIN = 1.0  # seconds until the next one, after one that died
FIRST_TO_GO = b"500"


@dataclass(frozen=True, slots=True)
class Warmth:
    """What workers are made of here: the library, proven by its digest, in these jails, below `home`."""

    library: Sealed
    version: str
    limits: Limits
    home: Path
    sandbox: Sandbox | None
    own_providers: frozenset[str]

    def usable(self) -> bool:
        """Whether the library is still what it was. A stat, as long as nothing is."""
        try:
            return intact(self.library)
        except OSError:
            return False


def open_warmth(config: Warm, engine: Engine, sandbox: Sandbox | None, home: Path) -> Warmth:
    """Raises ConfigError: no worker can be had on this host, or the library is not the one that was pinned."""
    if sys.platform != "linux":
        raise ConfigError("warm: workers take Linux; remove `warm` from runner.yaml.")
    if engine.product != "terraform":
        raise ConfigError("warm: the library is Terraform, and the engine is OpenTofu; remove `warm` from runner.yaml.")
    if sandbox is not None and sandbox.tier == TASK:
        raise ConfigError("warm: in tier task each job is a task of its own; remove `warm` from runner.yaml.")
    library = sealed_library(config.library or embedded_library(), config.sha256)
    limits = Limits(
        config.workers, config.jobs, config.age.total_seconds(), config.idle.total_seconds(), config.memory << 20
    )
    own = frozenset(config.own_providers)
    if own and sandbox is not None and sandbox.tier == FALLBACK:
        raise ConfigError("warm.own_providers: they take tier strict, or no sandbox; remove it from runner.yaml.")
    return Warmth(library, config.version, limits, home, sandbox, own)


class Beside:
    """The service's side: starts the broker, again should it die, and lets it come to its end."""

    def __init__(self, warmth: Warmth | None) -> None:
        self._warmth = warmth
        self.pid: int | None = None  # the broker's
        self.door: Door | None = None

    def start(self, let_go: Callable[[], None], delay: float = 0.0) -> None:
        """Begin, where the host has workers. `let_go` is called in the new process: it keeps nothing of the service's."""
        if self._warmth is None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            ours.close()
            _become(self._warmth, theirs, let_go, delay)
        theirs.close()
        self.pid, self.door = pid, Door(ours)

    def reap(self, let_go: Callable[[], None]) -> None:
        """Start it again if it has died."""
        if self.pid is not None and os.waitpid(self.pid, os.WNOHANG)[0] == self.pid:
            self.pid = None
            self.let_go()
            self.start(let_go, AGAIN)

    def finish(self) -> None:
        """Nobody asks any more: let it end."""
        self.let_go()
        deadline = time.monotonic() + AT_THE_END
        while self.pid is not None and time.monotonic() < deadline:
            if os.waitpid(self.pid, os.WNOHANG)[0] == self.pid:
                self.pid = None
            else:
                time.sleep(0.02)
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)  # its workers die with it

    def let_go(self) -> None:
        """Close what holds the broker: in a process that is not the service, or at its end."""
        if self.door is not None:
            self.door.asks.close()
            self.door = None


def _become(warmth: Warmth, asks: socket.socket, let_go: Callable[[], None], delay: float) -> NoReturn:
    """Be the broker's process: never returns."""
    try:
        gc.freeze()
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number in (signal.SIGTERM, signal.SIGINT):  # it ends when the last job has
            signal.signal(number, signal.SIG_IGN)
        let_go()
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_bytes(FIRST_TO_GO)
        time.sleep(delay)
        _serve(warmth, asks)
    except BaseException:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _serve(warmth: Warmth, asks: socket.socket) -> None:
    home, life = own_home(warmth.home)
    try:
        Broker(Starter(home, warmth.library.path, warmth.sandbox), warmth.limits, asks).serve()
    finally:
        remove_home(home)
        life.path.unlink(missing_ok=True)
        life.release()

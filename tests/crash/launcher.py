"""Lets the processes of planes die, or fail, at named points: `prepare` is the first thing that a plane does.

Nothing in the product knows of it: the points are functions that are wrapped here, after the fork. What shall happen, and
where, stands in a file that every process looks at when it is at a point: so processes that live for long get new orders
without being started again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crash.clock import put_wrong

PR_SET_PDEATHSIG = 1
EVERY = "*"  # as a point: nothing happens at any, and all of them are tallied by name


@dataclass(frozen=True, slots=True)
class Order:
    """What happens, and when: the `nth` time that any process of the role reaches the point.

    `number` tells orders apart: the tally of each counts over processes and restarts, so that nobody dies twice. `how` is
    `die`, an error's name (ENOSPC) or `sqlite`: then the call fails with it, once or, with `lasting`, from then on.
    """

    number: int
    role: str  # controller, runner (the service), job (the process forked for a job), engine, provider
    point: str  # function:before or function:after
    nth: int
    how: str = "die"
    lasting: bool = False

    def write(self, path: Path) -> None:
        """Give the order to every process that looks at the file."""
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps({name: getattr(self, name) for name in self.__slots__}), encoding="utf-8")
        draft.replace(path)

    @property
    def word(self) -> str:
        """What the error says, and nobody else."""
        return f"{self.how} by order {self.number}"

    def error(self) -> Exception:
        """How the call fails."""
        if self.how == "sqlite":
            return sqlite3.OperationalError(f"database or disk is full ({self.word})")
        return OSError(getattr(errno, self.how), self.word)

    def tally(self, orders: Path) -> Path:
        """Where is counted how often the point was reached."""
        return orders.with_name(f"tally.{self.number}")

    def carried_out(self, orders: Path) -> Path:
        """There, once it has happened."""
        return orders.with_name(f"tally.{self.number}.done")


@dataclass(slots=True)
class Fate:
    """What this process is, and the orders as it read them last."""

    role: str
    orders: Path
    seen: tuple[int, int] = (0, 0)
    order: Order | None = None

    def reach(self, point: str) -> None:
        """This process is at the point. It may not come back from here."""
        order = self._newest()
        if order is None:
            return
        if order.point == EVERY:
            with order.tally(self.orders).open("a", encoding="utf-8") as tally:
                tally.write(f"{self.role} {point}\n")
        elif (self.role, point) == (order.role, order.point) and self._is_due(order):
            if order.how != "die":
                raise order.error()
            self.die()
            signal.pause()

    def die(self) -> None:
        """The end, at once."""
        os.kill(os.getpid(), signal.SIGKILL)

    def _newest(self) -> Order | None:
        try:
            found = os.stat(self.orders)  # noqa: PTH116 - a tenth of the time, and this runs at every fsync
        except FileNotFoundError:
            return None
        if (found.st_ino, found.st_mtime_ns) != self.seen:
            self.order = Order(**json.loads(self.orders.read_bytes()))
            self.seen = (found.st_ino, found.st_mtime_ns)
        return self.order

    def _is_due(self, order: Order) -> bool:
        with order.tally(self.orders).open("ab") as tally:
            fcntl.flock(tally, fcntl.LOCK_EX)
            tally.write(b".")
            tally.flush()
            reached = os.fstat(tally.fileno()).st_size
        due = reached == order.nth or (order.lasting and reached > order.nth)
        if due:
            order.carried_out(self.orders).touch()
        return due


def wrap(fate: Fate, owner: Any, name: str, label: str) -> None:
    """Make a function two points: before it runs, and after it returned."""
    real: Callable[..., Any] = getattr(owner, name)

    def passing(*args: Any, **kwargs: Any) -> Any:
        fate.reach(f"{label}:before")
        value = real(*args, **kwargs)
        fate.reach(f"{label}:after")
        return value

    setattr(owner, name, passing)


def wrap_fork(fate: Fate) -> None:
    """A child is the job's process; that it began is a point of its own."""
    real = os.fork

    def forking() -> int:
        fate.reach("fork:before")
        pid = real()
        if pid == 0:
            fate.role = "job"
            fate.reach("job:begins")
        else:
            fate.reach("fork:after")
        return pid

    os.fork = forking


def arm(fate: Fate) -> None:
    """Wrap every function that is a point. A new one is a line here, and a line in `tests.crash.points`."""
    from reconciler import durable, wire
    from reconciler.controller import daemon
    from reconciler.controller import tick as controller
    from reconciler.controller.poller import Poller
    from reconciler.executor.local import LocalExecutor
    from reconciler.git.mirror import Mirror
    from reconciler.git.pinned import CatalogStore
    from reconciler.git.source import EnvironmentsSource
    from reconciler.runner import case, readying, service
    from reconciler.runner.audit.log import Writer
    from reconciler.runner.history import History
    from reconciler.runner.host import Host
    from reconciler.runner.memory import Memory
    from reconciler.runner.record import Recorder
    from reconciler.runner.service import Service
    from reconciler.runner.spool import JobFolder
    from reconciler.runner.terraform.engine import Conversation
    from reconciler.runner.terraform.process import Command
    from reconciler.runner.terraform.state import LocalBackend
    from reconciler.runner.terraform.templates import Templates
    from reconciler.store.sqlite import SqliteStore

    points: list[tuple[Any, str, str]] = [
        (os, "fsync", "fsync"),
        (os, "replace", "replace"),
        (durable, "sync_folder", "sync-folder"),
        (wire, "send", "send"),
        (wire, "receive", "receive"),
        (Poller, "poll", "poll"),
        (daemon, "tick", "tick"),
        (controller, "_end", "end-job"),
        (LocalExecutor, "start", "start"),
        (LocalExecutor, "poll", "ask"),
        (Mirror, "fetch", "fetch"),
        (CatalogStore, "open", "pinned"),
        (EnvironmentsSource, "accept", "accept"),
        (SqliteStore, "append", "append"),
        (SqliteStore, "_write", "transaction"),
        (History, "newest", "history"),
        (Host, "warm", "warm"),
        (Host, "environment", "environment"),
        (Memory, "save", "remember"),
        (Memory, "save_trust", "trust"),
        (Memory, "check_fence", "fence"),
        (Memory, "unit_lock", "unit-lock"),
        (case, "recover", "recover"),
        (case, "take_over", "take-over"),
        (case, "judge", "judge"),
        (Recorder, "intent", "intent"),
        (Recorder, "ended", "ended"),
        (Recorder, "moved", "moved"),
        (Recorder, "head", "head"),
        (Writer, "append", "record"),
        (Writer, "_take", "take"),  # before: the line is on disk, and nothing follows from it yet
        (Service, "_do", "answer"),
        (Service, "_reap", "reap"),
        (service, "tidy", "tidy"),
        (JobFolder, "create", "create"),
        (JobFolder, "begin", "begin"),
        (JobFolder, "end", "end"),
        (JobFolder, "clean", "clean"),
        (JobFolder, "state", "state"),
        (readying, "lay_out", "lay-out"),
        (Conversation, "init", "init"),
        (Templates, "keep", "keep-init"),
        (Conversation, "plan", "plan"),
        (Conversation, "apply", "apply"),
        (Command, "__init__", "engine"),  # after: the engine runs, and its parent is gone
        (LocalBackend, "bring", "bring"),
        (LocalBackend, "put", "take-back"),
        (LocalBackend, "move", "move"),
    ]
    for owner, name, label in points:
        wrap(fate, owner, name, label)
    wrap_fork(fate)


def prepare(role: str, orders: str, clock: str) -> None:
    """What a plane of a falling house does first, in its new process."""
    arm(Fate(role, Path(orders)))
    if (wrong := Path(clock)).exists():
        put_wrong(wrong)

"""Starts the planes in place of `python -m reconciler`, so that one of their processes dies at a named point.

A fork server: `python -m tests.crash.launcher` imports everything once, reads one order a line (JSON) and answers with
the number of the process that it became. Nothing in the product knows of it: the points are functions that are wrapped
here, after the fork, in the process that shall die.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EVERY = "*"  # as a point: die at none, and tally all of them by name


@dataclass(frozen=True, slots=True)
class Death:
    """Which process dies, and when: the `nth` time that any process of its role reaches the point.

    `tally` counts over processes and restarts, so that nobody dies twice; `<tally>.killed` says that it has happened.
    """

    role: str  # controller, runner (the service), job (the process forked for a job, never its engine)
    point: str  # function:before or function:after
    nth: int
    tally: Path


@dataclass(slots=True)
class Fate:
    """What this process is, and how it ends."""

    role: str
    death: Death

    def reach(self, point: str) -> None:
        """This process is at the point. It may not come back from here."""
        if self.death.point == EVERY:
            with self.death.tally.open("a", encoding="utf-8") as tally:
                tally.write(f"{self.role} {point}\n")
        elif (self.role, point) == (self.death.role, self.death.point) and self._is_due():
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()

    def _is_due(self) -> bool:
        with self.death.tally.open("ab") as tally:
            fcntl.flock(tally, fcntl.LOCK_EX)
            tally.write(b".")
            tally.flush()
            due = os.fstat(tally.fileno()).st_size == self.death.nth
        if due:
            Path(f"{self.death.tally}.killed").touch()
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
    """Wrap every function that is a point."""
    from reconciler import wire
    from reconciler.executor.local import LocalExecutor
    from reconciler.git.mirror import Mirror
    from reconciler.git.source import EnvironmentsSource
    from reconciler.runner.audit.log import Writer
    from reconciler.runner.history import History
    from reconciler.runner.memory import Memory
    from reconciler.runner.record import Recorder
    from reconciler.runner.service import Service
    from reconciler.runner.spool import JobFolder
    from reconciler.runner.terraform.engine import Conversation
    from reconciler.runner.terraform.process import Command
    from reconciler.runner.terraform.state import LocalBackend
    from reconciler.store.sqlite import SqliteStore

    points: list[tuple[Any, str, str]] = [
        (os, "fsync", "fsync"),
        (Path, "replace", "replace"),
        (wire, "send", "send"),
        (wire, "receive", "receive"),
        (LocalExecutor, "start", "start"),
        (Mirror, "fetch", "fetch"),
        (EnvironmentsSource, "accept", "accept"),
        (SqliteStore, "append", "append"),
        (SqliteStore, "_write", "transaction"),
        (History, "newest", "history"),
        (Memory, "save", "remember"),
        (Memory, "save_trust", "trust"),
        (Memory, "check_fence", "fence"),
        (Recorder, "intent", "intent"),
        (Recorder, "ended", "ended"),
        (Recorder, "moved", "moved"),
        (Recorder, "head", "head"),
        (Writer, "append", "record"),
        (Writer, "_take", "take"),  # before: the line is on disk, and nothing follows from it yet
        (Service, "_do", "answer"),
        (JobFolder, "create", "create"),
        (JobFolder, "begin", "begin"),
        (JobFolder, "end", "end"),
        (JobFolder, "clean", "clean"),
        (JobFolder, "state", "state"),
        (Conversation, "init", "init"),
        (Conversation, "plan", "plan"),
        (Conversation, "apply", "apply"),
        (Command, "__init__", "engine"),  # after: the engine runs, and its parent is gone
        (LocalBackend, "bring", "bring"),
        (LocalBackend, "take_back", "take-back"),
        (LocalBackend, "move", "move"),
    ]
    for owner, name, label in points:
        wrap(fate, owner, name, label)
    wrap_fork(fate)


def become(order: dict[str, Any]) -> None:
    """Be what was ordered: never returns."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nowhere), (1, log), (2, log)):
        os.dup2(source, target)
    if order["death"] is not None:
        told = order["death"]
        arm(Fate(order["role"], Death(told["role"], told["point"], told["nth"], Path(told["tally"]))))
    from reconciler.cli import main

    sys.argv = ["reconciler", *order["words"]]
    sys.exit(main())


def preload() -> None:
    """Import what either plane imports, before the first fork. Starts no thread."""
    import reconciler.cli.run
    import reconciler.cli.runner
    import reconciler.runner.service  # noqa: F401 - as are those above, for the children


def serve() -> None:
    """Take orders until the end of the input. A dead child keeps its number until the next order."""
    preload()
    for line in sys.stdin:
        while _reaped():
            pass
        pid = os.fork()
        if pid == 0:
            become(json.loads(line))
        print(pid, flush=True)  # noqa: T201 - the answer


def _reaped() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


if __name__ == "__main__":
    serve()

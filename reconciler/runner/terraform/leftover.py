"""An engine that outlives the job that started it: a note says when it must end, and somebody else sees to that.

A job that is killed cannot hold its engine to its deadline any more, and the engine holds the unit's lock. A process is
known by its number and the time of its start, so that no other one which got the number is ever meant. That time is
read from `/proc`; where there is none, nothing is noted and nothing is ended.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from reconciler import codec

NOTE = "engine.json"  # blank unless an engine runs; beside a job's workspace, or in the folder of a fetch
LONGEST = 1024  # bytes of a note, which has some 300; of one length, so that nothing has to be cut off


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `born` is its start in clock ticks since the system's."""

    pid: int
    born: int

    def lives(self) -> bool:
        """Whether it is still the one that has this number."""
        return find(self.pid) == self


@dataclass(frozen=True, slots=True)
class Note:
    """An engine that runs, who holds it to its deadline, and how it is ended: `signal`, then KILL after the grace.

    `deadline` and `asked`, when it got its signal, are `time.time()`; `grace` is seconds.
    """

    engine: Process
    keeper: Process
    step: str
    signal: int
    deadline: float
    grace: float
    asked: float | None = None


def find(pid: int) -> Process | None:
    """The living process of that number; a zombie is none."""
    found = _stat(pid)
    return Process(pid, int(found[19])) if found and found[0] != "Z" else None


def write(path: Path, note: Note) -> None:
    """Leave the note. A disk that is full keeps no engine from its work."""
    _put(path, codec.encode(note))


def forget(path: Path) -> None:
    """The engine has ended. The file stays, for the next one: to make one is what costs."""
    _put(path, b"")


def _put(path: Path, text: bytes) -> None:
    """In place and in one piece: who is killed has written all of it or nothing. It means nothing after a loss of power."""
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, text.ljust(LONGEST), 0)
        finally:
            os.close(handle)


def attend(path: Path, now: float) -> None:
    """End the engine of a job that died, when its time is over: as the job would have, and each step once.

    What is left of the group of an engine that has ended is killed: nothing else will end it, and it holds the locks.
    """
    note = read(path)
    if note is None or note.keeper.lives():
        return
    if not note.engine.lives():
        _kill_rest(note.engine)
    elif note.asked is None and now >= note.deadline:
        write(path, replace(note, asked=now))  # before: an engine that is asked twice drops everything
        with suppress(ProcessLookupError):
            os.kill(note.engine.pid, note.signal)
    elif note.asked is not None and now >= note.asked + note.grace:
        _kill_group(note.engine)


def interrupt(path: Path) -> None:
    """Ask the engine of a job that lives to end now, as its deadline would, and once: everything here is about to be ended."""
    note = read(path)
    if note is not None and note.asked is None and note.engine.lives():
        write(path, replace(note, asked=time.time()))
        with suppress(ProcessLookupError):
            os.kill(note.engine.pid, note.signal)


def read(path: Path) -> Note | None:
    """The note; None: there is none, as no engine runs."""
    try:
        return codec.decode(Note, path.read_bytes())
    except (OSError, ValueError):
        return None


def _kill_rest(engine: Process) -> None:
    """The group's number is its own while one of it lives: where another process has that number, the group is gone."""
    leader = _stat(engine.pid)
    if leader is not None and int(leader[19]) != engine.born:
        return
    if any(int(stat[2]) == int(stat[3]) == engine.pid and int(stat[19]) >= engine.born for stat in _stats()):
        _kill_group(engine)


def _kill_group(engine: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(engine.pid, signal.SIGKILL)


def _stats() -> Iterator[list[str]]:
    for path in Path("/proc").glob("[0-9]*"):
        found = _stat(int(path.name))
        if found:
            yield found


def _stat(pid: int) -> list[str] | None:
    """The fields of a process from its state on: 0 state, 2 group, 3 session, 19 start."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


@cache
def _ourselves(pid: int) -> Process | None:
    """As `find`, of this process; by its number, because a fork is another."""
    return find(pid)


def noted(pid: int, step: str, number: signal.Signals, deadline: float, grace: float) -> Note | None:
    """The note of an engine that this process keeps. `deadline` is `time.monotonic()`."""
    engine, keeper = find(pid), _ourselves(os.getpid())
    if engine is None or keeper is None:
        return None
    return Note(engine, keeper, step, number, time.time() + deadline - time.monotonic(), grace)

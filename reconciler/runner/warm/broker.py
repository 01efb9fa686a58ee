"""The process beside the runner that has the workers. It is expendable: without it every job runs the engine itself.

Jobs ask through a socket that they inherit, each with a connection of its own. While a worker is lent, it is the connection that says whether
its job lives. The broker ends when nobody can ask any more, and its workers with it, however it ends.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler import codec
from reconciler.durable import FileLock, write_atomic
from reconciler.errors import ReconcilerError
from reconciler.runner.warm.loan import LARGEST
from reconciler.runner.warm.pool import Lend, Limits, Make, Pool
from reconciler.runner.warm.spec import Spec
from reconciler.runner.warm.start import Started, Starter, remove_home

CLEAN = 10.0  # seconds that a worker may take to clean up
LOOK = 1.0  # seconds between looks at what has been idle for long
STATUS = "pool.json"  # what the pool is about, for people


@dataclass(slots=True)
class Kept:
    """A worker, its end as a descriptor, what it plans, who has it, and until when it must have cleaned up for whom next."""

    started: Started
    handle: int
    what: str
    owner: socket.socket | None = None
    nonce: str = ""
    deadline: float = float("inf")
    ended: bool = False  # by us


class Broker:
    """Serves `asks` until nobody has its other end."""

    def __init__(
        self, starter: Starter, limits: Limits, asks: socket.socket, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._starter, self._asks, self._clock = starter, asks, clock
        self._pool = Pool(limits)
        self._kept: dict[int, Kept] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(asks, selectors.EVENT_READ, self._asked)
        self._over = False
        self._told, self._tells = "", float("-inf")

    def serve(self) -> None:
        """Return when it is over, with every worker ended."""
        while not self._over:
            for key, _ in self._selector.select(LOOK):
                key.data()
            self._look()
            self._tell()
        for number in list(self._kept):
            self._end(number)
            self._bury(number)

    def _asked(self) -> None:
        said, handles, _, _ = socket.recv_fds(self._asks, LARGEST, 1)
        if not handles:
            self._over = not said
            return
        owner = socket.socket(fileno=handles[0])
        owner.setblocking(False)
        try:
            asked = json.loads(said)
            number = self._found(codec.decode(Spec, asked["spec"].encode()), asked["what"])
        except (ReconcilerError, OSError, ValueError, KeyError) as error:
            sys.stderr.write(f"runner: no worker: {error}\n")
            number = None
        if number is None:
            owner.close()
        else:
            self._lend(number, owner)

    def _found(self, spec: Spec, what: str) -> int | None:
        """The worker for it, made if need be."""
        answer = self._pool.ask(spec.key, what, self._clock())
        if isinstance(answer, Lend):
            self._kept[answer.number].what = what
            return answer.number
        if not isinstance(answer, Make):
            return None
        if answer.instead is not None:
            self._end(answer.instead)
        try:
            self._keep(answer.number, what, self._starter.start(spec, answer.number))
        except BaseException:
            self._pool.gone(answer.number, self._clock(), asked=False)
            raise
        return answer.number

    def _keep(self, number: int, what: str, started: Started) -> None:
        handle = os.pidfd_open(started.child.pid)
        self._kept[number] = Kept(started, handle, what)
        self._selector.register(handle, selectors.EVENT_READ, lambda: self._bury(number))

    def _lend(self, number: int, owner: socket.socket) -> None:
        kept = self._kept[number]
        kept.owner = owner
        self._selector.register(owner, selectors.EVENT_READ, lambda: self._back(number))
        desk = kept.started.desk
        told = json.dumps({"number": number, "token": desk.token if desk else ""}).encode()
        handles = [kept.started.control.fileno(), *([desk.listener.fileno()] if desk else [])]
        with suppress(OSError):  # it is gone already, which the next look at the connection says
            socket.send_fds(owner, [told], handles)

    def _back(self, number: int) -> None:
        """Its job gives it back, or has died."""
        kept = self._kept.get(number)
        if kept is None or kept.owner is None:  # it was buried a moment ago
            return
        said = self._take_back(kept)
        whole = bool(said.get("whole"))
        if not whole or said.get("why"):
            self._fell_back(number, kept, str(said.get("why") or "it died"), lost=not whole)
        self._pool.counts["changes"] += bool(said.get("changes"))
        memory = memory_of(kept.started.child.pid)
        if self._pool.back(number, self._clock(), whole=whole, memory=memory):
            self._clean(number, kept)
        else:
            self._end(number)

    def _fell_back(self, number: int, kept: Kept, why: str, *, lost: bool) -> None:
        sys.stderr.write(f"runner: a job did without worker {number}: {why}\n")
        self._pool.fell_back(self._pool.members[number].key, kept.what, self._clock(), lost=lost)

    def _take_back(self, kept: Kept) -> dict[str, object]:
        assert kept.owner is not None  # noqa: S101 - it was lent
        try:
            said = json.loads(kept.owner.recv(LARGEST) or b"{}")
        except (OSError, ValueError):
            said = {}
        self._selector.unregister(kept.owner)
        kept.owner.close()
        kept.owner = None
        return dict(said)

    def _clean(self, number: int, kept: Kept) -> None:
        control = kept.started.control
        control.setblocking(False)
        kept.nonce, kept.deadline = secrets.token_hex(8), self._clock() + CLEAN
        try:
            control.send(json.dumps({"do": "clean", "nonce": kept.nonce}).encode())
        except OSError:
            self._end(number)
            return
        self._selector.register(control, selectors.EVENT_READ, lambda: self._cleaned(number))

    def _cleaned(self, number: int) -> None:
        kept = self._kept.get(number)
        if kept is None:
            return
        control = kept.started.control
        try:
            fits = json.loads(control.recv(LARGEST)) == {"clean": kept.nonce}
        except (OSError, ValueError):
            fits = False
        self._selector.unregister(control)
        kept.deadline = float("inf")
        control.setblocking(True)
        if kept.ended:
            return
        if fits:
            self._pool.cleaned(number, self._clock())
        else:
            self._end(number)

    def _look(self) -> None:
        now = self._clock()
        late = [number for number, kept in self._kept.items() if now > kept.deadline]
        for number in (*late, *self._pool.due(now)):
            self._end(number)

    def _end(self, number: int) -> None:
        """Kill it. It is buried when it is dead."""
        kept = self._kept[number]
        kept.ended, kept.deadline = True, float("inf")
        kept.started.end()
        self._pool.gone(number, self._clock(), asked=True)

    def _bury(self, number: int) -> None:
        kept = self._kept.pop(number)
        for one in (kept.handle, kept.owner, kept.started.control):
            with suppress(KeyError, ValueError):
                if one is not None:
                    self._selector.unregister(one)
        os.close(kept.handle)
        if not kept.ended:
            said = _last_words(kept.started.folder / "errors")
            sys.stderr.write(f"runner: worker {number} ended by itself: {said}\n")
            if kept.owner is not None:
                self._fell_back(number, kept, "the worker ended", lost=True)
        if kept.owner is not None:
            kept.owner.close()
        kept.started.bury()
        self._pool.gone(number, self._clock(), asked=kept.ended)

    def _tell(self) -> None:
        """For people; a disk that is full stops nothing."""
        stages = [one.stage.value for one in self._pool.members.values()]
        told = json.dumps(
            {"workers": len(stages), "lent_now": stages.count("lent"), **dict(sorted(self._pool.counts.items()))}
        )
        if told != self._told and self._clock() >= self._tells:
            with suppress(OSError):
                write_atomic(self._starter.home.parent / STATUS, told.encode(), durable=False)
            self._told, self._tells = told, self._clock() + LOOK


def memory_of(pid: int) -> int:
    """Bytes that the process has in memory, and all that its first thread has started, and so on: not what a command starts and ends."""
    found, left, page = 0, [pid], os.sysconf("SC_PAGE_SIZE")
    while left:
        here = Path("/proc", str(left.pop()))
        with suppress(OSError, ValueError, IndexError):
            found += int((here / "statm").read_text().split()[1]) * page
            left += map(int, (here / "task" / here.name / "children").read_text().split())
    return found


def _last_words(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()[-500:] or "it said nothing"
    except OSError:
        return "it said nothing"


def own_home(above: Path) -> tuple[Path, FileLock]:
    """A folder for this broker's workers, and the lock that says it lives; those of dead ones are removed."""
    above.mkdir(parents=True, exist_ok=True, mode=0o700)
    for lock in above.glob("*.lock"):
        life = FileLock(lock)
        if life.take():
            remove_home(lock.with_suffix(""))
            lock.unlink(missing_ok=True)
            life.release()
    name = secrets.token_hex(4)
    mine = FileLock(above / f"{name}.lock")
    if not mine.take():
        raise OSError(f"{mine.path} was taken by another")
    home = above / name
    home.mkdir(mode=0o700)
    return home, mine

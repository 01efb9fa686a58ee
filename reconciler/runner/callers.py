"""Those who talk on the runner's socket. None of them can make the service wait: who is slow is cut off."""

from __future__ import annotations

import errno
import math
import selectors
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler import wire
from reconciler.errors import INTERNAL, PassError, bug

LONGEST_REQUEST = 1 << 16  # bytes; the longest that means anything has a few hundred
EXCHANGE_SECONDS = 5.0  # for a caller to say what it wants, and to take the answer
MOST = 200  # callers at once; beyond, whoever has waited longest makes room
CHUNK = 1 << 16

Answer = Callable[[wire.Message], wire.Message]


@dataclass(slots=True, eq=False)
class Caller:
    """One connection: what it has said, what it has still to be told, and until when (`time.monotonic()`)."""

    peer: socket.socket
    until: float
    heard: bytearray = field(default_factory=bytearray)
    untold: bytearray = field(default_factory=bytearray)
    watching: bool = False


class Callers:
    """Every connection. One request each; or the verb `watch`, and then a newline whenever a job ends."""

    def __init__(self, selector: selectors.BaseSelector, answer: Answer, users: frozenset[int]) -> None:
        """`users` may talk here, by the kernel's word; `answer` may raise PassError, which is told to the caller."""
        self._selector, self._answer, self._users = selector, answer, users
        self._callers: dict[Caller, None] = {}  # oldest first

    def accept(self, listener: socket.socket) -> None:
        """Let one more in."""
        try:
            peer, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._make_room()
            return
        peer.setblocking(False)
        if len(self._callers) >= MOST:
            self._make_room()
        caller = Caller(peer, time.monotonic() + EXCHANGE_SECONDS)
        self._callers[caller] = None
        self._selector.register(peer, selectors.EVENT_READ, caller)
        uid = wire.peer_uid(peer)
        if uid not in self._users:
            self._say(
                caller,
                _refusal("NotAllowed", f"user {uid} may not talk to the runner; see controller_uid in runner.yaml."),
            )

    def attend(self, caller: Caller, events: int) -> None:
        """Do what can be done for a caller without waiting."""
        try:
            if caller.untold and events & selectors.EVENT_WRITE:
                self._tell(caller)
            elif events & selectors.EVENT_READ:
                self._hear(caller)
        except OSError:
            self.drop(caller)

    def wake_watchers(self) -> None:
        """Tell whoever watches that a job has ended."""
        for caller in [c for c in self._callers if c.watching]:
            try:
                caller.peer.send(b"\n")
            except BlockingIOError:
                continue  # it has not read the last word yet, and that one will wake it
            except OSError:
                self.drop(caller)

    def expire(self) -> float | None:
        """Cut off whoever took too long. Returns the seconds until the next one would; None: there is nobody to wait for."""
        now = time.monotonic()
        for caller in [c for c in self._callers if c.until <= now]:
            self.drop(caller)
        left = min((c.until for c in self._callers), default=math.inf) - now
        return None if math.isinf(left) else left

    def drop(self, caller: Caller) -> None:
        """Hang up."""
        if caller in self._callers:
            del self._callers[caller]
            self._selector.unregister(caller.peer)
            caller.peer.close()

    def _make_room(self) -> None:
        oldest = next((c for c in self._callers if not c.watching), next(iter(self._callers), None))
        if oldest is not None:
            self.drop(oldest)

    def _hear(self, caller: Caller) -> None:
        try:
            data = caller.peer.recv(CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.drop(caller)
        elif not caller.watching and not caller.untold:
            caller.heard += data
            self._heed(caller)

    def _heed(self, caller: Caller) -> None:
        line, end, _ = caller.heard.partition(b"\n")
        if len(line) > LONGEST_REQUEST:
            self._say(caller, _refusal("BadRequest", f"A request has {LONGEST_REQUEST} bytes at most."))
        elif end:
            self._serve(caller, bytes(line))

    def _serve(self, caller: Caller, line: bytes) -> None:
        try:
            request = wire.unpack(line)
            if request.get("verb") == "watch":
                caller.watching, caller.until = True, math.inf
                return
            answer = self._answer(request)
        except PassError as error:
            answer = _refusal(error.reason, str(error))
        except ValueError as error:
            answer = _refusal("BadRequest", f"That is no request: {error}.")
        except OSError as error:
            answer = _refusal("HostFault", f"The runner's host: {error}.")
        except Exception as error:  # noqa: BLE001 - a request that nobody foresaw ends no service; it is logged whole
            sys.stderr.write(f"runner: a request ended in a bug:\n{traceback.format_exc()}")
            answer = _refusal(INTERNAL, bug(error))
        self._say(caller, answer)

    def _say(self, caller: Caller, message: wire.Message) -> None:
        caller.untold += wire.pack(message)
        self._selector.modify(caller.peer, selectors.EVENT_READ | selectors.EVENT_WRITE, caller)
        self._tell(caller)

    def _tell(self, caller: Caller) -> None:
        """Send what fits; hang up after the last byte."""
        try:
            sent = caller.peer.send(caller.untold)
        except BlockingIOError:
            return
        except OSError:
            sent = len(caller.untold)
        del caller.untold[:sent]
        if not caller.untold:
            self.drop(caller)


def _refusal(reason: str, message: str) -> wire.Message:
    return {"error": message, "reason": reason}

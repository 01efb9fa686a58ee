"""Who is logged in: kept here, in memory, so that a session ends when it is ended; the browser has only its name."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

MOST = 10_000
EACH = 20  # of one person


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has logged in. `subject`: the issuer's name of them; `until`: by the clock of `Sessions`."""

    user: str
    subject: str
    until: float


class Sessions:
    """Every session, by a digest of its name: whoever reads this memory could not use one. Safe to call from any thread."""

    def __init__(self, life: timedelta, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: seconds that no clock set back can make longer."""
        self._life, self._clock = life.total_seconds(), clock
        self._guard = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()  # oldest first

    def begin(self, user: str, subject: str) -> str:
        """A new session's name, which was never told anybody. Where there are too many, the oldest ends."""
        name = secrets.token_urlsafe(32)
        with self._guard:
            now = self._clock()
            while self._sessions and next(iter(self._sessions.values())).until <= now:
                self._sessions.popitem(last=False)
            mine = [key for key, one in self._sessions.items() if one.subject == subject]
            for key in mine[: max(len(mine) - EACH + 1, 0)]:
                del self._sessions[key]
            while len(self._sessions) >= MOST:
                self._sessions.popitem(last=False)
            self._sessions[_digest(name)] = Session(user, subject, now + self._life)
        return name

    def find(self, name: str) -> Session | None:
        """The session of that name, if it has not ended."""
        with self._guard:
            found = self._sessions.get(_digest(name))
            return found if found and self._clock() < found.until else None

    def end(self, name: str) -> Session | None:
        """End the session; which it was, if there was one."""
        with self._guard:
            return self._sessions.pop(_digest(name), None)

    def __len__(self) -> int:
        return len(self._sessions)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()

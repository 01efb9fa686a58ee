"""AWS keys that end, and what keeps them fresh."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from reconciler.errors import UnitError

LEFT = 1 / 3  # of their life, when they are renewed
PAUSE = 15.0  # seconds between tries to renew keys that are still good


@dataclass(frozen=True, slots=True)
class Keys:
    """What a request to AWS is signed with. `expires` is None for keys that do not end by themselves."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires: datetime | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """What no log may show."""
        return frozenset(text for text in (self.access_key, self.secret_key, self.token) if text)


class Renewing:
    """Keys that are fetched when somebody asks, and anew before they end. For several threads."""

    def __init__(
        self, fetch: Callable[[], Keys], clock: Callable[[], float] = time.time, first: Keys | None = None
    ) -> None:
        self._fetch, self._clock = fetch, clock
        self._one = threading.Lock()
        self._keys, self._got, self._tried = first, clock(), -PAUSE

    def current(self) -> Keys:
        """Keys that are good for a while yet.

        Raises:
            HeldError, UnitError: there are none, and those from before have ended.
        """
        with self._one:
            keys, now = self._keys, self._clock()
            if keys is None or self._worn(keys, now):
                keys = self._renewed(keys, now)
            return keys

    def _worn(self, keys: Keys, now: float) -> bool:
        if keys.expires is None:
            return False
        ends = keys.expires.timestamp()
        return now >= ends or (now > ends - (ends - self._got) * LEFT and now >= self._tried + PAUSE)

    def _renewed(self, old: Keys | None, now: float) -> Keys:
        try:
            self._keys, self._got = self._fetch(), now
        except UnitError:
            if old is None or old.expires is None or old.expires.timestamp() <= now:
                raise
            self._tried = now  # the old ones are good for a while yet
            return old
        return self._keys


def ends_at(value: object) -> datetime | None:
    """A time as AWS writes it, in UTC. Raises ValueError: it is none."""
    if value is None or isinstance(value, datetime):
        return value
    found = datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=UTC)

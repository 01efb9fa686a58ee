"""Who decides: of several daemons on one store one leads, and the others wait for its end."""

from __future__ import annotations

import threading
from collections.abc import Callable

from reconciler.errors import PassError
from reconciler.observe import Observer
from reconciler.ports import Lease, Term
from reconciler.store.lease import LEASE_LOST, standing_by
from reconciler.web.view import Check

# What ends by itself while a standby waits: another process writes, or the store does not answer now.
UNSAID = "StoreLocked"  # is nothing to speak of
PASSING = frozenset({UNSAID, "StoreThrottled", "StoreUnreachable", "StoreUnclear"})
LOOK = 1.0  # seconds between two looks of a standby at whoever leads, or less where the lease is short


class Leading:
    """Waits for the lease, keeps it, and ends everything once it is lost: a daemon that did not lead begins anew."""

    def __init__(
        self,
        lease: Lease,
        place: str,
        ttl: float,
        observer: Observer,
        stopping: threading.Event,
        end: Callable[[], None],
        waits: Callable[[], None] = lambda: None,
    ) -> None:
        """`place`: what is led, for messages. `stopping` is set when the daemon ends, `end` makes it; `waits`: at each look."""
        self._lease, self._place, self._ttl, self._observer = lease, place, ttl, observer
        self._stopping, self._end, self._waits = stopping, end, waits
        self.term: Term | None = None  # ours, once we lead
        self.lost: PassError | None = None
        self._said = UNSAID

    def wait(self) -> Term | None:
        """Stand by until this daemon leads; None: it was stopped meanwhile."""
        said = False
        while not self._stopping.is_set():
            if self._acquired():
                self.term = self._lease.term()
                return self.term
            if not said:
                self._observer.stands_by(self.standby())
                said = True
            self._waits()
            self._stopping.wait(min(LOOK, self._ttl / 10))
        return None

    def _acquired(self) -> bool:
        try:
            acquired = self._lease.acquire() is not None
        except PassError as error:
            if error.reason not in PASSING:
                raise
            if error.reason != self._said:  # once, and not at each look
                self._observer.pass_failed(error)
            self._said = error.reason
            return False
        self._said = UNSAID
        return acquired

    def keep(self) -> None:
        """Renew until the daemon ends: in a thread of its own, since a pass may take long."""
        while not self._stopping.wait(self._ttl / 3):
            try:
                self._lease.renew()
            except PassError as error:
                self.failed(error)

    def failed(self, error: PassError) -> None:
        """Say what went wrong; and when another daemon has taken over, end: nothing of this one's is written any more."""
        self._observer.pass_failed(error)
        if error.reason == LEASE_LOST:
            self.lost = error
            self._observer.leader.set(0)
            self._end()

    def standby(self) -> PassError:
        """That this daemon stands by, who leads, and what to do."""
        try:
            return standing_by(self._place, self._lease.term())
        except PassError as error:  # the store does not answer now
            return error

    def check(self) -> Check:
        """Whether this daemon leads."""
        if self.term is None:
            return Check(False, str(self.standby()))
        try:
            self._lease.check()
        except PassError as error:
            return Check(False, str(error))
        return Check(True, f"{self.term.holder} leads, with fence {self.term.fence}.")

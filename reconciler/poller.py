"""Keeps an eye on the protected branch, beside the loop: a slow or dead git server never stops a decision."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from reconciler.branch import ProtectedBranch
from reconciler.errors import PassError, UnitError
from reconciler.git.source import Head
from reconciler.ledger import Frozen, HeadAccepted, Thawed
from reconciler.model import Commit, Desired, Hold
from reconciler.observe import Observer
from reconciler.ports import Store

REPOSITORY = "environments"  # its name in logs and metrics
REWRITTEN = "HistoryRewritten"


class AcceptedInStore:
    """The accepted head as the journal has it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self) -> Commit | None:
        """See `git.source.AcceptedHead`."""
        return self._store.ledger().head

    def save(self, head: Head) -> None:
        """See `git.source.AcceptedHead`."""
        self._store.append(HeadAccepted(head.commit, head.chain), actor="poller")


class Poller:
    """Polls, accepts, and keeps what the accepted head means. Implements `ports.Source`."""

    def __init__(self, branch: ProtectedBranch, store: Store, observer: Observer, wake: Callable[[], None]) -> None:
        self._branch, self._store, self._observer, self._wake = branch, store, observer, wake
        self._one_at_a_time = threading.Lock()
        self._desired: Desired | None = None
        self.error: PassError | None = None

    def latest(self) -> Desired | None:
        """See `Source`."""
        return self._desired

    def resume(self) -> None:
        """Take up the accepted head from the mirror, before any network is asked. Without a mirror, wait for it."""
        head = self._store.ledger().head
        if head is None:
            return
        try:
            self._desired = self._branch.load(head, offline=True)
        except PassError as error:
            self.error = error

    def poll(self) -> None:
        """Look once. Whatever goes wrong, the last good commit stays in force, and its age is shown."""
        with self._one_at_a_time:
            started = time.monotonic()
            try:
                self._look()
                self.error = None
            except (PassError, UnitError) as error:
                self.error = error if isinstance(error, PassError) else PassError(error.reason, str(error))
                self._failed(self.error)
            finally:
                seconds = time.monotonic() - started
                self._observer.polled(REPOSITORY, self.error is None, seconds, str(self.error or ""))

    def _look(self) -> None:
        head = self._branch.source.poll()
        if self._store.ledger().frozen is not None:
            self._store.append(Thawed(), actor="poller")
            self._wake()
        if head.commit != self._store.ledger().head:
            self._branch.source.accept(head)
            self._observer.head_accepted(REPOSITORY, head.commit)
        desired = self._branch.load(head.commit)
        if desired is not self._desired:
            self._desired = desired
            self._wake()

    def _failed(self, error: PassError) -> None:
        """A rewritten history is more than a fault of the network: it freezes every apply."""
        if error.reason != REWRITTEN:
            return
        self._observer.commit_rejected(REPOSITORY, error)
        hold = Hold(REWRITTEN, str(error), plans=True)
        if self._store.ledger().frozen != hold:
            self._store.append(Frozen(hold), actor="poller")
            self._wake()

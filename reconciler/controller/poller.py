"""Keeps an eye on the protected branch, beside the loop: a slow or dead git server never stops a decision."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from reconciler.actual.ledger import Frozen, HeadAccepted, HistoryAccepted, Thawed
from reconciler.branch.protected import ProtectedBranch
from reconciler.errors import PassError, UnitError
from reconciler.git.head import Head
from reconciler.model import Commit, Desired, Hold
from reconciler.observe import Observer
from reconciler.ports import Clock, Store
from reconciler.trust import FREEZING, Seen, Standing, is_final, put_back

REPOSITORY = "environments"  # its name in logs and metrics


class AcceptedInStore:
    """The accepted head as the journal has it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self) -> Commit | None:
        """See `git.source.AcceptedHead`."""
        return self._store.ledger().head

    def base(self) -> Commit | None:
        """See `git.source.AcceptedHead`."""
        return self._store.ledger().base

    def was_accepted(self, commit: Commit) -> bool:
        """See `git.source.AcceptedHead`."""
        return self._store.accepted(commit)

    def save(self, head: Head) -> None:
        """See `git.source.AcceptedHead`."""
        self._store.append(HeadAccepted(head.commit, head.chain, head.since), actor="poller")


class Poller:
    """Polls, accepts, and keeps what the accepted head means. Implements `ports.Source`."""

    def __init__(
        self, branch: ProtectedBranch, store: Store, observer: Observer, wake: Callable[[], None], clock: Clock
    ) -> None:
        self._branch, self._store, self._observer, self._wake, self._clock = branch, store, observer, wake, clock
        self._one_at_a_time = threading.Lock()
        self._desired: Desired | None = None
        self._seen: Seen | None = None
        self._unwritten: Hold | None = None  # a verdict that never ends by itself, and is not in the journal
        self.error: PassError | None = None

    def latest(self) -> Desired | None:
        """See `Source`. Nothing is begun while a verdict is known that the journal has not taken."""
        return None if self._unwritten else self._desired

    def standing(self) -> Standing:
        """How this plane stands to the branch."""
        ledger = self._store.ledger()
        return Standing(ledger.head, ledger.base, self._unwritten or ledger.frozen, ledger.frozen_at, self._seen)

    def undoing(self, path: str) -> str | None:
        """The `git revert` that takes back what changed the file last; None: nothing did. Raises PassError."""
        head = self._store.ledger().head
        return self._branch.source.undoing(head, path) if head else None

    def resume(self) -> None:
        """Take up the accepted head from the mirror, before any network is asked. Without a mirror, wait for it."""
        head = self._store.ledger().head
        if head is None:
            return
        try:
            self._desired = self._branch.proven(self._branch.load(head, offline=True), offline=True)
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
            except OSError as error:
                self.error = _disk(error)
            except BaseException as error:
                self.error = PassError("PollFailed", f"{type(error).__name__}: the log of this moment has all of it.")
                raise
            finally:
                seconds = time.monotonic() - started
                self._observer.polled(REPOSITORY, self.error is None, seconds, str(self.error or ""))

    def accept_history(self, old: Commit, new: Commit, reason: str, actor: str) -> HistoryAccepted:
        """Go on from another history, as an admin says, and journal that: what froze everything is over then.

        Raises:
            PassError: see `EnvironmentsSource.other_history`; nothing was changed.
        """
        with self._one_at_a_time:
            try:
                found = self._branch.source.other_history(old, new)
            except OSError as error:
                raise _disk(error) from error
            accepted = HistoryAccepted(old, new, found.chain, found.abandoned, reason)
            self._store.append(accepted, actor=actor)
            self._unwritten = None
            self._observer.head_accepted(REPOSITORY, new)
            self._seen = Seen(self._clock.now())
            self._observer.unproven(REPOSITORY, None)
            self._wake()
            with suppress(PassError, UnitError):  # it is accepted; what it means is read by the next poll at the latest
                self._mean(new)
            return accepted

    def _look(self) -> None:
        if self._unwritten is not None:  # the branch may have been put back meanwhile
            self._freeze(self._unwritten)
        try:
            head = self._branch.source.poll()
        except PassError as error:
            self._failed(error)
            raise
        self._seen = Seen(self._clock.now(), head.unproven)
        self._observer.unproven(REPOSITORY, head.unproven)
        self._mean(self._accepted(head))

    def _accepted(self, head: Head) -> Commit:
        """The head, accepted; or the last good one, where a person has to say first that history may go on."""
        ledger = self._store.ledger()
        if ledger.frozen and ledger.head and is_final(ledger.frozen.reason):
            self._freeze(put_back(ledger.frozen, ledger.head, head.unproven.head if head.unproven else head.commit))
            return ledger.head
        if ledger.frozen:
            self._store.append(Thawed(), actor="poller")
            self._wake()
        if head.commit != ledger.head:
            self._branch.source.accept(head)
            self._observer.head_accepted(REPOSITORY, head.commit)
        return head.commit

    def _mean(self, commit: Commit) -> None:
        moved = self._branch.catalogs.moved_tags
        desired = self._branch.proven(self._branch.load(commit))
        if (now := self._branch.catalogs.moved_tags) and now != moved:
            self._observer.tags_moved(now)
        if desired is not self._desired:
            self._desired = desired
            self._wake()
        else:
            self._branch.keep()

    def _failed(self, error: PassError) -> None:
        """A branch that has lost the accepted head is more than a fault of the network: it freezes every apply."""
        if error.reason not in FREEZING:
            return
        self._observer.commit_rejected(REPOSITORY, error)
        if self._store.ledger().head is None:
            return  # before the first there is nothing that could be applied
        frozen = self._store.ledger().frozen
        if frozen is None or error.reason == frozen.reason or not is_final(frozen.reason):
            self._freeze(Hold(error.reason, str(error), plans=True))

    def _freeze(self, hold: Hold) -> None:
        ledger = self._store.ledger()
        if ledger.frozen != hold:
            same = ledger.frozen is not None and ledger.frozen.reason == hold.reason
            self._journal(Frozen(hold, ledger.frozen_at if same else self._clock.now()))
            self._wake()

    def _journal(self, frozen: Frozen) -> None:
        """Write the verdict down; or keep it in mind, so that it stands when the branch is put back before the disk has room."""
        hold = frozen.hold
        try:
            self._store.append(frozen, actor="poller")
            self._unwritten = None
        except PassError as error:
            if is_final(hold.reason):
                self._unwritten = hold
            what = f"{hold.message} And the journal did not take that, so nothing is begun until it does"
            raise PassError(error.reason, f"{what}: {error}") from error


def _disk(error: OSError) -> PassError:
    """What was proven could not be written down, or the host's files not be read: then nothing new is accepted."""
    reason = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "DiskFault"
    return PassError(
        reason,
        f"{error}: make room on the controller's disk, or give the file to its user; the next poll tries again.",
    )

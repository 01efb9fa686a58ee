"""The runner's own view of the protected branch: its ratchet, and what every accepted commit did to the allowances."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from reconciler.branch import ProtectedBranch
from reconciler.durable import FileLock, write_atomic
from reconciler.errors import HeldError, PassError
from reconciler.git.source import Head
from reconciler.model import Commit, Desired, Operation, Pin, UnitId
from reconciler.runner.allowances import Allowed, spend
from reconciler.runner.folding import Folding
from reconciler.runner.memory import Memory

FRESH = 5.0  # seconds for which a fetch counts as now
REWRITTEN = "HistoryRewritten"


class History:
    """The newest accepted head, what it means, and the allowances that are open there.

    It is the `git.source.AcceptedHead` of this plane: head and allowances change in one write.
    """

    def __init__(
        self,
        memory: Memory,
        open_branch: Callable[[History], ProtectedBranch],
        record: Callable[[Head], None] = lambda _: None,
    ) -> None:
        """`record` is told of a head before it is accepted."""
        self._memory, self._record = memory, record
        self._stamp, self._failed = memory.folder / "fetched", memory.folder / "fetch-failed"
        self._rewritten = memory.folder / "rewritten"
        self._branch = open_branch(self)

    def newest(self, at_least: Commit, operation: Operation, *, since: float = 0.0) -> Desired:
        """What the newest accepted head means; fetched first, unless that was done a moment ago and suffices.

        `since`, in seconds of the epoch: a fetch that ended before does not count.

        Where nothing can be fetched the last good head stays in force: an outage holds new commits only. Where history
        was rewritten it is still planned at, and nothing is applied.

        Raises:
            HeldError: `at_least` is not on the accepted first-parent chain, or history was rewritten.
            PassError: the fetch failed, and `at_least` is not known.
        """
        commit = self._sufficing(at_least, since) or self._in_force(at_least, operation, since)
        if not self._branch.contains(at_least, commit):
            what = f"{at_least[:12]} is not on the protected branch's accepted history, which ends at {commit[:12]}"
            raise HeldError("CommitNotAccepted", f"{what}; only merged commits are run.")
        return self._branch.load(commit)

    def known(self) -> Desired | None:
        """What the accepted head means, without a look at the network; None before the first."""
        commit = self._memory.trust().commit
        return self._branch.load(commit, offline=True) if commit else None

    def spend(self, unit: UnitId, opened: Mapping[str, datetime]) -> None:
        """Close those of the unit's allowances that an apply was judged with."""
        with self._memory.trusting():
            trust = self._memory.trust()
            if opened and trust.allowances.get(unit, Allowed()).opened:
                self._memory.save_trust(replace(trust, allowances=spend(trust.allowances, unit, opened)))

    def _sufficing(self, at_least: Commit, since: float) -> Commit | None:
        """The accepted head, where it was fetched a moment ago and has the commit."""
        commit = self._memory.trust().commit
        return commit if commit and self._fresh(since) and self._branch.contains(at_least, commit) else None

    def _in_force(self, at_least: Commit, operation: Operation, since: float) -> Commit:
        """The fetched head, or the last good one."""
        try:
            return self._fetched(at_least, since)
        except PassError as error:
            if operation is Operation.APPLY and self._rewritten.exists():
                raise HeldError(REWRITTEN, self._rewritten.read_text()) from error
            last = self._memory.trust().commit
            if last is None or not self._branch.contains(at_least, last):
                raise
            return last

    def _fetched(self, at_least: Commit, since: float) -> Commit:
        """Fetch, and accept what the ratchet lets through.

        One job fetches for all that wait. What it got is theirs, and so is its failure: behind a server that hangs they
        would wait one deadline after the other. The lock is not that of `trusting`: the end of an apply waits for no
        network.
        """
        began = time.time()
        with FileLock(self._memory.folder / "fetch.lock"):
            if commit := self._sufficing(at_least, since):
                return commit
            self._raise_failed_since(began)
            try:
                head = self._branch.source.poll()
            except PassError as error:
                write_atomic(self._failed, json.dumps([error.reason, str(error)]).encode())
                self._stamp.unlink(missing_ok=True)  # what was fetched a moment ago is no proof any more
                if error.reason == REWRITTEN:  # and stays so, should the server not answer next time
                    write_atomic(self._rewritten, str(error).encode())
                raise
            self._rewritten.unlink(missing_ok=True)
            if head.commit != self._memory.trust().commit:
                self._record(head)
            with self._memory.trusting():
                self._branch.source.accept(head)
            self._stamp.write_bytes(b"")
            return head.commit

    def _raise_failed_since(self, began: float) -> None:
        if self._failed.exists() and self._failed.stat().st_mtime > began:
            raise PassError(*json.loads(self._failed.read_bytes()))

    def load(self) -> Commit | None:
        """See `AcceptedHead`."""
        return self._memory.trust().commit

    def save(self, head: Head) -> None:
        """See `AcceptedHead`. Only inside `Memory.trusting`."""
        self._memory.save_trust(Folding(self._branch.source).after(self._memory.trust(), head))

    def last_change(self, commit: Commit, path: str) -> Commit | None:
        """The newest commit of the branch up to `commit` that changed the file; None: none of them has it."""
        return self._branch.source.last_change(commit, path)

    def digest(self, commit: Commit, path: str) -> str | None:
        """The SHA-256 (hex) of a file of the commit; None: it has none."""
        return self._branch.digest(commit, path)

    def tree(self, pin: Pin) -> Path:
        """The pinned tree of a module; see `Catalogs.tree`."""
        return self._branch.catalogs.tree(pin)

    def vouches(self, pin: Pin) -> bool:
        """Whether the catalog's branch, as last fetched, contains the pin; see `Catalogs.vouches`."""
        return self._branch.catalogs.vouches(pin)

    def _fresh(self, since: float) -> bool:
        try:
            fetched = self._stamp.stat().st_mtime
            return fetched >= since and 0 <= time.time() - fetched < FRESH
        except FileNotFoundError:
            return False

"""The runner's own view of the protected branch: its ratchet, and what every accepted commit did to the allowances."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler.branch import ENVIRONMENTS, ProtectedBranch
from reconciler.desired.entries import parse_entry, parse_environment
from reconciler.desired.paths import EntryPath, EnvironmentPath, classify
from reconciler.durable import FileLock, write_atomic
from reconciler.errors import HeldError, PassError
from reconciler.git.source import Head
from reconciler.model import Commit, Desired, Entry, Environment, Limits, Operation, Pin, UnitId
from reconciler.runner.allowances import Allowed, Lines, fold, spend
from reconciler.runner.memory import Memory, Trust

FRESH = 5.0  # seconds for which a fetch counts as now
REWRITTEN = "HistoryRewritten"
WORTH_PARSING = (b"allow_", b"replace")  # an entry without these bytes has no allowance


class History:
    """The newest accepted head, what it means, and the allowances that are open there.

    It is the `git.source.AcceptedHead` of this plane: head and allowances change in one write.
    """

    def __init__(self, memory: Memory, open_branch: Callable[[History], ProtectedBranch]) -> None:
        self._memory = memory
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
        trust = self._memory.trust()
        chain = [*filter(None, (trust.commit or head.since, *head.chain))]
        limits = self._old_limits(chain[0], chain[-1]) if len(chain) > 1 else {}
        self._memory.save_trust(Trust(head.commit, self._folded(trust, head), limits))

    def tree(self, pin: Pin) -> Path:
        """The pinned tree of a module; see `Catalogs.tree`."""
        return self._branch.catalogs.tree(pin)

    def vouches(self, pin: Pin) -> bool:
        """Whether the catalog's branch, as last fetched, contains the pin; see `Catalogs.vouches`."""
        return self._branch.catalogs.vouches(pin)

    def _folded(self, trust: Trust, head: Head) -> dict[UnitId, Allowed]:
        known, before = dict(trust.allowances), trust.commit
        if before is None:
            before = head.since or head.commit
            known = fold({}, self._all_lines(before), None)
        for commit in head.chain:
            if commit != before:
                known = fold(known, self._changed_lines(before, commit), datetime.now(UTC))
                before = commit
        return known

    def _old_limits(self, old: Commit, new: Commit) -> dict[str, Limits]:
        """The limits of each environment whose file the new commit changed, as they were; the strict ones where it had none."""
        changes = self._branch.source.changed_paths(old, new, ENVIRONMENTS)
        named = {c.path: kind.name for c in changes if isinstance(kind := classify(c.path), EnvironmentPath)}
        blobs = {e.path: e.blob_id for e in self._branch.source.read_tree(old, *named)} if named else {}
        contents = self._branch.source.read_blobs(sorted(blobs.values()))
        said = {path: parse_environment(path, contents.get(blob, b"")) for path, blob in blobs.items()}
        return {
            name: found.limits if isinstance(found := said.get(path), Environment) else Limits()
            for path, name in named.items()
        }

    def _all_lines(self, commit: Commit) -> dict[UnitId, Lines]:
        entries = self._branch.source.read_tree(commit, ENVIRONMENTS)
        return self._lines((e.path, e.blob_id) for e in entries if not e.problem)

    def _changed_lines(self, old: Commit, new: Commit) -> dict[UnitId, Lines]:
        """What every added, changed or removed entry says now; a removed one says nothing."""
        changes = self._branch.source.changed_paths(old, new, ENVIRONMENTS)
        gone = {path.unit: Lines() for c in changes if c.removed and isinstance(path := classify(c.path), EntryPath)}
        return gone | self._lines((c.path, c.blob_id) for c in changes if not c.removed and not c.problem)

    def _lines(self, files: Iterable[tuple[str, str]]) -> dict[UnitId, Lines]:
        """What the entries say. One that does not parse is left out."""
        blobs = [(kind.unit, path, blob) for path, blob in files if isinstance(kind := classify(path), EntryPath)]
        contents = self._branch.source.read_blobs(sorted({blob for _, _, blob in blobs}))
        lines: dict[UnitId, Lines] = {}
        for unit, path, blob in blobs:
            data = contents.get(blob, b"")
            if not any(word in data for word in WORTH_PARSING):
                lines[unit] = Lines()
            elif isinstance(entry := parse_entry(path, data), Entry):
                lines[unit] = Lines(entry.allowances, entry.moved_from)
        return lines

    def _fresh(self, since: float) -> bool:
        try:
            fetched = self._stamp.stat().st_mtime
            return fetched >= since and 0 <= time.time() - fetched < FRESH
        except FileNotFoundError:
            return False

"""The runner's own view of the protected branch: its ratchet, and what every accepted commit did to the allowances."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler import codec
from reconciler.branch.protected import Basis, ProtectedBranch
from reconciler.cabinet import ConflictError, again
from reconciler.desired.entries import parse_entry
from reconciler.durable import FileLock, write_atomic
from reconciler.errors import HeldError, PassError
from reconciler.git.head import Head, OtherHistory
from reconciler.model import Commit, Desired, Entry, Hold, Operation, Pin, UnitId
from reconciler.runner.allowances import Allowed, spend
from reconciler.runner.folding import Folding
from reconciler.runner.memory import Anew, Memory, Trust
from reconciler.trust import FREEZING, Seen, Standing, is_final, put_back

FRESH = 5.0  # seconds for which a fetch counts as now
FETCHES = 960.0  # seconds that a fetch of another job is waited for: a first one may take 15 minutes
RECENT = 200  # accepted commits that are remembered outside the mirror: by them an older head is known for what it is


class History:
    """The newest accepted head, what it means, and the allowances that are open there.

    It is the `git.source.AcceptedHead` of this plane: head and allowances change in one write.
    """

    def __init__(
        self,
        memory: Memory,
        open_branch: Callable[[History], ProtectedBranch],
        record: Callable[[Head], None] = lambda _: None,
        pull_of: Callable[[Commit], int | None] = lambda _: None,
    ) -> None:
        """`record` is told of a head before it is accepted. `pull_of`: by which pull request a commit came, by its proof."""
        self._memory, self._record, self.pull_of = memory, record, pull_of
        self._stamp, self._failed = memory.folder / "fetched", memory.folder / "fetch-failed"
        self._seen = memory.folder / "seen.json"
        self._branch = open_branch(self)

    def newest(self, at_least: Commit, operation: Operation, *, since: float = 0.0) -> Desired:
        """What the newest accepted head means; fetched first, unless that was done a moment ago and suffices.

        `since`, in seconds of the epoch: a fetch that began before does not count, for it may not have seen what came meanwhile.

        Where nothing can be fetched the last good head stays in force: an outage holds new commits only. While the branch is
        frozen it is still planned at, and nothing is applied.

        Raises:
            HeldError: `at_least` is not on the accepted first-parent chain, or the branch is frozen (see `trust.FREEZING`).
            PassError: the fetch failed, and `at_least` is not known.
        """
        commit = self._sufficing(at_least, since) or self._in_force(at_least, operation, since)
        if not self._branch.contains(at_least, commit):
            what = f"{at_least[:12]} is not on the protected branch's accepted history, which ends at {commit[:12]}"
            raise HeldError("CommitNotAccepted", f"{what}; only merged commits are run.{self._waiting()}")
        return self._branch.load(commit)

    def known(self) -> Desired | None:
        """What the accepted head means, without a look at the network; None before the first.

        Raises:
            PassError, UnitError: the mirror cannot be read.
        """
        commit = self._memory.trust().commit
        if commit is None:
            return None
        self._branch.source.committed_at(commit)  # which the next poll asks for, in whichever process
        self._branch.source.changes.learn(commit)  # which an apply asks for
        return self._branch.load(commit, offline=True)

    def keep(self) -> None:
        """Write down what was parsed, see `ProtectedBranch.keep`."""
        self._branch.keep()

    def basis(self, commit: Commit) -> Basis:
        """An accepted commit, to build what may become of it on; see `ProtectedBranch.basis`."""
        return self._branch.basis(commit)

    def merged_since(self, since: Commit, until: Commit) -> tuple[int, ...]:
        """The pull requests by which the branch came from one accepted commit to another, newest first.

        By the proof of each commit. Where the first is not on the way to the second nothing is proven, and there are none.
        """
        return tuple(pull for pull in self._brought(since, until) if pull is not None)

    def only_merged_since(self, since: Commit, until: Commit) -> tuple[int, ...]:
        """As `merged_since`; none where one of the commits is not known to be of a pull request."""
        found = self._brought(since, until)
        return () if None in found else tuple(pull for pull in found if pull is not None)

    def heads_since(self, since: Commit, until: Commit) -> frozenset[Commit]:
        """What was merged in between, as it was then: the second parents. Of a squashed commit nothing is known."""
        if not self._branch.contains(since, until):
            return frozenset()
        out = self._branch.source.git.run("rev-list", "--first-parent", "--parents", operands=(until, f"^{since}"))
        return frozenset(Commit(head) for line in out.decode().splitlines() for head in line.split()[2:])

    def _brought(self, since: Commit, until: Commit) -> tuple[int | None, ...]:
        """Of each commit between the two, newest first, by which pull request it came; each named once."""
        if not self._branch.contains(since, until):
            return ()
        out = self._branch.source.git.run("rev-list", "--first-parent", operands=(until, f"^{since}"))
        return tuple(dict.fromkeys(self.pull_of(Commit(line)) for line in out.decode().split()))

    def spend(self, unit: UnitId, opened: Mapping[str, datetime]) -> None:
        """Close those of the unit's allowances that an apply was judged with."""
        again(lambda: self._spend(unit, opened))

    def _spend(self, unit: UnitId, opened: Mapping[str, datetime]) -> None:
        with self._memory.trusting():
            trust = self._memory.trust()
            if opened and trust.allowances.get(unit, Allowed()).opened:
                self._memory.save_trust(replace(trust, allowances=spend(trust.allowances, unit, opened)))

    def close(self, environment: str) -> None:
        """Close every allowance of the environment's units: nobody knows any more which of them are spent."""
        again(lambda: self._close(environment))

    def _close(self, environment: str) -> None:
        with self._memory.trusting():
            trust = self._memory.trust()
            its = f"{environment}/"
            left = {u: Allowed(a.seen) if u.startswith(its) else a for u, a in trust.allowances.items()}
            self._memory.save_trust(replace(trust, allowances=left, closed=trust.closed or trust.commit is None))

    def _sufficing(self, at_least: Commit, since: float) -> Commit | None:
        """The accepted head, where it was fetched a moment ago and has the commit."""
        trust = self._memory.trust()
        if trust.commit is None or trust.frozen or not self._fresh(since):
            return None
        if self._memory.shared and not self._branch.source.is_ancestor_on_first_parent(trust.commit, trust.commit):
            return None  # another host has accepted it since this one fetched
        return trust.commit if self._branch.contains(at_least, trust.commit) else None

    def _in_force(self, at_least: Commit, operation: Operation, since: float) -> Commit:
        """The fetched head, or the last good one."""
        try:
            return self._fetched(at_least, since)
        except PassError as error:
            trust = self._memory.trust()
            if operation is Operation.APPLY and trust.frozen:
                raise HeldError(trust.frozen.reason, trust.frozen.message) from error
            if trust.commit is None or not self._branch.contains(at_least, trust.commit):
                raise
            if operation is Operation.APPLY:
                self._uphold(trust.commit)
            return trust.commit

    def _uphold(self, commit: Commit) -> None:
        """An outage of the server does not bring back a key that this host has revoked."""
        try:
            self._branch.source.uphold(commit)
        except PassError as error:
            if error.reason in FREEZING:
                self._freeze(Hold(error.reason, str(error), plans=True))
            raise HeldError(error.reason, str(error)) from error

    def _fetched(self, at_least: Commit, since: float) -> Commit:
        """Fetch, and accept what the ratchet lets through.

        One job fetches for all that wait. What it got is theirs, unless they need a newer look, and so is its failure: behind a server that hangs they
        would wait one deadline after the other. The lock is not that of `trusting`: the end of an apply waits for no
        network.
        """
        began = time.time()
        with self._fetching():
            if commit := self._sufficing(at_least, since):
                return commit
            self._raise_failed_since(began)
            looked = time.time_ns()
            try:
                commit = again(self._look)
            except PassError as error:
                write_atomic(self._failed, json.dumps([error.reason, str(error)]).encode())
                self._stamp.unlink(missing_ok=True)  # what was fetched a moment ago is no proof any more
                raise
            self._note_fetched(looked)
            return commit

    def _look(self) -> Commit:
        """Poll, and remember the verdict before anything follows from it. Raises PassError: nothing new was accepted."""
        try:
            head = self._branch.source.poll()
        except PassError as error:
            if error.reason in FREEZING:
                self._freeze(Hold(error.reason, str(error), plans=True))
            raise
        self._note_seen(Seen(datetime.now(UTC), head.unproven))
        with self._memory.trusting():
            trust = self._memory.trust()
            if trust.frozen and is_final(trust.frozen.reason):
                raise self._still_frozen(trust, head)
            if self._memory.shared and trust.commit not in (None, head.commit, head.since):
                raise ConflictError("trust: another host accepted a head meanwhile")
            trust = self._closed_until(trust, head.unproven.head if head.unproven else head.commit)
            if head.commit != trust.commit:
                self._record(head)
            self._branch.source.accept(head)
            if trust.frozen and self._memory.trust().frozen:  # no new commit ended it
                self._memory.save_trust(replace(trust, frozen=None, frozen_at=None))
        return head.commit

    def _closed_until(self, trust: Trust, seen: Commit) -> Trust:
        """Nobody knows which allowances up to here are spent: what the branch has at the first look may have been accepted before.

        Only inside `Memory.trusting`. A commit that the branch has lost again, never accepted, gives way to what it has now.
        """
        until = trust.closed_until
        if trust.closed and (until is None or not self._branch.contains(until, seen)):
            trust = replace(trust, closed_until=seen)
            self._memory.save_trust(trust)
        return trust

    def _note_fetched(self, began: int) -> None:
        """A fetch that began then, in nanoseconds of the epoch, has just ended. In place: each such number has as many digits."""
        handle = os.open(self._stamp, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, b"%d" % began, 0)
        finally:
            os.close(handle)

    def _note_seen(self, seen: Seen) -> None:
        """For whoever asks how this plane stands; nothing is decided by it, and what is told already is not told each second."""
        told = self._told_seen
        if told is None or told.unproven != seen.unproven or not 0 <= (seen.at - told.at).total_seconds() < FRESH:
            write_atomic(self._seen, codec.encode(seen), durable=False)

    @property
    def _told_seen(self) -> Seen | None:
        """What was told last; None: nothing, or a loss of power left nothing of it that could be read."""
        try:
            return codec.decode(Seen, self._seen.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def _still_frozen(self, trust: Trust, head: Head) -> PassError:
        """The branch was put back, and nobody has said yet that history may go on. Only inside `Memory.trusting`."""
        assert trust.frozen is not None  # noqa: S101 - the caller has looked
        assert trust.commit is not None  # noqa: S101 - nothing is frozen before the first
        hold = put_back(trust.frozen, trust.commit, head.unproven.head if head.unproven else head.commit)
        if hold != trust.frozen:
            self._memory.save_trust(replace(trust, frozen=hold))
        return PassError(hold.reason, hold.message)

    def _freeze(self, hold: Hold) -> None:
        """Nothing is applied from now on. What never ends by itself gives way to nothing else."""
        again(lambda: self._freeze_now(hold))

    def _freeze_now(self, hold: Hold) -> None:
        with self._memory.trusting():
            trust = self._memory.trust()
            before = trust.frozen
            if trust.commit is None or hold == before:
                return  # before the first head there is nothing that could be applied
            if before and is_final(before.reason) and not is_final(hold.reason):
                return
            same = before is not None and before.reason == hold.reason
            since = trust.frozen_at if same else datetime.now(UTC)
            try:
                self._memory.save_trust(replace(trust, frozen=hold, frozen_at=since))
            except OSError:
                if is_final(hold.reason):
                    self._memory.mark_rewritten()
                raise

    def _waiting(self) -> str:
        """What of the branch is not proven, for a job that may have asked for it."""
        seen = self.standing().seen
        if seen is None or seen.unproven is None:
            return ""
        return f" {seen.unproven.commit} and what follows it is not accepted: {seen.unproven.message}"

    def _fetching(self) -> FileLock:
        return FileLock(self._memory.folder / "fetch.lock", FETCHES)

    def _raise_failed_since(self, began: float) -> None:
        if self._failed.exists() and self._failed.stat().st_mtime > began:
            raise PassError(*json.loads(self._failed.read_bytes()))

    def standing(self) -> Standing:
        """How this plane stands to the branch, without a look at the network."""
        trust = self._memory.trust()
        return Standing(trust.commit, trust.base, trust.frozen, trust.frozen_at, self._told_seen)

    def accept_history(self, said: Anew, record: Callable[[OtherHistory], None]) -> OtherHistory:
        """Go on from another history, as an admin of this host says. No allowance that was open stays so.

        What is accepted, what it means, who said so and that nothing is frozen any more change in one write; `record` is told
        right before.

        Raises:
            PassError: see `EnvironmentsSource.other_history`; nothing was changed.
        """
        with self._fetching():
            source = self._branch.source
            found = source.other_history(said.old, said.new)
            with self._memory.trusting():
                source.check_accepted(said.old)
                trust = self._memory.trust()
                recent = _kept([c for c in trust.recent if c not in found.abandoned], found.chain, said.new)
                allowances = Folding(source).anew(said.new)
                record(found)
                self._memory.save_trust(Trust(said.new, allowances, base=said.new, recent=recent, anew=said))
            self._note_seen(Seen(said.at))
            return found

    def load(self) -> Commit | None:
        """See `AcceptedHead`."""
        return self._memory.trust().commit

    def base(self) -> Commit | None:
        """See `AcceptedHead`."""
        return self._memory.trust().base

    def was_accepted(self, commit: Commit) -> bool:
        """See `AcceptedHead`."""
        return commit in self._memory.trust().recent

    def save(self, head: Head) -> None:
        """See `AcceptedHead`. Only inside `Memory.trusting`."""
        trust = self._memory.trust()
        base = trust.base or head.since or head.commit
        recent = _kept(trust.recent or (base,), head.chain, head.commit)
        after = Folding(self._branch.source).after(trust, head)
        self._memory.save_trust(replace(after, base=base, recent=recent, frozen=None, frozen_at=None, anew=trust.anew))

    def last_change(self, commit: Commit, path: str) -> Commit | None:
        """The newest commit of the branch up to `commit` that changed the file; None: none of them has it."""
        return self._branch.source.last_change(commit, path)

    def said_since(self, since: Commit, until: Commit, path: str) -> tuple[Entry, ...]:
        """What an entry said at each accepted commit after `since` that changed it, newest first; nothing where it was broken.

        Raises:
            PassError: the mirror cannot be read.
        """
        source = self._branch.source
        if not self._branch.contains(since, until):
            return ()
        out = source.git.run("rev-list", "--first-parent", operands=(until, f"^{since}"), paths=(path,))
        trees = (source.read_tree(Commit(line), path) for line in out.decode().split())
        blobs = [one.blob_id for tree in trees for one in tree if one.path == path and not one.problem]
        texts = source.read_blobs(sorted(set(blobs)))
        said = (parse_entry(path, texts[blob]) for blob in blobs if blob in texts)
        return tuple(entry for entry in said if isinstance(entry, Entry))

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
            began, ended = int(self._stamp.read_bytes()) / 1e9, self._stamp.stat().st_mtime
            return since <= began and 0 <= time.time() - ended < FRESH
        except FileNotFoundError:
            return False
        except ValueError:  # written in place, and so not by us
            self._stamp.unlink(missing_ok=True)
            return False


def _kept(recent: Sequence[Commit], chain: Sequence[Commit], head: Commit) -> tuple[Commit, ...]:
    """The newest accepted commits, each once, oldest first."""
    return tuple(dict.fromkeys((*recent, *chain, head)))[-RECENT:]

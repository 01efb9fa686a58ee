"""The environments repository: its protected branch, and the ratchet that lets it only grow."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from reconciler.errors import ConfigError, PassError
from reconciler.git import chain, tree
from reconciler.git.chain import Link
from reconciler.git.changes import Changes
from reconciler.git.command import Git, Patience, Remote
from reconciler.git.commits import read_commits
from reconciler.git.head import AcceptedHead, CommitProver, Head, OtherHistory
from reconciler.git.mirror import Mirror, branch_ref
from reconciler.git.tree import TreeChange, TreeEntry, TreeLimits, object_id
from reconciler.model import Commit
from reconciler.trust import PROVING, REWRITTEN, ROLLED_BACK, Unproven, remedy

_HEAD = "refs/reconciler/head"
_KEPT_CHANGES = 1000  # of the last two commits that were compared: whoever asks next often asks the same
_KEPT = "refs/reconciler/accepted"  # only so that no tidying takes it, once the branch has lost it


class EnvironmentsSource:
    """Polls one protected branch. `poll` only looks; `accept` moves the ratchet.

    The caller keeps `HistoryRewritten` in force once it was raised: a branch that is put back is as it was before, and
    polls succeed again, but whether to trust it is a person's decision, who then asks for `other_history`.
    """

    def __init__(
        self,
        remote: Remote,
        branch: str,
        folder: Path,
        accepted: AcceptedHead,
        *,
        genesis: Commit | None,
        genesis_required: bool = True,
        provers: Sequence[CommitProver] = (),
        allow_file: bool = False,
        patience: Patience | None = None,
    ) -> None:
        if genesis is None and genesis_required:
            raise ConfigError(
                "environments_repo.genesis is missing: write the commit where trust starts (40 hex digits)"
            )
        self._genesis = Commit(_configured(genesis, "genesis", object_id)) if genesis else None
        # With `+`: the ratchet is about what was accepted. Whatever else the branch once showed is none of its business.
        refspec = f"+{_configured(branch, 'branch', branch_ref)}:{_HEAD}"
        self._mirror = Mirror(folder, remote, (refspec,), allow_file=allow_file, patience=patience)
        self._proving = (patience or Patience()).proving
        self._place = f"{remote.url} ({branch})"
        self._accepted = accepted
        self._provers = tuple(provers)
        self._compared: tuple[tuple[Commit, Commit, tuple[str, ...]], list[TreeChange]] | None = None
        self._dates: dict[Commit, datetime] = {}
        self.changes = Changes(self.git)
        self._gone: tuple[Commit, Commit] | None = None  # a head that is nowhere any more, and the branch without it

    @property
    def git(self) -> Git:
        """The mirror, for reading."""
        return self._mirror.git

    def poll(self) -> Head:
        """Fetch and judge what came. Changes nothing but the mirror; one git process when nothing is new.

        The head is the end of the longest chain of proven commits; the first that is not proven is told in it. A chain for which
        `Patience.proving` does not suffice is proven by several polls.

        Raises:
            PassError: the fetch failed; one of `trust.FREEZING`; or, on trust at first use, the head is not proven.
        """
        accepted = (
            self._accepted.load()
        )  # before the fetch: what another host accepts meanwhile is newer than what comes
        before, commit = self._fetch()
        since = accepted or self._genesis
        links = self._judge(commit, accepted)
        if before and commit != before:
            self._mirror.tidy()
        if accepted is not None:
            self.uphold(accepted)
        return self._proven(commit, links, since)

    def other_history(self, old: Commit, new: Commit) -> OtherHistory:
        """Fetch, and prove every first-parent commit of `new` that the history of `old` does not have.

        Raises:
            PassError: `old` is not the accepted head (before the first: the genesis) or `new` not the branch's head, as both
                are now; or a commit is not proven: the message names it.
        """
        self.check_accepted(old)
        _, commit = self._fetch()
        if commit != new:
            raise PassError(
                "HeadMoved",
                f"{self._place}: the branch's head is {commit}, and not {new}: look at what came, and then name that one",
            )
        self._links(old, new)  # which heals, and fetches what the server may still have
        links = chain.whole(self.git, new)
        known = (
            {one.commit for one in chain.whole(self.git, old)} if chain.has(self.git, old) else {self._genesis or old}
        )
        proven = chain.after_any(links, known)
        fork = Commit(proven[0].parent) if proven and proven[0].parent else new
        self._begin(self._head(proven, fork, None))
        for one in proven:
            self._prove_named(one.commit)
        return OtherHistory(old, new, tuple(one.commit for one in proven), self._abandoned(old, links))

    def check_accepted(self, old: Commit) -> None:
        """Raises PassError (`HeadMoved`) unless `old` is the accepted head now, or where trust would start."""
        now = self._accepted.load() or self._genesis or old
        if now != old:
            raise PassError(
                "HeadMoved", f"{self._place}: the accepted head here is {now}, and not {old}: name that one"
            )

    def _prove_named(self, commit: Commit) -> None:
        try:
            self._prove(commit)
        except PassError as error:
            said = f"{self._place}: {commit} is not proven, so nothing was accepted: {error}"
            raise PassError(error.reason, said) from error

    def _fetch(self) -> tuple[Commit | None, Commit]:
        """The branch's head before and after a fetch."""
        before = self._mirror.ref(_HEAD)
        self._mirror.fetch()
        return before, self._fetched()

    def uphold(self, accepted: Commit) -> None:
        """The accepted head's history still is proven. Asks no network, and no process while nothing changed.

        Raises:
            PassError: `SignatureRevoked`, or the host's keys cannot be read.
        """
        base = self._accepted.base() or self._genesis
        if base is not None:
            for prover in self._provers:
                prover.uphold(self.git, base, accepted)

    def accept(self, head: Head) -> None:
        """Make a polled head the accepted one.

        Raises:
            PassError: another head was accepted since the poll (`HeadMoved`); poll again.
        """
        accepted = self._accepted.load()
        if accepted == head.commit:
            return
        if accepted and accepted != head.since:
            raise PassError(
                "HeadMoved", f"{self._place}: {accepted} was accepted meanwhile: the next poll goes on from there"
            )
        self._accepted.save(head)

    def is_ancestor_on_first_parent(self, old: Commit, new: Commit) -> bool:
        """Whether `old` is `new` or on its first-parent chain. A commit that is not in the mirror is not."""
        if old == new:
            return chain.has(self.git, new)
        has_both = chain.has(self.git, old) and chain.has(self.git, new)
        try:
            return has_both and chain.between(self.git, old, new) is not None
        except PassError:
            self._mirror.suspect()
            raise

    def suspect(self) -> None:
        """Something could not be read: the next poll looks at the mirror first."""
        self._mirror.suspect()

    def committed_at(self, commit: Commit) -> datetime:
        """When the commit was made, as it says; remembered for the newest that was asked for, so that a poll without change stays one process.

        Raises:
            PassError: no such commit, or the mirror cannot be read.
        """
        if commit not in self._dates:
            self._dates = {commit: chain.link(self.git, commit).committed_at}
        return self._dates[commit]

    def last_change(self, commit: Commit, path: str) -> Commit | None:
        """The newest commit on the first-parent chain of `commit` that changed the file; None: it was never there.

        Raises:
            PassError: no such commit, or the mirror cannot be read.
        """
        if known := self.changes.of(commit, path):
            return known
        options = ("--first-parent", "--max-count=1")
        out = self.git.run("rev-list", *options, operands=(object_id(commit),), paths=(path,))
        return Commit(out.decode().strip()) or None

    def undoing(self, commit: Commit, path: str) -> str | None:
        """The `git revert` that takes back the newest change of the file, as `last_change` finds it; None: it was never there.

        Raises:
            PassError: see `last_change`.
        """
        change = self.last_change(commit, path)
        if change is None:
            return None
        (found,) = read_commits(self.git, [change])
        return f"git revert {'-m 1 ' if len(found.parents) > 1 else ''}{change}"

    def read_tree(self, commit: Commit, *prefixes: str, limits: TreeLimits | None = None) -> Iterator[TreeEntry]:
        """Every file of a commit under the prefixes, those with a problem too.

        Raises:
            PassError: too large (`TreeTooLarge`), or not readable: then the next poll checks the mirror.
        """
        try:
            yield from tree.list_blobs(self.git, commit, *prefixes, limits=limits)
        except PassError as error:
            self._doubt(error)
            raise

    def read_blobs(self, ids: Sequence[str], limit: int = 8 << 20) -> dict[str, bytes]:
        """The contents of blobs; those over `limit` bytes are left out.

        Raises:
            PassError: a blob is not there (`ObjectMissing`): then the next poll checks the mirror.
        """
        try:
            return tree.read_blobs(self.git, ids, limit)
        except PassError:
            self._mirror.suspect()
            raise

    def changed_paths(self, old: Commit, new: Commit, *prefixes: str) -> Sequence[TreeChange]:
        """The files that differ between two commits, never to be changed. Raises PassError as `read_tree` does."""
        asked, last = (old, new, prefixes), self._compared
        if last is not None and last[0] == asked:
            return last[1]
        try:
            found = tree.changed_paths(self.git, old, new, *prefixes)
        except PassError as error:
            self._doubt(error)
            raise
        if len(found) <= _KEPT_CHANGES:
            self._compared = asked, found
        return found

    def _doubt(self, error: PassError) -> None:
        """Let the next poll look at the mirror, unless it is the commit's own fault: it would look at each one, in vain."""
        if error.reason != tree.TOO_LARGE:
            self._mirror.suspect()

    def _fetched(self) -> Commit:
        commit = self._mirror.ref(_HEAD)
        if commit is None:  # whoever packed or removed it: the mirror is not ours any more
            self._mirror.renew()
            commit = self._mirror.ref(_HEAD)
        if commit is None:
            raise PassError("MirrorBroken", f"{self._place}: the mirror has no head after a fetch: see its folder")
        return commit

    def _judge(self, commit: Commit, accepted: Commit | None) -> tuple[Link, ...]:
        """The commits after `accepted`, oldest first. Raises PassError: see `poll`."""
        start = accepted or self._genesis
        if start is None:
            return (chain.link(self.git, commit),)
        if commit == start:
            return ()
        if not chain.has(self.git, commit):
            raise PassError("ObjectRefused", f"{self._place}: {commit} is no commit: find out who made the branch so")
        links = self._links(start, commit)
        if links is None:
            self._mirror.keep(_KEPT, start)  # or the next tidying throws it away, and plans at it end
            raise self._verdict(commit, start) if accepted else self._no_genesis(commit)
        return links

    def _links(self, old: Commit, new: Commit) -> tuple[Link, ...] | None:
        """The chain after `old`; but a commit that only a broken mirror lacks is no rewrite."""
        if not chain.has(self.git, old) and self._gone != (old, new):
            self._heal(new)
            if not chain.has(self.git, old):
                self._rescue(old)
                self._gone = (old, new)
        if not chain.has(self.git, old):
            return None
        try:
            return chain.between(self.git, old, new)
        except PassError:
            self._heal(new)
            return chain.between(self.git, old, new)

    def _heal(self, head: Commit) -> None:
        """Replace the mirror if it is broken. Raises PassError where the branch is not at `head` any more."""
        if self._mirror.heal() and self._fetched() != head:
            raise PassError("HeadMoved", f"{self._place}: the branch grew while its mirror was replaced: poll again")

    def _rescue(self, commit: Commit) -> None:
        """A server may still have what its branch has lost. Only the branch's own word decides, so a failure is none."""
        with contextlib.suppress(PassError):
            self._mirror.fetch((f"+{commit}:{_KEPT}",))

    def _verdict(self, commit: Commit, accepted: Commit) -> PassError:
        """What it is that the branch has lost its accepted head."""
        there = chain.has(self.git, accepted)
        older = chain.between(self.git, commit, accepted) if there else self._accepted.was_accepted(commit)
        if older:
            return PassError(
                ROLLED_BACK,
                f"{self._place}: the server shows {commit}, which is older than the accepted head {accepted}: put the branch "
                f"back, or wait if the server is a replica that lags. If it shall stay so: {remedy(accepted, commit)}",
            )
        return PassError(
            REWRITTEN,
            f"{self._place}: {commit} does not have the accepted head {accepted} on its first-parent chain: find "
            f"out who rewrote the branch, and put it back. Then, or if it is to stay so: {remedy(accepted, commit)}",
        )

    def _no_genesis(self, commit: Commit) -> PassError:
        return PassError(
            REWRITTEN,
            f"{self._place}: {commit} does not have the configured genesis {self._genesis} on its first-parent "
            "chain: correct `genesis`, or find out who replaced the branch",
        )

    def _proven(self, commit: Commit, links: Sequence[Link], since: Commit | None) -> Head:
        """The head that the proven part of the chain makes. Raises PassError where that is none at all."""
        self._begin(self._head(links, since, None))
        proven: list[Link] = []
        ends = time.monotonic() + self._proving
        for one in links:
            try:
                self._prove(one.commit)
            except PassError as error:
                if since is None:
                    raise
                return self._head(proven, since, Unproven(one.commit, error.reason, str(error), commit))
            proven.append(one)
            if len(proven) < len(links) and time.monotonic() > ends:
                what = f"{len(links) - len(proven)} commits are still to be proven; the next look goes on"
                return self._head(proven, since, Unproven(links[len(proven)].commit, PROVING, what, commit))
        return self._head(proven, since, None)

    def _begin(self, head: Head) -> None:
        for prover in self._provers:
            prover.begin(head)

    def _prove(self, commit: Commit) -> None:
        for prover in self._provers:
            prover.prove(self.git, commit)

    def _head(self, links: Sequence[Link], since: Commit | None, unproven: Unproven | None) -> Head:
        if links:
            newest = links[-1]
            return Head(newest.commit, tuple(one.commit for one in links), newest.committed_at, since, unproven)
        assert since is not None  # noqa: S101 - trust on first use always has one link
        return Head(since, (), self.committed_at(since), since, unproven)

    def _abandoned(self, old: Commit, kept: Sequence[Link]) -> tuple[Commit, ...]:
        """What only the old history has."""
        if not chain.has(self.git, old):
            return ()
        return tuple(one.commit for one in chain.after_any(chain.whole(self.git, old), {one.commit for one in kept}))


def _configured(value: str, field: str, check: Callable[[str], str]) -> str:
    try:
        return check(value)
    except ValueError as error:
        raise ConfigError(f"environments_repo.{field}: {error}") from None

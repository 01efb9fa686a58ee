"""The environments repository: its protected branch, and the ratchet that lets it only grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from reconciler.errors import ConfigError, PassError
from reconciler.git import tree
from reconciler.git.command import Git, Patience, Remote
from reconciler.git.mirror import Mirror, branch_ref
from reconciler.git.tree import TreeChange, TreeEntry, TreeLimits, object_id
from reconciler.model import Commit

_HEAD = "refs/reconciler/head"
_LATEST = 253_402_300_799  # the end of the year 9999: a commit may claim more than a datetime holds


class AcceptedHead(Protocol):
    """Where the accepted head is kept: outside the mirror, on each plane its own."""

    def load(self) -> Commit | None:
        """The accepted head; None before the first."""

    def save(self, head: Head) -> None:
        """Keep its commit, and whatever its chain means to this plane. On disk when this returns."""


class CommitProver(Protocol):
    """Something that must hold for every commit before it counts: a signature, the forge's word."""

    def begin(self, head: Head) -> None:
        """Called once per poll, with what was fetched, before any `prove`. Raises PassError if nothing can be proven."""

    def uphold(self, git: Git, base: Commit, accepted: Commit) -> None:
        """The commits after `base`, where trust starts, up to the accepted head still are proven; asks no network.

        Raises:
            PassError: one of them is not any more.
        """

    def prove(self, git: Git, commit: Commit) -> None:
        """Return if the commit is proven. Raises PassError otherwise: absence of proof is a hold."""


@dataclass(frozen=True, slots=True)
class Head:
    """A commit of the protected branch that may be accepted.

    `since` is where the chain starts: the accepted head, before the first one the genesis, or None on trust at first
    use. `chain` holds the first-parent commits after it up to `commit`, oldest first; on trust at first use it is
    `commit` alone. `commit == since` and an empty chain: nothing new. `committed_at` is what the commit says.
    """

    commit: Commit
    chain: tuple[Commit, ...]
    committed_at: datetime
    since: Commit | None


@dataclass(frozen=True, slots=True)
class _Link:
    """One commit of a first-parent chain. `parent` is empty at the root."""

    commit: Commit
    parent: str
    committed_at: datetime


class EnvironmentsSource:
    """Polls one protected branch. `poll` only looks; `accept` moves the ratchet.

    The caller keeps `HistoryRewritten` in force once it was raised: a branch that is put back is as it was before, and
    polls would succeed again, but whether to trust it is a person's decision.
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
        refspec = f"{_configured(branch, 'branch', branch_ref)}:{_HEAD}"  # no `+`: a rewrite is refused
        self._mirror = Mirror(folder, remote, (refspec,), allow_file=allow_file, patience=patience)
        self._place = f"{remote.url} ({branch})"
        self._accepted = accepted
        self._provers = tuple(provers)
        self._dates: dict[Commit, datetime] = {}

    @property
    def git(self) -> Git:
        """The mirror, for reading."""
        return self._mirror.git

    def poll(self) -> Head:
        """Fetch and judge what came. Changes nothing but the mirror; one git process when nothing is new.

        Raises:
            PassError: the fetch failed; `HistoryRewritten`; or a commit that a prover refuses.
        """
        before = self._mirror.ref(_HEAD)
        self._mirror.fetch()
        commit = self._fetched()
        if before and commit != before:
            self._mirror.tidy()
        since = self._accepted.load()
        head = self._judge(commit, since) if since else self._first(commit)
        if since is not None:
            self.uphold(since)
        for prover in self._provers:
            prover.begin(head)
        for new in head.chain:
            for prover in self._provers:
                prover.prove(self.git, new)
        return head

    def uphold(self, accepted: Commit) -> None:
        """The accepted head's history still is proven. Asks no network, and no process while nothing changed.

        Raises:
            PassError: `SignatureRevoked`, or the host's keys cannot be read.
        """
        if self._genesis is not None:
            for prover in self._provers:
                prover.uphold(self.git, self._genesis, accepted)

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
        object_id(old), object_id(new)
        if old == new:
            return self._has(new)
        return self._has(old) and self._has(new) and self._links(old, new) is not None

    def last_change(self, commit: Commit, path: str) -> Commit | None:
        """The newest commit on the first-parent chain of `commit` that changed the file; None: it was never there.

        Raises:
            PassError: no such commit, or the mirror cannot be read.
        """
        options = ("--first-parent", "--max-count=1")
        out = self.git.run("rev-list", *options, operands=(object_id(commit),), paths=(path,))
        return Commit(out.decode().strip()) or None

    def read_tree(self, commit: Commit, *prefixes: str, limits: TreeLimits | None = None) -> Iterator[TreeEntry]:
        """Every file of a commit under the prefixes, those with a problem too.

        Raises:
            PassError: too large (`TreeTooLarge`), or not readable: then the next poll checks the mirror.
        """
        try:
            yield from tree.list_blobs(self.git, commit, *prefixes, limits=limits)
        except PassError:
            self._mirror.suspect()
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

    def changed_paths(self, old: Commit, new: Commit, *prefixes: str) -> list[TreeChange]:
        """The files that differ between two commits. Raises PassError as `read_tree` does."""
        try:
            return tree.changed_paths(self.git, old, new, *prefixes)
        except PassError:
            self._mirror.suspect()
            raise

    def _fetched(self) -> Commit:
        commit = self._mirror.ref(_HEAD)
        if commit is None:
            self._mirror.suspect()
            raise PassError(
                "MirrorBroken", f"{self._place}: the mirror has no head after a fetch: the next poll replaces it"
            )
        return commit

    def _judge(self, commit: Commit, accepted: Commit) -> Head:
        if commit == accepted:
            return Head(commit, (), self._committed_at(commit), accepted)
        links = self._links_healing(accepted, commit)
        if links is None:
            raise PassError(
                "HistoryRewritten",
                f"{self._place}: {commit} does not have the accepted head {accepted} on its first-parent chain: find "
                "out who rewrote the branch, and put it back",
            )
        return _head(links, accepted)

    def _first(self, commit: Commit) -> Head:
        if self._genesis is None:
            return Head(commit, (commit,), self._committed_at(commit), None)
        if commit == self._genesis:
            return Head(commit, (), self._committed_at(commit), commit)
        links = self._links_healing(self._genesis, commit)
        if links is None:
            raise PassError(
                "HistoryRewritten",
                f"{self._place}: {commit} does not have the configured genesis {self._genesis} on its first-parent "
                "chain: correct `genesis`, or find out who replaced the branch",
            )
        return _head(links, self._genesis)

    def _links_healing(self, old: Commit, new: Commit) -> tuple[_Link, ...] | None:
        """As `_links`; but a commit that only a broken mirror lacks is no rewrite."""
        if not self._has(old) and self._mirror.heal() and self._fetched() != new:
            raise PassError("HeadMoved", f"{self._place}: the branch grew while its mirror was replaced: poll again")
        return self._links(old, new) if self._has(old) else None

    def _links(self, old: Commit, new: Commit) -> tuple[_Link, ...] | None:
        """The chain from after `old` to `new`, oldest first; None unless it begins right at `old`."""
        out = self.git.run(
            "rev-list", "--first-parent", "--parents", "--timestamp", operands=(object_id(new), f"^{object_id(old)}")
        )
        links = tuple(_link(line) for line in reversed(out.decode().splitlines()))
        return links if links and links[0].parent == old else None

    def _has(self, commit: Commit) -> bool:
        done = self.git.ask("rev-parse", "--verify", "--quiet", operands=(f"{commit}^{{commit}}",))
        return done.code == 0 and done.out.decode().strip() == commit

    def _committed_at(self, commit: Commit) -> datetime:
        """Remembered for the newest commit, so that a poll without change stays one process."""
        if commit not in self._dates:
            out = self.git.run("rev-list", "--max-count=1", "--parents", "--timestamp", operands=(commit,))
            self._dates = {commit: _link(out.decode().strip()).committed_at}
        return self._dates[commit]


def _head(links: Sequence[_Link], since: Commit) -> Head:
    return Head(links[-1].commit, tuple(link.commit for link in links), links[-1].committed_at, since)


def _link(line: str) -> _Link:
    """`<seconds> <commit> <parent> ...`."""
    seconds, commit, *parents = line.split()
    moment = datetime.fromtimestamp(min(int(seconds), _LATEST), UTC)
    return _Link(Commit(commit), parents[0] if parents else "", moment)


def _configured(value: str, field: str, check: Callable[[str], str]) -> str:
    try:
        return check(value)
    except ValueError as error:
        raise ConfigError(f"environments_repo.{field}: {error}") from None

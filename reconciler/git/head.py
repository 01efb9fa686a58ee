"""How far the protected branch came, as it is known and remembered: the ratchet's facts, and what it leans on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from reconciler.git.command import Git
from reconciler.model import Commit
from reconciler.trust import Unproven


class AcceptedHead(Protocol):
    """Where the accepted head is kept: outside the mirror, on each plane its own."""

    def load(self) -> Commit | None:
        """The accepted head; None before the first."""

    def base(self) -> Commit | None:
        """Where trust in its history starts: the genesis, or where an admin accepted another history; None before the first."""

    def was_accepted(self, commit: Commit) -> bool:
        """Whether the commit is known as part of the accepted history. A plane may forget the oldest."""

    def save(self, head: Head) -> None:
        """Keep its commit, and whatever its chain means to this plane. On disk when this returns."""


class CommitProver(Protocol):
    """Something that must hold for every commit before it counts: a signature, the forge's word."""

    def begin(self, head: Head) -> None:
        """Called once per poll, with what was fetched, before any `prove`. Raises PassError if nothing can be proven."""

    def uphold(self, git: Git, base: Commit, accepted: Commit) -> None:
        """The commits after `base`, where trust starts, up to the accepted head still are proven; asks no network.

        Raises:
            PassError: one of them is not any more (`SignatureRevoked`: nothing is applied while that lasts); or the means to
                prove are gone.
        """

    def prove(self, git: Git, commit: Commit) -> None:
        """Return if the commit is proven. Raises PassError otherwise: absence of proof is a hold."""


@dataclass(frozen=True, slots=True)
class Head:
    """A commit of the protected branch that may be accepted.

    `since` is where the chain starts: the accepted head, before the first one the genesis, or None on trust at first
    use. `chain` holds the first-parent commits after it up to `commit`, oldest first; on trust at first use it is
    `commit` alone. `commit == since` and an empty chain: nothing new. `committed_at` is what the commit says. `unproven`:
    the branch goes on, and that commit waits with all that follow it.
    """

    commit: Commit
    chain: tuple[Commit, ...]
    committed_at: datetime
    since: Commit | None
    unproven: Unproven | None = None


@dataclass(frozen=True, slots=True)
class OtherHistory:
    """A history that an admin may put in place of the accepted one: proven from where the two part, or from its root.

    `chain` are the commits that were proven for it, oldest first, `abandoned` those that it does not have.
    """

    old: Commit
    new: Commit
    chain: tuple[Commit, ...]
    abandoned: tuple[Commit, ...]

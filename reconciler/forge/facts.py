"""What a forge can be asked, and what it answers: the same for every kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from reconciler.model import Commit

# The rules of a protected branch that are checked, in the order in which they are shown.
RULES = (
    "readable",  # the token may read the protection at all; where not, nothing else can be said
    "force_push_forbidden",
    "deletion_forbidden",
    "pull_request_required",
    "direct_push_forbidden",
    "approvals_required",
    "approval_of_last_push",
    "admins_included",
    "signatures_required",
)


@dataclass(frozen=True, slots=True)
class Merged:
    """A commit that came onto the protected branch by an approved pull request. `head` is what was approved."""

    pull: int
    author: str
    approvers: tuple[str, ...]
    head: Commit


@dataclass(frozen=True, slots=True)
class Pull:
    """An open pull request against the protected branch. `writes`: its author has write access to the repository."""

    number: int
    head: Commit
    base: str
    author: str
    writes: bool
    title: str


@dataclass(frozen=True, slots=True)
class Protection:
    """One of `RULES`. Where it does not hold, `message` names the setting to change."""

    rule: str
    holds: bool
    message: str


class Forge(Protocol):
    """One repository of a forge, and its protected branch. Every method may ask the network; none changes anything.

    Each raises PassError: `ForgeUnreachable`, `ForgeLimited` (too many requests: later), `ForgeRefused` (the token),
    `ForgeUnknown` (no such repository, for this token), `ForgeNonsense` (an answer that is not of the API's form).
    """

    def merged(self, commit: Commit) -> Merged:
        """By which approved pull request the commit came onto the protected branch.

        Raises:
            PassError: `PullRequestMissing` (by none, as far as the forge says) or `ApprovalMissing`; see the class.
        """
        ...

    def open_pulls(self) -> tuple[Pull, ...]:
        """The open pull requests against the protected branch, drafts left out, by number."""
        ...

    def protections(self) -> tuple[Protection, ...]:
        """What guards the branch, in the order of `RULES`. Not being allowed to read it is an answer: `readable`."""
        ...

    def head_ref(self, number: int) -> str:
        """The ref by which git fetches a pull request's head."""
        ...

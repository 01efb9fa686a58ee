"""The state of trust in the protected branch, on either plane: what was accepted, what waits for proof, what froze everything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from reconciler.model import Commit, Hold

REWRITTEN = "HistoryRewritten"
ROLLED_BACK = "HistoryRolledBack"
BRANCH_MISSING = "BranchMissing"
REVOKED = "SignatureRevoked"
FREEZING = frozenset({REWRITTEN, ROLLED_BACK, BRANCH_MISSING, REVOKED})  # while one of these lasts nothing is applied

PROVING = "StillProving"  # a chain so long that one look does not come to its end; the next goes on from there

# Reasons why nobody could say whether a commit is proven: it waits, and is not rejected.
AWAY = frozenset(
    {"ForgeUnreachable", "ForgeLimited", "ForgeRefused", "ForgeUnknown", "ForgeNonsense"}
    | {"GitTimeout", "GitUnreachable", "Stopping", PROVING}
)


@dataclass(frozen=True, slots=True)
class Unproven:
    """The first commit of the branch for which something does not hold yet; nothing from it up to `head` counts."""

    commit: Commit
    reason: str
    message: str
    head: Commit


@dataclass(frozen=True, slots=True)
class Seen:
    """What the last poll that was judged to its end has found, and when."""

    at: datetime
    unproven: Unproven | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one plane stands to the branch.

    `base` is where trust in the accepted head's history starts; `seen` is None before the first judged poll.
    """

    accepted_head: Commit | None
    base: Commit | None
    frozen: Hold | None = None
    frozen_at: datetime | None = None
    seen: Seen | None = None


def in_the_way(standing: Standing, since: datetime | None = None) -> tuple[str, str] | None:
    """Reason and message of what keeps new commits out until somebody does something; None where they may come by themselves.

    `since`: what was seen of the branch before says nothing, for it may have been put right meanwhile.
    """
    if standing.frozen is not None:
        return standing.frozen.reason, standing.frozen.message
    seen = standing.seen
    if seen is None or seen.unproven is None or seen.unproven.reason in AWAY or (since and seen.at < since):
        return None
    return seen.unproven.reason, seen.unproven.message


def is_final(reason: str) -> bool:
    """Whether what froze everything never ends by itself: only `accept-history` ends it."""
    return reason == REWRITTEN


def put_back(hold: Hold, accepted: Commit, head: Commit) -> Hold:
    """The hold of a branch that was rewritten, and has its accepted head again."""
    what = f"The branch was rewritten. Now it has the accepted head {accepted} again, and {head} is its newest commit."
    return Hold(hold.reason, f"{what} Find out who rewrote it, and then: {remedy(accepted, head)}", hold.plans)


def remedy(old: Commit, new: Commit) -> str:
    """What an admin runs, on both planes, to go on from another history."""
    words = f"accept-history {old} {new} --reason R"
    return f"`reconciler {words}`, and on the runner's host `reconciler runner {words}`."

"""What differs between forges, as a Protocol; and the judgement that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import SystemRandom
from typing import Protocol

from reconciler.errors import PassError
from reconciler.forge.facts import RULES, Merged, Protection, Pull
from reconciler.model import Commit

MERGED_AT_ONCE = 5  # pull requests that one commit without a second parent may have come by
LOOKED_AT = 8  # those that the forge connects with a commit; more than MERGED_AT_ONCE, so that no part is taken for all
_CHANCE = SystemRandom()


@dataclass(frozen=True, slots=True)
class Account:
    """Who did something. `person`: no bot, as far as the forge tells."""

    id: int
    login: str
    person: bool = True

    def same(self, other: Account) -> bool:
        """Whether this is one account: names change, and their case never tells two apart."""
        return self.id == other.id or self.login.casefold() == other.login.casefold()


@dataclass(frozen=True, slots=True)
class Closed:
    """A pull request that the forge connects with a commit. `result` is the commit that merging it gave.

    `home`: its base is in the configured repository. `author` is None once the account is gone.
    """

    number: int
    home: bool
    base: str
    merged: bool
    result: str | None
    head: Commit
    author: Account | None


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody said of a pull request. `head` is None if it was about another head than the last.

    `who` is None where the account is gone.
    """

    who: Account | None
    at: datetime
    serial: int
    approves: bool
    head: Commit | None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open pull request, as listed."""

    number: int
    home: bool
    base: str
    head: Commit
    author: Account | None
    title: str
    draft: bool


class Dialect(Protocol):
    """One kind of forge. Every method asks the network, and raises PassError for whatever is not an answer."""

    place: str

    def meet(self) -> None:
        """Make sure that the configured repository is there, under this name."""
        ...

    def pulls_of(self, commit: Commit) -> Sequence[Closed]:
        """The pull requests that the forge connects with the commit."""
        ...

    def parents(self, commit: Commit) -> Sequence[str]:
        """The commit's parents."""
        ...

    def tips(self, pull: Closed) -> Sequence[str]:
        """What the second parent of this pull request's merge commit may be."""
        ...

    def opinions(self, pull: Closed) -> Sequence[Opinion]:
        """Everything that anybody decided about the pull request, in any order."""
        ...

    def makers(self, head: Commit) -> Sequence[Account]:
        """Who made the commit, as far as the forge tells: they do not approve their own work."""
        ...

    def writes(self, account: Account) -> bool:
        """Whether the account has write access to the repository."""
        ...

    def opened(self, branch: str) -> Iterable[Opened]:
        """The open pull requests, newest first."""
        ...

    def guards(self) -> tuple[Protection, ...]:
        """See `Forge.protections`."""
        ...

    def head_ref(self, number: int) -> str:
        """See `Forge.head_ref`."""
        ...


OPEN_LIMIT = 200  # pull requests that one look goes through; the newest


class Hosted:
    """Implements `Forge` over any dialect."""

    def __init__(self, dialect: Dialect, branch: str, min_approvals: int) -> None:
        self._dialect, self._branch, self._needed = dialect, branch, min_approvals

    def merged(self, commit: Commit) -> Merged:
        """See `Forge`."""
        self._dialect.meet()
        known = self._dialect.pulls_of(commit)
        mine = sorted((pull for pull in known if self._missing(pull, commit) is None), key=lambda pull: pull.number)
        if not mine:
            raise PassError("PullRequestMissing", self._no_pull(commit, known))
        if whole := self._of_this_head(mine, commit):
            return self._one_approved(whole, commit)
        if len(mine) > MERGED_AT_ONCE:
            raise PassError("PullRequestMissing", self._no_pull(commit, known))
        approved = [self._approved(pull, commit) for pull in mine]
        return approved[0]

    def open_pulls(self) -> tuple[Pull, ...]:
        """See `Forge`."""
        self._dialect.meet()
        found, writers = list[Pull](), dict[int, bool]()
        for seen, pull in enumerate(self._dialect.opened(self._branch)):
            if seen >= OPEN_LIMIT:
                break
            author = pull.author
            if pull.draft or author is None or not pull.home or pull.base != self._branch:
                continue
            if author.id not in writers:
                writers[author.id] = self._dialect.writes(author)
            found.append(Pull(pull.number, pull.head, pull.base, author.login, writers[author.id], pull.title))
        return tuple(sorted(found, key=lambda pull: pull.number))

    def protections(self) -> tuple[Protection, ...]:
        """See `Forge`."""
        self._dialect.meet()
        return self._dialect.guards()

    def head_ref(self, number: int) -> str:
        """See `Forge`."""
        return self._dialect.head_ref(number)

    def _missing(self, pull: Closed, commit: Commit) -> str | None:
        """Why the pull request is not the one by which the commit came; None if it is."""
        if not pull.home:
            return "goes to another repository"
        if not pull.merged:
            return "is not merged"
        if pull.base != self._branch:
            return f"goes to the branch {pull.base}"
        if pull.result != commit:
            return (
                f"was merged as {pull.result}, and only a merge's last commit is proven: do not rebase several commits"
            )
        return None

    def _no_pull(self, commit: Commit, known: Sequence[Closed]) -> str:
        said = "; ".join(f"#{pull.number} {self._missing(pull, commit) or 'is one of too many'}" for pull in known[:5])
        remedy = f"put {self._branch} back to before it, and merge the change by a pull request"
        return (
            f"{self._dialect.place}: no pull request brought {commit} onto {self._branch}"
            f"{f' ({said})' if said else ''}: {remedy}."
        )

    def _of_this_head(self, mine: Sequence[Closed], commit: Commit) -> list[Closed]:
        """Those whose head is all that the commit brings. None where it was squashed: its parents tell of no head.

        Raises:
            PassError: "PullRequestMissing", it merges something else.
        """
        if as_it_is := [pull for pull in mine if pull.head == commit]:
            return as_it_is
        parents = self._dialect.parents(commit)
        if len(parents) == 1:
            return []
        found = [pull for pull in mine if len(parents) == 2 and parents[1] in self._dialect.tips(pull)]
        if not found:
            raise self._another_head(mine[0], commit, parents)
        return found

    def _one_approved(self, pulls: Sequence[Closed], commit: Commit) -> Merged:
        """With one head anybody may open more pull requests, or of a commit on the way to it, and one merge merges them all.

        What was approved is the head, so one of its pull requests suffices: else whoever may open one could hold every merge.
        """
        first: PassError | None = None
        for pull in pulls:
            try:
                return self._approved(pull, commit)
            except PassError as error:
                if error.reason != "ApprovalMissing":
                    raise
                first = first or error
        assert first is not None  # noqa: S101 - there is at least one
        raise first

    def _approved(self, pull: Closed, commit: Commit) -> Merged:
        author = pull.author
        if author is None:
            message = f"the account of #{pull.number}'s author is gone, so nobody can tell whose the approvals are"
            raise self._unapproved(
                f"{message}: revert {commit}, and merge it again by a pull request of somebody who is there."
            )
        makers = (author, *self._dialect.makers(pull.head))
        counted, others = weigh(self._dialect.opinions(pull), pull.head, makers, self._dialect.writes)
        if len(counted) < self._needed:
            said = f" ({'; '.join(others[:10])})" if others else ""
            raise self._unapproved(
                f"#{pull.number} has {len(counted)} of {self._needed} approvals at its merged head {pull.head}{said}: "
                "let somebody with write access who did not make it approve it now, on the merged pull request, or "
                f"put {self._branch} back and merge it again."
            )
        return Merged(pull.number, author.login, tuple(sorted(who.login for who in counted)), pull.head)

    def _another_head(self, pull: Closed, commit: Commit, parents: Sequence[str]) -> PassError:
        """A merge commit must merge the head that was approved: what a forge calls the head may have moved since."""
        message = (
            f"{commit} is not the merge of #{pull.number}'s head {pull.head}: its parents are {', '.join(parents)}"
        )
        remedy = f"put {self._branch} back to before it, and merge again on the forge"
        return PassError("PullRequestMissing", f"{self._dialect.place}: {message}: {remedy}.")

    def _unapproved(self, message: str) -> PassError:
        return PassError("ApprovalMissing", f"{self._dialect.place}: {message}")


def weigh(
    opinions: Iterable[Opinion], head: Commit, makers: Sequence[Account], writes: Callable[[Account], bool]
) -> tuple[list[Account], list[str]]:
    """Whose approval counts, and in words why somebody else's does not. Everybody's last word is the one that counts.

    What an account that is gone withholds may be anybody's last word until then.
    """
    last: dict[int, tuple[Account, Opinion]] = {}
    doubted: set[int] = set()
    for opinion in sorted(opinions, key=lambda one: (one.at, one.serial)):
        if opinion.who is not None:
            last[opinion.who.id] = opinion.who, opinion
            doubted.discard(opinion.who.id)
        elif not opinion.approves:
            doubted.update(last)
    counted, others = list[Account](), list[str]()
    for who, opinion in last.values():
        flaw = _flaw(who, opinion, head, makers) or _doubled(who, counted)
        if flaw is None and who.id in doubted:
            flaw = "approved before somebody whose account is gone withheld approval"
        if flaw is None and not writes(who):
            flaw = "has no write access"
        if flaw is None:
            counted.append(who)
        else:
            others.append(f"{who.login} {flaw}")
    return counted, others


def _flaw(who: Account, opinion: Opinion, head: Commit, makers: Sequence[Account]) -> str | None:
    if not opinion.approves:
        return "withholds approval"
    if any(who.same(maker) for maker in makers):
        return "made the change"
    if not who.person:
        return "is a bot"
    return None if opinion.head == head else "approved an older head"


def _doubled(who: Account, counted: Sequence[Account]) -> str | None:
    return "counts already" if any(who.same(other) for other in counted) else None


def looked_at(giving: Sequence[int], others: Sequence[int]) -> list[int]:
    """Those of the pull requests that are looked at, by their numbers: first those that the forge says to have given the commit.

    Anybody may open more of the same head. Where there are too many, each look is at others, by chance: so the right one is
    found in the end, and a look costs no more.
    """
    if len(giving) > LOOKED_AT:
        return sorted(_CHANCE.sample(giving, LOOKED_AT))
    return [*giving, *others][:LOOKED_AT]


def answers(said: dict[str, tuple[bool, str]]) -> tuple[Protection, ...]:
    """Protections from rule -> does it hold, and the setting to change where not; in the order of `RULES`."""
    return tuple(
        Protection(rule, said[rule][0], "" if said[rule][0] else said[rule][1]) for rule in RULES if rule in said
    )

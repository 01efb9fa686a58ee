"""GitHub's REST API, version 2022-11-28 (github.com and Enterprise Server): its words in this project's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from reconciler.errors import PassError
from reconciler.forge.dialect import Account, Closed, Opened, Opinion, answers, looked_at
from reconciler.forge.facts import Protection
from reconciler.forge.home import Home
from reconciler.forge.rest import Answer, Id, Moment, Reply, Rest, Sha, Word
from reconciler.model import Commit

_UNPROTECTED = "Branch not protected"  # this 404 is an answer; another one means that the token may not ask


class User(Answer):
    id: Id
    login: Word
    type: Word

    @property
    def account(self) -> Account:
        return Account(self.id, self.login, self.type == "User")


class RepositoryId(Answer):
    id: Id


class Base(Answer):
    ref: Word
    repo: RepositoryId


class Head(Answer):
    sha: Sha


class Listed(Answer):
    number: Id
    merge_commit_sha: Sha | None


class Pull(Answer):
    number: Id
    user: User | None
    base: Base
    head: Head
    merged: bool
    merge_commit_sha: Sha | None


class Open(Answer):
    number: Id
    user: User | None
    base: Base
    head: Head
    title: str
    draft: bool


class Review(Answer):
    id: Id
    user: User | None
    state: Literal["APPROVED", "CHANGES_REQUESTED", "COMMENTED", "DISMISSED", "PENDING"]
    commit_id: Sha | None
    submitted_at: Moment | None = None


class Parent(Answer):
    sha: Sha


class CommitUser(Answer):
    """Of a commit: GitHub gives an empty mapping for nobody it knows."""

    id: Id | None = None
    login: Word | None = None


class CommitAnswer(Answer):
    sha: Sha
    parents: list[Parent]
    author: CommitUser | None
    committer: CommitUser | None


class Permission(Answer):
    permission: Word
    user: User | None


class Switch(Answer):
    enabled: bool


class Allowances(Answer):
    users: tuple[Answer, ...] = ()
    teams: tuple[Answer, ...] = ()
    apps: tuple[Answer, ...] = ()


class RequiredReviews(Answer):
    required_approving_review_count: int = 0
    dismiss_stale_reviews: bool = False
    require_last_push_approval: bool = False
    bypass_pull_request_allowances: Allowances = Field(default_factory=Allowances)


class Classic(Answer):
    """branches/{branch}/protection: what is not set may be left out."""

    required_pull_request_reviews: RequiredReviews | None = None
    enforce_admins: Switch
    allow_force_pushes: Switch
    allow_deletions: Switch
    required_signatures: Switch | None = None


class Parameters(Answer):
    required_approving_review_count: int = 0
    dismiss_stale_reviews_on_push: bool = False
    require_last_push_approval: bool = False


class Rule(Answer):
    type: Word
    ruleset_id: Id
    parameters: Parameters = Field(default_factory=Parameters)


class Ruleset(Answer):
    """Who may bypass it is shown only to those who may change it."""

    bypass_actors: list[Answer] | None = None


class Refusal(Answer):
    message: str


@dataclass(frozen=True, slots=True)
class Guard:
    """One source of protection: the classic one, or a ruleset. `free`: nobody is let past it; None: not to be seen."""

    force_push: bool
    deletion: bool
    pulls: bool
    approvals: int
    last_push: bool
    signatures: bool
    admins: bool | None
    free: bool | None


class GitHub:
    """Implements `Dialect`."""

    def __init__(self, rest: Rest, repository: str, branch: str, min_approvals: int, *, signed: bool) -> None:
        self._rest, self._branch, self._needed, self._signed = rest, branch, min_approvals, signed
        self._home = Home(rest, repository)
        self._repo, self.place = self._home.path, rest.place

    def meet(self) -> None:
        """See `Dialect`."""
        self._home.meet()

    def pulls_of(self, commit: Commit) -> Sequence[Closed]:
        """See `Dialect`."""
        listed = self._rest.all(Listed, *self._repo, "commits", commit, "pulls")
        giving = {pull.number for pull in listed if pull.merge_commit_sha == commit}
        others = {pull.number for pull in listed} - giving
        return [self._closed(number) for number in looked_at(sorted(giving), sorted(others))]

    def parents(self, commit: Commit) -> Sequence[str]:
        """See `Dialect`."""
        return [parent.sha for parent in self._commit(commit).parents]

    def tips(self, pull: Closed) -> Sequence[str]:
        """See `Dialect`. GitHub keeps the head of a merged pull request as it was merged."""
        return (pull.head,)

    def opinions(self, pull: Closed) -> Sequence[Opinion]:
        """See `Dialect`. A dismissed review withholds: what was said before it does not come back."""
        reviews = self._rest.all(Review, *self._repo, "pulls", pull.number, "reviews")
        decisions = [review for review in reviews if review.state not in ("COMMENTED", "PENDING")]
        return [self._opinion(review, pull) for review in decisions]

    def makers(self, head: Commit) -> Sequence[Account]:
        """See `Dialect`."""
        made = self._commit(head)
        people = [person for person in (made.author, made.committer) if person is not None]
        return [Account(person.id or 0, person.login) for person in people if person.login is not None]

    def writes(self, account: Account) -> bool:
        """See `Dialect`. `maintain` is told as `write`."""
        found = self._rest.ask(Permission, *self._repo, "collaborators", account.login, "permission")
        return found is not None and found.permission in ("admin", "write") and _is(found.user, account)

    def opened(self, branch: str) -> Iterable[Opened]:
        """See `Dialect`."""
        query = {"state": "open", "base": branch, "sort": "created", "direction": "desc"}
        for page in self._rest.pages(Open, *self._repo, "pulls", **query):
            for pull in page:
                author = pull.user.account if pull.user else None
                home = pull.base.repo.id == self._home.id
                head = Commit(pull.head.sha)
                yield Opened(pull.number, home, pull.base.ref, head, author, pull.title, pull.draft)

    def head_ref(self, number: int) -> str:
        """See `Dialect`."""
        return f"refs/pull/{number}/head"

    def guards(self) -> tuple[Protection, ...]:
        """See `Dialect`: the classic protection and every ruleset count together."""
        classic, denied = self._classic()
        found = [guard for guard in (classic, *self._rulesets()) if guard is not None]
        said = _said(found, self._needed, self._branch, signed=self._signed)
        if denied:  # what is not seen to hold may hold all the same: only what holds is told
            said = {rule: one for rule, one in said.items() if one[0]}
            said["readable"] = False, f"let the token read the repository's Administration ({denied})"
        return answers(said)

    def _closed(self, number: int) -> Closed:
        pull = self._rest.one(Pull, *self._repo, "pulls", number)
        if pull.number != number:
            raise PassError(
                "ForgeNonsense", f"{self.place}: asked for #{number}, it shows #{pull.number}: is url right?"
            )
        author = pull.user.account if pull.user else None
        home, base = pull.base.repo.id == self._home.id, pull.base.ref
        return Closed(number, home, base, pull.merged, pull.merge_commit_sha, Commit(pull.head.sha), author)

    def _opinion(self, review: Review, pull: Closed) -> Opinion:
        if review.submitted_at is None:
            raise PassError("ForgeNonsense", f"{self.place}: a review of #{pull.number} has no date: is url right?")
        head = Commit(review.commit_id) if review.commit_id else None
        who = review.user.account if review.user else None
        return Opinion(who, review.submitted_at, review.id, review.state == "APPROVED", head)

    def _commit(self, commit: Commit) -> CommitAnswer:
        found = self._rest.one(CommitAnswer, *self._repo, "commits", commit)
        if found.sha != commit:
            raise PassError("ForgeNonsense", f"{self.place}: asked for {commit}, it shows {found.sha}: is url right?")
        return found

    def _classic(self) -> tuple[Guard | None, str]:
        """The classic protection, if there is one; and why it is not to be seen, if it is not."""
        reply = self._rest.reply(*self._repo, "branches", self._branch, "protection")
        if reply.status == 200:
            return _of_classic(self._rest.read(Classic, reply)), ""
        message = self._rest.read(Refusal, reply).message[:100]
        return None, "" if reply.status == 404 and message == _UNPROTECTED else f"{reply.status}"

    def _rulesets(self) -> list[Guard]:
        rules: dict[int, dict[str, Parameters]] = {}
        for rule in self._rest.all(Rule, *self._repo, "rules", "branches", self._branch):
            rules.setdefault(rule.ruleset_id, {})[rule.type] = rule.parameters
        return [_of_ruleset(kinds, self._bypass(number)) for number, kinds in sorted(rules.items())]

    def _bypass(self, ruleset: int) -> bool | None:
        """Whether nobody may bypass the ruleset."""
        reply: Reply = self._rest.reply(*self._repo, "rulesets", ruleset)
        actors = self._rest.read(Ruleset, reply).bypass_actors if reply.status == 200 else None
        return None if actors is None else not actors


def _is(user: User | None, account: Account) -> bool:
    return user is not None and user.id == account.id


def _of_classic(found: Classic) -> Guard:
    reviews = found.required_pull_request_reviews
    past = reviews.bypass_pull_request_allowances if reviews else Allowances()
    return Guard(
        force_push=not found.allow_force_pushes.enabled,
        deletion=not found.allow_deletions.enabled,
        pulls=reviews is not None,
        approvals=reviews.required_approving_review_count if reviews else 0,
        last_push=bool(reviews and (reviews.dismiss_stale_reviews or reviews.require_last_push_approval)),
        signatures=bool(found.required_signatures and found.required_signatures.enabled),
        admins=found.enforce_admins.enabled,
        free=not (past.users or past.teams or past.apps),
    )


def _of_ruleset(kinds: dict[str, Parameters], free: bool | None) -> Guard:
    reviews = kinds.get("pull_request")
    return Guard(
        force_push="non_fast_forward" in kinds,
        deletion="deletion" in kinds,
        pulls=reviews is not None,
        approvals=reviews.required_approving_review_count if reviews else 0,
        last_push=bool(reviews and (reviews.dismiss_stale_reviews_on_push or reviews.require_last_push_approval)),
        signatures="required_signatures" in kinds,
        admins=free,
        free=free,
    )


def _said(guards: Sequence[Guard], needed: int, branch: str, *, signed: bool) -> dict[str, tuple[bool, str]]:
    pulls = [guard for guard in guards if guard.pulls]
    where = f"in the branch protection or a ruleset of {branch}"
    hidden = " (a ruleset's bypass list is shown only to a token with Administration: write)"
    unseen = hidden if any(guard.free is None for guard in pulls) else ""
    said = {
        "readable": (True, ""),
        "force_push_forbidden": (any(g.force_push for g in guards), f"block force pushes {where}"),
        "deletion_forbidden": (any(g.deletion for g in guards), f"restrict deletions {where}"),
        "pull_request_required": (bool(pulls), f"require a pull request before merging {where}"),
        "direct_push_forbidden": (any(g.free for g in pulls), f"let nobody bypass pull requests {where}{unseen}"),
        "approvals_required": (any(g.approvals >= needed for g in pulls), f"require {needed} approvals {where}"),
        "approval_of_last_push": (
            any(g.last_push for g in pulls),
            f"dismiss stale approvals, or require approval of the most recent push, {where}",
        ),
        "admins_included": (
            any(g.admins for g in pulls),
            f"do not allow bypassing the above settings, administrators included, {where}{unseen}",
        ),
    }
    if signed:
        said["signatures_required"] = any(g.signatures for g in guards), f"require signed commits {where}"
    return said

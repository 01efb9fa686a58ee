"""Gitea's REST API, version 1, which Forgejo speaks too: its words in this project's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from reconciler.errors import PassError
from reconciler.forge.dialect import Account, Closed, Opened, Opinion, answers
from reconciler.forge.facts import Protection
from reconciler.forge.home import Home
from reconciler.forge.rest import Answer, Moment, Rest, Sha, Word
from reconciler.forge.rest import Id as Number
from reconciler.model import Commit

_SILENT = ("COMMENT", "PENDING", "REQUEST_REVIEW")


class User(Answer):
    """Accounts of the server's own (ghost, its actions) have no positive id."""

    id: int = Field(gt=-(1 << 63), lt=1 << 63)
    login: Word

    @property
    def account(self) -> Account:
        return Account(self.id, self.login, self.id > 0)


class Base(Answer):
    ref: Word
    repo_id: Number


class Head(Answer):
    sha: Sha


class Pull(Answer):
    number: Number
    user: User | None
    base: Base
    merged: bool
    merge_commit_sha: Sha | None


class Open(Answer):
    number: Number
    user: User | None
    base: Base
    head: Head
    title: str
    draft: bool = False


class Review(Answer):
    id: Number
    user: User | None
    state: Literal["APPROVED", "PENDING", "COMMENT", "REQUEST_CHANGES", "REQUEST_REVIEW"]
    commit_id: str
    dismissed: bool
    stale: bool
    submitted_at: Moment


class Parent(Answer):
    sha: Sha


class CommitAnswer(Answer):
    sha: Sha
    parents: list[Parent]
    author: User | None
    committer: User | None


class Object(Answer):
    sha: Sha


class Ref(Answer):
    ref: Word
    object: Object


class Permission(Answer):
    permission: Word
    user: User | None


class Branch(Answer):
    protected: bool
    effective_branch_protection_name: str = ""


class BranchProtection(Answer):
    """What only some versions have may be left out, and then is as in those that have it not."""

    enable_push: bool
    required_approvals: int
    dismiss_stale_approvals: bool
    require_signed_commits: bool
    ignore_stale_approvals: bool = False
    enable_force_push: bool = False
    enable_bypass_allowlist: bool = False
    block_admin_merge_override: bool = False
    apply_to_admins: bool = Field(default=False, description="Forgejo's name for it")


class Gitea:
    """Implements `Dialect`."""

    def __init__(self, rest: Rest, repository: str, branch: str, min_approvals: int, *, signed: bool) -> None:
        self._rest, self._branch, self._needed, self._signed = rest, branch, min_approvals, signed
        self._home = Home(rest, repository)
        self._repo, self.place = self._home.path, rest.place

    def meet(self) -> None:
        """See `Dialect`."""
        self._home.meet()

    def pulls_of(self, commit: Commit) -> Sequence[Closed]:
        """See `Dialect`. Gitea knows one at most, by the commit that merging it gave."""
        found = self._rest.ask(Pull, *self._repo, "commits", commit, "pull")
        if found is None:
            return ()
        author = found.user.account if found.user and found.user.id > 0 else None
        home, head = found.base.repo_id == self._home.id, self._head(found.number)
        return (Closed(found.number, home, found.base.ref, found.merged, found.merge_commit_sha, head, author),)

    def parents(self, commit: Commit) -> Sequence[str]:
        """See `Dialect`."""
        return [parent.sha for parent in self._commit(commit).parents]

    def tips(self, pull: Closed) -> Sequence[str]:
        """See `Dialect`."""
        return (pull.head,)

    def opinions(self, pull: Closed) -> Sequence[Opinion]:
        """See `Dialect`. A dismissed review withholds: what was said before it does not come back."""
        reviews = self._rest.all(Review, *self._repo, "pulls", pull.number, "reviews", size="limit")
        return [_opinion(review) for review in reviews if review.state not in _SILENT]

    def makers(self, head: Commit) -> Sequence[Account]:
        """See `Dialect`."""
        made = self._commit(head)
        return [person.account for person in (made.author, made.committer) if person is not None]

    def writes(self, account: Account) -> bool:
        """See `Dialect`."""
        found = self._rest.ask(Permission, *self._repo, "collaborators", account.login, "permission")
        known = found is not None and found.user is not None and found.user.id == account.id
        return known and found is not None and found.permission in ("owner", "admin", "write")

    def opened(self, branch: str) -> Iterable[Opened]:
        """See `Dialect`."""
        query = {"state": "open", "sort": "newest", "base_branch": branch}
        for page in self._rest.pages(Open, *self._repo, "pulls", size="limit", **query):
            for pull in page:
                author = pull.user.account if pull.user else None
                home, head = pull.base.repo_id == self._home.id, Commit(pull.head.sha)
                yield Opened(pull.number, home, pull.base.ref, head, author, pull.title, pull.draft)

    def head_ref(self, number: int) -> str:
        """See `Dialect`."""
        return f"refs/pull/{number}/head"

    def guards(self) -> tuple[Protection, ...]:
        """See `Dialect`."""
        try:
            branch = self._rest.one(Branch, *self._repo, "branches", self._branch)
            if not branch.protected:
                return answers(self._said(None))
            name = branch.effective_branch_protection_name or self._branch
            rule = self._rest.one(BranchProtection, *self._repo, "branch_protections", name)
            return answers(self._said(rule))
        except PassError as error:
            if error.reason not in ("ForgeRefused", "ForgeUnknown"):
                raise
            return answers({"readable": (False, f"let the token's user administer the repository: {error}")})

    def _said(self, rule: BranchProtection | None) -> dict[str, tuple[bool, str]]:
        where = f"in the branch protection rule of {self._branch}"
        stale = rule is not None and (rule.dismiss_stale_approvals or rule.ignore_stale_approvals)
        bound = rule is not None and (rule.block_admin_merge_override or rule.apply_to_admins)
        closed = rule is not None and not rule.enable_push
        past = rule is not None and rule.enable_bypass_allowlist
        said = {
            "readable": (True, ""),
            "force_push_forbidden": (rule is not None and not rule.enable_force_push, f"disable force push {where}"),
            "deletion_forbidden": (rule is not None, f"protect {self._branch}: a protected branch cannot be deleted"),
            "pull_request_required": (closed, f"disable push {where}"),
            "direct_push_forbidden": (
                closed and not past,
                f"disable push, and the list of those who bypass it, {where}",
            ),
            "approvals_required": (
                rule is not None and rule.required_approvals >= self._needed,
                f"require {self._needed} approvals {where}",
            ),
            "approval_of_last_push": (stale, f"dismiss (or ignore) stale approvals {where}"),
            "admins_included": (bound and not past, f"let it bind administrators too {where}"),
        }
        if self._signed:
            signed = rule is not None and rule.require_signed_commits
            said["signatures_required"] = signed, f"require signed commits {where}"
        return said

    def _head(self, number: int) -> Commit:
        """The head as merged. What the pull request itself shows follows its branch, wherever that went after the merge."""
        wanted = f"refs/pull/{number}/head"
        found = self._rest.one(Ref, *self._repo, "git", "refs", "pull", number, "head")
        if found.ref != wanted:
            raise PassError("ForgeNonsense", f"{self.place}: asked for {wanted}, it shows {found.ref}: is url right?")
        return Commit(found.object.sha)

    def _commit(self, commit: Commit) -> CommitAnswer:
        found = self._rest.one(CommitAnswer, *self._repo, "git", "commits", commit)
        if found.sha != commit:
            raise PassError("ForgeNonsense", f"{self.place}: asked for {commit}, it shows {found.sha}: is url right?")
        return found


def _opinion(review: Review) -> Opinion:
    approves = review.state == "APPROVED" and not review.dismissed
    head = None if review.stale else Commit(review.commit_id)
    return Opinion(review.user.account if review.user else None, review.submitted_at, review.id, approves, head)

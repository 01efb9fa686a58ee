"""GitLab's REST API, version 4: its words in this project's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel

from reconciler.errors import PassError
from reconciler.forge.dialect import Account, Closed, Opened, Opinion, answers, looked_at
from reconciler.forge.facts import Protection
from reconciler.forge.home import check_name
from reconciler.forge.rest import PAGE, Answer, Id, Moment, Rest, Sha, Word
from reconciler.model import Commit

M = TypeVar("M", bound=BaseModel)

DEVELOPER = 30  # the least role that may push
_APPROVED, _UNAPPROVED = "approved this merge request", "unapproved this merge request"


class Project(Answer):
    id: Id
    path_with_namespace: Word
    default_branch: Word | None


class User(Answer):
    id: Id
    username: Word

    @property
    def account(self) -> Account:
        return Account(self.id, self.username)


class Profile(Answer):
    id: Id
    bot: bool


class MergeRequest(Answer):
    iid: Id
    author: User | None
    target_project_id: Id
    target_branch: Word
    state: Word
    sha: Sha | None
    merge_commit_sha: Sha | None
    squash_commit_sha: Sha | None

    @property
    def result(self) -> str | None:
        """What came onto the branch: a merge, a squashed commit, or the head itself."""
        return self.merge_commit_sha or self.squash_commit_sha or self.sha


class Open(Answer):
    iid: Id
    author: User | None
    target_project_id: Id
    target_branch: Word
    sha: Sha | None
    title: str
    draft: bool


class CommitAnswer(Answer):
    id: Sha
    parent_ids: list[Sha]


class Approval(Answer):
    user: User


class Approvals(Answer):
    approved_by: list[Approval]


class Reviewer(Answer):
    user: User
    state: Word


class Note(Answer):
    id: Id
    author: User | None
    body: str
    system: bool
    created_at: Moment


class Version(Answer):
    id: Id
    head_commit_sha: Sha | None
    created_at: Moment


class Member(Answer):
    id: Id
    state: Word
    access_level: int


class AccessLevel(Answer):
    access_level: int | None = None
    user_id: Id | None = None
    group_id: Id | None = None
    deploy_key_id: Id | None = None

    @property
    def nobody(self) -> bool:
        return self.access_level == 0 and not (self.user_id or self.group_id or self.deploy_key_id)


class ProtectedBranch(Answer):
    name: Word
    push_access_levels: list[AccessLevel]
    allow_force_push: bool


class BranchName(Answer):
    name: Word


class ApprovalRule(Answer):
    approvals_required: int
    rule_type: Word
    applies_to_all_protected_branches: bool = False
    protected_branches: tuple[BranchName, ...] = ()


class ApprovalSettings(Answer):
    reset_approvals_on_push: bool = False
    disable_overriding_approvers_per_merge_request: bool = False


class PushRule(Answer):
    reject_unsigned_commits: bool = False


class GitLab:
    """Implements `Dialect`."""

    def __init__(self, rest: Rest, repository: str, branch: str, min_approvals: int, *, signed: bool) -> None:
        self._rest, self._branch, self._needed, self._signed = rest, branch, min_approvals, signed
        self._repo = ("projects", repository)
        self._name, self._id, self._default = repository, 0, ""
        self._squashed: dict[int, str] = {}
        self.place = rest.place

    def meet(self) -> None:
        """See `Dialect`."""
        found = self._rest.one(Project, *self._repo)
        check_name(self.place, self._name, found.path_with_namespace)
        self._id, self._default = found.id, found.default_branch or ""

    def pulls_of(self, commit: Commit) -> Sequence[Closed]:
        """See `Dialect`."""
        listed = self._rest.all(MergeRequest, *self._repo, "repository", "commits", commit, "merge_requests")
        # A fork's merge requests have numbers of their own, which mean others here.
        ours = [one for one in listed if one.target_project_id == self._id]
        giving = {one.iid for one in ours if one.result == commit}
        others = {one.iid for one in ours} - giving
        return [self._closed(number) for number in looked_at(sorted(giving), sorted(others))]

    def parents(self, commit: Commit) -> Sequence[str]:
        """See `Dialect`."""
        found = self._rest.one(CommitAnswer, *self._repo, "repository", "commits", commit)
        if found.id != commit:
            raise self._nonsense(f"asked for {commit}, it shows {found.id}")
        return found.parent_ids

    def tips(self, pull: Closed) -> Sequence[str]:
        """See `Dialect`. A squashed merge request may be merged by a merge commit, too."""
        squashed = self._squashed.get(pull.number)
        return (squashed,) if squashed else (pull.head,)

    def opinions(self, pull: Closed) -> Sequence[Opinion]:
        """See `Dialect`.

        An approval names no commit. It was of the merged head if that was there already: if the note of the approval is
        younger than the version (of the differences) that the head came with.
        """
        where = (*self._repo, "merge_requests", pull.number)
        since = self._since(pull)
        standing = {one.user.id: one.user.account for one in self._rest.one(Approvals, *where, "approvals").approved_by}
        notes = [note for note in self._rest.all(Note, *where, "notes", sort="asc") if _decides(note)]
        last = {note.author.id: note for note in sorted(notes, key=_order) if note.author}
        refused = self._refused(pull.number)
        return [
            Opinion(
                self._with_kind(account),
                note.created_at,
                note.id,
                note.body == _APPROVED and who not in refused,
                pull.head if note.created_at > since else None,
            )
            for who, account in standing.items()
            if (note := last.get(who)) is not None
        ]

    def makers(self, head: Commit) -> Sequence[Account]:  # noqa: ARG002 - the Protocol's
        """See `Dialect`. GitLab knows a commit's people by their mail only, which it shows to nobody."""
        return ()

    def writes(self, account: Account) -> bool:
        """See `Dialect`."""
        found = self._rest.ask(Member, *self._repo, "members", "all", account.id)
        if found is None or found.id != account.id:
            return False
        return found.access_level >= DEVELOPER and found.state == "active"

    def opened(self, branch: str) -> Iterable[Opened]:
        """See `Dialect`."""
        query = {"state": "opened", "target_branch": branch, "order_by": "created_at", "sort": "desc"}
        for page in self._rest.pages(Open, *self._repo, "merge_requests", **query):
            for pull in page:
                if pull.sha is None:  # its branch is gone, or not there yet
                    continue
                author = pull.author.account if pull.author else None
                home, head = pull.target_project_id == self._id, Commit(pull.sha)
                yield Opened(pull.iid, home, pull.target_branch, head, author, pull.title, pull.draft)

    def head_ref(self, number: int) -> str:
        """See `Dialect`."""
        return f"refs/merge-requests/{number}/head"

    def guards(self) -> tuple[Protection, ...]:
        """See `Dialect`. Where several rules match a branch, GitLab takes the most permissive."""
        try:
            found = self._rest.all(ProtectedBranch, *self._repo, "protected_branches")
            rules = [one for one in found if _matches(one.name, self._branch)]
            return answers(self._said(rules))
        except PassError as error:
            if error.reason not in ("ForgeRefused", "ForgeUnknown"):
                raise
            return answers({"readable": (False, f"give the token the role Maintainer: {error}")})

    def _said(self, rules: Sequence[ProtectedBranch]) -> dict[str, tuple[bool, str]]:
        settings = self._optional(ApprovalSettings, "approvals") or ApprovalSettings()
        closed = bool(rules) and all(level.nobody for rule in rules for level in rule.push_access_levels)
        where = f"under Settings > Repository > Protected branches for {self._branch}"
        approvals = "under Settings > Merge requests > Approvals (GitLab Premium)"
        said = {
            "readable": (True, ""),
            "force_push_forbidden": (
                bool(rules) and not any(rule.allow_force_push for rule in rules),
                f"switch off 'Allowed to force push' {where}",
            ),
            "deletion_forbidden": (
                bool(rules) and self._default == self._branch,
                f"protect {self._branch}, and make it the default branch: any other can be deleted by a maintainer",
            ),
            "pull_request_required": (closed, f"set 'Allowed to push and merge' to 'No one' {where}"),
            "direct_push_forbidden": (closed, f"set 'Allowed to push and merge' to 'No one' {where}"),
            "approvals_required": (self._approvals() >= self._needed, f"require {self._needed} approvals {approvals}"),
            "approval_of_last_push": (
                settings.reset_approvals_on_push,
                f"let approvals be removed when commits are added {approvals}",
            ),
            "admins_included": (
                settings.disable_overriding_approvers_per_merge_request,
                f"prevent editing approval rules in merge requests {approvals}",
            ),
        }
        if self._signed:
            rule = self._optional(PushRule, "push_rule") or PushRule()
            message = "reject unsigned commits under Settings > Repository > Push rules (GitLab Premium)"
            said["signatures_required"] = rule.reject_unsigned_commits, message
        return said

    def _approvals(self) -> int:
        """The approvals that merging into the branch needs; none where the edition has no rules."""
        reply = self._rest.reply(*self._repo, "approval_rules", per_page=PAGE)
        if reply.status != 200:
            return 0
        rules = self._rest.some(ApprovalRule, *self._repo, "approval_rules", per_page=PAGE)
        return max((rule.approvals_required for rule in rules if self._applies(rule)), default=0)

    def _applies(self, rule: ApprovalRule) -> bool:
        if rule.rule_type not in ("any_approver", "regular"):
            return False
        named = [_matches(one.name, self._branch) for one in rule.protected_branches]
        return rule.applies_to_all_protected_branches or not named or any(named)

    def _optional(self, model: type[M], what: str) -> M | None:
        """A setting that not every edition has."""
        reply = self._rest.reply(*self._repo, what)
        return self._rest.read(model, reply) if reply.status == 200 and reply.body.strip() != b"null" else None

    def _closed(self, number: int) -> Closed:
        found = self._rest.one(MergeRequest, *self._repo, "merge_requests", number)
        if found.iid != number:
            raise self._nonsense(f"asked for !{number}, it shows !{found.iid}")
        if found.sha is None:
            raise self._nonsense(f"!{number} has no head")
        if found.squash_commit_sha:
            self._squashed[number] = found.squash_commit_sha
        author = found.author.account if found.author else None
        home, merged = found.target_project_id == self._id, found.state == "merged"
        return Closed(number, home, found.target_branch, merged, found.result, Commit(found.sha), author)

    def _since(self, pull: Closed) -> datetime:
        """When the merged head came."""
        versions = self._rest.all(Version, *self._repo, "merge_requests", pull.number, "versions")
        newest = max(versions, key=lambda version: version.id, default=None)
        if newest is None or newest.head_commit_sha != pull.head:
            raise self._nonsense(f"!{pull.number} has no version with its head {pull.head}")
        return newest.created_at

    def _refused(self, number: int) -> set[int]:
        """Who asks for changes."""
        reviewers = self._rest.some(Reviewer, *self._repo, "merge_requests", number, "reviewers", per_page=PAGE)
        if len(reviewers) >= PAGE:
            raise self._nonsense(f"!{number} has {PAGE} reviewers or more, and they are not all told")
        return {one.user.id for one in reviewers if one.state == "requested_changes"}

    def _with_kind(self, account: Account) -> Account:
        """The account, and whether it is a bot's."""
        found = self._rest.ask(Profile, "users", account.id)
        if found is not None and found.id != account.id:
            raise self._nonsense(f"asked for the user {account.id}, it shows {found.id}")
        return Account(account.id, account.login, found is not None and not found.bot)

    def _nonsense(self, what: str) -> PassError:
        return PassError("ForgeNonsense", f"{self.place}: {what}: is url right, and the version supported?")


def _decides(note: Note) -> bool:
    return note.system and note.author is not None and note.body in (_APPROVED, _UNAPPROVED)


def _order(note: Note) -> tuple[datetime, int]:
    return note.created_at, note.id


def _matches(pattern: str, branch: str) -> bool:
    """Whether a protected branch's name, which may hold `*`, means the branch."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), branch) is not None

"""Ways by which a commit gets onto a protected branch, each with the verdict that it deserves: for any kind of forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from reconciler.demo.forge import Forge
from reconciler.model import Commit
from tests.kit.forge import ForgeSite, Method, Person, PullRequest, Repo, Verdict

NAME = "acme/environments"


@dataclass(frozen=True, slots=True)
class Scene:
    """A forge with a repository and its people. Ada writes pull requests, Bob, Cy and Dee review them; Eve may only read."""

    site: ForgeSite
    repo: Repo

    @classmethod
    def of(cls, site: ForgeSite) -> Scene:
        repo = site.repository(NAME)
        for login in ("ada", "bob", "cy", "dee"):
            site.person(login)
            repo.access[login] = "write"
        site.person("eve")
        repo.access["eve"] = "read"
        return cls(site, repo)

    def who(self, login: str) -> Person:
        return self.site.people[login]

    def opened(self, author: str = "ada", branch: str = "change", base: str = "main") -> PullRequest:
        return self.repo.open(self.who(author), {f"{branch}.txt": f"{branch}\n"}, branch, base=base)

    def fork(self, name: str = "eve/environments") -> Repo:
        """A copy of the repository, at this forge too."""
        folder = self.site.folder / f"{name.replace('/', '-')}.git"
        self.repo.run("clone", "--quiet", "--bare", str(self.repo.git.folder), str(folder))
        return self.site.repository(name, Forge(folder))


Go = Callable[[Scene], Commit]


@dataclass(frozen=True, slots=True)
class Way:
    """`reason`: with which it is refused; "" means that it is proven, by the `approvers`."""

    name: str
    go: Go
    reason: str = ""
    approvers: tuple[str, ...] = ("bob",)
    needed: int = 1


Act = Callable[[Scene, PullRequest], object]


def merged(*acts: Act, by: str = "ada", method: Method = "merge") -> Go:
    """Ada opens a pull request, these things happen to it, and it is merged by somebody."""

    def go(s: Scene) -> Commit:
        pull = s.opened()
        for act in acts:
            act(s, pull)
        return pull.merge(s.who(by), method)

    return go


def review(login: str, verdict: Verdict = "approve") -> Act:
    return lambda s, pull: pull.review(s.who(login), verdict)


def pushed(file: str, by: str = "ada") -> Act:
    """One more commit on the pull request's branch."""
    return lambda s, pull: pull.push({file: "x\n"}, s.who(by))


def dismissed(login: str) -> Act:
    """Somebody's approval, taken back."""
    return lambda s, pull: setattr(pull.review(s.who(login)), "dismissed", True)


def state(state: Literal["open", "closed"]) -> Act:
    return lambda _, pull: setattr(pull, "state", state)


def meanwhile(s: Scene, _: PullRequest) -> None:
    """The protected branch goes on."""
    s.repo.push({"meanwhile": "1"}, s.who("cy"))


def a_stranger(s: Scene, _: PullRequest) -> None:
    s.site.person("mallory")


approved = merged(review("bob"))
approved_by_who_pushed_last = merged(pushed("mine.txt", by="bob"), review("bob"))
two_rebased = merged(pushed("more.txt"), meanwhile, review("bob"), by="bob", method="rebase")


def middle_of_a_rebase(s: Scene) -> Commit:
    return s.repo.git.at(f"{two_rebased(s)}^")


def approved_after_the_merge(s: Scene) -> Commit:
    pull = s.opened()
    commit = pull.merge()
    pull.review(s.who("bob"))
    return commit


def approver_lost_access(s: Scene) -> Commit:
    commit = approved(s)
    s.repo.access["bob"] = "read"
    return commit


def approver_left(s: Scene) -> Commit:
    commit = approved(s)
    s.who("bob").gone = True
    return commit


def author_left(s: Scene) -> Commit:
    commit = approved(s)
    s.who("ada").gone = True
    return commit


def approved_by_a_bot(s: Scene) -> Commit:
    pull = s.opened()
    bot = s.site.person("approver[bot]", bot=True)
    s.repo.access[bot.login] = "admin"
    pull.review(bot)
    return pull.merge()


def pushed_directly(s: Scene) -> Commit:
    return s.repo.push({"direct.txt": "x\n"}, s.who("ada"))


def pushed_and_in_an_open_one(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    s.repo.git.point("main", pull.head)
    return pull.head


def merged_elsewhere(s: Scene) -> Commit:
    """Into a branch that is then put into the place of the protected one."""
    s.repo.git.point("release", s.repo.git.head)
    pull = s.opened(base="release")
    pull.review(s.who("bob"))
    commit = pull.merge()
    s.repo.git.point("main", commit)
    return commit


def merged_in_a_fork(s: Scene) -> Commit:
    """Among friends, in a fork where they all have write access; then pushed."""
    fork = s.fork()
    fork.access = {"eve": "admin", "bob": "write", "ada": "write"}
    pull = fork.open(s.who("eve"), {"evil.txt": "x\n"}, "evil")
    pull.review(s.who("bob"))
    commit = pull.merge()
    s.repo.point("refs/heads/main", commit, fork)
    return commit


def from_a_fork(s: Scene) -> Commit:
    """The proper way of a contributor without write access."""
    fork = s.fork()
    pull = s.repo.open(s.who("eve"), {"good.txt": "x\n"}, "good", source=fork)
    pull.review(s.who("bob"))
    return pull.merge(s.who("bob"))


def branch_put_back_after(s: Scene) -> Commit:
    """The bad head is merged, and then its branch is moved back to the one that was approved."""
    pull = s.opened()
    good = pull.head
    pull.review(s.who("bob"))
    pull.push({"slipped-in.txt": "x\n"})
    commit = pull.merge()
    s.repo.git.point("change", good)
    return commit


def unknown_commit(s: Scene) -> Commit:
    approved(s)
    return Commit("1" * 40)


def merge_of_another_head(s: Scene) -> Commit:
    """Somebody makes the merge commit by hand; the forge takes the pull request for merged by it."""
    pull = s.opened()
    pull.review(s.who("bob"))
    other = s.repo.git.commit({"evil.txt": "x\n"}, "Evil", branch="evil", author="eve <eve@example.com>")
    base = s.repo.git.head
    tree = s.repo.run("rev-parse", f"{other}^{{tree}}")
    pull.result = s.repo.make(tree, "Merge", (base, other), "ada <ada@example.com>")
    pull.state = "merged"
    s.repo.git.point("main", pull.result)
    return pull.result


MISSING, UNAPPROVED = "PullRequestMissing", "ApprovalMissing"
WAYS = (
    Way("approved", approved),
    Way("merged by its author", merged(review("bob"), by="ada")),
    Way("merged by its approver", merged(review("bob"), by="bob")),
    Way("squashed", merged(pushed("more.txt"), review("bob"), by="bob", method="squash")),
    Way("rebased", merged(meanwhile, review("bob"), by="bob", method="rebase")),
    Way("approved again at the head", merged(review("bob"), pushed("asked-for.txt"), review("bob"))),
    Way("approved after the merge", approved_after_the_merge),
    Way("changes requested before", merged(review("bob", "refuse"), review("bob"))),
    Way("commented after", merged(review("bob"), review("bob", "comment"))),
    Way("another asks for changes", merged(review("cy", "refuse"), review("bob"))),
    Way("two approve, two needed", merged(review("cy"), review("bob")), approvers=("bob", "cy"), needed=2),
    Way("from a fork", from_a_fork),
    Way("reopened", merged(state("closed"), state("open"), review("bob"))),
    Way("never reviewed", merged(), UNAPPROVED),
    Way("approved at an older head", merged(review("bob"), pushed("slipped-in.txt")), UNAPPROVED),
    Way("approved by oneself", merged(review("ada")), UNAPPROVED),
    Way("approver lost access", approver_lost_access, UNAPPROVED),
    Way("approver left", approver_left, UNAPPROVED),
    Way("author left", author_left, UNAPPROVED),
    Way("approved by a reader", merged(review("eve")), UNAPPROVED),
    Way("approved by a stranger", merged(a_stranger, review("mallory")), UNAPPROVED),
    Way("approved by a bot", approved_by_a_bot, UNAPPROVED),
    Way("dismissed", merged(dismissed("bob")), UNAPPROVED),
    Way("changes requested after", merged(review("bob"), review("bob", "refuse")), UNAPPROVED),
    Way("one of two needed", approved, UNAPPROVED, needed=2),
    Way("one approves twice, two needed", merged(review("bob"), review("bob")), UNAPPROVED, needed=2),
    Way(
        "pushed to while closed",
        merged(review("bob"), state("closed"), pushed("slipped-in.txt"), state("open")),
        UNAPPROVED,
    ),
    Way("branch put back after", branch_put_back_after, UNAPPROVED),
    Way("middle of a rebase", middle_of_a_rebase, MISSING),
    Way("pushed directly", pushed_directly, MISSING),
    Way("pushed and in an open one", pushed_and_in_an_open_one, MISSING),
    Way("merged into another branch", merged_elsewhere, MISSING),
    Way("merged in a fork", merged_in_a_fork, MISSING),
    Way("merge of another head", merge_of_another_head, MISSING),
)

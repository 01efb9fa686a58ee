"""Ways by which a commit gets onto a protected branch, each with the verdict that it deserves: for any kind of forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.demo.forge import Forge
from reconciler.model import Commit
from tests.kit.forge import ForgeSite, Person, PullRequest, Repo

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


@dataclass(frozen=True, slots=True)
class Way:
    """`reason`: with which it is refused; "" means that it is proven, by the `approvers`."""

    name: str
    go: Callable[[Scene], Commit]
    reason: str = ""
    approvers: tuple[str, ...] = ("bob",)
    needed: int = 1


def approved(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    return pull.merge()


def merged_by_its_author(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    return pull.merge(s.who("ada"))


def merged_by_its_approver(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    return pull.merge(s.who("bob"))


def squashed(s: Scene) -> Commit:
    pull = s.opened()
    pull.push({"more.txt": "more\n"})
    pull.review(s.who("bob"))
    return pull.merge(s.who("bob"), "squash")


def rebased(s: Scene) -> Commit:
    pull = s.opened()
    s.repo.push({"meanwhile": "1"}, s.who("cy"))
    pull.review(s.who("bob"))
    return pull.merge(s.who("bob"), "rebase")


def middle_of_a_rebase(s: Scene) -> Commit:
    pull = s.opened()
    pull.push({"more.txt": "more\n"})
    s.repo.push({"meanwhile": "1"}, s.who("cy"))
    pull.review(s.who("bob"))
    last = pull.merge(s.who("bob"), "rebase")
    return s.repo.git.at(f"{last}^")


def never_reviewed(s: Scene) -> Commit:
    return s.opened().merge()


def approved_at_an_older_head(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    pull.push({"slipped-in.txt": "x\n"})
    return pull.merge()


def approved_again_at_the_head(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    pull.push({"asked-for.txt": "x\n"})
    pull.review(s.who("bob"))
    return pull.merge()


def approved_after_the_merge(s: Scene) -> Commit:
    pull = s.opened()
    commit = pull.merge()
    pull.review(s.who("bob"))
    return commit


def approved_by_oneself(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("ada"))
    return pull.merge()


def approved_by_who_pushed_last(s: Scene) -> Commit:
    pull = s.opened()
    pull.push({"mine.txt": "x\n"}, by=s.who("bob"))
    pull.review(s.who("bob"))
    return pull.merge()


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


def approved_by_a_reader(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("eve"))
    return pull.merge()


def approved_by_a_stranger(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.site.person("mallory"))
    return pull.merge()


def approved_by_a_bot(s: Scene) -> Commit:
    pull = s.opened()
    bot = s.site.person("approver[bot]", bot=True)
    s.repo.access[bot.login] = "admin"
    pull.review(bot)
    return pull.merge()


def dismissed(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob")).dismissed = True
    return pull.merge()


def changes_requested_after(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    pull.review(s.who("bob"), "refuse")
    return pull.merge()


def changes_requested_before(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"), "refuse")
    pull.review(s.who("bob"))
    return pull.merge()


def commented_after(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    pull.review(s.who("bob"), "comment")
    return pull.merge()


def another_asks_for_changes(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("cy"), "refuse")
    pull.review(s.who("bob"))
    return pull.merge()


def two_approve(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("cy"))
    pull.review(s.who("bob"))
    return pull.merge()


def one_approves_twice(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    pull.review(s.who("bob"))
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


def reopened(s: Scene) -> Commit:
    pull = s.opened()
    pull.state = "closed"
    pull.state = "open"
    pull.review(s.who("bob"))
    return pull.merge()


def pushed_to_while_closed(s: Scene) -> Commit:
    pull = s.opened()
    pull.review(s.who("bob"))
    pull.state = "closed"
    pull.push({"slipped-in.txt": "x\n"})
    pull.state = "open"
    return pull.merge()


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
    Way("merged by its author", merged_by_its_author),
    Way("merged by its approver", merged_by_its_approver),
    Way("squashed", squashed),
    Way("rebased", rebased),
    Way("approved again at the head", approved_again_at_the_head),
    Way("approved after the merge", approved_after_the_merge),
    Way("changes requested before", changes_requested_before),
    Way("commented after", commented_after),
    Way("another asks for changes", another_asks_for_changes),
    Way("two approve, two needed", two_approve, approvers=("bob", "cy"), needed=2),
    Way("from a fork", from_a_fork),
    Way("reopened", reopened),
    Way("never reviewed", never_reviewed, UNAPPROVED),
    Way("approved at an older head", approved_at_an_older_head, UNAPPROVED),
    Way("approved by oneself", approved_by_oneself, UNAPPROVED),
    Way("approver lost access", approver_lost_access, UNAPPROVED),
    Way("approver left", approver_left, UNAPPROVED),
    Way("author left", author_left, UNAPPROVED),
    Way("approved by a reader", approved_by_a_reader, UNAPPROVED),
    Way("approved by a stranger", approved_by_a_stranger, UNAPPROVED),
    Way("approved by a bot", approved_by_a_bot, UNAPPROVED),
    Way("dismissed", dismissed, UNAPPROVED),
    Way("changes requested after", changes_requested_after, UNAPPROVED),
    Way("one of two needed", approved, UNAPPROVED, needed=2),
    Way("one approves twice, two needed", one_approves_twice, UNAPPROVED, needed=2),
    Way("pushed to while closed", pushed_to_while_closed, UNAPPROVED),
    Way("branch put back after", branch_put_back_after, UNAPPROVED),
    Way("middle of a rebase", middle_of_a_rebase, MISSING),
    Way("pushed directly", pushed_directly, MISSING),
    Way("pushed and in an open one", pushed_and_in_an_open_one, MISSING),
    Way("merged into another branch", merged_elsewhere, MISSING),
    Way("merged in a fork", merged_in_a_fork, MISSING),
    Way("merge of another head", merge_of_another_head, MISSING),
)

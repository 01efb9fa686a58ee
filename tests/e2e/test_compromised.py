"""A controller in an attacker's hands: well-formed jobs that name what was not merged, signed and approved start no engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.demo.forge import Files
from reconciler.model import Commit, Result
from tests.kit.forge import ForgeSite, PullRequest, forge_site
from tests.kit.gitrepo import RepoBuilder
from tests.kit.house import House, house
from tests.kit.modules import CATALOG, entry, environment
from tests.kit.signing import SshKey, SshKeys, with_signature, write
from tests.kit.story import at, env, runner_does

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

GONE = at("prod/gone")


def page(content: str) -> Files:
    return {at("prod/page"): entry("file", {"path": "page", "content": content})}


@dataclass
class Taken:
    """A runner that wants signatures and approvals, and whoever holds the controller's end of its socket."""

    home: House
    site: ForgeSite
    ada: SshKey
    eve: SshKey

    def opened(self, content: str, *, approved: bool = True) -> PullRequest:
        repository = self.site.repos["acme/environments"]
        pull = repository.open(self.site.people["ada"], page(content), f"change-{len(repository.pulls)}")
        if approved:
            pull.review(self.site.people["bob"])
        return pull

    def merged(self, pull: PullRequest, key: SshKey | None) -> Commit:
        """The forge's merge, signed by the key, or by nobody."""
        merged = pull.merge()
        pull.result = self.signed(merged, key) if key else merged
        return pull.result

    def signed(self, commit: Commit, key: SshKey) -> Commit:
        repo = RepoBuilder(self.home.ground.environments.folder)
        data = f"{repo.git('cat-file', 'commit', commit)}\n".encode()
        return write(repo, with_signature(data, key.sign(data)))

    def asks(self, commit: Commit, operation: str = "apply") -> Result:
        return runner_does(self.home, "prod/page", commit, operation)

    def started(self, result: Result) -> bool:
        """Whether the job's engine said anything, or there is a folder that it worked in."""
        folder = self.home.ground.folder / "runner" / "spool" / result.job.id
        return (folder / "log.txt").exists() or (folder / "work").exists()

    def nothing_starts(self, commit: Commit) -> list[str]:
        """The reasons why neither a plan nor an apply of the commit is made."""
        results = [self.asks(commit, operation) for operation in ("plan", "apply")]
        assert [self.started(result) for result in results] == [False, False]
        assert [result.applied for result in results] == [None, None]
        return [result.reason for result in results]

    @property
    def world(self) -> str:
        return (self.home.ground.world / "page").read_text()


@pytest.fixture
def taken(tmp_path: Path, ssh_keys: SshKeys) -> Iterator[Taken]:
    """The runner alone, with the first page deployed; a second unit that the next commit removes."""
    signers = tmp_path / "signers"
    signers.write_text(ssh_keys["ada"].line())
    with forge_site(tmp_path / "forge") as site:
        signatures = {"allowed_signers": str(signers)}
        trust = {"environments_repo": {"signatures": signatures, "forge": site.config("github", "acme/environments")}}
        entries = {env("prod"): environment(), **page("one"), GONE: entry("file", {"path": "gone", "content": "x"})}
        with house(tmp_path / "house", entries, CATALOG, runner=trust) as home:
            made = site.repository("acme/environments", home.ground.environments)
            for login in ("ada", "bob"):
                site.person(login)
                made.access[login] = "write"
            home.start_runner()
            found = Taken(home, site, ssh_keys["ada"], ssh_keys["eve"])
            first = found.asks(home.ground.environments.head)
            assert (first.outcome.value, found.world) == ("Succeeded", "one")
            yield found


def test_what_is_not_merged_signed_and_approved_starts_no_engine(taken: Taken) -> None:
    refused = ["CommitNotAccepted", "CommitNotAccepted"]
    genesis = taken.home.ground.environments.head

    unmerged = taken.opened("unmerged")
    assert taken.nothing_starts(unmerged.head) == refused
    assert taken.nothing_starts(Commit("f" * 40)) == refused  # of nobody's

    unsigned = taken.merged(taken.opened("unsigned"), None)
    assert taken.nothing_starts(unsigned) == refused
    taken.home.ground.environments.point("main", genesis)
    stranger = taken.merged(taken.opened("stranger"), taken.eve)
    assert taken.nothing_starts(stranger) == refused
    taken.home.ground.environments.point("main", genesis)
    unapproved = taken.merged(taken.opened("unapproved", approved=False), taken.ada)
    assert taken.nothing_starts(unapproved) == refused
    taken.home.ground.environments.point("main", genesis)
    pushed = taken.signed(taken.home.ground.commit_direct(dict(page("pushed"))), taken.ada)
    assert taken.nothing_starts(pushed) == refused
    assert taken.world == "one"

    # And with all three, by the same hands: known code runs, once.
    taken.home.ground.environments.point("main", genesis)
    good = taken.merged(taken.opened("good"), taken.ada)
    assert taken.asks(good).outcome.value == "Succeeded"
    assert taken.world == "good"

    # Rewritten afterwards, with everything that a commit needs: it is not what was accepted.
    taken.home.ground.environments.point("main", genesis)
    rewritten = taken.merged(taken.opened("rewritten"), taken.ada)
    assert taken.nothing_starts(rewritten) == ["HistoryRewritten", "HistoryRewritten"]
    (taken.home.ground.world / "page").write_text("by hand")
    frozen = taken.asks(good)  # nor does an apply of the last good commit go on
    assert (frozen.reason, taken.started(frozen)) == ("HistoryRewritten", False)
    assert taken.world == "by hand"


def test_an_old_job_is_superseded_which_is_no_failure_of_trust(taken: Taken) -> None:
    genesis = taken.home.ground.environments.head
    taken.opened("two").review(taken.site.people["bob"])
    pull = taken.site.repos["acme/environments"].pulls[-1]
    pull.push({GONE: None})
    pull.review(taken.site.people["bob"])
    last = taken.merged(pull, taken.ada)
    assert taken.asks(last).outcome.value == "Succeeded"

    replayed = runner_does(taken.home, "prod/gone", genesis)  # a unit that no commit in force knows
    assert (replayed.outcome.value, replayed.reason) == ("Superseded", "Superseded")
    assert not taken.started(replayed)

    again = taken.asks(genesis)  # an older commit is a lower bound: the newest one's meaning is what runs
    assert (again.outcome.value, again.commit) == ("Succeeded", last)
    assert taken.world == "two"

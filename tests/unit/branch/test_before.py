"""What was in force before a merge: over real histories, whatever is done to environment.yaml in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.branch import before
from reconciler.branch.before import Before
from reconciler.branch.protected import Catalogs, ProtectedBranch
from reconciler.demo.forge import Forge
from reconciler.desired.policy import policy_of
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Commit, Environment, EnvironmentClass, Limits, Policy, ReviewMode
from tests.kit.gitrepo import Memory

PATH = "environments/prod/environment.yaml"
STRICT = "class: protected\nlimits: {destroy: 0}\nfreeze: [{cron: 0 16 * * FRI, duration: 64h, reason: weekend}]\n"
LOOSE = "class: protected\nlimits: {destroy: 9}\n"
BROKEN = "class: protected\nlimits: {destory: 9}\n"


class Site:
    """A repository of environments, and the branch over it. `pulls`: which pull request each commit came by."""

    def __init__(self, folder: Path) -> None:
        self.forge = Forge.create(folder / "environments.git")
        self.pulls: dict[Commit, int] = {}
        self.source = EnvironmentsSource(
            Remote(self.forge.url), "main", folder / "mirror", Memory(),
            genesis=None, genesis_required=False, allow_file=True,
        )  # fmt: skip
        self.branch = ProtectedBranch(self.source, Catalogs({}, folder / "trees"), self.pulls.get)

    def merge(self, text: str, *, pull: int | None = None, path: str = PATH) -> Commit:
        commit = self.forge.merge({path: text}, "A merge")
        if pull is not None:
            self.pulls[commit] = pull
        return commit

    def away(self) -> Commit:
        return self.forge.merge({PATH: None}, "Away")

    def prod(self) -> Environment:
        return self.branch.load(self.source.poll().commit).environments["prod"]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    found = Site(tmp_path)
    found.forge.commit({PATH: "class: protected\n"}, "First")
    return found


def other(site: Site, text: str = "Another merge") -> Commit:
    return site.forge.merge({"README.md": text}, "Another")


def test_the_first_commit_of_all_has_nothing_before_it(tmp_path: Path) -> None:
    site = Site(tmp_path)
    commit = site.forge.commit({PATH: LOOSE}, "First")
    site.source.poll()
    assert Before(site.source)(commit) == {}
    assert site.prod().limits.destroy == 9


def test_a_loosening_counts_from_the_next_merge_on_whatever_that_is(site: Site) -> None:
    site.merge(STRICT)
    site.merge(LOOSE)
    held = site.prod()
    assert (held.limits.destroy, len(held.freeze)) == (0, 1)
    assert held.says == Policy(EnvironmentClass.PROTECTED, limits=Limits(destroy=9))
    assert site.prod() is held
    other(site)
    free = site.prod()
    assert (free.limits.destroy, free.freeze, free.says) == (9, (), None)


def test_a_tightening_counts_at_once_and_its_revert_does_not(site: Site) -> None:
    site.merge(LOOSE)
    other(site)
    site.merge(STRICT)
    assert (site.prod().limits.destroy, site.prod().says) == (0, None)
    site.merge(LOOSE)
    assert site.prod().limits.destroy == 0


def test_two_merges_that_are_seen_at_once_are_two_merges(site: Site) -> None:
    """Each was approved for itself; and when somebody looks must make no difference to what holds."""
    site.merge(STRICT)
    site.merge(LOOSE)
    other(site)
    assert site.prod().limits.destroy == 9


def test_the_commits_of_one_pull_request_are_one_merge(site: Site) -> None:
    site.merge(STRICT, pull=1)
    site.merge(LOOSE, pull=2)
    site.pulls[other(site, "a")] = 2
    site.pulls[other(site, "b")] = 2
    assert site.prod().limits.destroy == 0
    site.pulls[other(site, "c")] = 3
    assert site.prod().limits.destroy == 9


def test_a_pull_request_that_reaches_back_to_the_first_commit_is_the_first_merge(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.pulls[site.forge.commit({PATH: STRICT}, "First")] = 1
    site.pulls[site.forge.commit({PATH: LOOSE}, "Second")] = 1
    assert site.prod().limits.destroy == 9


@pytest.mark.parametrize("between", [("away",), (BROKEN,), ("away", BROKEN, "away"), (BROKEN, BROKEN + "# again\n")])
def test_what_was_in_force_is_not_shaken_off_by_taking_the_file_away_for_a_while(
    site: Site, between: tuple[str, ...]
) -> None:
    site.merge(STRICT)
    for text in between:
        site.away() if text == "away" else site.merge(text)
    site.merge(LOOSE)
    assert (site.prod().limits.destroy, len(site.prod().freeze)) == (0, 1)
    other(site)
    assert (site.prod().limits.destroy, site.prod().freeze) == (9, ())


def test_a_file_that_is_no_plain_file_says_nothing(site: Site) -> None:
    site.merge(STRICT)
    site.merge("x" * 70_000)
    site.merge(LOOSE)
    assert site.prod().limits.destroy == 0


def test_a_new_environment_begins_with_what_is_not_written(site: Site) -> None:
    path = "environments/dev/environment.yaml"
    site.merge("class: sandbox\nreview: off\nlimits: {destroy: 5, free_replace: [a]}\n", path=path)
    dev = site.branch.load(site.source.poll().commit).environments["dev"]
    assert policy_of(dev) == Policy(EnvironmentClass.SANDBOX)
    other(site)
    dev = site.branch.load(site.source.poll().commit).environments["dev"]
    assert (dev.review, dev.limits) == (ReviewMode.OFF, Limits(5, 3, frozenset("a")))


def test_how_far_back_it_looks_has_an_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "MOST_VERSIONS", 2)
    site.merge(STRICT)
    site.away()
    site.merge(BROKEN)
    site.merge(LOOSE)
    assert (site.prod().limits, site.prod().freeze) == (Limits(), ())  # as if it were new


def test_other_environments_are_not_asked_about(site: Site) -> None:
    site.merge(STRICT)
    other(site)
    assert Before(site.source)(site.source.poll().commit) == {}

"""The files of a commit are the same, whichever commit they are worked out from."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from reconciler.branch import files as listing
from reconciler.branch.files import Files, files_of
from reconciler.desired.strict import FILE_LIMIT
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.git.tree import TreeLimits
from reconciler.model import Commit
from tests.kit.gitrepo import Memory, RepoBuilder

PATHS = ("catalog-lock.yaml", "docs/a", "environments/prod/a.yaml", "environments/prod/b.yaml", "environments/prod/c/d.yaml",
         "environments/README.md", "environments/x.yaml", "environments/x.yaml/in.yaml", "environments/prod/ü.yaml")  # fmt: skip
CONTENTS = ("one", "two", "x" * (FILE_LIMIT + 1), None, None)
MODES = ("100644",) * 6 + ("100755", "120000")


class Site:
    """A repository, and the mirror of it."""

    def __init__(self, folder: Path) -> None:
        self.repo = RepoBuilder.create(folder / "repo")
        self.source = EnvironmentsSource(
            Remote(self.repo.url), "main", folder / "mirror", Memory(),
            genesis=None, genesis_required=False, allow_file=True,
        )  # fmt: skip

    def commit(self, files: dict[str, str | None], mode: str = "100644") -> Commit:
        entries = {path: None if text is None else (mode, self.repo.blob(text)) for path, text in files.items()}
        head = self.repo.head()
        made = self.repo.record(entries, parents=(head,) if head else ())
        assert self.source.poll().commit == made
        return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def means(files: Files) -> tuple[object, ...]:
    return files.commit, dict(files.blobs), list(files.in_order())


def drawn(draw: random.Random) -> dict[str, str | None]:
    """A change of one file or a few; where a folder and a file want the same name, the other goes."""
    files: dict[str, str | None] = {path: draw.choice(CONTENTS) for path in draw.sample(PATHS, draw.randint(1, 3))}
    for one, other in (("environments/x.yaml", "environments/x.yaml/in.yaml"),) * 2:
        if files.get(one) is not None:
            files[other] = None
        elif files.get(other) is not None:
            files[one] = None
    return files


@pytest.mark.parametrize("seed", range(3))
def test_from_whichever_commit(site: Site, seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311 - a test's
    found = files_of(site.source, site.commit({"environments/prod/a.yaml": "one"}))
    for _ in range(15):
        commit = site.commit(drawn(draw), draw.choice(MODES))
        found, fresh = files_of(site.source, commit, found), files_of(site.source, commit)
        assert means(found) == means(fresh)
        assert found.size >= fresh.size


def test_a_small_difference_shares_what_is_the_same(site: Site) -> None:
    first = files_of(site.source, site.commit({"environments/prod/a.yaml": "one", "environments/prod/b.yaml": "one"}))
    second = files_of(site.source, site.commit({"docs/a": "of no interest"}), first)
    assert second.blobs is first.blobs
    assert (second.problems, second.size) == (first.problems, first.size)


def test_where_much_differs_or_a_limit_is_near_all_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = files_of(site.source, site.commit({"environments/prod/a.yaml": "one"}))
    for number in range(2):
        commit = site.commit({"environments/prod/a.yaml": f"and more{number}"})
    assert files_of(site.source, commit, first).size == first.size + len("and more1")
    for name, value in (("MOST_NAMED", 0), ("_LIMITS", TreeLimits(total=3)), ("_LIMITS", TreeLimits(entries=0))):
        with monkeypatch.context() as patch:
            patch.setattr(listing, name, value)
            found = files_of(site.source, commit, first)
        assert found.size == len("and more1")
        assert dict(found.blobs) == {"environments/prod/a.yaml": site.repo.blob("and more1")}


def test_a_commit_that_is_nowhere_any_more_is_no_hindrance(site: Site) -> None:
    commit = site.commit({"environments/prod/a.yaml": "one"})
    fresh = files_of(site.source, commit)
    gone = Files(Commit("f" * 40), fresh.blobs.after({"environments/b.yaml": "0" * 40}), fresh.problems, 0)
    assert means(files_of(site.source, commit, gone)) == means(fresh)

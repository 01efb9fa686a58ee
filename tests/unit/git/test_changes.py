"""What is known of many files at once, beside what git says of each."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from reconciler.git import changes
from reconciler.git.changes import Changes
from reconciler.git.command import Git
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder

FILES = [f"environments/prod/{name}.yaml" for name in "abcdef"]


@pytest.fixture
def repo(tmp_path: Path) -> RepoBuilder:
    return RepoBuilder.create(tmp_path / "repo.git")


def asked(git: Git, commit: Commit, path: str) -> Commit | None:
    out = git.run("rev-list", "--first-parent", "--max-count=1", operands=(commit,), paths=(path,))
    return Commit(out.decode().strip()) or None


def check(git: Git, known: Changes, commit: Commit, paths: list[str]) -> int:
    """Nothing that is known is otherwise; how much is."""
    found = {path: known.of(commit, path) for path in paths}
    assert all(asked(git, commit, path) == one for path, one in found.items() if one is not None)
    return sum(one is not None for one in found.values())


def merged(repo: RepoBuilder, files: dict[str, str | None], branch: str) -> Commit:
    """Two commits of a branch, merged."""
    repo.branch_off(branch)
    repo.commit(files, branch=branch)
    repo.commit({"README.md": branch}, branch=branch)
    return repo.merge(branch)


@pytest.mark.parametrize("seed", range(4))
def test_it_says_what_git_says(seed: int, repo: RepoBuilder) -> None:
    draw, git = random.Random(seed), Git(repo.folder)  # noqa: S311 - a history, no secret
    head = repo.commit(dict.fromkeys(FILES, "0"))
    known = Changes(git)
    for number in range(12):
        files: dict[str, str | None] = dict.fromkeys(draw.sample(FILES, draw.randint(0, 2)), f"{number}")
        if draw.random() < 0.3:
            files[draw.choice(FILES)] = None
        head = merged(repo, files, f"topic-{number}") if draw.random() < 0.4 else repo.commit(files)
        if draw.random() < 0.6:
            known.learn(head)
            assert check(git, known, head, FILES) == len(FILES)
    assert known.of(Commit("0" * 40), FILES[0]) is None


def test_of_what_is_further_back_nothing_is_known(repo: RepoBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "FIRST", 2)
    git = Git(repo.folder)
    for number, path in enumerate(FILES):
        head = repo.commit({path: f"{number}"})
    known = Changes(git)
    known.learn(head)
    assert check(git, known, head, FILES) == 2
    head = repo.commit({FILES[0]: "again"})
    known.learn(head)
    assert check(git, known, head, FILES) == 3


def test_another_history_is_begun_anew(repo: RepoBuilder) -> None:
    git = Git(repo.folder)
    first = repo.commit({FILES[0]: "0"})
    known = Changes(git)
    known.learn(repo.commit({FILES[1]: "1"}))
    repo.git("update-ref", "refs/heads/main", first)
    head = repo.commit({FILES[2]: "2"})
    known.learn(head)
    assert check(git, known, head, FILES) == 2
    assert known.of(head, FILES[1]) is None


def test_a_name_is_never_taken_for_a_commit(repo: RepoBuilder) -> None:
    git = Git(repo.folder)
    first = repo.commit({FILES[0]: "0"})
    head = repo.commit({f"\x01{first}": "x", FILES[1]: "1"})
    known = Changes(git)
    known.learn(head)
    assert check(git, known, head, FILES) == 2


def test_what_cannot_be_read_stays_unknown(repo: RepoBuilder) -> None:
    repo.commit({FILES[0]: "0"})
    known, missing = Changes(Git(repo.folder)), Commit("1" * 40)
    known.learn(missing)
    assert known.of(missing, FILES[0]) is None

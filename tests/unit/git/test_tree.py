from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.errors import PassError
from reconciler.git.command import Git
from reconciler.git.tree import TreeChange, TreeEntry, TreeLimits, changed_paths, list_blobs, object_id, read_blobs
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder


@pytest.fixture
def repo(tmp_path: Path) -> RepoBuilder:
    return RepoBuilder.create(tmp_path / "repo.git")


def listed(repo: RepoBuilder, commit: Commit, *prefixes: str, limits: TreeLimits | None = None) -> list[TreeEntry]:
    return list(list_blobs(Git(repo.folder), commit, *prefixes, limits=limits))


def odd(repo: RepoBuilder, mode: str, name: bytes) -> list[TreeEntry]:
    """The listing of a tree of one entry that is just so, beside a good one."""
    blob = repo.blob("x")
    tree = repo.raw_tree((mode, name, blob), ("100644", b"zz.yaml", blob))
    return listed(repo, repo.commit_tree(tree))


def test_files_come_with_mode_path_id_and_size(repo: RepoBuilder) -> None:
    commit = repo.commit({"environments/prod/network.yaml": "module: acme/vpc\n", "catalog-lock.yaml": "l"})
    assert listed(repo, commit) == [
        TreeEntry("100644", "catalog-lock.yaml", repo.blob("l"), 1),
        TreeEntry("100644", "environments/prod/network.yaml", repo.blob("module: acme/vpc\n"), 17),
    ]


def test_only_what_is_under_the_prefixes(repo: RepoBuilder) -> None:
    commit = repo.commit({"environments/a.yaml": "1", "environments-old/b.yaml": "2", "lock": "3", "c": "4"})
    assert [entry.path for entry in listed(repo, commit, "environments/", "lock")] == ["environments/a.yaml", "lock"]


def test_a_prefix_is_no_pattern(repo: RepoBuilder) -> None:
    commit = repo.commit({"environments/a.yaml": "1"})
    assert listed(repo, commit, "*") == []
    assert listed(repo, commit, ":(glob)**") == []


@pytest.mark.parametrize(
    ("mode", "named"), [("120000", "symbolic link"), ("160000", "submodule"), ("100755", "executable")]
)
def test_other_modes_are_a_problem_of_that_file(repo: RepoBuilder, mode: str, named: str) -> None:
    bad, good = odd(repo, mode, b"a.yaml")
    assert named in bad.problem
    assert "commit a plain file" in bad.problem
    assert not good.problem


@pytest.mark.parametrize(
    "name", [b"..", b".", b".git", b".GIT", b"a b", b"a\nb", b"a\\b", b"\xff\xfe", "é".encode(), b"-\x1b[31m", b"a:b"]
)
def test_odd_names_are_a_problem_of_that_file_and_shown_escaped(repo: RepoBuilder, name: bytes) -> None:
    bad, good = odd(repo, "100644", name)
    assert "characters that are not allowed" in bad.problem
    assert bad.path.isprintable()
    assert bad.path.isascii()
    assert not good.problem


@pytest.mark.parametrize("name", [b"..a", b"a..b", b".gitignore", b"-a", b"..."])
def test_names_that_only_look_odd_are_fine(repo: RepoBuilder, name: bytes) -> None:
    assert [entry.problem for entry in odd(repo, "100644", name)] == ["", ""]


def test_a_traversal_deep_in_the_tree_is_found(repo: RepoBuilder) -> None:
    inner = repo.raw_tree(("100644", b"x.yaml", repo.blob("x")))
    tree = repo.raw_tree(("40000", b"environments", repo.raw_tree(("40000", b"..", inner))))
    (entry,) = listed(repo, repo.commit_tree(tree))
    assert entry.path == "environments/../x.yaml"
    assert entry.problem


def test_a_very_long_path_is_a_problem_of_that_file(repo: RepoBuilder) -> None:
    bad, good = odd(repo, "100644", b"a" * 5000)
    assert bad.problem.startswith("the path has 5000 bytes")
    assert len(bad.path) < 500
    assert not good.problem


def test_a_bomb_is_cut_at_the_limit(repo: RepoBuilder) -> None:
    tree = repo.raw_tree(("100644", b"f", repo.blob("x")))
    for _ in range(9):  # ten to the ninth files
        tree = repo.raw_tree(*(("40000", b"%d" % number, tree) for number in range(10)))
    with pytest.raises(PassError, match=r"more than 5000 files .*, from [0-9/]{17}/f on: ") as error:
        listed(repo, repo.commit_tree(tree), limits=TreeLimits(entries=5000))
    assert error.value.reason == "TreeTooLarge"


def test_too_many_bytes_are_too_large(repo: RepoBuilder) -> None:
    commit = repo.commit({"a": "x" * 600, "b": "y" * 600})
    with pytest.raises(PassError, match="1000 bytes"):
        listed(repo, commit, limits=TreeLimits(total=1000))


def test_a_commit_that_is_not_there_is_an_error(repo: RepoBuilder) -> None:
    with pytest.raises(PassError):
        listed(repo, Commit("1" * 40))


@pytest.mark.parametrize("text", ["HEAD", "--help", "a" * 39, "A" * 40, "a" * 40 + "\n", ""])
def test_only_full_object_ids_reach_git(repo: RepoBuilder, text: str) -> None:
    with pytest.raises(ValueError, match="not an object id"):
        object_id(text)
    with pytest.raises(ValueError, match="not an object id"):
        listed(repo, Commit(text))


def test_blobs_are_read_as_they_are(repo: RepoBuilder) -> None:
    contents = [b"", b"\n", b"a\0b\n\n", b"0123456789" * 300_000, bytes(range(256)), b"blob 5\n"]
    ids = [repo.blob(content) for content in contents]
    assert read_blobs(Git(repo.folder), [*ids, ids[0]]) == dict(zip(ids, contents, strict=True))


def test_no_ids_need_no_process(tmp_path: Path) -> None:
    assert read_blobs(Git(tmp_path / "nowhere"), []) == {}


def test_a_blob_over_the_limit_is_left_out(repo: RepoBuilder) -> None:
    small, large, last = repo.blob("small"), repo.blob("x" * 500_000), repo.blob("last")
    assert read_blobs(Git(repo.folder), [small, large, last], limit=1000) == {small: b"small", last: b"last"}


def test_too_much_altogether_is_refused(repo: RepoBuilder) -> None:
    ids = [repo.blob(f"{number}" * 400) for number in range(4)]
    with pytest.raises(PassError) as error:
        read_blobs(Git(repo.folder), ids, total=1000)
    assert error.value.reason == "TreeTooLarge"


@pytest.mark.parametrize("what", ["missing", "tree"])
def test_what_is_no_blob_here_is_missing(repo: RepoBuilder, what: str) -> None:
    commit = repo.commit({"a": "1"})
    wanted = "1" * 40 if what == "missing" else repo.git("rev-parse", f"{commit}^{{tree}}")
    with pytest.raises(PassError, match=wanted) as error:
        read_blobs(Git(repo.folder), [wanted])
    assert error.value.reason == "ObjectMissing"


def test_changes_between_two_commits(repo: RepoBuilder) -> None:
    old = repo.commit({"e/kept": "1", "e/gone": "2", "e/new": "3", "other": "4"})
    new = repo.commit({"e/gone": None, "e/new": "5", "e/more": "6", "other": "7"})
    assert changed_paths(Git(repo.folder), old, new, "e") == [
        TreeChange("e/gone", "", ""),
        TreeChange("e/more", "100644", repo.blob("6")),
        TreeChange("e/new", "100644", repo.blob("5")),
    ]
    assert changed_paths(Git(repo.folder), new, new, "e") == []
    assert changed_paths(Git(repo.folder), old, new, "e")[0].removed


def test_a_rename_is_a_removal_and_an_addition(repo: RepoBuilder) -> None:
    old = repo.commit({"a.yaml": "same"})
    new = repo.commit({"a.yaml": None, "b.yaml": "same"})
    changes = changed_paths(Git(repo.folder), old, new)
    assert [(change.path, change.removed) for change in changes] == [("a.yaml", True), ("b.yaml", False)]


def test_a_file_that_becomes_a_link_is_a_problem_and_its_removal_is_none(repo: RepoBuilder) -> None:
    plain = repo.commit({"a": "1"})
    link = repo.record({"a": ("120000", repo.blob("/etc/shadow"))}, parents=(plain,))
    assert "symbolic link" in changed_paths(Git(repo.folder), plain, link)[0].problem
    gone = repo.commit({"a": None})
    assert changed_paths(Git(repo.folder), link, gone) == [TreeChange("a", "", "")]


def test_too_many_changes_are_too_large(repo: RepoBuilder) -> None:
    old = repo.commit({"a": "1"})
    new = repo.commit({f"f{number}": "1" for number in range(5)})
    with pytest.raises(PassError) as error:
        changed_paths(Git(repo.folder), old, new, limits=TreeLimits(entries=3))
    assert error.value.reason == "TreeTooLarge"

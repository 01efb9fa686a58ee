from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from reconciler.errors import PassError
from reconciler.git import pulls as module
from reconciler.git.command import Remote
from reconciler.git.pulls import PullMirror
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder

NET = "environments/prod/net.yaml"


class World:
    """A repository with a protected branch, and a mirror of its pull requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repo = RepoBuilder.create(folder / "repo.git")
        self.base = self.repo.commit({NET: "1\n", "environments/prod/app.yaml": "1\n"})
        self.mirror = PullMirror(folder / "pulls", Remote(self.repo.url), "main", allow_file=True)

    def pull(self, number: int, files: dict[str, str | bytes | None], start: str = "main") -> Commit:
        """Push to a pull request, which begins at `start`."""
        self.repo.git("branch", "--force", f"p{number}", start)
        head = self.repo.commit(files, branch=f"p{number}")
        self.repo.git("update-ref", f"refs/pull/{number}/head", head)
        return head

    def made_by_hand(self, tree: str, *parents: str) -> Commit:
        """A commit of any tree, pushed to the first pull request and brought to the mirror."""
        words = (word for parent in parents for word in ("-p", parent))
        head = Commit(self.repo.git("commit-tree", tree, *words, "-m", "by hand"))
        self.repo.git("update-ref", "refs/pull/1/head", head)
        self.bring(1, head)
        return head

    def bring(self, number: int, head: Commit, base: Commit | None = None) -> None:
        self.mirror.bring(number, f"refs/pull/{number}/head", head, base or self.base)

    def files(self, head: Commit, base: Commit | None = None) -> dict[str, bytes]:
        found = list(self.mirror.read_tree(self.mirror.merge(base or self.base, head), "environments"))
        blobs = self.mirror.read_blobs([one.blob_id for one in found])
        return {one.path: blobs[one.blob_id] for one in found}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def reason(call: object) -> str:
    assert callable(call)
    with pytest.raises(PassError) as refused:
        call()
    return refused.value.reason


def test_the_merge_is_what_the_branch_would_be(world: World) -> None:
    head = world.pull(1, {NET: "2\n"})
    later = world.repo.commit({"environments/prod/app.yaml": "3\n"})
    world.bring(1, head, later)
    assert world.mirror.changed(later, head) == {NET}
    assert world.files(head, later) == {NET: b"2\n", "environments/prod/app.yaml": b"3\n"}


def test_a_conflict_names_the_file(world: World) -> None:
    head = world.pull(1, {NET: "2\n"})
    later = world.repo.commit({NET: "3\n"})
    world.bring(1, head, later)
    with pytest.raises(PassError, match=f"conflicts with the branch .{NET}.") as refused:
        world.mirror.merge(later, head)
    assert refused.value.reason == "PullConflicts"


def test_a_head_may_be_pushed_over(world: World) -> None:
    old = world.pull(1, {NET: "2\n"})
    world.bring(1, old)
    new = world.pull(1, {NET: "3\n"})
    assert world.files(old)[NET] == b"2\n"
    world.bring(1, new)
    assert world.files(new)[NET] == b"3\n"


def test_another_head_than_the_one_named_is_not_taken(world: World) -> None:
    world.pull(1, {NET: "2\n"})
    assert reason(lambda: world.bring(1, Commit("d" * 40))) == "PullMoved"


def test_a_base_that_the_branch_does_not_have(world: World) -> None:
    head = world.pull(1, {NET: "2\n"})
    assert reason(lambda: world.bring(1, head, Commit("d" * 40))) == "PullBaseMissing"


def test_a_pull_request_that_is_not_there(world: World) -> None:
    with pytest.raises(PassError):
        world.bring(7, Commit("d" * 40))


def test_a_history_of_its_own_is_no_change_of_the_branch(world: World) -> None:
    head = world.made_by_hand(world.repo.git("rev-parse", "main^{tree}"))
    assert reason(lambda: world.mirror.changed(world.base, head)) == "PullUnrelated"


def test_ten_thousand_files_are_too_many(world: World) -> None:
    blob = world.repo.git("hash-object", "-w", "--stdin", stdin=b"x")
    tree = world.repo.git("mktree", stdin="".join(f"100644 blob {blob}\tf{n}\n" for n in range(10_000)).encode())
    head = world.made_by_hand(tree, world.base)
    assert reason(lambda: world.mirror.changed(world.base, head)) == "PullTooLarge"


def test_a_git_bomb_ends_where_the_limit_is(world: World) -> None:
    """Ten levels of ten names for the same tree: ten thousand million files, in a few hundred bytes."""
    blob = world.repo.git("hash-object", "-w", "--stdin", stdin=b"boom\n")
    inner = world.repo.git("mktree", stdin="".join(f"100644 blob {blob}\tf{n}\n" for n in range(10)).encode())
    for _ in range(9):
        inner = world.repo.git("mktree", stdin="".join(f"040000 tree {inner}\td{n}\n" for n in range(10)).encode())
    head = world.made_by_hand(inner, world.base)
    other = world.pull(2, {NET: "2\n"})
    assert reason(lambda: world.mirror.changed(world.base, head)) == "PullTooLarge"
    world.bring(2, other)
    assert world.files(other)[NET] == b"2\n"


def test_what_is_too_large_is_not_received(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_FILE", 1 << 16)
    mirror = PullMirror(world.folder / "small", Remote(world.repo.url), "main", allow_file=True)
    data = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(1 << 14))  # nothing packs it
    head = world.pull(1, {"docs/large.bin": data})
    with pytest.raises(PassError):
        mirror.bring(1, "refs/pull/1/head", head, world.base)
    left = [path for path in (world.folder / "small").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) < 1 << 17
    small = world.pull(2, {NET: "2\n"})
    mirror.bring(2, "refs/pull/2/head", small, world.base)
    assert mirror.changed(world.base, small) == {NET}


def test_heads_that_are_not_open_any_more_go(world: World) -> None:
    one, two = world.pull(1, {NET: "2\n"}), world.pull(2, {NET: "3\n"})
    world.bring(1, one)
    world.bring(2, two)
    world.mirror.forget(but=[2])
    refs = (world.folder / "pulls" / "current" / "refs" / "reconciler" / "pulls").iterdir()
    assert [path.name for path in refs] == ["2"]


def test_a_mirror_that_grew_too_large_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    head = world.pull(1, {NET: "2\n"})
    world.bring(1, head)
    monkeypatch.setattr(module, "LARGEST_MIRROR", 10)
    world.mirror.forget(but=[1])
    world.bring(1, head)
    assert world.files(head)[NET] == b"2\n"

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.errors import PassError
from reconciler.git.command import Patience, Remote
from reconciler.git.mirror import Mirror, branch_ref
from reconciler.model import Commit
from tests.kit.gitrepo import RepoBuilder, loosen

HEAD = "refs/reconciler/head"


@pytest.fixture
def repo(tmp_path: Path) -> RepoBuilder:
    repo = RepoBuilder.create(tmp_path / "repo.git")
    repo.commit({"a": "1"})
    return repo


def mirror_of(repo: RepoBuilder, folder: Path, deadline: float = 60.0) -> Mirror:
    patience = Patience(deadline=deadline)
    return Mirror(folder, Remote(repo.url), (f"refs/heads/main:{HEAD}",), allow_file=True, patience=patience)


@pytest.fixture
def mirror(tmp_path: Path, repo: RepoBuilder) -> Mirror:
    mirror = mirror_of(repo, tmp_path / "mirror")
    mirror.fetch()
    return mirror


def objects(mirror: Mirror) -> list[Path]:
    return [path for path in (mirror.git.folder / "objects").rglob("*") if path.is_file()]


def test_the_first_fetch_clones_only_the_branch(mirror: Mirror, repo: RepoBuilder) -> None:
    repo.commit({"b": "1"}, branch="other")
    repo.tag("v1")
    mirror.fetch()
    assert mirror.ref(HEAD) == repo.head()
    assert mirror.git.run("for-each-ref", "--format=%(refname)").decode().split() == [HEAD]


def test_a_fetch_brings_what_is_new(mirror: Mirror, repo: RepoBuilder) -> None:
    new = repo.commit({"a": "2"})
    mirror.fetch()
    assert mirror.ref(HEAD) == new


def test_a_ref_that_is_not_there_is_none(mirror: Mirror) -> None:
    assert mirror.ref("refs/reconciler/other") is None


def test_a_rewrite_is_refused_and_the_ref_stays(mirror: Mirror, repo: RepoBuilder) -> None:
    before = mirror.ref(HEAD)
    repo.point("main", repo.commit_tree(repo.tree({"a": ("100644", repo.blob("evil"))})))
    for _ in range(2):
        with pytest.raises(PassError) as error:
            mirror.fetch()
        assert error.value.reason == "HistoryRewritten"
    assert mirror.ref(HEAD) == before


def test_a_branch_that_is_gone_is_said(mirror: Mirror, repo: RepoBuilder) -> None:
    repo.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(PassError, match="check `branch`") as error:
        mirror.fetch()
    assert error.value.reason == "BranchMissing"


def test_a_repository_that_is_gone_leaves_the_mirror_usable(mirror: Mirror, repo: RepoBuilder) -> None:
    head = mirror.ref(HEAD)
    repo.folder.rename(repo.folder.with_name("moved"))
    with pytest.raises(PassError) as error:
        mirror.fetch()
    assert error.value.reason == "GitUnreachable"
    assert mirror.ref(HEAD) == head
    assert mirror.git.run("cat-file", "-t", operands=(str(head),)) == b"commit\n"


def test_a_failed_clone_leaves_nothing(tmp_path: Path, repo: RepoBuilder) -> None:
    repo.folder.rename(repo.folder.with_name("moved"))
    mirror = mirror_of(repo, tmp_path / "mirror")
    with pytest.raises(PassError):
        mirror.fetch()
    assert [path.name for path in (tmp_path / "mirror").iterdir()] == ["lock"]


@pytest.mark.parametrize("name", ["refs/reconciler/head.lock", "packed-refs.lock", "config.lock", "shallow.lock"])
def test_a_stale_lock_file_is_removed(mirror: Mirror, repo: RepoBuilder, name: str) -> None:
    (mirror.git.folder / name).touch()
    new = repo.commit({"a": "2"})
    mirror.fetch()
    assert mirror.ref(HEAD) == new


def test_a_lock_file_stays_while_somebody_holds_the_mirror(tmp_path: Path, mirror: Mirror, repo: RepoBuilder) -> None:
    stale = mirror.git.folder / "refs/reconciler/head.lock"
    stale.touch()
    impatient = mirror_of(repo, tmp_path / "mirror", deadline=0.2)
    with (tmp_path / "mirror/lock").open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(PassError, match="a folder of its own") as error:
            impatient.fetch()
    assert error.value.reason == "MirrorBusy"
    assert stale.exists()


ORPHANER = """
import fcntl, os, subprocess, sys
from pathlib import Path
from reconciler.git.mirror import _note
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
child = subprocess.Popen(["sleep", "1000"], pass_fds=(lock,), start_new_session=True, stdout=subprocess.DEVNULL)
_note(lock, child.pid)
print(child.pid, flush=True)
os._exit(9)
"""


def test_a_git_process_whose_owner_died_is_ended_and_its_lock_file_removed(
    tmp_path: Path, mirror: Mirror, repo: RepoBuilder
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHANER, str(tmp_path / "mirror/lock")],
        stdout=subprocess.PIPE,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": os.environ["PATH"]},
    )
    orphan = int(done.stdout)
    assert Path(f"/proc/{orphan}").exists()
    (mirror.git.folder / "refs/reconciler/head.lock").touch()
    new = repo.commit({"a": "2"})
    mirror.fetch()
    assert mirror.ref(HEAD) == new
    stat = Path(f"/proc/{orphan}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_lock_file_names_a_holder_that_lives_so_nothing_is_ended(
    tmp_path: Path, mirror: Mirror, repo: RepoBuilder
) -> None:
    impatient = mirror_of(repo, tmp_path / "mirror", deadline=0.2)
    with (
        subprocess.Popen(["sleep", "1000"], start_new_session=True) as child,
        (tmp_path / "mirror/lock").open("r+") as holder,
    ):
        try:
            from reconciler.git.mirror import _note

            fcntl.flock(holder, fcntl.LOCK_EX)
            _note(holder.fileno(), child.pid)
            with pytest.raises(PassError) as error:
                impatient.fetch()
            assert error.value.reason == "MirrorBusy"
            assert child.poll() is None
        finally:
            child.kill()


def test_a_git_process_that_writes_holds_the_lock_itself(
    tmp_path: Path, mirror: Mirror, repo: RepoBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "bin"
    stand_in.mkdir()
    (stand_in / "git").write_text(f"#!/bin/sh\nls -l /proc/$$/fd > {tmp_path}/held\n")
    (stand_in / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in}:{os.environ['PATH']}")
    mirror_of(repo, tmp_path / "mirror").fetch()
    assert f"-> {tmp_path}/mirror/lock\n" in (tmp_path / "held").read_text()


@pytest.mark.parametrize(
    ("damage", "replaced"),
    [("empty", True), ("gone", False), ("ref", True), ("head", True), ("all", True)],
)
def test_a_broken_mirror_is_whole_after_a_fetch(
    tmp_path: Path, mirror: Mirror, repo: RepoBuilder, damage: str, replaced: bool
) -> None:
    loosen(mirror.git.folder)
    old = mirror.git.folder.resolve()
    if damage == "empty":
        for path in objects(mirror):
            path.chmod(0o644)
            path.write_bytes(b"")
    elif damage == "gone":
        for path in objects(mirror):
            path.unlink()
    elif damage == "ref":
        (mirror.git.folder / HEAD).write_text("garbage\n")
    elif damage == "head":
        (mirror.git.folder / "HEAD").unlink()
    else:
        (mirror.git.folder).unlink()
    new = repo.commit({"a": "2"})
    mirror.fetch()
    assert mirror.ref(HEAD) == new
    assert list((tmp_path / "mirror").glob("mirror-*")) == [mirror.git.folder.resolve()]
    assert replaced == (mirror.git.folder.resolve() != old)
    mirror.git.run("fsck", "--full")


def test_silent_damage_is_found_once_it_is_suspected(mirror: Mirror, repo: RepoBuilder) -> None:
    loosen(mirror.git.folder)
    blob = mirror.git.folder / "objects" / repo.blob("1")[:2] / repo.blob("1")[2:]
    blob.unlink()
    mirror.fetch()
    assert not blob.exists()
    mirror.suspect()
    mirror.fetch()
    assert mirror.git.run("cat-file", "blob", operands=(repo.blob("1"),)) == b"1"


def test_a_suspicion_without_ground_replaces_nothing(mirror: Mirror) -> None:
    before = mirror.git.folder.resolve()
    mirror.suspect()
    mirror.fetch()
    assert mirror.git.folder.resolve() == before
    assert mirror.heal() is False


def test_a_broken_mirror_stays_until_the_remote_can_be_reached(mirror: Mirror, repo: RepoBuilder) -> None:
    (mirror.git.folder / "HEAD").unlink()
    before = mirror.git.folder.resolve()
    repo.folder.rename(repo.folder.with_name("moved"))
    with pytest.raises(PassError) as error:
        mirror.fetch()
    assert error.value.reason == "GitUnreachable"
    assert mirror.git.folder.resolve() == before
    repo.folder.with_name("moved").rename(repo.folder)
    mirror.fetch()
    assert mirror.ref(HEAD) == repo.head()


@pytest.mark.parametrize("name", [b"..", b".git", b"a/b"])
def test_hostile_objects_do_not_get_in(mirror: Mirror, repo: RepoBuilder, name: bytes) -> None:
    before = mirror.ref(HEAD)
    tree = repo.raw_tree(("100644", name, repo.blob("x")))
    repo.point("main", repo.commit_tree(tree, parents=(Commit(str(repo.head())),)))
    with pytest.raises(PassError) as error:
        mirror.fetch()
    assert error.value.reason == "ObjectRefused"
    assert mirror.ref(HEAD) == before


def test_mirrors_of_one_folder_take_turns(tmp_path: Path, repo: RepoBuilder) -> None:
    def fetch_often() -> None:
        mirror = mirror_of(repo, tmp_path / "shared")
        for _ in range(4):
            mirror.fetch()

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(fetch_often) for _ in range(4)]
        new = repo.commit({"a": "2"})
    for future in running:
        future.result()
    mirror = mirror_of(repo, tmp_path / "shared")
    mirror.fetch()
    assert mirror.ref(HEAD) == new
    assert len(list((tmp_path / "shared").glob("mirror-*"))) == 1


def test_what_a_cut_fetch_left_is_removed(
    tmp_path: Path, mirror: Mirror, repo: RepoBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "bin"
    stand_in.mkdir()
    half = mirror.git.folder / "objects/pack/tmp_pack_half"
    (stand_in / "git").write_text(f"#!/bin/sh\ntouch {half}\nexec sleep 1000\n")
    (stand_in / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in}:{os.environ['PATH']}")
    with pytest.raises(PassError) as error:
        mirror_of(repo, tmp_path / "mirror", deadline=0.5).fetch()
    assert error.value.reason == "GitTimeout"
    assert not half.exists()


def test_tidying_keeps_what_is_needed(mirror: Mirror, repo: RepoBuilder) -> None:
    for number in range(3):
        repo.commit({"a": f"{number}"})
        mirror.fetch()
    mirror.git.run("config", "gc.auto", operands=("1",))
    mirror.tidy()
    mirror.git.run("fsck", "--full")
    assert mirror.ref(HEAD) == repo.head()


@pytest.mark.parametrize("name", ["main", "release/1.0", "a-b_c.d+e"])
def test_plain_branches(name: str) -> None:
    assert branch_ref(name) == f"refs/heads/{name}"


@pytest.mark.parametrize(
    "name", ["", "-x", "a:b", "+a", "a b", "a..b", "a*", "a/", "/a", "a.lock", "a@{1}", "^a", "a\n"]
)
def test_what_is_no_branch(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a branch"):
        branch_ref(name)

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.errors import PassError, UnitError
from reconciler.git.catalog import CatalogRepo
from reconciler.git.command import Remote
from reconciler.git.pinned import CatalogStore, measure
from reconciler.model import Commit, Digest
from tests.kit.gitrepo import RepoBuilder

MAIN = "modules/vpc/main.tf"


class Shelf:
    """A catalog of one commit, and a store to put it in."""

    def __init__(self, folder: Path) -> None:
        self.repo = RepoBuilder.create(folder / "catalog.git")
        self.commit = self.repo.commit({MAIN: "# vpc\n", "README.md": "", "run.sh": "true\n"}, executable=("run.sh",))
        self.catalog = CatalogRepo(Remote(self.repo.url), "main", folder / "mirror", allow_file=True)
        self.catalog.update()
        self.digest = self.catalog.module_digest(self.commit, "modules/vpc")
        self.folder = folder / "store"
        self.store = CatalogStore(self.folder)

    def open(self) -> Path:
        return self.store.open(self.digest, self.catalog, self.commit)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_tree_is_written_under_its_digest_and_read_only(shelf: Shelf) -> None:
    folder = shelf.open()
    assert folder == shelf.folder / shelf.digest.removeprefix("sha256:")
    assert (folder / MAIN).read_bytes() == b"# vpc\n"
    assert [permissions(folder / name) for name in (MAIN, "README.md", "run.sh")] == [0o444, 0o444, 0o555]
    assert [permissions(folder / name) for name in ("", "modules", "modules/vpc")] == [0o555] * 3
    assert measure(folder) == shelf.digest


def test_the_second_use_needs_no_repository(shelf: Shelf) -> None:
    folder = shelf.open()
    written = folder.stat().st_ino
    shelf.catalog.git.folder.unlink()
    assert shelf.open().stat().st_ino == written


def change_content(folder: Path) -> None:
    (folder / MAIN).chmod(0o644)
    (folder / MAIN).write_text("# evil\n")
    (folder / MAIN).chmod(0o444)


def add_file(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "override.tf").write_text("")
    (folder / "override.tf").chmod(0o444)
    folder.chmod(0o555)


def remove_file(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "README.md").unlink()
    folder.chmod(0o555)


def replace_by_link(folder: Path) -> None:
    copy = folder.parent / "same-content"
    copy.write_bytes((folder / MAIN).read_bytes())
    copy.chmod(0o444)
    (folder / MAIN).parent.chmod(0o755)
    (folder / MAIN).unlink()
    (folder / MAIN).symlink_to(copy)
    (folder / MAIN).parent.chmod(0o555)


def make_executable(folder: Path) -> None:
    (folder / MAIN).chmod(0o555)


def make_writable(folder: Path) -> None:
    (folder / MAIN).chmod(0o644)


def add_empty_folder(folder: Path) -> None:
    folder.chmod(0o755)
    (folder / "empty").mkdir(mode=0o555)
    folder.chmod(0o555)


def add_pipe(folder: Path) -> None:
    folder.chmod(0o755)
    os.mkfifo(folder / "pipe", 0o444)
    folder.chmod(0o555)


def link_whole_folder(folder: Path) -> None:
    moved = folder.with_name("moved")
    folder.rename(moved)
    folder.symlink_to(moved)


@pytest.mark.parametrize(
    "tamper",
    [
        change_content,
        add_file,
        remove_file,
        replace_by_link,
        make_executable,
        make_writable,
        add_empty_folder,
        add_pipe,
        link_whole_folder,
    ],
)
def test_whatever_was_changed_is_put_aside_and_written_afresh(shelf: Shelf, tamper: Callable[[Path], None]) -> None:
    folder = shelf.open()
    tamper(folder)
    assert measure(folder) != shelf.digest
    assert shelf.open() == folder
    assert measure(folder) == shelf.digest
    assert len(shelf.store.quarantined()) == 1


def test_what_was_put_aside_is_kept_for_a_look_but_not_for_ever(shelf: Shelf) -> None:
    for _ in range(7):
        change_content(shelf.open())
    shelf.open()
    aside = shelf.store.quarantined()
    assert 4 <= len(aside) <= 5
    assert (aside[-1] / MAIN).read_text() == "# evil\n"


def test_another_digest_than_the_lock_says_is_refused(shelf: Shelf) -> None:
    wrong = Digest("sha256:" + "0" * 64)
    with pytest.raises(UnitError, match=f"the digest is {shelf.digest}, the lock says {wrong}") as error:
        shelf.store.open(wrong, shelf.catalog, shelf.commit)
    assert error.value.reason == "CatalogDigestMismatch"
    assert [path.name for path in shelf.folder.iterdir()] == [".lock"]


def test_what_a_dead_process_left_half_written_is_removed(shelf: Shelf) -> None:
    half = shelf.folder / ".new-half"
    (half / "modules").mkdir(parents=True)
    (half / "modules").chmod(0o555)
    shelf.open()
    assert not half.exists()


def test_a_disk_that_refuses_is_a_pass_error_and_leaves_nothing(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PassError, match="make room") as error:
        shelf.open()
    assert error.value.reason == "DiskFull"
    assert [path.name for path in shelf.folder.iterdir()] == [".lock"]


def open_often(folder: Path, digest: Digest, catalog: CatalogRepo, commit: Commit) -> None:
    store = CatalogStore(folder)
    for _ in range(5):
        path = store.open(digest, catalog, commit)
        if (path / MAIN).read_text() != "# vpc\n":
            os._exit(3)


def opened_by_many_processes(shelf: Shelf) -> None:
    spawn = multiprocessing.get_context("spawn")
    arguments = (shelf.folder, shelf.digest, shelf.catalog, shelf.commit)
    processes = [spawn.Process(target=open_often, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4


def test_many_processes_may_share_a_store(shelf: Shelf) -> None:
    opened_by_many_processes(shelf)
    assert [path.name for path in shelf.folder.iterdir() if not path.name.startswith(".")] == [
        shelf.digest.removeprefix("sha256:")
    ]
    assert shelf.store.quarantined() == ()


def test_only_one_of_many_processes_puts_a_changed_folder_aside(shelf: Shelf) -> None:
    change_content(shelf.open())
    opened_by_many_processes(shelf)
    assert len(shelf.store.quarantined()) == 1

"""Catalog trees on disk, by digest: written once, shared read-only, and verified whenever one is used."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.durable import sync_folder
from reconciler.errors import PassError, UnitError
from reconciler.git.catalog import CatalogRepo, digest_of
from reconciler.git.digest import tree_digest
from reconciler.git.tree import FILE, PROGRAM
from reconciler.model import Commit, Digest

_MODES = {FILE: 0o444, PROGRAM: 0o555}
_GIT_MODES = {permissions: mode for mode, permissions in _MODES.items()}
_FOLDER = 0o555
_QUARANTINED_KEPT = 4


class CatalogStore:
    """`<folder>/<hex digits of the digest>/...`. Any number of processes may share the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, digest: Digest, catalog: CatalogRepo, commit: Commit) -> Path:
        """The folder of the tree with this digest, proven now; materialised from the catalog where it is missing.

        A folder that no longer has its digest is put aside, for a person to look at, and written afresh.

        Raises:
            UnitError: the catalog's tree at the commit has another digest (`CatalogDigestMismatch`), or is refused.
            PassError: the disk or the mirror.
        """
        target = self._folder / digest.removeprefix("sha256:")
        if measure(target) == digest:
            return target
        with self._held():
            if measure(target) == digest:
                return target  # another process was first
            files = catalog.contents(commit)
            if (found := digest_of(files)) != digest:
                raise UnitError(
                    "CatalogDigestMismatch",
                    f"{catalog.git.where} at {commit}: the digest is {found}, the lock says {digest}: find out which of "
                    "the two was changed; if the lock is wrong, write it anew with `reconciler catalog add`",
                )
            self._put_aside(target)
            self._write(target, files, digest)
        return target

    def holds(self, digest: Digest) -> bool:
        """Whether there is a folder for it; what is in it, `open` proves."""
        return (self._folder / digest.removeprefix("sha256:")).is_dir()

    def quarantined(self) -> tuple[Path, ...]:
        """Folders that were changed after they had been written, newest last."""
        found = self._folder.glob(".quarantine-*")
        return tuple(sorted(found, key=lambda path: path.lstat().st_ctime_ns))

    def _put_aside(self, target: Path) -> None:
        if os.path.lexists(target):
            target.rename(self._folder / f".quarantine-{target.name[:12]}-{secrets.token_hex(4)}")
        for old in self.quarantined()[:-_QUARANTINED_KEPT]:
            _remove(old)
        for unfinished in self._folder.glob(".new-*"):  # its process is dead: it would hold the lock
            _remove(unfinished)

    def _write(self, target: Path, files: Mapping[str, tuple[str, bytes]], digest: Digest) -> None:
        """Write beside the target and rename, so that the target is never seen half way."""
        fresh = self._folder / f".new-{target.name[:12]}-{secrets.token_hex(4)}"
        try:
            _write_tree(fresh, files)
            if measure(fresh) != digest:
                raise PassError("DiskFault", f"{fresh}: what was written does not read back the same: check the disk")
            fresh.rename(target)
            sync_folder(self._folder)
        except OSError as error:
            reason = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "DiskFault"
            raise PassError(
                reason, f"{self._folder}: {error}: make room, or check the folder's owner and disk"
            ) from error
        finally:
            _remove(fresh)

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """One writer at a time; readers never wait."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Not by closing alone: a process forked meanwhile may have a copy of the descriptor.
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)


def measure(folder: Path) -> Digest | None:
    """The digest of a tree on disk; None where it is missing, or holds what the store never writes.

    That is: links, devices, empty folders, other permissions than 0444, 0555 and 0555 for folders.
    """
    try:
        return tree_digest((mode, path, content) for path, mode, content in _walk(folder, ""))
    except (OSError, ValueError):
        return None


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, str, bytes]]:
    """(path, git's mode, SHA-256) of every file. Raises ValueError for what the store never writes."""
    if stat.S_IMODE(folder.lstat().st_mode) != _FOLDER or folder.is_symlink():
        raise ValueError(f"not as the store wrote it: {folder}")
    with os.scandir(folder) as found:
        entries = list(found)
    if not entries and prefix:
        raise ValueError(f"empty: {folder}")
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            mode, content = _hash(entry.path)
            yield f"{prefix}{entry.name}", mode, content


def _hash(path: str) -> tuple[str, bytes]:
    """The mode as git has it, and the SHA-256 of a regular file; what is looked at is what is read."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        mode = _GIT_MODES.get(stat.S_IMODE(status.st_mode))
        if mode is None or not stat.S_ISREG(status.st_mode):
            raise ValueError(f"not as the store wrote it: {path}")
        return mode, hashlib.file_digest(file, "sha256").digest()


def _write_tree(folder: Path, files: Mapping[str, tuple[str, bytes]]) -> None:
    folder.mkdir()
    folders = {folder}
    for path, (mode, content) in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        folders.update(parent for parent in target.parents if parent.is_relative_to(folder))
        with target.open("xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), _MODES[mode])
            os.fsync(file.fileno())
    for written in sorted(folders, reverse=True):  # the inner before the outer
        written.chmod(_FOLDER)
        sync_folder(written)


def _remove(folder: Path) -> None:
    """Remove a tree of read-only folders; what cannot be removed stays and is tried again next time."""
    if not folder.is_symlink():
        for inner, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                Path(inner).chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.unlink()

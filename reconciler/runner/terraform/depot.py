"""Where jobs get their providers from: one folder on this host, each package in it proven by the lock's hashes before use.

A folder that the host names (`provider_mirror`) is only read. Without one the runner keeps its own: each package comes once
from its registry, by the engine's own `init` in a scratch folder, is compared with the lock, made read-only and moved to
its place in one step. What was read and fitted is remembered with how its files looked, so that a job costs a few `stat`;
it is read again as soon as one of them looks different.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from reconciler import codec
from reconciler.durable import FileLock, sync_folder, write_atomic
from reconciler.errors import HeldError, PassError, UnitError
from reconciler.runner.terraform import leftover
from reconciler.runner.terraform.packages import Package, Wanted, found_in, looks, measure, this_platform, unpacked

BUSY_SECONDS = 960.0  # longer than a fill may take
SCRATCH = ".filling-"
ASIDE = ".quarantine-"


class Fill(Protocol):
    """How a package comes from its registry."""

    def __call__(self, one: Wanted, scratch: Path, lock: int, /) -> Path:
        """Install it below `scratch`, proven by the lock's hashes, and return its folder; `lock` is for every process.

        Raises UnitError.
        """
        ...


class Depot:
    """One folder of packages. `marks` is where it is remembered what was proven. Any number of processes share both."""

    def __init__(self, folder: Path, marks: Path, fill: Fill | None) -> None:
        """Without `fill`, what is not there is not there."""
        self.folder, self._marks, self._fill = folder, marks, fill

    def provide(self, one: Wanted) -> str:
        """The `h1:` of the package, which is there now and is what the lock means.

        Raises:
            HeldError: "ProviderMissing" or "ProviderHashMismatch".
            UnitError: it could not be fetched. PassError: the disk.
        """
        known = self._known(one)
        if known is not None:
            return known
        with _disk(self.folder), self._held(one) as lock:
            return self._known(one) or self._proven(one) or self._filled(one, lock)

    def _known(self, one: Wanted) -> str | None:
        """By what is remembered, if nothing looks different."""
        found = found_in(self.folder, one)
        marks = [self._mark(path) for path in found]
        fits = [mark is not None and mark.fits(one.hashes) for mark in marks]
        try:
            same = [mark is not None and mark.looks == looks(path) for mark, path in zip(marks, found, strict=True)]
        except OSError:
            return None
        return marks[0].h1 if marks and marks[0] is not None and all(fits) and all(same) else None

    def _proven(self, one: Wanted) -> str | None:
        """By reading what is there; None where there is nothing, or only what has to be fetched again."""
        found, h1 = found_in(self.folder, one), None
        for path in found:
            package, mark = _measured(path), self._mark(path)
            untouched = mark is not None and mark.h1 == package.h1
            package = replace(package, against=mark.against) if mark is not None and untouched else package
            if package.fits(one.hashes):
                self._remember(path, package)
                h1 = package.h1
            elif self._fill is None or untouched:
                raise _mismatch(one, path, package)
            else:
                self._put_aside(path)
                return None
        return h1

    def _filled(self, one: Wanted, lock: int) -> str:
        if self._fill is None:
            raise HeldError(
                "ProviderMissing",
                f"{self.folder} has no {one} for {this_platform()}; put it there with `{_engine_word(one)} providers mirror`, "
                "or leave provider_mirror out of runner.yaml, and the runner keeps a mirror of its own.",
            )
        target = unpacked(self.folder, one)
        with self._scratch() as scratch:
            installed = self._fill(one, scratch, lock)
            package = measure(installed)
            by_archive = frozenset(h for h in one.hashes if h.startswith("zh:"))
            package = package if package.h1 in one.hashes else replace(package, against=by_archive)
            if not package.fits(one.hashes):
                raise _mismatch(one, installed, package)
            _harden(installed)
            target.parent.mkdir(parents=True, exist_ok=True)
            installed.rename(target)
        target.chmod(0o555)
        sync_folder(target)
        sync_folder(target.parent)
        self._remember(target, replace(package, looks=looks(target)))
        return package.h1

    # --- what is remembered

    def _mark(self, package: Path) -> Package | None:
        try:
            return codec.decode(Package, self._mark_file(package).read_bytes())
        except (OSError, ValueError):  # not there, or not ours: it is read again
            return None

    def _remember(self, package: Path, what: Package) -> None:
        write_atomic(self._mark_file(package), codec.encode(what))

    def _mark_file(self, package: Path) -> Path:
        return self._marks / f"{hashlib.sha256(os.fsencode(package)).hexdigest()}.json"

    # --- the folder

    @contextlib.contextmanager
    def _held(self, one: Wanted) -> Iterator[int]:
        """One at a time for each package; an engine that outlives its job holds on, and is ended when its time is over."""
        self._marks.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self._marks / f"{hashlib.sha256(str(one).encode()).hexdigest()}.lock")
        ends = time.monotonic() + BUSY_SECONDS
        while not lock.take():
            for note in self.folder.glob(f"{SCRATCH}*/{leftover.NOTE}"):
                leftover.attend(note, time.time())
            if time.monotonic() > ends:
                raise UnitError("ProviderBusy", f"another job has been fetching {one} for {BUSY_SECONDS:g} s; see its log.", transient=True)  # fmt: skip
            time.sleep(0.05)
        try:
            yield lock.fileno()
        finally:
            lock.release()

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder beside the packages that nobody but its maker uses; those of the dead are removed."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = f"{SCRATCH}{secrets.token_hex(6)}"
        life = FileLock(self._marks / f"{name}.lock")
        _sweep(self.folder, self._marks)
        life.take()
        scratch = self.folder / name
        try:
            scratch.mkdir(mode=0o700)
            yield scratch
        finally:
            _remove(scratch)
            life.path.unlink(missing_ok=True)
            life.release()

    def _put_aside(self, package: Path) -> None:
        there = self.folder / f"{ASIDE}{secrets.token_hex(4)}"
        sys.stderr.write(
            f"runner: {package} was changed after it had been proven; it lies in {there} now, to be looked at.\n"
        )
        package.chmod(0o755)
        package.rename(there)


def _measured(package: Path) -> Package:
    try:
        return measure(package)
    except zipfile.BadZipFile as error:
        raise HeldError(
            "ProviderHashMismatch", f"{package} is no archive ({error}); put the right one there."
        ) from error


def _mismatch(one: Wanted, where: Path, found: Package) -> HeldError:
    what = f"{one} is {found.zh or found.h1} in {where}, and catalog-lock.yaml has no such hash of it"
    how = (
        "find out which of the two was changed; `reconciler catalog add` writes the hashes of a platform that the lock "
        "does not know yet"
    )
    return HeldError("ProviderHashMismatch", f"{what}: {how}.")


def _engine_word(one: Wanted) -> str:
    return "tofu" if "opentofu" in one.host else "terraform"


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "DiskFull" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "DiskFault"
        raise PassError(reason, f"{folder}: {error}: make room, or check the folder's owner and disk.") from error


def _harden(package: Path) -> None:
    """Read-only and on disk, all but the folder itself, which has yet to move."""
    for path in sorted(package.rglob("*"), reverse=True):  # the inner before the outer
        if path.is_symlink():
            raise OSError(errno.EINVAL, "a package holds a symbolic link", str(path))
        path.chmod(0o555 if path.is_dir() or path.stat().st_mode & 0o111 else 0o444)
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(folder: Path, marks: Path) -> None:
    """Remove the scratch folders whose makers are dead: each would hold a lock of its name."""
    for scratch in folder.glob(f"{SCRATCH}*"):
        life = FileLock(marks / f"{scratch.name}.lock")
        if life.take():
            _remove(scratch)
            life.path.unlink(missing_ok=True)
            life.release()


def _remove(folder: Path) -> None:
    """Remove a tree of read-only folders; what cannot be removed stays and is tried again next time."""
    for inner, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(inner).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

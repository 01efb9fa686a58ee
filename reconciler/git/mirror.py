"""A bare copy of some refs of a remote, fetched again and again, by one process at a time, and healed when it breaks.

Layout of the folder:

    lock          held (flock) while something writes to the mirror, by us and by every git process that does it
    current       symbolic link to the mirror in force: a new one takes its place in one step
    suspected     there while something in it was found to be missing
    mirror-<hex>  the mirror itself

Nothing here is trusted to last: the accepted head is kept elsewhere, so a mirror can be thrown away at any time.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import re
import resource
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from reconciler.errors import PassError
from reconciler.git.command import Done, Git, Patience, Remote
from reconciler.git.failures import failure
from reconciler.model import Commit

_FETCH = ("--no-progress", "--no-tags", "--no-auto-maintenance", "--no-write-fetch-head")
_COMMIT = re.compile(r"[0-9a-f]{40}\n?")
_BRANCH = re.compile(r"(?!.*(?:\.\.|//|\.lock(?:/|$)|@\{))[A-Za-z0-9_][A-Za-z0-9._/@+-]*(?<![/.])")
_LEFT_OUT = b"warning: rejected "  # git ends well, and has not moved the ref
_RETRY_SECONDS = 0.05
_MOST_HEADS = 500  # branches that are worth to be told for the sake of one; a fetch is told of that one alone
_FOREIGN = ("shallow", "info/grafts", "objects/info/alternates")


class Mirror:
    """The mirror of `refspecs` of one remote. Readers use `git` at any time; writers take turns."""

    def __init__(
        self,
        folder: Path,
        remote: Remote,
        refspecs: Sequence[str],
        *,
        atomic: bool = True,
        allow_file: bool = False,
        patience: Patience | None = None,
        largest: int | None = None,
    ) -> None:
        """`largest`: bytes of any one file that a fetch may write; beyond, the fetch fails."""
        self.folder = folder
        self.git = Git(folder / "current", remote, allow_file=allow_file, patience=patience)
        self._remote = remote
        self._refspecs = tuple(refspecs)
        self._options = (*_FETCH, "--atomic") if atomic else _FETCH
        self._largest = largest
        self._asked = _one_branch(refspecs)
        self._suspected = folder / "suspected"

    def fetch(self, refspecs: Sequence[str] = ()) -> None:
        """Bring the refs up to date, or those of `refspecs` instead; clone where there is nothing yet.

        A stale lock file is removed: whoever held it is dead, because we hold the mirror. A broken mirror is
        replaced by a fresh clone.

        Raises:
            PassError: the remote, the network or the mirror, each by its reason.
        """
        with self._held() as lock:
            fresh = not self.exists() or (self._suspected.exists() and not self._sound())
            if fresh:
                self._replace(lock)
            self._suspected.unlink(missing_ok=True)
            if refspecs or not (fresh or self._unchanged(lock)):
                self._fetch_healing(refspecs or self._refspecs, lock)

    def suspect(self) -> None:
        """Something was missing when it was read: the next fetch, by whichever process, looks at every object first."""
        with contextlib.suppress(OSError):  # no folder yet, or no room: then it is found anew
            self._suspected.touch(mode=0o600)

    def heal(self) -> bool:
        """Look at every object now; True if the mirror was broken and has been replaced."""
        with self._held() as lock:
            if self._sound():
                return False
            self._replace(lock)
            return True

    def renew(self) -> None:
        """Clone afresh, whatever state the mirror is in. Raises PassError as `fetch` does."""
        with self._held() as lock:
            self._replace(lock)

    def keep(self, name: str, commit: Commit) -> None:
        """Let a ref of ours hold a commit that no branch may hold any more. One that is not there is not kept."""
        if self.ref(name) != commit:
            with self._held() as lock:
                self._run(
                    self.git, "update-ref", operands=(name, commit), lock=lock, deadline=self.git.patience.deadline
                )

    def exists(self) -> bool:
        """Whether there is a mirror of ours. Nothing that we run leaves a file by which git sees other parents or objects."""
        folder = self.git.folder
        return (folder / "objects").is_dir() and not any((folder / name).exists() for name in _FOREIGN)

    def ref(self, name: str) -> Commit | None:
        """What a full ref name points at, read without a process; None where there is no such ref."""
        try:
            text = (self.git.folder / name).read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError):
            text = ""
        if not _COMMIT.fullmatch(text):
            self.suspect()
            return None
        return Commit(text.strip())

    def tidy(self) -> None:
        """Let git pack what has piled up, if it thinks it is worth it. Losing this race never matters."""
        with self._held() as lock, contextlib.suppress(PassError):
            self._run(self.git, "gc", "--auto", "--quiet", lock=lock, deadline=self.git.patience.clone_deadline)

    def _unchanged(self, lock: int) -> bool:
        """Whether the server says that the one branch is where our ref of it is. Anything else is for a fetch to find out.

        To ask is less than to fetch: that starts a process twice to look at what it has already.
        """
        if self._asked is None:
            return False
        branch, ours = self._asked
        here = self.ref(ours)
        if here is None:
            return False
        where, deadline = (self._remote.url,), self.git.patience.deadline
        done = self._run(self.git, "ls-remote", "--heads", operands=where, lock=lock, deadline=deadline)
        heads = done.out.splitlines()
        if done.code == 0 and len(heads) > _MOST_HEADS:
            self._asked = None
        return done.code == 0 and f"{here}\t{branch}".encode() in heads

    def _fetch_healing(self, refspecs: Sequence[str], lock: int) -> None:
        try:
            self._fetch(self.git, refspecs, lock, self.git.patience.deadline)
        except PassError as error:
            if error.reason == "MirrorLocked":
                self._sweep()
            elif error.reason in ("GitFailed", "GitUnreachable") and not self._sound():
                self._replace(lock)
            else:
                raise
            self._fetch(self.git, refspecs, lock, self.git.patience.deadline)

    def _fetch(self, git: Git, refspecs: Sequence[str], lock: int, deadline: float) -> None:
        done = self._run(
            git, "fetch", *self._options, operands=(self._remote.url, *refspecs), lock=lock, deadline=deadline
        )
        if done.code or any(line.startswith(_LEFT_OUT) for line in done.err.splitlines()):
            raise failure(git.where, done.err)

    def _run(
        self, git: Git, command: str, *options: str, lock: int, deadline: float, operands: Sequence[str] = ()
    ) -> Done:
        """Run a command that writes: it inherits the lock, so the lock outlives us as long as it does."""
        try:
            return git.ask(
                command,
                *options,
                operands=operands,
                deadline=deadline,
                keep_open=(lock,),
                started=lambda pid: self._started(lock, pid),
            )
        except PassError:
            # Ended half way: what it was receiving would lie there for good, and a slow server could fill the disk.
            for half in (git.folder / "objects" / "pack").glob("tmp_*"):
                half.unlink(missing_ok=True)
            raise

    def _started(self, lock: int, pid: int) -> None:
        _note(lock, pid)
        if self._largest is not None:
            with contextlib.suppress(ProcessLookupError):  # its children inherit it, and they come later
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._largest, self._largest))

    def _sound(self) -> bool:
        """Whether every object that the refs need is there and whole."""
        deadline = self.git.patience.clone_deadline
        return (
            self.exists()
            and not self.git.ask("fsck", "--full", "--no-dangling", "--no-progress", deadline=deadline).code
        )

    def _replace(self, lock: int) -> None:
        """Clone into a fresh folder, then put it in force in one step. A failure leaves everything as it was."""
        fresh = self.folder / f"mirror-{secrets.token_hex(4)}"
        git = self.git.at(fresh)
        deadline = self.git.patience.clone_deadline
        try:
            git.run("init", "--bare", "--quiet", "--template=", "--object-format=sha1", "--initial-branch=unused")
            self._fetch(git, self._refspecs, lock, deadline)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        link = self.folder / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(fresh.name)
        link.rename(self.folder / "current")
        for old in self.folder.glob("mirror-*"):
            if old != fresh:
                shutil.rmtree(old, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove lock files. Their owners are dead: each would hold the flock that we hold."""
        for lock in self.git.folder.resolve().rglob("*.lock"):
            lock.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _held(self) -> Iterator[int]:
        """Hold the mirror alone.

        Raises:
            PassError: another process holds it longer than our patience (`MirrorBusy`).
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._acquire(lock)
            _note(lock, 0)
            try:
                yield lock
            finally:
                # Not by closing alone: a process forked meanwhile may have a copy of the descriptor.
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)

    def _acquire(self, lock: int) -> None:
        ends = time.monotonic() + self.git.patience.deadline
        while True:
            try:
                return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _end_orphan(lock)
            if time.monotonic() > ends:
                raise PassError(
                    "MirrorBusy",
                    f"{self.folder}: another process has held this mirror for {self.git.patience.deadline:g} s: give "
                    "each daemon a folder of its own, or end the process that `fuser` names for its lock file",
                )
            time.sleep(_RETRY_SECONDS)


def branch_ref(branch: str) -> str:
    """`refs/heads/<branch>`, proven to be a plain ref name.

    Raises:
        ValueError: characters that git does not allow in a ref, or that mean something in a refspec.
    """
    if not _BRANCH.fullmatch(branch):
        raise ValueError(f"not the name of a branch: {branch!r}")
    return f"refs/heads/{branch}"


def _one_branch(refspecs: Sequence[str]) -> tuple[str, str] | None:
    """The branch and our ref of it, where that is all that is fetched."""
    if len(refspecs) != 1:
        return None
    theirs, _, ours = refspecs[0].removeprefix("+").partition(":")
    return (theirs, ours) if theirs.startswith("refs/heads/") and "*" not in theirs else None


def _note(lock: int, child: int) -> None:
    """Write into the lock file who holds it: us and our git process, each with its start time."""
    us = os.getpid()
    words = (us, _our_start(us), child, _started(child) if child else 0)
    # Of one width, so that nothing has to be cut off: truncating costs more than all the rest of a poll.
    os.pwrite(lock, b"%20d %20d %20d %20d\n" % words, 0)


@functools.cache
def _our_start(pid: int) -> int:
    """Our own start time; by process id, because a fork is another process."""
    return _started(pid)


def _end_orphan(lock: int) -> None:
    """End a git process that outlived the process of ours that started it: nobody ends it at its deadline now."""
    noted = os.pread(lock, 200, 0).split()
    if len(noted) != 4 or not all(word.isdigit() for word in noted):
        return
    owner, owner_start, child, child_start = (int(word) for word in noted)
    if not child or not child_start or not owner_start:
        return  # no start times on this system: nothing is proven
    if _started(owner) != owner_start and _started(child) == child_start:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 where there is none, or where it is a zombie."""
    try:
        state, *fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else int(fields[18])

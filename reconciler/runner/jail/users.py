"""A user for each job at a time, where the runner is root: what one job starts can neither touch nor outnumber another's.

Linux counts no processes of root's, so only with a user of its own a job's limit of processes binds.
"""

from __future__ import annotations

import os
import pwd
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from reconciler.errors import ConfigError, PassError

MOST = 256  # jobs at a time
SEARCHABLE, READABLE = 0o001, 0o004


class Slot:
    """A user that nobody else has, for as long as any process has this handle; this one, for as long as it has the slot."""

    def __init__(self, uid: int, handle: int) -> None:
        self.uid, self.handle = uid, handle

    def __del__(self) -> None:
        """Give it back."""
        os.close(self.handle)


@dataclass(frozen=True, slots=True)
class Users:
    """The ids from `first` on. They have no names; groups of the same numbers go with them."""

    first: int

    def take(self) -> Slot:
        """The first that is free on this host, whoever else takes users there; what an earlier job of it left is ended.

        Raises:
            PassError: all are taken.
        """
        for uid in range(self.first, self.first + MOST):
            handle = socket.socket(socket.AF_UNIX)
            try:
                handle.bind(f"\0reconciler-user-{uid}")  # in no folder, and gone with its last holder
            except OSError:
                handle.close()
                continue
            end_all(uid)
            return Slot(uid, handle.detach())
        what = f"all {MOST} users from {self.first} on are taken by jobs"
        raise PassError("NoUserLeft", f"sandbox: {what}; run fewer at a time, or end what holds them.")


def open_users(first: int) -> Users | None:
    """The users of this host's jobs, or None: this process may not become another user.

    Raises:
        ConfigError: somebody has one of these ids.
    """
    if os.geteuid() or not _may_become(first):
        return None
    taken = [one.pw_name for one in pwd.getpwall() if first <= one.pw_uid < first + MOST]
    if taken:
        what = f"{taken[0]} has one of the user ids from {first} to {first + MOST - 1}, which are for jobs alone"
        raise ConfigError(f"sandbox.first_user: {what}; write another number.")
    return Users(first)


def become(uid: int) -> None:
    """Be that user for good, and in no other group than his own."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def end_all(uid: int) -> None:
    """Kill whatever that user runs, and wait for what of it is ours by now: the dead whom nobody waits for count as his.

    The kernel goes through all of it in one step, so none can fork away.
    """
    pid = os.fork()
    if pid == 0:
        try:
            become(uid)
            os.kill(-1, signal.SIGKILL)
        finally:
            os._exit(0)
    _await(pid)
    while found := [one for one in children() if number_of(one, "Uid") == uid]:
        for one in found:  # whose own children are ours once it is gone
            _await(one)


def children() -> list[int]:
    """The processes whose parent this one is, dead ones too."""
    me = os.getpid()
    found = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in found if number_of(pid, "PPid") == me]


def number_of(process: int | str, name: str) -> int:
    """What the status of a process says, the first number of it; -1, if it is gone."""
    try:
        text = Path("/proc", str(process), "status").read_text()
    except OSError:
        return -1
    return int(next((line.split()[1] for line in text.splitlines() if line.startswith(f"{name}:")), "-1"))


def _await(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def hand_over(folder: Path, uid: int) -> None:
    """Give a folder, and what is in it, to the user. Whoever wrote there last may be hostile: no link is followed."""
    for _, folders, files, handle in os.fwalk(folder, follow_symlinks=False):
        os.fchown(handle, uid, uid)
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=handle, follow_symlinks=False)


def closed_above(path: Path) -> list[Path]:
    """The folders above it that not everybody may search, the outermost first."""
    return [one for one in reversed(path.parents) if one.exists() and not one.stat().st_mode & SEARCHABLE]


def let_read(folder: Path) -> None:
    """Let everybody look into a folder of ours who gets there; what is above it stays closed."""
    if folder.stat().st_mode & 0o055 != 0o055:
        folder.chmod(0o755)


def let_through(path: Path, home: Path) -> None:
    """Let everybody pass the folders above it that are below `home`, which is ours."""
    for folder in closed_above(path):
        if folder.is_relative_to(home) and folder != home:
            folder.chmod(folder.stat().st_mode | SEARCHABLE)


def _may_become(uid: int) -> bool:
    """Found out by doing it, in a process that ends with it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            become(uid)
            code = 0
        except OSError:
            pass
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0

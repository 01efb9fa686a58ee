"""The namespaces around the jail: no network but a loopback of its own, and folders of which nothing can be started.

This runs in a process that has just been forked and is about to become bubblewrap, which makes the rest.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.runner.jail.users import become

NEW_USER, NEW_MOUNTS, NEW_NETWORK = 0x10000000, 0x20000, 0x40000000
NO_SUID, NO_DEVICES, NO_EXEC, REMOUNT, BIND, RECURSIVE, PRIVATE = 2, 4, 8, 0x20, 0x1000, 0x4000, 0x40000
SET_FLAGS = 0x8914  # SIOCSIFFLAGS
UP = 1
BACKLOG = 64
STAGE = Path("/tmp")  # noqa: S108 - every host has it and everybody may search it; only this process sees what is there then

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one jailed process may use at most, and all of a job's files together (`work`, `files`). Sizes are bytes.

    The AWS provider works with these (measured). Linux counts no processes of root's.
    """

    memory: int = 3 << 30
    file: int = 1 << 30
    handles: int = 4096
    processes: int = 1024
    work: int = 2 << 30
    files: int = 50_000


def enter(work: Path, listening: Iterable[Address]) -> list[socket.socket]:
    """Leave this process's network and mounts for ones of its own, and listen there. Nothing in `work` can be started then.

    Raises:
        OSError: the system does not let us.
    """
    uid, gid = os.getuid(), os.getgid()
    _check(_libc().unshare(NEW_USER | NEW_NETWORK | NEW_MOUNTS), "a user namespace")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return _furnish(work, listening)


def _furnish(work: Path, listening: Iterable[Address]) -> list[socket.socket]:
    """The mounts, and the network."""
    _mount(None, "/", RECURSIVE | PRIVATE)
    _mount(str(work), str(work), BIND)
    _mount(None, str(work), BIND | REMOUNT | NO_SUID | NO_DEVICES | NO_EXEC)
    _raise_loopback()
    return [_listener(address) for address in listening]


def enter_as(
    uid: int, outside: Sequence[Path], listening: Iterable[Address]
) -> tuple[list[socket.socket], Mapping[Path, Path]]:
    """As root: enter, and become that user. `outside` are a work folder and paths that the user need not be able to reach:
    returns where he finds each of them instead.

    Raises:
        OSError: the system does not let us.
    """
    _check(_libc().unshare(NEW_NETWORK | NEW_MOUNTS), "a network and mounts")
    listeners = _furnish(outside[0], listening)
    handles = [os.open(path, os.O_PATH | os.O_CLOEXEC) for path in outside]
    _mount("tmpfs", str(STAGE), NO_SUID | NO_DEVICES, "tmpfs", b"mode=0755,size=1m")
    found = {path: _staged(number, handle) for number, (path, handle) in enumerate(zip(outside, handles, strict=True))}
    become(uid)
    return listeners, found


def _staged(number: int, handle: int) -> Path:
    """A place for it that everybody can reach."""
    place = STAGE / str(number)
    if stat.S_ISDIR(os.fstat(handle).st_mode):
        place.mkdir()
    else:
        place.touch()
    _mount(f"/proc/self/fd/{handle}", str(place), BIND)
    return place


def confine(limits: Limits) -> None:
    """From now on this process, and what it starts, may use no more than that."""
    for what, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_DATA, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_NOFILE, limits.handles),
        (resource.RLIMIT_NPROC, limits.processes),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        held = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (held, held))


def too_much(work: Path, limits: Limits) -> str | None:
    """What there is too much of in the folder. Its owner is hostile and at work: what cannot be looked at is too much."""
    used = count = 0
    left = [os.fspath(work)]
    while left:
        folder = left.pop()
        try:
            with os.scandir(folder) as found:
                for entry in found:
                    count += 1
                    if count > limits.files:
                        return f"more than {limits.files:,} files"
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"a folder that cannot be read ({error.strerror})"
    return f"more than {limits.work >> 20:,} MiB" if used > limits.work else None


def _raise_loopback() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", UP))


def _listener(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.bind(address)
    found.listen(BACKLOG)
    return found


def _mount(source: str | None, target: str, flags: int, kind: str | None = None, options: bytes | None = None) -> None:
    given, named = (None if text is None else os.fsencode(text) for text in (source, kind))
    answer = _libc().mount(given, os.fsencode(target), named, ctypes.c_ulong(flags), options)
    _check(answer, f"a mount at {target}")


def _check(answer: int, what: str) -> None:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

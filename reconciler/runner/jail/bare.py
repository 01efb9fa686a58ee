"""A jail without namespaces: Landlock, a filter of system calls, no capability, limits, and where it may be another user.

This runs in a process that has just been forked and is about to become the engine. What it starts is ended by its keeper.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from reconciler.runner.jail import seccomp
from reconciler.runner.jail.cell import DEVICES, Cell, authorities
from reconciler.runner.jail.landlock import KEEP, READ, RUN, USE, Opened, restrict
from reconciler.runner.jail.space import confine
from reconciler.runner.jail.users import become, children, number_of

DEATH_SIGNAL, SECCOMP, DROP_BOUND, NO_NEW_PRIVILEGES, REAPER = 1, 22, 24, 38, 36
FILTER = 2
CAPABILITIES = 0x20080522  # the version of the call's structures
MOST_CAPABILITIES = 64
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf")  # for who has a network


def shut_in(cell: Cell, env: Mapping[str, str]) -> None:
    """Give up everything that an engine does not need, in the order in which each step still allows the next.

    Raises:
        OSError: the system lacks one of them.
    """
    os.chdir(cell.work)
    confine(cell.limits)
    _drop_bound()
    if cell.user is not None:
        become(cell.user.uid)
    _drop_capabilities()
    _control(DEATH_SIGNAL, signal.SIGKILL)  # after the change of user, which takes it back
    _control(NO_NEW_PRIVILEGES, 1)
    restrict(_opened(cell, env), network=cell.network)
    _filter(seccomp.program(network=cell.network))


def adopt(*, orphans: bool = True) -> None:
    """From now on what is left behind below this process is its child, and not the system's; or no longer."""
    _control(REAPER, int(orphans))


def end_with(parent: int) -> None:
    """From now on this process is killed when its parent, which is that one, ends."""
    _control(DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def end_shut_in() -> None:
    """Kill those of this process's children that are shut in, then those that were theirs, until there is none."""
    while found := _shut_in():
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in found:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _shut_in() -> list[int]:
    """Children with more filters than this process: a filter is inherited, and none ever gets rid of one."""
    own = number_of("self", "Seccomp_filters")
    return [pid for pid in children() if number_of(pid, "Seccomp_filters") > own]


def _opened(cell: Cell, env: Mapping[str, str]) -> Iterator[Opened]:
    yield Opened(cell.writable(env), KEEP)
    yield Opened(cell.readable, RUN)
    yield Opened(tuple(authorities(env)), READ)
    yield Opened(tuple(Path("/dev", name) for name in DEVICES), USE)
    if cell.network:
        yield Opened(tuple(map(Path, NAMES)), READ)


def _drop_bound() -> None:
    """What no program that is started can get back. Only who has capabilities may, and only he must."""
    for capability in range(MOST_CAPABILITIES):
        with suppress(OSError):
            _control(DROP_BOUND, capability)


def _drop_capabilities() -> None:
    head, nothing = struct.pack("Ii", CAPABILITIES, 0), struct.pack("6I", *[0] * 6)
    if _libc().capset(head, nothing):
        number = ctypes.get_errno()
        raise OSError(number, f"capabilities: {os.strerror(number)}")


def _filter(program: bytes) -> None:
    code = ctypes.create_string_buffer(program, len(program))
    given = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(code)))
    _control(SECCOMP, FILTER, ctypes.addressof(given))


def _control(what: int, value: int, more: int = 0) -> None:
    words = (ctypes.c_ulong(one) for one in (value, more, 0, 0))
    if _libc().prctl(what, *words):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl {what}: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

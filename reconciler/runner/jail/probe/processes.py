"""Other processes, what comes from them, and what one may use."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import struct
import time

from .book import CHANNEL, LIBC, Context, one

MOST_PROCESSES, FEW = 1024, 64


@one
def see_process(context: Context) -> str | None:
    os.kill(context["victim"], 0)
    return "it is there"


@one
def see_any_process(_: Context) -> str | None:
    os.kill(-1, 0)
    return "there are others"


@one
def trace_process(context: Context) -> str | None:
    LIBC.ptrace(0x4206, context["victim"], None, None)
    return "seized" if ctypes.get_errno() == 0 else None


@one
def gain_privileges(_: Context) -> str | None:
    return None if LIBC.prctl(39, 0, 0, 0, 0) == 1 else "no_new_privs is off"


@one
def hold_capabilities(_: Context) -> str | None:
    head, data = struct.pack("Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    LIBC.capget(head, data)
    held = struct.unpack("6I", data.raw)
    return f"{held[3]:08x}{held[0]:08x}" if held[0] or held[3] else None


@one
def inherit_handles(_: Context) -> str | None:
    found = [str(handle) for handle in range(3, 1024) if _is_open(handle) and handle not in CHANNEL]
    return ", ".join(found) or None


@one
def inherit_variable(context: Context) -> str | None:
    return os.environ.get(context["variable"])


@one
def have_a_home(_: Context) -> str | None:
    return os.environ.get("HOME")


@one
def outlive(_: Context) -> str | None:
    """Leave somebody behind, in a session of his own, who holds a lock for as long as he lives: whoever waits sees that."""
    if os.fork():
        return None
    os.setsid()
    signal.alarm(0)
    with open("survivor", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(str(os.getpid()))
        file.flush()
        os.closerange(0, file.fileno())  # nobody shall wait for it to let go of something
        os.closerange(file.fileno() + 1, 256)
        if os.fork() == 0:
            time.sleep(30)
        os._exit(0)


# --- limits


@one
def much_memory(_: Context) -> str | None:
    mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000).close()
    return "4 GiB"


@one
def a_large_file(_: Context) -> str | None:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    with open("large", "wb") as file:
        try:
            file.truncate(2 << 30)
        finally:
            os.unlink("large")
    return "2 GiB"


@one
def many_handles(_: Context) -> str | None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
    return "8192"


@one
def many_processes(_: Context) -> str | None:
    """The limit, and whether it binds: there are users for whom Linux does not count."""
    most = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if not 0 < most <= MOST_PROCESSES:
        return str(most)
    resource.setrlimit(resource.RLIMIT_NPROC, (FEW, FEW))
    born: list[int] = []
    try:
        while len(born) <= FEW:
            born.append(_waiting())
    finally:
        for pid in born:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return f"{len(born)} where {FEW} may be"


@one
def a_core_file(_: Context) -> str | None:
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    return str(most) if most else None


def _waiting() -> int:
    """A process that does nothing, for as long as this one lives."""
    pid = os.fork()
    if pid == 0:
        LIBC.prctl(1, signal.SIGKILL, 0, 0, 0)
        signal.pause()
    return pid


def _is_open(handle: int) -> bool:
    try:
        os.fstat(handle)
    except OSError:
        return False
    return True

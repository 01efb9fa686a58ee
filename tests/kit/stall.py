"""Processes that stand still: one thread of them, as in a call that never returns, or all, as on a host that sleeps."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000  # of waitpid: threads too


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Stop the main thread of a child process, and let it go on at the end. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    for request in (SEIZE, INTERRUPT):
        if libc.ptrace(request, pid, None, None) < 0:
            raise OSError(ctypes.get_errno(), f"ptrace {request}")
    deadline = time.monotonic() + 30
    while os.waitpid(pid, os.WNOHANG | WALL)[0] != pid:
        assert time.monotonic() < deadline, f"{pid} does not stop"
        time.sleep(0.01)
    try:
        yield
    finally:
        libc.ptrace(DETACH, pid, None, None)


@contextmanager
def asleep(pid: int) -> Iterator[None]:
    """Stop a process, and let it go on at the end, whatever happens meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)

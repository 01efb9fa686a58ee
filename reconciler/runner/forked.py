"""A job's own process: how it begins, what it may take, and that it never comes back into its parent's loop."""

from __future__ import annotations

import encodings.ascii  # noqa: F401 - else every job imports it anew, at its first file that is read so
import gc
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from reconciler.runner import overdue

MEMORY = 2 << 30  # bytes that a job's own Python may take: its engine, and what that starts, come on top
FIRST_TO_GO = b"500"  # how soon the kernel ends a job when memory is short: before the planes themselves


def fork(carry_out: Callable[[], None], let_go: Callable[[], None] = lambda: None) -> int:
    """Do it in a process of its own; its number. `let_go` closes there what is the parent's alone."""
    sys.stdout.flush()  # else what waits there would be said twice
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become(carry_out, let_go)
    return pid


def _become(carry_out: Callable[[], None], let_go: Callable[[], None]) -> None:
    """Be the job's process: never returns."""
    code = 1
    try:
        os.setsid()
        gc.freeze()  # what is inherited is not looked at again: each page looked at would be copied
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        let_go()
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_bytes(FIRST_TO_GO)
        _limit_memory()
        overdue.arm()
        carry_out()
        code = 0
    except BaseException:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _limit_memory() -> None:
    """What this process would hold beyond is refused to it: a job that is too large ends as one, and starves nobody else."""
    if hasattr(resource, "prlimit"):  # else its engine could not be freed of it
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        soft = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))

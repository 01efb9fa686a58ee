"""Starts planes without importing them anew: `python -m tests.kit.fork_server` imports everything once, and forks.

It reads an order a line (JSON). One that starts a plane is answered with the number of the process that it became; one that
waits for a process, which has ended, with its code as `subprocess` gives it. Until it is asked for, a dead child keeps its number.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1


def preload() -> None:
    """Import what either plane imports, before the first fork. Starts no thread."""
    import reconciler.cli.run
    import reconciler.cli.runner
    import reconciler.runner.service  # noqa: F401 - as are those above, for the children

    gc.collect()
    gc.freeze()


def become(order: dict[str, Any]) -> None:
    """Be what was ordered: never returns. Dies with the fork server, as that does with the tests."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, nowhere), (1, log), (2, log)):
        os.dup2(source, target)
    os.close(log)
    os.close(nowhere)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    if order["first"]:
        module, _, name = order["first"].partition(":")
        getattr(importlib.import_module(module), name)(**order["told"])
    from reconciler.cli import main

    sys.argv = ["reconciler", *order["words"]]
    sys.exit(main())


def serve() -> None:
    """Take orders until the end of the input."""
    preload()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        elif (answer := os.fork()) == 0:
            become(order)
        print(answer, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    serve()

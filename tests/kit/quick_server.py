"""The server of `tests.kit.quick`: a child for each proxy. `quick_server.py SOCKET`, until its input ends."""

from __future__ import annotations

import gc
import importlib
import marshal
import os
import runpy
import select
import signal
import socket
import sys
import threading
from typing import Any

PRELOADED = (
    "concurrent.futures.thread",
    "cryptography.hazmat.primitives.asymmetric.ec",
    "cryptography.x509",
    "grpc",
    "tf.provider",
)


def serve(address: str) -> None:
    """A child for each proxy, until the input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a child ended: its proxy sees that it did
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(128)
    print(flush=True)  # noqa: T201 - the answer
    ready: list[Any] = []
    while sys.stdin not in ready:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if listener in ready:
            preload()
            proxy, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                become(proxy)
            proxy.close()


def preload() -> None:
    """Import what the provider imports, before the first fork. Starts no thread."""
    if PRELOADED[-1] not in sys.modules:
        os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
        for name in PRELOADED:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()


def become(proxy: socket.socket) -> None:
    """Be what the proxy was started as: never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, streams, _, _ = socket.recv_fds(proxy, 4, 3)
    size, words = int.from_bytes(head, "big"), b""
    while len(words) < size:
        words += proxy.recv(size - len(words))
    argv, environment, folder, parent, group = marshal.loads(words)  # noqa: S302 - from our own proxy
    os.setsid()
    for target, source in enumerate(streams):
        os.dup2(source, target)
        os.close(source)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # Who looks for Terraform, or for those that Terraform started, finds what its proxy would.
    os.getppid, os.getpgrp = lambda: parent, lambda: group
    threading.Thread(target=die_with, args=(proxy,), daemon=True).start()
    while argv[0].startswith("-"):
        argv.pop(0)
    sys.argv = argv
    runpy.run_path(argv[0], run_name="__main__")
    os._exit(0)


def die_with(proxy: socket.socket) -> None:
    """The proxy was killed: so is this."""
    proxy.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    serve(sys.argv[1])

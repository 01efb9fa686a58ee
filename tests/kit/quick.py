"""Providers that start in a fifth of the time: what `reconciler/files` imports is imported once, and forked for each.

Terraform starts a provider six times for a change, and each start costs a third of a second of Python's imports: most of what
a house costs. What it starts here is a proxy, which hands its streams, variables and words to a server; that forks, and the
child runs the program of the mirror. Seen from outside the proxy is the provider: if either dies, so does the other, a moment later:
who kills it in the midst of a call, and relies on the call's end, takes the fixture `plain_provider`.

As it stands in production the provider is started by tests/provider, tests/e2e/test_engine.py, test_demo.py, and by whoever
takes the fixture `plain_provider`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.demo import playground
from tests.kit import quick_server

# Nothing that is slow to import.
PROXY = """\
import _signal, _socket, marshal, os, sys
_signal.signal(_signal.SIGINT, _signal.SIG_IGN)
parent = os.getppid()
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
server.connect({address!r})
words = marshal.dumps((sys.argv[1:], dict(os.environ), os.getcwd(), parent, os.getpgrp()))
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
server.sendmsg([len(words).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
server.sendall(words)
server.settimeout(0.2)
while os.getppid() == parent:
    try:
        server.recv(1)
        break
    except TimeoutError:
        pass
os._exit(0)
"""


@contextmanager
def quick_python() -> Iterator[Path]:
    """An interpreter for the provider, and for nothing else; its server costs next to nothing before it is used."""
    with tempfile.TemporaryDirectory(prefix="quick-") as name:
        folder = Path(name)
        address, proxy, python = folder / "socket", folder / "proxy.py", folder / "python"
        proxy.write_text(PROXY.format(address=str(address)), encoding="utf-8")
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{proxy}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        argv = [sys.executable, "-I", "-B", str(quick_server.__file__), str(address)]
        pipe = subprocess.PIPE
        with subprocess.Popen(argv, stdin=pipe, stdout=pipe, start_new_session=True) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            yield python
            server.communicate()  # its input ends, and so does it


@pytest.fixture(scope="session", autouse=True)
def quick_provider() -> Iterator[None]:
    """Every playground of the session gets the quick interpreter."""
    with quick_python() as python:
        playground.INTERPRETER = str(python)
        yield
        playground.INTERPRETER = sys.executable


@pytest.fixture
def plain_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers are started as they are in production, and see what their engine sees."""
    monkeypatch.setattr(playground, "INTERPRETER", sys.executable)

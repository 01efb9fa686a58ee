"""Stands in front of a server that answers as AWS does, and loses answers: the request arrives, and nobody ever hears of it."""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from reconciler.runner.terraform import leftover

SECONDS = 60.0


class Middleman:
    """`strikes`: action -> after which of its requests the answer is lost, and what is done instead of answering."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.endpoint = ""
        self.seen: Counter[str] = Counter()
        self.struck = threading.Event()
        self._strike: tuple[str, int, Callable[[], None]] | None = None
        self._one = threading.Lock()

    def lose(self, action: str, instead: Callable[[], None] = lambda: None, *, nth: int = 1) -> None:
        """Lose the answer to the nth request from now on with this action, once; `instead` is done when it has reached the server."""
        with self._one:
            self.struck.clear()
            self._strike = (action, self.seen[action] + nth, instead)

    def hit(self, action: str) -> Callable[[], None] | None:
        """Count a request; what to do instead of answering it."""
        with self._one:
            self.seen[action] += 1
            strike = self._strike
            if strike is None or (action, self.seen[action]) != strike[:2]:
                return None
            self._strike = None
            return strike[2]


@contextmanager
def standing_before(upstream: str) -> Iterator[Middleman]:
    """A middleman before the server, while it is needed."""
    man = Middleman(upstream)
    handler = type("Handler", (_Handler,), {"man": man})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    man.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield man
    finally:
        server.shutdown()
        server.server_close()
        thread.join(SECONDS)


class _Handler(BaseHTTPRequestHandler):
    man: ClassVar[Middleman]
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        with suppress(ConnectionError):
            super().handle_one_request()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        instead = self.man.hit(action_of(self.command, self.path, dict(self.headers), body))
        status, headers, answer = self._forward(body)
        if instead is not None:
            self.close_connection = True
            instead()
            self.man.struck.set()
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        peer = http.client.HTTPConnection(self.man.upstream.netloc, timeout=SECONDS)
        try:
            peer.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                    peer.putheader(name, value)
            peer.putheader("Content-Length", str(len(body)))
            peer.endheaders(body)
            said = peer.getresponse()
            return said.status, said.getheaders(), said.read()
        finally:
            peer.close()

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Every method is answered alike: `do_GET`, `do_PUT`, ..."""
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def action_of(method: str, path: str, headers: dict[str, str], body: bytes) -> str:
    """What AWS calls the request: `CreateVpc`, `CreateTable`; of S3's, only the creation of a bucket has a name."""
    lower = {name.lower(): value for name, value in headers.items()}
    if target := lower.get("x-amz-target"):
        return target.rpartition(".")[2]
    if "x-www-form-urlencoded" in lower.get("content-type", ""):
        return parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
    plain = urlsplit(path)
    is_bucket = bool(plain.path.strip("/")) and "/" not in plain.path.strip("/") and not plain.query
    return "CreateBucket" if method == "PUT" and is_bucket and "/s3/" in lower.get("authorization", "") else ""


def kill_apply(spool: Path) -> None:
    """kill -9 the job that applies now, its engine and the engine's providers."""
    for note in map(leftover.read, spool.glob("*/engine.json")):
        if note is not None and note.step == "apply":
            os.kill(note.keeper.pid, signal.SIGKILL)
            os.killpg(note.engine.pid, signal.SIGKILL)

"""The loopback endpoint from which an engine's programs fetch AWS keys, as often as they like: each time such as are good.

It is served by a process of its own, which ends with the last process that holds its leash: the job and the engine do. So
an engine whose job was killed can still bring its apply to an end. Keys are nowhere but in memory; the programs get an
address and a token, which counts for one job. Whatever is handed out is told to the job first, which then hides it in logs.
"""

from __future__ import annotations

import gc
import hmac
import json
import os
import secrets
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, NoReturn, Self

from reconciler.errors import HeldError, UnitError
from reconciler.runner.access.keys import Keys, Renewing

PATH = "/credentials"
URI, TOKEN = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"
SECONDS = 10.0  # for a request to arrive
AT_ONCE = 32  # connections
LARGEST = 1 << 16  # bytes of what is told at once


@dataclass(frozen=True, slots=True)
class Address:
    """A place at which keys are handed out, or may be one day: nobody is answered before."""

    listener: socket.socket
    token: str = field(repr=False)

    @property
    def variables(self) -> Mapping[str, str]:
        """What AWS's SDKs look for."""
        host, port = self.listener.getsockname()
        return {URI: f"http://{host}:{port}{PATH}", TOKEN: self.token}


def new_address() -> Address:
    """One that nobody knows yet."""
    return Address(socket.create_server(("127.0.0.1", 0), backlog=AT_ONCE), secrets.token_urlsafe(32))


class Endpoint:
    """Hands out keys to whoever has the token, from `start` to `close`."""

    def __init__(self, keys: Renewing, desk: Address | None = None) -> None:
        """`desk`: where, if programs know the place already; whoever waits there is sent away."""
        self._keys = keys
        place = desk or new_address()
        self._token, self._listener = place.token, place.listener
        _send_away(self._listener)
        self._leash_held, self._leash = os.pipe()
        self._told, self._tell = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._told.setblocking(False)
        self._known = {self._token}
        self._pid: int | None = None

    @property
    def variables(self) -> Mapping[str, str]:
        """What AWS's SDKs look for."""
        return Address(self._listener, self._token).variables

    @property
    def leash(self) -> int:
        """A descriptor for every process that needs the endpoint: it lives as long as one of them holds this."""
        return self._leash

    def start(self) -> Self:
        """Serve, once there are keys.

        Raises:
            HeldError, UnitError: there are none.
        """
        self._known |= self._keys.current().secrets
        self._pid = os.fork()
        if self._pid == 0:
            _become(self._keys, self._token, self._listener, self._tell, self._leash_held)
        return self

    def handed_out(self) -> frozenset[str]:
        """Every secret so far: asked before what an engine wrote is shown to anybody."""
        with suppress(BlockingIOError, OSError):
            while said := self._told.recv(LARGEST):
                self._known.update(json.loads(said))
        return frozenset(self._known)

    def close(self) -> None:
        """Hand out nothing more. May be repeated."""
        if self._leash < 0:
            return
        for handle in (self._leash_held, self._leash):
            os.close(handle)
        self._leash = -1
        self._listener.close()
        self.handed_out()
        for one in (self._told, self._tell):
            one.close()
        if self._pid:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)


def _send_away(listener: socket.socket) -> None:
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
    listener.setblocking(True)


def _become(keys: Renewing, token: str, listener: socket.socket, tell: socket.socket, leash: int) -> NoReturn:
    """Be the process that serves, until nobody holds the leash: never returns."""
    try:
        gc.freeze()  # nothing of the job's is collected here: it would close descriptors by their numbers
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT):  # meant for the job: the engine comes to its end first
            signal.signal(number, signal.SIG_IGN)
        _hold_only((listener.fileno(), tell.fileno(), leash))
        tell.setblocking(False)
        handler = type("Handler", (_Handler,), {"desk": Desk(keys, token, tell)})
        server = _Server(listener, handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        select.select([leash], [], [])
    except BaseException as error:  # noqa: BLE001 - the last frame of a forked process: nothing may return into the job's
        sys.stderr.write(f"runner: the endpoint for credentials ended: {type(error).__name__}\n")
    finally:
        os._exit(0)


def _hold_only(handles: Iterable[int]) -> None:
    """Close all that is the job's, its locks above all; errors are still said where it says them."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    last = 2
    for handle in (*sorted(handles), max(os.sysconf("SC_OPEN_MAX"), 1 << 16)):
        os.closerange(last + 1, handle)
        last = handle


class Desk:
    """Answers one request after the other, from any thread."""

    def __init__(self, keys: Renewing, token: str, tell: socket.socket) -> None:
        self._keys, self._token, self._tell = keys, token, tell
        self._last: Keys | None = None
        self._one = threading.Lock()

    def answer(self, path: str, token: str) -> tuple[int, dict[str, str]]:
        """A status and a body, as the SDKs expect them."""
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return 401, _problem("Unauthorized", "this is no token of this job")
        if path != PATH:
            return 404, _problem("NotFound", f"only {PATH} is here")
        try:
            keys = self._keys.current()
            with self._one:
                self._announce(keys)
        except HeldError as error:
            return 400, _problem(error.reason, str(error))
        except (UnitError, OSError) as error:
            return 503, _problem("CredentialsUnavailable", str(error))
        return 200, _worded(keys)

    def _announce(self, keys: Keys) -> None:
        """Tell the job, which hides them from then on. One that was killed shows nothing any more, and needs not be told."""
        if keys == self._last:
            return
        with suppress(ConnectionError):
            self._tell.send(json.dumps(sorted(keys.secrets)).encode())
        self._last = keys


def _worded(keys: Keys) -> dict[str, str]:
    said = {"AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key, "Token": keys.token or ""}
    if keys.expires is not None:
        said["Expiration"] = keys.expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return said


def _problem(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


class _Handler(BaseHTTPRequestHandler):
    """One request a connection. It logs nothing."""

    desk: ClassVar[Desk]
    timeout = SECONDS
    server_version, sys_version = "reconciler", ""

    def do_GET(self) -> None:
        status, said = self.desk.answer(self.path, self.headers.get("Authorization", ""))
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a request has a token in it."""


class _Server(ThreadingHTTPServer):
    """Serves a socket that listens already; who comes when it is full is sent away."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See `ThreadingMixIn`."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """See `ThreadingMixIn`."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who goes away in the middle of a request is not worth a line."""

"""The only way out of a jail: a proxy on sockets that listen inside, served by a process that is outside.

A listening socket belongs to the network it was made in, whoever accepts from it. So nothing of ours runs in the jail.
"""

from __future__ import annotations

import re
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from reconciler.runner.jail.egress import HOST, Egress, Endpoint, Refusal, why_not

PORT = 3128  # inside, where nothing else listens
PROXY = ("127.0.0.1", PORT)
MOST_HEAD = 16 * 1024  # bytes of a request up to its empty line
MOST_AT_ONCE = 256  # connections
HEAD_SECONDS = 30.0
CONNECT_SECONDS = 30.0
IDLE_SECONDS = 3600.0
CHUNK = 64 * 1024
END = b"\r\n\r\n"
REQUEST = re.compile(rb"([A-Z]{1,20}) ([!-~]{1,8192}) HTTP/1\.[01]\r\n")
HOP = re.compile(rb"(?im)^(?:proxy-[a-z-]+|connection|host):[^\r\n]*\r\n")
CONNECTED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a program asked of the proxy: a way to a host, and what to say there first."""

    host: str
    port: int
    first: bytes
    tunnel: bool


class RefusedError(Exception):
    """A connection that is not made, and why."""

    def __init__(self, target: str, why: str) -> None:
        super().__init__(why)
        self.refusal = Refusal(_printable(target), why)


class Proxy:
    """Serves the sockets until the process ends. `refused` is told of every refusal, one at a time."""

    def __init__(self, egress: Egress, refused: Callable[[Refusal], None]) -> None:
        self._egress, self._refused = egress, refused
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        self._one = threading.Lock()

    def serve(self, listener: socket.socket, straight: Endpoint | None = None) -> None:
        """Serve one socket in the background: as a proxy, or as a way `straight` to one endpoint."""
        threading.Thread(target=self._accept, args=(listener, straight), daemon=True).start()

    def _accept(self, listener: socket.socket, straight: Endpoint | None) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                client.close()
                continue
            threading.Thread(target=self._attend, args=(client, straight), daemon=True).start()

    def _attend(self, client: socket.socket, straight: Endpoint | None) -> None:
        try:
            with client, suppress(OSError):
                self._connect(client, straight)
        finally:
            self._room.release()

    def _connect(self, client: socket.socket, straight: Endpoint | None) -> None:
        client.settimeout(HEAD_SECONDS)
        try:
            asked = Asked(straight.host, straight.port, b"", tunnel=False) if straight else read_request(client)
            upstream = self._reach(asked)
        except RefusedError as error:
            with self._one:
                self._refused(error.refusal)
            _answer(client, "403 Forbidden", f"{error.refusal.target}: {error.refusal.why}")
        except OSError as error:
            _answer(client, "502 Bad Gateway", f"{error}")
        else:
            with upstream:
                if asked.tunnel:
                    client.sendall(CONNECTED)
                upstream.sendall(asked.first)
                _pass_on(client, upstream)

    def _reach(self, asked: Asked) -> socket.socket:
        """Connect to it, if it is listed and stands for an address that may be.

        Raises:
            RefusedError: it is not. OSError: nobody answers.
        """
        target = str(Endpoint(asked.host, asked.port))
        listed = self._egress.listed(asked.host, asked.port)
        if listed is None:
            raise RefusedError(target, "it is not listed")
        found = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        reasons = {address: why_not(address, listed) for address in addresses}
        problem: OSError | None = None
        for address in (a for a, reason in reasons.items() if reason is None):
            try:
                return socket.create_connection((address, asked.port), CONNECT_SECONDS)
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem
        raise RefusedError(target, next(filter(None, reasons.values()), "it stands for no address"))


def read_request(client: socket.socket) -> Asked:
    """What the program asks, strictly: what is not understood goes nowhere.

    Raises:
        RefusedError: it is no request of a proxy. OSError: the connection ended.
    """
    data = b""
    while END not in data:
        if len(data) > MOST_HEAD:
            raise RefusedError("unreadable", "the request's head is too long")
        chunk = client.recv(4096)
        if not chunk:
            raise ConnectionResetError("the connection ended")
        data += chunk
    head, _, rest = data.partition(END)
    line = REQUEST.match(head + b"\r\n")
    if line is None:
        raise RefusedError("unreadable", "that is no request")
    method, target = line[1].decode(), line[2].decode()
    if method == "CONNECT":
        host, port = _authority(target, None)
        return Asked(host, port, rest, tunnel=True)
    parts = urlsplit(target)
    if parts.scheme != "http":
        raise RefusedError(target, "only CONNECT and http:// go through a proxy")
    host, port = _authority(parts.netloc, 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = HOP.sub(b"", head[line.end() :] + b"\r\n")
    begin = f"{method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n".encode()
    return Asked(host, port, begin + headers + b"\r\n" + rest, tunnel=False)


def _authority(text: str, default: int | None) -> tuple[str, int]:
    """A host in its one spelling, and a port."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:@/\[\]]+)(?::([0-9]{1,5}))?", text)
    host = found[1].strip("[]").lower().removesuffix(".") if found else ""
    port = int(found[2]) if found and found[2] else default
    if not HOST.fullmatch(host) or port is None or not 0 < port < 65536:
        raise RefusedError(text, "that is no host and port")
    return host, port


def _answer(client: socket.socket, status: str, text: str) -> None:
    body = f"reconciler: {text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    client.sendall(head.encode() + body)


def _pass_on(client: socket.socket, upstream: socket.socket) -> None:
    """Bytes both ways, until both have said their last or nobody says anything."""
    other = {client: upstream, upstream: client}
    with selectors.DefaultSelector() as open_ones:
        for end in other:
            end.settimeout(IDLE_SECONDS)
            open_ones.register(end, selectors.EVENT_READ, end)
        while open_ones.get_map() and (ready := open_ones.select(IDLE_SECONDS)):
            for key, _ in ready:
                one: socket.socket = key.data
                if data := one.recv(CHUNK):
                    other[one].sendall(data)
                    continue
                open_ones.unregister(one)
                with suppress(OSError):
                    other[one].shutdown(socket.SHUT_WR)


def _printable(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.:\[\]_/-]", "?", text)[:255]

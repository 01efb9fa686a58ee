"""The bounds of every exchange: one request per connection, small, in time, and read by whoever asked for it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from reconciler.trigger.certificates import Shown, shown
from reconciler.web.guard import HEADERS

LONGEST_BODY = 4096  # bytes
LONGEST_HEAD = 16 * 1024  # bytes of all headers
ARRIVES = 10.0  # seconds within which a request is there as a whole, handshake aside
TAKEN = 20.0  # seconds within which a reader takes what was sent
CONNECTIONS = 256
CONNECTION = "reconciler.connection"  # where a scope holds a `Connection`


def _nothing() -> None:
    """There is no connection to end."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What the listener knows of the connection of a request."""

    certificate: Shown | None = None
    arrived: Callable[[], None] = field(default=_nothing)
    cut: Callable[[], None] = field(default=_nothing)


def connection_of(scope: Scope) -> Connection:
    """The connection of a request; in a test without a listener, one of which nothing is known."""
    return cast("Connection", scope.get(CONNECTION) or Connection())


class Edge:
    """Wraps the application: reads the body within its bounds, and ends whoever does not take the answer."""

    def __init__(self, app: ASGIApp, taken: float = TAKEN) -> None:
        self._app, self._taken = app, taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        connection = connection_of(scope)

        async def bounded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({**HEADERS, "connection": "close"})
            try:
                await asyncio.wait_for(send(message), self._taken)
            except TimeoutError:
                connection.cut()
                raise

        body = await _body(receive)
        connection.arrived()
        if body is None:
            said = {"error": f"a request has at most {LONGEST_BODY} bytes", "reason": "RequestInvalid"}
            await JSONResponse(said, 413)(scope, receive, bounded)
            return
        await self._app(scope, _replayed(body, receive), bounded)


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too long."""
    found = b""
    while True:
        message = await receive()
        part: bytes = message.get("body", b"")
        found += part
        if len(found) > LONGEST_BODY:
            return None
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return found


def _replayed(body: bytes, receive: Receive) -> Receive:
    rest: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return rest.pop() if rest else await receive()

    return again


class Protocol(H11Protocol):
    """uvicorn's, which ends a connection whose request does not arrive, and tells whose certificate it has."""

    arrives = ARRIVES

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """A connection is there, and its handshake is over."""
        super().connection_made(transport)
        timer = self.loop.call_later(self.arrives, transport.abort)
        self._timer = timer
        connection = Connection(_certificate(transport), timer.cancel, transport.abort)
        inner = self.app

        async def known(scope: Any, receive: Any, send: Any) -> None:
            scope[CONNECTION] = connection
            await inner(scope, receive, send)

        self.app = known

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._timer.cancel()
        super().connection_lost(exc)


def _certificate(transport: asyncio.Transport) -> Shown | None:
    tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    der: bytes | None = tls.getpeercert(binary_form=True) if tls is not None else None
    return shown(der, tls.getpeercert() or {}) if tls is not None and der else None

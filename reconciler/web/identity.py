"""Who looks: the word of a reverse proxy, which counts from the proxy's own addresses only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

USER = "reconciler.user"  # where a scope holds the name of whoever looks
LEAVES = "reconciler.leaves"  # where a scope says that they have logged in here, and may log out
LONGEST_NAME = 256  # characters
OPEN = ("/healthz",)  # says that the process answers, and nothing else

Network = IPv4Network | IPv6Network


def user_of(scope: Scope) -> str:
    """Who looks; empty where nobody was asked to prove it: on the loopback."""
    return str(scope.get(USER, ""))


def leaves(scope: Scope) -> bool:
    """Whether who looks has logged in here, and so may log out."""
    return bool(scope.get(LEAVES))


class Identity:
    """Wraps the application: nothing is answered to anybody who is not named by the proxy."""

    def __init__(self, app: ASGIApp, addresses: Sequence[Network], header: str, users: Collection[str] = ()) -> None:
        """`addresses`: of the proxy; `header`: where it names the user; `users`: who may look, all where it is empty."""
        self._app, self._addresses = app, tuple(addresses)
        self._header, self._users = header.lower(), frozenset(users)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its user, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        found = self._prove(scope)
        if isinstance(found, str):
            await self._app({**scope, USER: found}, receive, send)
        else:
            await found(scope, receive, send)

    def _prove(self, scope: Scope) -> str | PlainTextResponse:
        if not self._from_proxy(scope.get("client")):
            return PlainTextResponse("Ask through the proxy that knows you: http.proxy in reconciler.yaml.\n", 403)
        names = [name.strip() for name in Headers(scope=scope).getlist(self._header)]
        if len(names) != 1 or not names[0] or len(names[0]) > LONGEST_NAME or not names[0].isprintable():
            what = f"The proxy must name the user in exactly one header, {self._header}.\n"
            return PlainTextResponse(what, 401)
        if self._users and names[0] not in self._users:
            return PlainTextResponse("You are none of http.proxy.users in reconciler.yaml.\n", 403)
        return names[0]

    def _from_proxy(self, client: Any) -> bool:
        """Whether the connection is the proxy's: by the connection itself, never by what a header says of it."""
        if client is None:
            return False
        try:
            address = ip_address(str(client[0]).partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._addresses)

"""What every answer has in common: GET only (but to log out), hosts that we know, and headers that give a browser nothing to run."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LOCAL = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Wraps the application. A foreign Host is refused, so that no name of an attacker's can be pointed here."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = LOCAL, posted: Collection[str] = ()) -> None:
        """`hosts`: the names and addresses, without ports, under which the daemon may be asked; `posted`: paths to post to."""
        self._app, self._hosts, self._posted = app, frozenset(host.lower() for host in hosts), frozenset(posted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, and pass it on with the headers added to its answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    said.setdefault(name, value)  # a page names what of it may run: its own files
            await send(message)

        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: MutableMapping[str, Any]) -> ASGIApp | None:
        host = _hostname(Headers(scope=scope).get("host", ""))
        if host not in self._hosts:
            text = (
                "This name is not one of the daemon's: ask it by its listen address, or add the name to http.hosts.\n"
            )
            return PlainTextResponse(text, 421)
        if scope["method"] not in ("GET", "HEAD") and (scope["method"] != "POST" or scope["path"] not in self._posted):
            return PlainTextResponse("Read-only: GET.\n", 405, {"allow": "GET, HEAD"})
        return None


def _hostname(header: str) -> str:
    """The host of a Host header, without port and brackets; empty where it is malformed."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""

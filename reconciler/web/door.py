"""The listener of the pages: on the loopback for whoever is on this host, elsewhere for a proxy that knows who asks."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.middleware import Middleware

from reconciler.config.controller import Http
from reconciler.web.app import make_app
from reconciler.web.guard import LOCAL
from reconciler.web.identity import Identity
from reconciler.web.pulse import Pulse
from reconciler.web.server import WebServer
from reconciler.web.tls import Certificate
from reconciler.web.view import View

CONNECTIONS = 512  # at once; streams of the page are a part of them


class Door:
    """Serves the pages until it is stopped."""

    def __init__(self, config: Http, view: View, pulse: Pulse) -> None:
        """Raises ConfigError: a file that `config` names cannot be used."""
        self._pulse = pulse
        self._certificate = Certificate(config.tls, "http", required=True) if config.tls else None
        # The peer is who the connection is with: uvicorn would believe a header about that.
        options: dict[str, Any] = {"proxy_headers": False, "limit_concurrency": CONNECTIONS}
        if self._certificate is not None:
            context = self._certificate.context
            options["ssl_context_factory"] = lambda *_: context
        host, port = config.address
        app = make_app(view, [*LOCAL, host, *config.hosts], pulse, _identity(config))
        self._server = WebServer(app, host, port, **options)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the certificate."""
        return self._certificate.files if self._certificate else ()

    def renew(self) -> None:
        """Show the certificate that is in the files now. Raises ConfigError where it cannot be used: the old one stays."""
        if self._certificate is not None:
            self._certificate.renew()

    def __enter__(self) -> tuple[str, int]:
        """Listen, and return where. Raises ConfigError."""
        return self._server.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End streams, for the server waits for them, and stop listening."""
        self._pulse.close()
        self._server.stop()


def _identity(config: Http) -> Middleware | None:
    proxy = config.proxy
    if proxy is None:
        return None
    networks = [ip_network(address) for address in proxy.addresses]
    return Middleware(Identity, addresses=networks, header=proxy.user_header, users=proxy.users)

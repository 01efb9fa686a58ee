"""The trigger's listener: its own address, its own threads, its own bounds."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from reconciler.config.trigger import Trigger
from reconciler.ports import Clock, Store
from reconciler.trigger.app import Bounds, Desk, Said, make_app
from reconciler.trigger.certificates import Certificates
from reconciler.trigger.edge import CONNECTIONS, LONGEST_HEAD, Protocol
from reconciler.trigger.tokens import Tokens
from reconciler.trigger.view import Bell, Sight
from reconciler.trigger.wakings import Wakings
from reconciler.web.server import WebServer
from reconciler.web.tls import Certificate


class TriggerServer:
    """Serves CI until it is stopped."""

    def __init__(
        self,
        config: Trigger,
        sight: Sight,
        store: Store,
        bell: Bell,
        clock: Clock,
        said: Said,
        bounds: Bounds | None = None,
        protocol: type[Protocol] = Protocol,
    ) -> None:
        """Raises ConfigError: a file that `config` names cannot be used."""
        self._ending = threading.Event()
        desk = Desk(
            sight,
            Wakings(sight, store, bell, clock),
            Tokens(config.oidc, clock.now),
            Certificates(config.clients),
            clock.now,
            said,
            bounds or Bounds(),
            self._ending.is_set,
        )
        self._certificate = Certificate(config.tls, "trigger", required=not config.oidc) if config.tls else None
        options: dict[str, Any] = {
            "http": protocol,
            "h11_max_incomplete_event_size": LONGEST_HEAD,
            "limit_concurrency": CONNECTIONS,
        }
        if self._certificate is not None:
            context = self._certificate.context
            options["ssl_context_factory"] = lambda *_: context
        host, port = config.address
        self._server = WebServer(make_app(desk), host, port, "trigger", **options)

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
        """End streams with a word, and stop listening."""
        self._ending.set()
        self._server.stop()

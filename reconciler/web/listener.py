"""An application on an address, with a certificate that is renewed in place, until it is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from starlette.types import ASGIApp

from reconciler.config.trigger import Tls
from reconciler.web.server import WebServer
from reconciler.web.tls import Certificate


class Listener:
    """What the status page and the trigger have in common."""

    def __init__(
        self,
        app: ASGIApp,
        address: tuple[str, int],
        name: str,
        certificate: Certificate | None,
        ending: Callable[[], None],
        **options: Any,
    ) -> None:
        """`name`: the listener's in reconciler.yaml; `ending`: ends streams, for the server waits for them; `options`: uvicorn's."""
        self._certificate, self._ending = certificate, ending
        if certificate is not None:
            context = certificate.context
            options["ssl_context_factory"] = lambda *_: context
        self._server = WebServer(app, *address, name, **options)

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
        """End streams, and stop listening."""
        self._ending()
        self._server.stop()


def certificate_of(tls: Tls | None, name: str, *, required: bool) -> Certificate | None:
    """The certificate that is configured; see `Certificate`. Raises ConfigError."""
    return Certificate(tls, name, required=required) if tls else None

"""The listener of the pages: on the loopback for whoever is on this host, elsewhere for whoever is known."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from ipaddress import ip_network

from starlette.middleware import Middleware

from reconciler.config.controller import Http, Proxy
from reconciler.oidc.provider import Provider
from reconciler.oidc.tokens import Tokens
from reconciler.web.app import make_app
from reconciler.web.guard import LOCAL
from reconciler.web.identity import Identity
from reconciler.web.known import Known
from reconciler.web.listener import Listener, certificate_of
from reconciler.web.login import LogIn, Said
from reconciler.web.pulse import Pulse
from reconciler.web.sessions import Sessions
from reconciler.web.view import View

CONNECTIONS = 512  # at once; streams of the page are a part of them


class Door(Listener):
    """Serves the pages until it is stopped."""

    def __init__(self, config: Http, view: View, pulse: Pulse, said: Said, now: Callable[[], datetime]) -> None:
        """Raises ConfigError: a file that `config` names cannot be used."""
        login = None
        if config.oidc is not None:
            login = LogIn(config.oidc, Provider(config.oidc, now), Sessions(config.oidc.session), said)
        hosts = [*LOCAL, config.address[0], *config.hosts, *([config.oidc.host] if config.oidc else [])]
        super().__init__(
            make_app(view, hosts, pulse, _identity(config, login, said, now), login),
            config.address,
            "http",
            certificate_of(config.tls, "http", required=True),
            pulse.close,
            proxy_headers=False,  # the peer is who the connection is with: uvicorn would believe a header about that
            limit_concurrency=CONNECTIONS,
        )


def _identity(config: Http, login: LogIn | None, said: Said, now: Callable[[], datetime]) -> Middleware | None:
    """What makes sure who asks; None where the loopback does."""
    if config.proxy is not None:
        return _proxied(config.proxy)
    tokens = Tokens(config.tokens, "http.tokens", now) if config.tokens else None
    return Middleware(Known, login=login, tokens=tokens, said=said) if login or tokens else None


def _proxied(proxy: Proxy) -> Middleware:
    networks = [ip_network(address) for address in proxy.addresses]
    return Middleware(Identity, addresses=networks, header=proxy.user_header, users=proxy.users)

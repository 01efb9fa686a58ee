"""The trigger's listener: its own address, its own threads, its own bounds."""

from __future__ import annotations

import threading

from reconciler.config.trigger import Trigger
from reconciler.ports import Clock, Store
from reconciler.trigger.app import Bounds, Desk, Said, make_app
from reconciler.trigger.certificates import Certificates
from reconciler.trigger.edge import CONNECTIONS, LONGEST_HEAD, Protocol
from reconciler.trigger.tokens import Tokens
from reconciler.trigger.view import Bell, Sight
from reconciler.trigger.wakings import Wakings
from reconciler.web.listener import Listener, certificate_of


class TriggerServer(Listener):
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
        ending = threading.Event()  # streams end with a word
        desk = Desk(
            sight,
            Wakings(sight, store, bell, clock),
            Tokens(config.oidc, clock.now),
            Certificates(config.clients),
            clock.now,
            said,
            bounds or Bounds(),
            ending.is_set,
        )
        super().__init__(
            make_app(desk),
            config.address,
            "trigger",
            certificate_of(config.tls, "trigger", required=not config.oidc),
            ending.set,
            http=protocol,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            limit_concurrency=CONNECTIONS,
        )

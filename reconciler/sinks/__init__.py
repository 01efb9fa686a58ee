"""How an event gets to whoever is told: over a webhook, by SNS, or through Apprise."""

from __future__ import annotations

import time
from collections.abc import Callable

from reconciler.config.notify import Sink
from reconciler.sinks.sender import FailedError, RefusedError, Sender
from reconciler.sinks.sns import Topic
from reconciler.sinks.webhook import Post

__all__ = ["FailedError", "RefusedError", "Sender", "open_sender"]


def open_sender(sink: Sink, clock: Callable[[], float] = time.time) -> Sender:
    """The sink's way. Raises ConfigError: it needs a package that is not installed."""
    if sink.apprise is not None:
        from reconciler.sinks.relay import Relay  # an extra, which few have

        return Relay(sink.name, sink.apprise)
    if sink.sns is not None:
        return Topic(sink.sns)
    return Post(sink, clock)

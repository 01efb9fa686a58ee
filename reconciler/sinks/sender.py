"""What every way has in common: an event is taken, not taken for now, or refused for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

DEADLINE = 10.0  # seconds for an answer


class FailedError(Exception):
    """The event was not taken, or nobody knows: it is to be sent again. The text holds no address: many are secrets."""


class RefusedError(Exception):
    """The receiver will never take this event."""


class Sender(Protocol):
    """One way to one receiver."""

    def send(self, event: Mapping[str, Any]) -> None:
        """Return once the receiver has the event. Raises FailedError, RefusedError."""

    def close(self) -> None:
        """Let go of connections; `send` makes new ones."""

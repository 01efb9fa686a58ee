"""What a service tells systemd (sd_notify): that it is ready, that it lives, that it ends. Elsewhere nobody listens."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"


@dataclass(frozen=True, slots=True)
class Systemd:
    """The socket of the service manager; "" where there is none. Telling it something never fails and never waits."""

    address: str = ""

    def ready(self) -> None:
        """The service does what it is there for."""
        self._tell(READY)

    def alive(self) -> None:
        """Its loop came round once more. For the loop alone to say: a watchdog that a timer feeds guards a timer."""
        self._tell(ALIVE)

    def stopping(self) -> None:
        """It was told to end, and does."""
        self._tell(STOPPING)

    def _tell(self, what: str) -> None:
        if not self.address:
            return
        # An abstract address is written with an @ in place of its first byte, which is 0.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
            peer.setblocking(False)
            peer.sendto(what.encode(), address)


def listening() -> Systemd:
    """Who listens to this process; whatever it starts is not asked to speak."""
    return Systemd(os.environ.pop("NOTIFY_SOCKET", ""))

"""The HTTP listener: uvicorn in a thread of its own."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from reconciler.errors import ConfigError

STOP_WITHIN = 5.0  # seconds; what is not answered then is cut


class _Server(uvicorn.Server):
    """Says when it is up, and leaves signals to the daemon."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


class WebServer:
    """Serves an application on one address until it is stopped."""

    def __init__(self, app: ASGIApp, host: str, port: int, name: str = "http", **more: Any) -> None:
        """Port 0: the system chooses one. `name`: the listener's in reconciler.yaml; `more`: options of uvicorn's."""
        self._address, self._name = (host, port), name
        options: dict[str, Any] = {"log_config": None, "access_log": False, "lifespan": "off", "server_header": False}
        options |= {"http": "h11", "ws": "none", "timeout_graceful_shutdown": int(STOP_WITHIN)} | more
        config = uvicorn.Config(app, **options)
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._listener: socket.socket | None = None

    def start(self) -> tuple[str, int]:
        """Listen, and return where.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(
                f"{self._name}.listen {host}:{port}: {error.strerror}; free the address or choose another"
            ) from error
        bound: tuple[str, int] = self._listener.getsockname()[:2]
        self._thread.start()
        self._server.up.wait(STOP_WITHIN)
        return bound

    def _run(self) -> None:
        self._server.run(sockets=[self._listener] if self._listener else None)

    def stop(self) -> None:
        """Answer what was asked, and stop listening. Returns when the thread has ended."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(2 * STOP_WITHIN)
        if self._listener is not None:
            self._listener.close()

    def __enter__(self) -> tuple[str, int]:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

"""A webhook: CloudEvents over HTTP in the structured form, one to a request."""

from __future__ import annotations

import hmac
import ssl
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import httpx
import orjson

from reconciler.config.notify import Sink
from reconciler.sinks.sender import DEADLINE, FailedError, RefusedError

# Answers by which the receiver says that it will never take this event; all others are tried again.
REFUSALS = frozenset({400, 406, 409, 411, 413, 414, 415, 422, 431})
CONTENT = "application/cloudevents+json; charset=utf-8"


class Post:
    """Posts events. Secrets are read anew for each: they may be others by now."""

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.time) -> None:
        self._sink, self._clock = sink, clock
        self._client: httpx.Client | None = None

    def send(self, event: Mapping[str, Any]) -> None:
        """Post it. Raises FailedError, RefusedError."""
        try:
            status = self._posted(orjson.dumps(event))
        except (httpx.HTTPError, OSError, ValueError) as error:
            self.close()
            raise FailedError(str(error) or type(error).__name__) from error
        if status in REFUSALS:
            raise RefusedError(f"it answered {status}")
        if not 200 <= status < 300:
            raise FailedError(f"it answered {status}")

    def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _posted(self, body: bytes) -> int:
        sink = self._sink
        headers = {"Content-Type": CONTENT, "User-Agent": "reconciler"}
        if sink.token_file is not None:
            headers["Authorization"] = f"Bearer {sink.token_file.read_text(encoding='ascii').strip()}"
        if sink.secret_file is not None:
            secret = sink.secret_file.read_bytes().strip()
            headers["X-Reconciler-Signature"] = signature(secret, int(self._clock()), body)
        # The answer's body is nothing to us, and its length the receiver's to choose.
        with self._opened().stream("POST", sink.address, content=body, headers=headers) as answer:
            return answer.status_code

    def _opened(self) -> httpx.Client:
        """One client for as long as all goes well: each new one reads every authority of the host."""
        if self._client is None:
            ca = self._sink.ca_file
            verify = ssl.create_default_context(cafile=str(ca)) if ca else True
            self._client = httpx.Client(timeout=DEADLINE, follow_redirects=False, verify=verify)
        return self._client


def signature(secret: bytes, at: int, body: bytes) -> str:
    """What `X-Reconciler-Signature` says: `t=SECONDS,v1=HEX`, the HMAC-SHA256 of `SECONDS.BODY`."""
    return f"t={at},v1={hmac.new(secret, f'{at}.'.encode() + body, sha256).hexdigest()}"

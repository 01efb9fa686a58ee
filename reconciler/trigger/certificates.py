"""Callers with a certificate. That an authority vouches for it was found out by TLS; here is whose it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from reconciler.config.trigger import Client
from reconciler.trigger.callers import Caller, RefusedError

REPEATED = timedelta(minutes=1)  # within which the same request is taken for a repetition


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that the peer has shown, and TLS has found to be good."""

    fingerprint: str  # SHA-256 of it, 64 hex digits
    names: frozenset[str]  # the DNS names and URIs that it is for


def shown(der: bytes, parsed: Mapping[str, Any]) -> Shown:
    """The facts of a certificate: its bytes, and what the `ssl` module makes of them."""
    names = frozenset(str(value) for kind, value in parsed.get("subjectAltName", ()) if kind in ("DNS", "URI"))
    return Shown(hashlib.sha256(der).hexdigest(), names)


class Certificates:
    """Everybody whose certificate counts."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients

    def prove(self, certificate: Shown, now: datetime) -> Caller:
        """Whose it is. Raises RefusedError."""
        for client in self._clients:
            if _is(client, certificate):
                return Caller(client.name, tuple(client.scopes), f"{certificate.fingerprint}", now + REPEATED)
        name = f"certificate {certificate.fingerprint}"
        raise RefusedError(403, "forbidden", f"{name} is none of trigger.clients in reconciler.yaml", caller=name)


def _is(client: Client, certificate: Shown) -> bool:
    if client.fingerprint is not None:
        return client.fingerprint.replace(":", "").lower() == certificate.fingerprint
    return client.san in certificate.names

"""What an issuer publishes: small, in time, from its own host, over https with checked certificates."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from reconciler.errors import ConfigError

LONGEST = 256 * 1024  # bytes of a document
FETCH_SECONDS = 5.0  # for one document, in all
FAILURES = (httpx.HTTPError, httpx.InvalidURL, OSError)


class IssuerError(Exception):
    """The issuer does not answer, or says what cannot be used."""


def authorities(ca_file: Path | None, where: str) -> ssl.SSLContext:
    """Whose certificates count. Raises ConfigError, which names `where` in the configuration."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{where}: ca_file {ca_file} cannot be read: {error}") from error


def client(context: ssl.SSLContext) -> httpx.Client:
    """A client that follows no redirect, and takes nothing from the environment."""
    return httpx.Client(verify=context, timeout=FETCH_SECONDS, trust_env=False, follow_redirects=False)


def fetch(asking: httpx.Client, place: str, form: Mapping[str, str] | None = None, **more: Any) -> tuple[int, bytes]:
    """Status and body of what is there, within bounds of size and of time, however slowly it drips. With `form` it is posted.

    Raises:
        IssuerError: it is too much, or takes too long.
        httpx.HTTPError, httpx.InvalidURL, OSError: nobody answers.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    found = b""
    with asking.stream("GET" if form is None else "POST", place, data=form, **more) as answer:
        for part in answer.iter_bytes():
            found += part
            if len(found) > LONGEST:
                raise IssuerError(f"{place} answers with more than {LONGEST} bytes")
            if time.monotonic() > deadline:
                raise IssuerError(f"{place} takes longer than {FETCH_SECONDS:.0f} s")
        return answer.status_code, found


def document(asking: httpx.Client, place: str) -> bytes:
    """What is there. Raises as `fetch`, and IssuerError for any other answer than 200."""
    code, found = fetch(asking, place)
    if code != 200:
        raise IssuerError(f"{place} answers {code}")
    return found


def described(asking: httpx.Client, issuer: str) -> Mapping[str, Any]:
    """What the issuer says of itself (OpenID Connect Discovery). Raises as `document`."""
    found = document(asking, f"{issuer.rstrip('/')}/.well-known/openid-configuration")
    try:
        said = json.loads(found)
        name = said["issuer"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise IssuerError("its openid-configuration is none: a JSON object with `issuer`") from error
    if name != issuer:
        raise IssuerError("its openid-configuration is another issuer's")
    return dict(said)


def place_of(said: Mapping[str, Any], name: str, issuer: str, hosts: Collection[str] = ()) -> str:
    """The address of that name in what the issuer says: at its own host, or one of `hosts`. Raises IssuerError."""
    place = said.get(name)
    if place is None:
        raise IssuerError(f"its openid-configuration has no {name}")
    if not isinstance(place, str) or not (_same_origin(place, issuer) or _at(place, hosts)):
        raise IssuerError(f"its openid-configuration points to another host: {name}")
    return place


def _same_origin(place: str, issuer: str) -> bool:
    try:
        one, other = urlsplit(place), urlsplit(issuer)
        return one.scheme == "https" and (one.hostname, one.port or 443) == (other.hostname, other.port or 443)
    except ValueError:
        return False


def _at(place: str, hosts: Collection[str]) -> bool:
    try:
        one = urlsplit(place)
        return one.scheme == "https" and one.hostname in {host.lower() for host in hosts} and one.port in (None, 443)
    except ValueError:
        return False

"""An issuer's public keys: from a file, or fetched as OpenID Connect Discovery has it, within bounds."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from reconciler.errors import ConfigError
from reconciler.oidc.documents import (
    FAILURES,
    LONGEST,
    IssuerError,
    authorities,
    client,
    described,
    document,
    place_of,
)

# Asymmetric ones only: with HS256 whoever knows a public key could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
MOST_KEYS = 100
SMALLEST_RSA = 2048  # bits
FRESH = 3600.0  # seconds for which keys are taken as they are
REFETCH = 30.0  # seconds between two fetches, whatever tokens ask for
STALE = 86400.0  # seconds for which keys count although the issuer is away

Keys = Mapping[str, jwt.PyJWK]


class KeysUnknownError(IssuerError):
    """The issuer's keys cannot be read now."""


class KeySource(Protocol):
    """Where an issuer's keys are."""

    def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of that name, if the issuer has it. Raises KeysUnknownError."""


def parse_keys(data: bytes) -> Keys:
    """The keys of a JWKS that can be used, by `kid`; of what is no public key for signatures, nothing is taken.

    Raises:
        KeysUnknownError: it is no JWKS.
    """
    if len(data) > LONGEST:
        raise KeysUnknownError(f"the keys are longer than {LONGEST} bytes")
    try:
        said = json.loads(data)
        listed = said["keys"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise KeysUnknownError("the keys are no JWKS: a JSON object with `keys`") from error
    if not isinstance(listed, list) or len(listed) > MOST_KEYS:
        raise KeysUnknownError(f"the keys are no list of at most {MOST_KEYS}")
    return dict(_usable(listed))


def _usable(listed: list[Any]) -> Iterator[tuple[str, jwt.PyJWK]]:
    for one in listed:
        kid = one.get("kid") if isinstance(one, dict) else None
        if not isinstance(kid, str) or not 0 < len(kid) <= 500 or one.get("use", "sig") != "sig":
            continue
        if one.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        try:
            key = jwt.PyJWK(one)
        except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
            continue  # of a kind that we do not know, or broken: the others count
        small = isinstance(key.key, RSAPublicKey) and key.key.key_size < SMALLEST_RSA
        if key.algorithm_name in ALGORITHMS and not small:
            yield kid, key


class FileKeys:
    """Keys in a file of the host, read anew at every use."""

    def __init__(self, path: Path, where: str) -> None:
        """Raises ConfigError, which names `where` in the configuration, if it cannot be read now."""
        self._path = path
        try:
            self._read()
        except KeysUnknownError as error:
            raise ConfigError(f"{where}: jwks_file {path}: {error}") from error

    def key(self, kid: str) -> jwt.PyJWK | None:
        """See `KeySource`."""
        return self._read().get(kid)

    def _read(self) -> Keys:
        try:
            with self._path.open("rb") as file:
                return parse_keys(file.read(LONGEST + 1))
        except OSError as error:
            raise KeysUnknownError(f"{self._path} cannot be read: {error.strerror}") from error


class FetchedKeys:
    """Keys that the issuer publishes. A name that is not known is asked for again, and not more often than every 30 seconds."""

    def __init__(
        self,
        issuer: str,
        ca_file: Path | None,
        where: str,
        hosts: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`hosts`: where the keys may be besides. Raises ConfigError, which names `where`: no authorities can be read."""
        self._issuer, self._hosts, self._clock = issuer, hosts, clock
        self._context = authorities(ca_file, where)
        self._guard = threading.Lock()
        self._keys: Keys = {}
        self._fetched = self._tried = float("-inf")
        self._failure = "they were never fetched"

    def key(self, kid: str) -> jwt.PyJWK | None:
        """See `KeySource`."""
        with self._guard:
            now = self._clock()
            wanted = kid not in self._keys or now - self._fetched > FRESH
            if wanted and now - self._tried > REFETCH:
                self._fetch(now)
            if now - self._fetched > STALE:
                raise KeysUnknownError(f"the keys of {self._issuer} are not known: {self._failure}")
            return self._keys.get(kid)

    def _fetch(self, now: float) -> None:
        self._tried = now
        try:
            self._keys = self._published()
            self._fetched = now
        except (IssuerError, *FAILURES) as error:
            self._failure = str(error) or type(error).__name__

    def _published(self) -> Keys:
        with client(self._context) as asking:
            place = place_of(described(asking, self._issuer), "jwks_uri", self._issuer, self._hosts)
            return parse_keys(document(asking, place))

"""Logging a person in: the authorization code flow with PKCE, state and nonce (OpenID Connect Core 3.1, RFC 7636, RFC 9207)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Any
from urllib.parse import quote_plus, urlencode

from reconciler.config.login import Login
from reconciler.oidc.documents import FAILURES, IssuerError, authorities, client, described, fetch, place_of
from reconciler.oidc.keys import FetchedKeys
from reconciler.oidc.tokens import Claims, ForeignError, UnprovenError, is_claim, shown, verified

CALLBACK = "/login/callback"
FRESH = 60.0  # seconds for which it counts that the issuer answered: whoever logs in needs it to, at once
REFETCH = 5.0  # seconds after which one that did not answer is asked again
LONGEST_ID_TOKEN = 32 * 1024  # bytes: groups may be many
LONGEST_SECRET = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a login must bring back: kept by the browser that began it, and read by nobody else."""

    state: str
    nonce: str
    verifier: str
    then: str  # the path of the page to come back to

    @classmethod
    def begin(cls, then: str) -> Attempt:
        """A new one."""
        return cls(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(64), then)

    @property
    def challenge(self) -> str:
        """What is said of the verifier before it is shown."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the issuer is asked."""

    authorize: str
    token: str
    posts_secret: bool  # it takes the client's secret in the form only


class Provider:
    """The issuer, as this page knows it. Safe to call from any thread; what it answers is waited for 10 seconds at most."""

    def __init__(self, config: Login, now: Callable[[], datetime], clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError: the authorities cannot be read."""
        self._config, self._now, self._clock = config, now, clock
        self._context = authorities(config.ca_file, "http.oidc")
        self._keys = FetchedKeys(config.issuer, config.ca_file, "http.oidc", config.endpoint_hosts, clock)
        self._guard = threading.Lock()
        self._endpoints: Endpoints | None = None
        self._failure = ""
        self._tried = float("-inf")

    def address(self, attempt: Attempt) -> str:
        """Where the browser is sent. Raises IssuerError."""
        place = self._found().authorize
        asked = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": self._config.address + CALLBACK,
            "scope": " ".join(dict.fromkeys(["openid", *self._config.ask_for])),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return f"{place}{'&' if '?' in place else '?'}{urlencode(asked)}"

    def redeem(self, code: str, attempt: Attempt) -> Claims:
        """The claims of whoever has logged in, for the code that the browser brought.

        Raises:
            IssuerError: the issuer does not answer as it should, or refuses the code.
            UnprovenError: what it answers proves nothing.
        """
        config = self._config
        token = self._token(code, attempt.verifier)
        claims = verified(
            token,
            config.issuer,
            config.client_id,
            self._keys,
            self._now(),
            alone=False,
            most=LONGEST_ID_TOKEN,
        )
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not compare_digest(nonce.encode(), attempt.nonce.encode()):
            raise UnprovenError("the token is of another login: its nonce is not the one that was asked with")
        several = not isinstance(claims["aud"], str) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else config.client_id) != config.client_id:
            raise UnprovenError("the token was made for another client")
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            raise UnprovenError("the token names nobody")
        return claims

    def admit(self, claims: Claims) -> str:
        """The name of whoever the claims are of. Raises ForeignError where they may not look."""
        config = self._config
        said = claims.get(config.user_claim)
        name = shown(said) if isinstance(said, str) and said else shown(claims["sub"])
        for claim, value in config.claims.items():
            if not is_claim(claims.get(claim), value):
                raise ForeignError(name, f"claim {claim} of {name} is not the one that is configured")
        if not (config.users or config.groups) or self._listed(claims, said) or self._grouped(claims):
            return name
        raise ForeignError(name, f"{name} is none of the users, and in none of the groups, that are configured")

    def _listed(self, claims: Claims, said: object) -> bool:
        if not isinstance(said, str) or said not in self._config.users:
            return False
        return self._config.user_claim != "email" or claims.get("email_verified") is True

    def _grouped(self, claims: Claims) -> bool:
        said = claims.get(self._config.groups_claim)
        groups = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        return any(isinstance(group, str) and group in self._config.groups for group in groups)

    def _found(self) -> Endpoints:
        """Where the issuer is asked, if it has answered a moment ago."""
        with self._guard:
            age = self._clock() - self._tried
            if age > (FRESH if self._endpoints else REFETCH):
                self._look()
                self._tried = self._clock()
            if self._endpoints is None:
                raise IssuerError(self._failure)
            return self._endpoints

    def _look(self) -> None:
        issuer, hosts = self._config.issuer, self._config.endpoint_hosts
        self._endpoints = None
        try:
            with client(self._context) as asking:
                said = described(asking, issuer)
            authorize = place_of(said, "authorization_endpoint", issuer, hosts)
            self._endpoints = Endpoints(authorize, place_of(said, "token_endpoint", issuer, hosts), _posts(said))
        except (IssuerError, *FAILURES) as error:
            self._failure = f"{issuer}: {str(error) or type(error).__name__}"

    def _token(self, code: str, verifier: str) -> str:
        place, config = self._found(), self._config
        form = {"grant_type": "authorization_code", "code": code, "code_verifier": verifier}
        form["redirect_uri"] = config.address + CALLBACK
        more: dict[str, Any] = {"headers": {"accept": "application/json"}}
        if place.posts_secret:
            form |= {"client_id": config.client_id, "client_secret": self._secret()}
        else:
            more["auth"] = (quote_plus(config.client_id), quote_plus(self._secret()))  # RFC 6749, 2.3.1
        try:
            with client(self._context) as asking:
                status, found = fetch(asking, place.token, form, **more)
        except FAILURES as error:
            raise IssuerError(f"{place.token}: {str(error) or type(error).__name__}") from error
        if status != 200:
            raise IssuerError(f"{place.token} answers {status}{_error_of(found)}")
        token = _object(found).get("id_token")
        if not isinstance(token, str):
            raise IssuerError(f"{place.token} answers without an id_token")
        return token

    def _secret(self) -> str:
        path = self._config.client_secret_file
        try:
            with path.open("rb") as file:
                secret = file.read(LONGEST_SECRET + 1).decode().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise IssuerError(
                f"{path} cannot be read ({type(error).__name__}): put the client's secret there"
            ) from error
        if not secret or len(secret) > LONGEST_SECRET:
            raise IssuerError(f"{path} holds no client's secret: put it there, alone")
        return secret


def _posts(said: Mapping[str, Any]) -> bool:
    ways = said.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    return isinstance(ways, list) and "client_secret_basic" not in ways and "client_secret_post" in ways


def _object(found: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(found)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _error_of(found: bytes) -> str:
    """The error's name of RFC 6749, 5.2: nothing else of an answer is fit for a log."""
    name = _object(found).get("error")
    return f": {name}" if isinstance(name, str) and re.fullmatch("[a-z_]{1,50}", name) else ""

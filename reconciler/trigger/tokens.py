"""Tokens of CI servers: signed by a configured issuer, for us, in time, of an exact subject with exact claims."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from reconciler.config.trigger import Oidc
from reconciler.trigger.callers import Caller, RefusedError, unproven
from reconciler.trigger.keys import ALGORITHMS, FetchedKeys, FileKeys, KeySource, KeysUnknownError

LONGEST_TOKEN = 8 * 1024  # bytes
SKEW = timedelta(seconds=30)
LONGEST_LIFE = timedelta(hours=24)

Claims = dict[str, Any]


class Tokens:
    """Everybody whose tokens count."""

    def __init__(self, callers: Sequence[Oidc], now: Callable[[], datetime]) -> None:
        """Raises ConfigError: the keys or the authorities of an issuer cannot be read."""
        sources: dict[object, KeySource] = {}
        self._now = now
        self._callers: list[tuple[Oidc, KeySource]] = []
        for one in callers:
            where = (one.issuer, one.jwks_file, one.ca_file)
            if where not in sources:
                sources[where] = FileKeys(one.jwks_file) if one.jwks_file else FetchedKeys(one.issuer, one.ca_file)
            self._callers.append((one, sources[where]))

    def prove(self, token: str) -> Caller:
        """Whose token it is. Raises RefusedError."""
        if len(token) > LONGEST_TOKEN:
            raise unproven("the token is too long")
        header, said = _unproven(token)
        kid, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in ALGORITHMS:
            raise unproven("the token's algorithm is none of those that count")
        if not isinstance(kid, str) or "crit" in header:
            raise unproven("the token's header names no key, or has extensions")
        of_issuer = [one for one in self._callers if one[0].issuer == said.get("iss")]
        if not of_issuer:
            raise unproven("the token is of no issuer that is configured")
        refusals = []
        for oidc, source in of_issuer:
            try:
                return self._admit(oidc, self._verified(token, oidc, _key(source, kid, algorithm)), token)
            except RefusedError as error:
                refusals.append(error)
        # The one that came farthest says most: who is proven, and not let in, is told so.
        raise max(refusals, key=lambda error: (error.code == 403, error.code != 503))

    def _verified(self, token: str, oidc: Oidc, key: jwt.PyJWK) -> Claims:
        """The token's claims, once its signature, issuer, audience and times hold."""
        required = ["iss", "aud", "sub", "exp", "iat"]
        try:
            claims: Claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=oidc.audience,
                issuer=oidc.issuer,
                options={
                    "require": required,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.PyJWTError as error:
            raise unproven(f"the token does not hold: {type(error).__name__}") from error
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise unproven("the token cannot be read") from error
        self._in_time(claims)
        return claims

    def _in_time(self, claims: Claims) -> None:
        """By the daemon's clock, as all else is."""
        now = self._now()
        made, ends = _moment(claims["iat"]), _moment(claims["exp"])
        begins = _moment(claims["nbf"]) if "nbf" in claims else made
        if ends + SKEW <= now:
            raise unproven("the token has expired")
        if max(made, begins) - SKEW > now:
            raise unproven("the token is not valid yet")
        if ends - made > LONGEST_LIFE:
            raise unproven(f"the token lives for longer than {LONGEST_LIFE}")

    def _admit(self, oidc: Oidc, claims: Claims, token: str) -> Caller:
        """The caller, if the subject and all claims are exactly those that are configured."""
        subject = str(claims["sub"])
        if claims["sub"] not in oidc.subjects:
            raise _foreign(subject, f"subject {_shown(subject)} is not configured")
        for name, value in oidc.claims.items():
            if not _is(claims.get(name), value):
                raise _foreign(subject, f"claim {name} of {_shown(subject)} is not the one that is configured")
        proof = hashlib.sha256(f"{oidc.issuer}\0{claims.get('jti') or token}".encode()).hexdigest()
        return Caller(subject, tuple(oidc.scopes), proof, _moment(claims["exp"]) + SKEW)


def _unproven(token: str) -> tuple[Claims, Claims]:
    """Header and claims as they are said, proven by nothing: to know whose keys to ask."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise unproven("the token is none") from error
    return header, claims


def _key(source: KeySource, kid: str, algorithm: str) -> jwt.PyJWK:
    try:
        key = source.key(kid)
    except KeysUnknownError as error:
        said = "the issuer's keys are not known now: try again; the controller's log says why"
        raise RefusedError(503, "unavailable", str(error), said) from error
    if key is None:
        raise unproven("the token's key is none of its issuer's")
    if key.algorithm_name != algorithm:
        raise unproven("the token's algorithm is not its key's")
    return key


def _moment(said: object) -> datetime:
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise unproven("a time in the token is no number")
    try:
        return datetime.fromtimestamp(said, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise unproven("a time in the token is none") from error


def _is(said: object, wanted: str) -> bool:
    if isinstance(said, bool):
        return wanted == str(said).lower()
    return isinstance(said, str | int) and str(said) == wanted


def _foreign(caller: str, message: str) -> RefusedError:
    return RefusedError(403, "forbidden", f"{message}; see trigger.oidc in reconciler.yaml", caller=_shown(caller))


def _shown(text: str) -> str:
    """A proven issuer's word, for a log: short, and printable."""
    return "".join(c if c.isprintable() else "?" for c in text[:300])

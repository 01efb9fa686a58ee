"""What a token proves: signed by an issuer's key, for us, in time; and, of programs, of an exact subject with exact claims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import jwt

from reconciler.config.trigger import Issued
from reconciler.oidc.keys import ALGORITHMS, FetchedKeys, FileKeys, KeySource, KeysUnknownError

LONGEST_TOKEN = 8 * 1024  # bytes
SKEW = timedelta(seconds=30)
LONGEST_LIFE = timedelta(hours=24)

Claims = dict[str, Any]
E = TypeVar("E", bound=Issued)


class UnprovenError(Exception):
    """The token proves nothing. The message holds no part of it."""


class ForeignError(Exception):
    """The token proves who it is, and that is nobody who is configured. `subject` is fit to be shown."""

    def __init__(self, subject: str, message: str) -> None:
        super().__init__(message)
        self.subject = subject


@dataclass(frozen=True, slots=True)
class Proven(Generic[E]):
    """What a token has proven: by which entry of the configuration, of whom, and until when."""

    entry: E
    subject: str
    claims: Claims
    until: datetime


class Tokens(Generic[E]):
    """Every program whose tokens count."""

    def __init__(self, entries: Sequence[E], where: str, now: Callable[[], datetime]) -> None:
        """Raises ConfigError, which names `where`: the keys or the authorities of an issuer cannot be read."""
        sources: dict[object, KeySource] = {}
        self._now, self._where = now, where
        self._entries: list[tuple[E, KeySource]] = []
        for one in entries:
            place = (one.issuer, one.jwks_file, one.ca_file)
            if place not in sources:
                file = one.jwks_file
                sources[place] = FileKeys(file, where) if file else FetchedKeys(one.issuer, one.ca_file, where)
            self._entries.append((one, sources[place]))

    def prove(self, token: str) -> Proven[E]:
        """Whose token it is.

        Raises:
            UnprovenError: nobody's.
            ForeignError: somebody's who is not configured.
            KeysUnknownError: the issuer's keys cannot be read now.
        """
        said = unproven_claims(token)
        of_issuer = [one for one in self._entries if one[0].issuer == said.get("iss")]
        if not of_issuer:
            raise UnprovenError("the token is of no issuer that is configured")
        refusals: list[UnprovenError | ForeignError | KeysUnknownError] = []
        for entry, source in of_issuer:
            try:
                claims = verified(token, entry.issuer, entry.audience, source, self._now())
                return self._admit(entry, claims)
            except (UnprovenError, ForeignError, KeysUnknownError) as error:
                refusals.append(error)
        # The one that came farthest says most: who is proven, and not let in, is told so.
        raise max(refusals, key=lambda error: (isinstance(error, ForeignError), isinstance(error, UnprovenError)))

    def _admit(self, entry: E, claims: Claims) -> Proven[E]:
        """What is proven, if the subject and all claims are exactly those that are configured."""
        subject = str(claims["sub"])
        if claims["sub"] not in entry.subjects:
            raise self._foreign(subject, f"subject {shown(subject)} is not configured")
        for name, value in entry.claims.items():
            if not is_claim(claims.get(name), value):
                raise self._foreign(subject, f"claim {name} of {shown(subject)} is not the one that is configured")
        return Proven(entry, subject, claims, moment(claims["exp"]) + SKEW)

    def _foreign(self, subject: str, message: str) -> ForeignError:
        return ForeignError(shown(subject), f"{message}; see {self._where} in reconciler.yaml")


def verified(
    token: str,
    issuer: str,
    audience: str,
    source: KeySource,
    now: datetime,
    *,
    alone: bool = True,
    most: int = LONGEST_TOKEN,
) -> Claims:
    """The token's claims, once its signature, issuer, audience and times hold.

    `alone`: the audience is a text and ours; else it may be a list that has us in it. `most`: bytes of a token.

    Raises:
        UnprovenError: they do not.
        KeysUnknownError: the issuer's keys cannot be read now.
    """
    header = _header(token, most)
    key = _key(source, header)
    required = ["iss", "aud", "sub", "exp", "iat"]
    options: Any = {"require": required, "strict_aud": alone}
    options |= {"verify_exp": False, "verify_nbf": False, "verify_iat": False}  # `_in_time` does
    try:
        claims: Claims = jwt.decode(
            token, key, algorithms=[key.algorithm_name], audience=audience, issuer=issuer, options=options
        )
    except jwt.PyJWTError as error:
        raise UnprovenError(f"the token does not hold: {type(error).__name__}") from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise UnprovenError("the token cannot be read") from error
    _in_time(claims, now)
    return claims


def unproven_claims(token: str, most: int = LONGEST_TOKEN) -> Claims:
    """The claims as they are said, proven by nothing: to know whose keys to ask. Raises UnprovenError."""
    _header(token, most)
    try:
        claims: Claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise UnprovenError("the token is none") from error
    return claims


def _header(token: str, most: int) -> Claims:
    """The token's header, as it is said, if it is one that can count."""
    if len(token) > most:
        raise UnprovenError("the token is too long")
    try:
        header: Claims = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise UnprovenError("the token is none") from error
    if header.get("alg") not in ALGORITHMS:
        raise UnprovenError("the token's algorithm is none of those that count")
    if not isinstance(header.get("kid"), str) or "crit" in header:
        raise UnprovenError("the token's header names no key, or has extensions")
    return header


def _key(source: KeySource, header: Claims) -> jwt.PyJWK:
    key = source.key(header["kid"])
    if key is None:
        raise UnprovenError("the token's key is none of its issuer's")
    if key.algorithm_name != header["alg"]:
        raise UnprovenError("the token's algorithm is not its key's")
    return key


def _in_time(claims: Claims, now: datetime) -> None:
    """By the daemon's clock, as all else is."""
    made, ends = moment(claims["iat"]), moment(claims["exp"])
    begins = moment(claims["nbf"]) if "nbf" in claims else made
    if ends + SKEW <= now:
        raise UnprovenError("the token has expired")
    if max(made, begins) - SKEW > now:
        raise UnprovenError("the token is not valid yet")
    if ends - made > LONGEST_LIFE:
        raise UnprovenError(f"the token lives for longer than {LONGEST_LIFE}")


def moment(said: object) -> datetime:
    """A time as tokens say it. Raises UnprovenError."""
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise UnprovenError("a time in the token is no number")
    try:
        return datetime.fromtimestamp(said, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UnprovenError("a time in the token is none") from error


def is_claim(said: object, wanted: str) -> bool:
    """Whether a claim is exactly what is configured."""
    if isinstance(said, bool):
        return wanted == str(said).lower()
    return isinstance(said, str | int) and str(said) == wanted


def shown(text: str) -> str:
    """A proven issuer's word, for a log: short, and printable."""
    return "".join(c if c.isprintable() else "?" for c in text[:300])

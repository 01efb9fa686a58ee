"""reconciler.yaml, `trigger`: who may wake the controller from a CI server, and what they may wake."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fields import HostPath, Listen
from reconciler.desired.shape import Closed, Line, matching

LOOPBACK = ("127.0.0.1", "localhost", "::1")

_STEP = r"[a-z0-9_*-]{1,63}"
ScopePattern = Annotated[
    str, matching(rf"{_STEP}(?:/{_STEP})*", "a scope (all, prod, prod/network, prod/net/**, review-*)")
]
Scopes = Annotated[list[ScopePattern], Field(min_length=1, max_length=100)]
Fingerprint = Annotated[
    str, matching(r"(?:[0-9a-fA-F]{2}:?){31}[0-9a-fA-F]{2}", "a SHA-256 fingerprint (64 hexadecimal digits)")
]
ClaimName = Annotated[str, matching(r"[A-Za-z0-9_:/.-]{1,200}", "the name of a claim")]

# The claim by which a forge names a repository for good: a name can be given up, and taken by somebody else.
_IMMUTABLE = {"GitHub": "repository_id", "GitLab": "project_id"}
_OF_SUBJECT = {"repo:": "GitHub", "project_path:": "GitLab"}
_GITHUB = re.compile(
    r"https://(?:token\.actions\.(?:githubusercontent\.com|[^/]+\.ghe\.com)(?:/.*)?|[^/]+/_services/token)"
)
_HTTPS = re.compile(r"https://[^\s/?#@]+(?:/[^\s?#@]*)?")


def https(issuer: str) -> str:
    """An issuer's name as it is. Raises PydanticCustomError."""
    if not _HTTPS.fullmatch(issuer):
        raise PydanticCustomError("issuer", "no issuer; write its https:// address, as tokens say it in `iss`")
    return issuer


class Issued(Closed):
    """A program's identity, by the tokens that an issuer gives it."""

    issuer: Line = Field(description="https://..., exactly as tokens say it in `iss`")
    audience: Line = Field(description="what tokens say in `aud`: yours alone, such as this controller's address")
    jwks_file: HostPath | None = Field(default=None, description="the issuer's keys; if not written, they are fetched")
    ca_file: HostPath | None = Field(default=None, description="the authorities for fetching, instead of the system's")
    subjects: list[Line] = Field(min_length=1, max_length=1000, description="the exact values that `sub` may have")
    claims: dict[ClaimName, Line] = Field(default={}, description="the exact values of other claims; all must be so")

    @field_validator("issuer")
    @classmethod
    def _https(cls, issuer: str) -> str:
        return https(issuer)

    @field_validator("subjects")
    @classmethod
    def _exact(cls, subjects: list[str]) -> list[str]:
        for subject in subjects:
            if "*" in subject:
                what = {"subject": subject}
                raise PydanticCustomError(
                    "subject", "{subject} is a pattern; a subject is matched exactly: write each", what
                )
        return subjects

    @model_validator(mode="after")
    def _pinned(self) -> Issued:
        if self.jwks_file is not None and self.ca_file is not None:
            raise PydanticCustomError(
                "keys", "jwks_file and ca_file: nothing is fetched with jwks_file; write one of them"
            )
        for forge in sorted(self._forges()):
            claim = _IMMUTABLE[forge]
            if not re.fullmatch(r"[0-9]+", self.claims.get(claim, "")):
                what = {"forge": forge, "claim": claim, "how": f'claims: {{{claim}: "<number>"}}'}
                raise PydanticCustomError(
                    "claims",
                    "claims.{claim} is missing: {forge} lets a repository's name be taken by somebody else, its id not; add {how}",
                    what,
                )
        return self

    def _forges(self) -> set[str]:
        found = {forge for start, forge in _OF_SUBJECT.items() for one in self.subjects if one.startswith(start)}
        if _GITHUB.fullmatch(self.issuer):
            found.add("GitHub")
        if "gitlab" in (urlsplit(self.issuer).hostname or ""):
            found.add("GitLab")
        return found


class Oidc(Issued):
    """An identity of a CI server, by the tokens that it gives its jobs."""

    scopes: Scopes = Field(description="what it may wake, and read the outcome of")


class Client(Closed):
    """A caller with a certificate that `tls.client_ca_file` vouches for."""

    name: Line
    fingerprint: Fingerprint | None = Field(default=None, description="SHA-256 of its certificate")
    san: Line | None = Field(default=None, description="a DNS name or URI that its certificate is for, exactly")
    scopes: Scopes = Field(description="what it may wake, and read the outcome of")

    @model_validator(mode="after")
    def _one(self) -> Client:
        if (self.fingerprint is None) == (self.san is None):
            raise PydanticCustomError("one_of", "write exactly one of fingerprint, san")
        return self


class Tls(Closed):
    """The listener's certificate. These files are read anew when they change."""

    cert_file: HostPath
    key_file: HostPath
    client_ca_file: HostPath | None = Field(default=None, description="the authorities of clients' certificates")


class Trigger(Closed):
    """Where CI servers wake the controller, and read what came of it."""

    listen: Listen = "127.0.0.1:8081"
    tls: Tls | None = Field(
        default=None, description="may be missing only where nothing but this host reaches the listener"
    )
    oidc: list[Oidc] = Field(default=[], max_length=100)
    clients: list[Client] = Field(default=[], max_length=1000)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @model_validator(mode="after")
    def _safe(self) -> Trigger:
        if not self.oidc and not self.clients:
            raise PydanticCustomError("callers", "nobody may call; add oidc or clients")
        if self.tls is None and self.address[0] not in LOOPBACK:
            what = {"listen": self.listen}
            raise PydanticCustomError(
                "tls",
                "{listen} is reached from elsewhere, where tokens could be read; add tls, or listen on 127.0.0.1",
                what,
            )
        if self.clients and (self.tls is None or self.tls.client_ca_file is None):
            raise PydanticCustomError(
                "clients", "clients show certificates; add tls.client_ca_file, which vouches for them"
            )
        return self

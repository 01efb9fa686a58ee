"""reconciler.yaml, `http.oidc`: who is logged in, where, and who of them may look."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fields import HostName, HostPath
from reconciler.config.trigger import ClaimName, https
from reconciler.desired.shape import Closed, Duration, Line, matching

SHORTEST, LONGEST = timedelta(minutes=5), timedelta(hours=24)
_ADDRESS = re.compile(r"https://(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")


def _bounded(value: timedelta) -> timedelta:
    if not SHORTEST <= value <= LONGEST:
        raise PydanticCustomError("session", "a session lasts from 5m to 24h: who has left may look until its end")
    return value


Session = Annotated[Duration, AfterValidator(_bounded)]
ScopeWord = Annotated[str, matching(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}", "a scope of OAuth's (profile)")]
Many = Annotated[list[Line], Field(max_length=10_000)]


class Login(Closed):
    """An OpenID Connect issuer that logs people in: authorization code flow with PKCE, in a browser."""

    issuer: Line = Field(description="https://..., exactly as its discovery document and its tokens name it")
    client_id: Line = Field(description="as which this page is registered with the issuer")
    client_secret_file: HostPath = Field(description="a file with the client's secret alone; read anew at every login")
    address: Line = Field(
        description="where browsers find the page, https://HOST; register ADDRESS/login/callback with the issuer"
    )
    ca_file: HostPath | None = Field(default=None, description="the authorities of the issuer, not the system's")
    endpoint_hosts: list[HostName] = Field(
        default=[], max_length=10, description="hosts besides the issuer's own where its endpoints and keys may be"
    )
    ask_for: list[ScopeWord] = Field(
        default=["profile", "email"], max_length=20, description="scopes besides openid, so that tokens have the claims"
    )
    user_claim: ClaimName = Field(default="email", description="names the user; shown, and compared with `users`")
    users: Many = Field(default=[], description="who may look; an email counts only if the issuer has verified it")
    groups_claim: ClaimName = Field(default="groups", description="names the user's groups")
    groups: Many = Field(default=[], description="who may look: who is in one of them")
    claims: dict[ClaimName, Line] = Field(
        default={}, description="exact values of other claims, all of which everybody must have"
    )
    session: Session = Field(default=timedelta(hours=8), description="for how long one may look; 5m to 24h")

    @property
    def host(self) -> str:
        """The host of `address`."""
        return urlsplit(self.address).hostname or ""

    @field_validator("issuer")
    @classmethod
    def _https(cls, issuer: str) -> str:
        return https(issuer)

    @field_validator("address")
    @classmethod
    def _origin(cls, address: str) -> str:
        if not _ADDRESS.fullmatch(address.removesuffix("/")):
            raise PydanticCustomError(
                "address", "no address of the page; write https://reconciler.example.com, without a path"
            )
        return address.removesuffix("/")

    @model_validator(mode="after")
    def _somebody(self) -> Login:
        if not (self.users or self.groups or self.claims):
            raise PydanticCustomError(
                "login", "everybody whom the issuer knows could look; write users, groups or claims: who may"
            )
        return self

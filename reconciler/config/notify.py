"""reconciler.yaml, `notify`: who is told what happened, as CloudEvents over a webhook."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fields import HostPath
from reconciler.desired.shape import Closed, Line, matching

SinkName = Annotated[str, matching(r"[a-z0-9][a-z0-9-]{0,31}", "a name (ops, on-call)")]
Kind = Annotated[str, matching(r"[a-z]+\.(?:[a-z]+|\*)", "a kind of event (unit.failed, unit.*)")]

_HTTPS = re.compile(r"https://[^\s/?#@]+(?:[/?][^\s#]*)?")
_HERE = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?(?:[/?][^\s#]*)?")


class Webhook(Closed):
    """One place to which events are posted."""

    name: SinkName = Field(description="in metrics and logs, and of the file with how far it has been told")
    url: Line = Field(description="https://...; http:// only to this host")
    secret_file: HostPath | None = Field(
        default=None,
        description="a file with the key of the signature in `X-Reconciler-Signature`; read for each event",
    )
    token_file: HostPath | None = Field(
        default=None, description="a file with a token, sent as `Authorization: Bearer`"
    )
    ca_file: HostPath | None = Field(default=None, description="the authorities for https, instead of the system's")
    events: list[Kind] = Field(
        default=["unit.*", "scope.*", "branch.*"], min_length=1, description="the kinds that are sent"
    )

    @field_validator("url")
    @classmethod
    def _https(cls, url: str) -> str:
        if not _HTTPS.fullmatch(url) and not _HERE.fullmatch(url):
            raise PydanticCustomError(
                "url", "no address of a webhook; write https://..., without a user or password in it"
            )
        return url

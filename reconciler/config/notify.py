"""reconciler.yaml, `notify`: who is told what happened: over a webhook, by SNS, or through Apprise."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fields import HostPath, exactly_one, given
from reconciler.desired.shape import Closed, Line, matching

SinkName = Annotated[str, matching(r"[a-z0-9][a-z0-9-]{0,31}", "a name (ops, on-call)")]
Kind = Annotated[str, matching(r"[a-z]+\.(?:[a-z]+|\*)", "a kind of event (unit.failed, unit.*)")]

_HTTPS = re.compile(r"https://[^\s/?#@]+(?:[/?][^\s#]*)?")
_HERE = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?(?:[/?][^\s#]*)?")


TopicArn = Annotated[
    str,
    matching(
        r"arn:aws(?:-[a-z]+)*:sns:[a-z0-9-]{1,40}:[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?",
        "the ARN of a topic (arn:aws:sns:eu-west-1:111111111111:reconciler)",
    ),
]


def _sealed(url: str | None) -> str | None:
    """Raises PydanticCustomError: whoever is on the way could read it."""
    if url is not None and not _HTTPS.fullmatch(url) and not _HERE.fullmatch(url):
        raise PydanticCustomError("url", "no address of a webhook; write https://..., without a user or password in it")
    return url


class Sns(Closed):
    """A topic of AWS SNS."""

    topic: TopicArn = Field(description="its ARN; the region is in it")
    profile: Line | None = Field(
        default=None, description="a profile of the controller's AWS files; if not written, what boto3 finds by itself"
    )
    endpoint: Line | None = Field(default=None, description="instead of AWS's: https://..., http:// only to this host")

    _check = field_validator("endpoint")(_sealed)

    @property
    def region(self) -> str:
        """The topic's."""
        return self.topic.split(":")[3]

    @property
    def fifo(self) -> bool:
        """Whether the topic keeps an order."""
        return self.topic.endswith(".fifo")


class Apprise(Closed):
    """One address of Apprise's. Needs the extra `apprise`."""

    url_file: HostPath = Field(
        description="a file with one address of Apprise's, alone on one line; read for each event"
    )


class Sink(Closed):
    """One place that is told: a webhook (`url`), a topic (`sns`) or what Apprise reaches."""

    name: SinkName = Field(description="in metrics and logs, and of the file with how far it has been told")
    url: Line | None = Field(default=None, description="of a webhook: https://...; http:// only to this host")
    sns: Sns | None = Field(default=None, description="a topic of AWS SNS")
    apprise: Apprise | None = Field(default=None, description="a mail, a chat, a pager: whatever Apprise reaches")
    secret_file: HostPath | None = Field(
        default=None,
        description="of a webhook: a file with the key of the signature in `X-Reconciler-Signature`; read for each event",
    )
    token_file: HostPath | None = Field(
        default=None, description="of a webhook: a file with a token, sent as `Authorization: Bearer`"
    )
    ca_file: HostPath | None = Field(
        default=None, description="of a webhook: the authorities for https, instead of the system's"
    )
    events: list[Kind] = Field(
        default=["unit.*", "scope.*", "branch.*"], min_length=1, description="the kinds that are sent"
    )

    _check = field_validator("url")(_sealed)

    @model_validator(mode="after")
    def _one_way(self) -> Sink:
        exactly_one(self, "url", "sns", "apprise")
        theirs = [name for name in ("secret_file", "token_file", "ca_file") if getattr(self, name) is not None]
        if self.url is None and theirs:
            raise PydanticCustomError("notify", "{field} is of a webhook; remove it", {"field": theirs[0]})
        return self

    @property
    def address(self) -> str:
        """The webhook's."""
        return given(self.url)

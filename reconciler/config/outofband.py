"""reconciler.yaml, `out_of_band`: the queue with what happens in the accounts, and who may write there."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from reconciler.config.fields import AccountId
from reconciler.desired.shape import Closed, Line, Name, matching

Principal = Annotated[
    str,
    matching(
        r"arn:aws[a-z-]{0,20}:(?:iam|sts)::(?:[0-9]{12}|\*):[A-Za-z0-9_+=,.@/*:-]{1,576}|[a-z0-9*-]{1,100}\.amazonaws\.com",
        "a principal (arn:aws:iam::111111111111:role/reconciler-apply; * is any text), or a service "
        "(autoscaling.amazonaws.com)",
    ),
]

_ADDRESS = r"https://[^\s/?#@]+{path}|http://(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]+)?{path}"
_QUEUE, _SERVICE = (re.compile(_ADDRESS.format(path=path)) for path in (r"/[^\s?#]+", "/?"))


class OutOfBand(Closed):
    """A queue of SQS to which EventBridge sends what CloudTrail sees."""

    queue_url: Line = Field(description="https://sqs.eu-west-1.amazonaws.com/111111111111/reconciler-trail")
    region: Line = Field(description="of the queue")
    endpoint: Line | None = Field(default=None, description="another address than the region's, as of a VPC endpoint")
    profile: Line | None = Field(
        default=None, description="a profile of the controller's AWS files; if not written, what boto3 finds by itself"
    )
    accounts: dict[AccountId, Annotated[list[Name], Field(min_length=1, max_length=100)]] = Field(
        min_length=1, max_length=1000, description="account -> the environments whose objects are there"
    )
    allowed: list[Principal] = Field(
        min_length=1, max_length=200, description="who may write: the roles of the runner's applies, services, ..."
    )
    break_glass: list[Principal] = Field(
        default=[], max_length=50, description="the emergency roles: what they write is shown as such"
    )

    @field_validator("queue_url")
    @classmethod
    def _queue(cls, url: str) -> str:
        if not _QUEUE.fullmatch(url):
            raise PydanticCustomError(
                "queue_url", "no address of a queue; write https://HOST/ACCOUNT/NAME (http only to this host itself)"
            )
        return url

    @field_validator("endpoint")
    @classmethod
    def _service(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not _SERVICE.fullmatch(endpoint):
            raise PydanticCustomError(
                "endpoint", "no address of SQS; write https://HOST (http only to this host itself), without a path"
            )
        return endpoint

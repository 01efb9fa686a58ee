"""runner.yaml, `audit`: where heads of the runner's audit log are kept out of its reach."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, model_validator

from reconciler.config.credentials import Credential
from reconciler.config.fields import HostPath, exactly_one
from reconciler.desired.shape import Closed, Duration, Line


class S3AnchorConfig(Closed):
    """A bucket with object lock: an object per head."""

    bucket: Line
    prefix: Line = "audit"
    region: Line
    retain: Duration = Field(default=timedelta(days=30), description="how long no head can be removed")
    mode: Literal["compliance", "governance"] = Field(default="compliance", description="of the object lock")
    endpoint: Line | None = None
    use_path_style: bool = False
    credentials: Credential | None = Field(
        default=None,
        description="who writes the heads, in the ways of an environment; what the SDK finds, if not written",
    )


class AnchorConfig(Closed):
    """The place that keeps heads."""

    file: HostPath | None = Field(default=None, description="only ever appended to; on another host's mount")
    s3: S3AnchorConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> AnchorConfig:
        exactly_one(self, "file", "s3")
        return self


class Audit(Closed):
    """The runner's audit log."""

    anchor: AnchorConfig
    interval: Duration = Field(default=timedelta(seconds=10), description="between two heads, unless many records wait")
    required: bool = Field(
        default=False, description="hold applies once records wait for the anchor longer than `grace`"
    )
    grace: Duration = Field(default=timedelta(minutes=15), description="how long they may wait where it is required")

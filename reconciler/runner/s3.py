"""The one way to S3: for states, and for the anchors of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.sdk import session_of

TRIES = 3
CONNECT_SECONDS = 10


def s3_client(
    region: str | None,
    endpoint: str | None,
    credentials: Mapping[str, str],
    *,
    path_style: bool,
    read_seconds: int,
    keys: Renewing | None = None,
) -> Any:
    """A client of boto3. It signs with `keys`, which are renewed; else with `credentials`, the variables that the AWS SDKs read;
    with none, boto3 looks for its own.
    """
    from botocore.config import Config

    return session_of(credentials, keys).client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            s3={"addressing_style": "path" if path_style else "auto"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"max_attempts": TRIES},
        ),
    )

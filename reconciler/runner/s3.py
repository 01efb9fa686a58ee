"""The one way to S3: for states, and for the anchors of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.runner.access.keys import Renewing
from reconciler.runner.access.sdk import session_with

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

    return _session(credentials, keys).client(
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


def _session(credentials: Mapping[str, str], keys: Renewing | None) -> Any:
    if keys is not None:
        return session_with(keys)
    import boto3

    return boto3.Session(
        aws_access_key_id=credentials.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=credentials.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=credentials.get("AWS_SESSION_TOKEN"),
    )

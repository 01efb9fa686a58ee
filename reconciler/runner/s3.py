"""The one way to S3: for states, and for the anchors of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRIES = 3
CONNECT_SECONDS = 10


def s3_client(
    region: str | None,
    endpoint: str | None,
    credentials: Mapping[str, str],
    *,
    path_style: bool,
    read_seconds: int,
) -> Any:
    """A client of boto3. `credentials` are the variables that the AWS SDKs read; with none, boto3 looks for its own."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=credentials.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=credentials.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=credentials.get("AWS_SESSION_TOKEN"),
        config=Config(
            s3={"addressing_style": "path" if path_style else "auto"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            retries={"max_attempts": TRIES},
        ),
    )

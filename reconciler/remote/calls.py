"""A question to AWS, and its refusals told apart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from reconciler.errors import PassError

CONNECT_SECONDS, READ_SECONDS = 3, 10
TRIES = 3
_MAKING = threading.Lock()  # a session makes one client at a time

_THROTTLES = frozenset({
    "ThrottlingException", "Throttling", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException", "SlowDown",
    "RequestThrottled",
})  # fmt: skip
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_CONDITIONS = frozenset({"PreconditionFailed", "412"})
_AGAIN = frozenset({"ConditionalRequestConflict", "409"})  # somebody else writes the same object just now


class Throttled(Exception):
    """AWS asks to be asked more slowly."""


class Missing(Exception):
    """There is no such object."""


class Unfulfilled(Exception):
    """The condition of the request does not hold."""


class Refused(Exception):
    """AWS does not do it, and says why. `code` is its word for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def open_client(service: str, region: str | None, endpoint: str | None = None, *, path_style: bool = False) -> Any:
    """A client of boto3 with the credentials that it finds: the task's role, or the host's.

    Raises:
        PassError: "RunnerUnavailable": no region is known.
    """
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": TRIES, "mode": "standard"},
        s3={"addressing_style": "path" if path_style else "auto"},
        max_pool_connections=20,
    )
    try:
        with _MAKING:
            return _session().client(service, region_name=region, endpoint_url=endpoint, config=config)
    except NoRegionError as error:
        raise PassError("RunnerUnavailable", f"{service}: no region is known; write it, or set AWS_REGION.") from error


@cache
def _session() -> Any:
    """One for all clients of this process and of those that it forks: what it has read of the services is large."""
    import boto3

    return boto3.session.Session()


def ask(client: Any, place: str, verb: str, **asked: Any) -> Any:
    """Ask, and return the answer.

    Raises:
        Missing, Unfulfilled, Throttled, Refused: see there.
        PassError: "RunnerUnavailable": AWS does not answer, or not to us; the message begins with `place`.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return getattr(client, verb)(**asked)
    except ClientError as error:
        raise _told(place, error.response) from error
    except BotoCoreError as error:
        raise PassError("RunnerUnavailable", f"{place}: {error}") from error


def body_of(place: str, said: Any) -> bytes:
    """The object that an answer of S3 brings. Raises PassError: what is still on its way when an answer begins can be cut off, too."""
    from botocore.exceptions import BotoCoreError

    try:
        data: bytes = said["Body"].read()
    except (BotoCoreError, OSError) as error:
        raise PassError("RunnerUnavailable", f"{place}: {error}") from error
    return data


def objects_of(client: Any, place: str, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
    """Every object of the bucket whose key begins so, as S3 lists it, sorted. Raises as `ask`."""
    more: dict[str, str] = {}
    while True:
        said = ask(client, place, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield from said.get("Contents", ())
        if not said.get("IsTruncated"):
            return
        more = {"ContinuationToken": said["NextContinuationToken"]}


def _told(place: str, said: Mapping[str, Any]) -> Exception:
    code, status = said["Error"]["Code"], said.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    message = f"{place}: {code}: {said['Error'].get('Message', '')}"
    if code in _MISSING:
        return Missing(message)
    if code in _CONDITIONS or code in _AGAIN:
        return Unfulfilled(message)
    if code in _THROTTLES or status == 429:
        return Throttled(message)
    if status >= 500:
        return PassError("RunnerUnavailable", message)
    return Refused(code, message)

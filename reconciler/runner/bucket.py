"""Objects of one part of a bucket, each changed on a condition that S3 itself checks: of two who try, one succeeds."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from reconciler.errors import PassError
from reconciler.remote.calls import Missing, Refused, Throttled, Unfulfilled, ask, body_of, objects_of
from reconciler.runner.access.keys import Renewing
from reconciler.runner.s3 import s3_client

READ_SECONDS = 10
WHAT = "the runner's memory"
ABSENT = (Missing,)
FAILED = (Missing, Unfulfilled, Throttled, Refused, PassError)
# A condition does not hold: it is another object, there is one, there is none, or one is just being written.
UNMET = (Missing, Unfulfilled)


class Over(Enum):
    """What an object may be written over, besides one with a known tag."""

    NOTHING = "nothing"
    ANYTHING = "anything"


@dataclass(frozen=True, slots=True)
class Found:
    """An object. `tag` names this very content: another content has another."""

    body: bytes
    tag: str


class Objects(Protocol):
    """Objects by key. All raise PassError "MemoryUnavailable": nobody can say what became of the request."""

    @property
    def place(self) -> str:
        """Where they are, for people; ends in `/`."""

    def get(self, key: str) -> Found | None:
        """The object; None: there is none."""

    def tag(self, key: str) -> str | None:
        """Its tag alone."""

    def put(self, key: str, body: bytes, over: str | Over) -> str | None:
        """Write the object over the one with that tag; the new tag. None: it was not written, for there is another."""

    def delete(self, key: str, tag: str) -> bool:
        """Remove the object with that tag. False: there is none, or another."""

    def listed(self, prefix: str) -> list[tuple[str, datetime]]:
        """Every key that begins so, and when it was written last."""


@dataclass
class Bucket:
    """`Objects` in S3. It signs with `keys`, or else with what the AWS SDK finds. A forked process has connections of its own."""

    name: str
    folder: str  # ends in `/`, or is empty
    region: str
    endpoint: str | None = None
    path_style: bool = False
    kms_key_id: str | None = None
    keys: Renewing | None = None
    _client: tuple[int, Any] | None = field(default=None, repr=False)

    @property
    def place(self) -> str:
        """See `Objects`."""
        return f"s3://{self.name}/{self.folder}"

    def get(self, key: str) -> Found | None:
        """See `Objects`."""
        answer = self._call("get_object", key, ABSENT)
        if answer is None:
            return None
        try:
            return Found(body_of(WHAT, answer), str(answer["ETag"]))
        except PassError as error:  # the connection broke in the middle
            raise self._unavailable(key, error) from error

    def tag(self, key: str) -> str | None:
        """See `Objects`."""
        answer = self._call("head_object", key, ABSENT)
        return str(answer["ETag"]) if answer else None

    def put(self, key: str, body: bytes, over: str | Over) -> str | None:
        """See `Objects`."""
        condition: dict[str, str] = {}
        if over is Over.NOTHING:
            condition = {"IfNoneMatch": "*"}
        elif not isinstance(over, Over):
            condition = {"IfMatch": over}
        answer = self._call("put_object", key, UNMET, Body=body, **condition, **self._encryption())
        return str(answer["ETag"]) if answer else None

    def delete(self, key: str, tag: str) -> bool:
        """See `Objects`."""
        return self._call("delete_object", key, UNMET, IfMatch=tag) is not None

    def listed(self, prefix: str) -> list[tuple[str, datetime]]:
        """See `Objects`."""
        client = self._opened()
        try:
            found = objects_of(client, WHAT, self.name, f"{self.folder}{prefix}")
            return [(str(one["Key"]).removeprefix(self.folder), one["LastModified"]) for one in found]
        except FAILED as error:
            raise self._unavailable(prefix, error) from error

    def _encryption(self) -> dict[str, str]:
        if self.kms_key_id:
            return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
        return {"ServerSideEncryption": "AES256"}

    def _call(self, verb: str, key: str, fine: tuple[type[Exception], ...], **arguments: Any) -> Any:
        """The answer; None where it is one of `fine`."""
        client = self._opened()
        try:
            return ask(client, WHAT, verb, Bucket=self.name, Key=f"{self.folder}{key}", **arguments)
        except fine:
            return None
        except FAILED as error:
            raise self._unavailable(key, error) from error

    def _opened(self) -> Any:
        """The client of this process: two must not share a connection."""
        from botocore.exceptions import BotoCoreError

        if self._client is None or self._client[0] != os.getpid():
            try:
                made = s3_client(
                    self.region,
                    self.endpoint,
                    {},
                    path_style=self.path_style,
                    read_seconds=READ_SECONDS,
                    keys=self.keys,
                )
            except BotoCoreError as error:
                raise self._unavailable("", error) from error
            self._client = os.getpid(), made
        return self._client[1]

    def _unavailable(self, key: str, error: Exception) -> PassError:
        how = "The runner needs s3:GetObject, s3:PutObject and s3:DeleteObject there, and s3:ListBucket of the bucket; it is tried again by itself"
        return PassError("MemoryUnavailable", f"{self.place}{key}: {error}. {how}.")

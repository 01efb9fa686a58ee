"""Objects under a prefix of a bucket of S3: whole ones, some of them written only on a condition."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.errors import ConfigError, PassError
from reconciler.remote.calls import Missing, Refused, Throttled, Unfulfilled, ask, body_of, objects_of, open_client

URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[A-Za-z0-9_.-]{1,100})*)/?")


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as it was read. `tag` names this very content of it; `at`: since when it is there, by S3's clock."""

    data: bytes
    tag: str
    at: datetime


class Bucket:
    """The objects below `s3://bucket/prefix`, by their names below it. Any thread may use it.

    Each method raises PassError "RunnerUnavailable" when S3 does not answer, or does not let us.
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self.place = f"s3://{bucket}/{prefix}".rstrip("/")

    def read(self, name: str) -> Stored | None:
        """The object; None where there is none."""
        try:
            said = self._ask("get_object", name)
            return Stored(body_of(self.place, said), said["ETag"], said["LastModified"])
        except Missing:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put the object in place of whatever is there."""
        self._ask("put_object", name, Body=data)

    def write_new(self, name: str, data: bytes) -> bool:
        """Put the object, where there is none. False: there is one, which may be ours, if an answer was lost."""
        try:
            self._ask("put_object", name, Body=data, IfNoneMatch="*")
        except Unfulfilled:
            return False
        return True

    def replace(self, name: str, data: bytes, tag: str) -> bool:
        """Put the object in place of exactly the content that was read. False: it is another by now."""
        try:
            self._ask("put_object", name, Body=data, IfMatch=tag)
        except (Unfulfilled, Missing):
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove the object, if it is there."""
        self._ask("delete_object", name)

    def names(self, folder: str) -> list[str]:
        """The names of all objects in a folder, sorted, without it."""
        whole = self._key(folder)
        try:
            found = objects_of(self._client, self.place, self._bucket, whole)
            return [one["Key"].removeprefix(whole) for one in found]
        except (Refused, Throttled, Missing) as error:
            raise self._away(error) from error

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _ask(self, verb: str, name: str, **asked: Any) -> Any:
        try:
            return ask(self._client, f"{self.place}/{name}", verb, Bucket=self._bucket, Key=self._key(name), **asked)
        except (Refused, Throttled) as error:
            raise self._away(error) from error

    @staticmethod
    def _away(error: Exception) -> PassError:
        how = (
            "; see `executor.fargate` in docs/operations.md for what each role needs"
            if isinstance(error, Refused)
            else ""
        )
        return PassError("RunnerUnavailable", f"{error}{how}.")


def open_bucket(url: str, region: str | None, endpoint: str | None = None) -> Bucket:
    """The objects below `s3://bucket/prefix`. Nothing is asked yet.

    Raises:
        ConfigError: it is no such address. PassError: no region is known.
    """
    found = URL.fullmatch(url)
    if found is None:
        raise ConfigError(f"{url} is no folder of S3; write s3://BUCKET/PREFIX")
    client = open_client("s3", region, endpoint, path_style=endpoint is not None)
    return Bucket(client, found["bucket"], found["prefix"].strip("/"))

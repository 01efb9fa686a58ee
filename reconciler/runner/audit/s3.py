"""Heads of the audit log in S3, under object lock: an object per head, none of which can be replaced or removed in time.

The key says all: how many records, and the hash. So a look at the anchor is a listing, and each object's own time is the
server's. A second head of as many records stands beside the first and shows; it never takes its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Literal

from reconciler import codec
from reconciler.errors import PassError
from reconciler.runner.access.keys import Renewing
from reconciler.runner.audit.anchor import Anchored, Heads, Said, disagrees
from reconciler.runner.audit.chain import Head
from reconciler.runner.s3 import s3_client

_KEY = re.compile(r"([0-9]{15})-([0-9a-f]{64})\.json")
TAKEN = frozenset({"PreconditionFailed", "412"})


@dataclass(frozen=True)
class S3Anchor:
    """A bucket with object lock. `retain`: how long no object can be removed; in mode `compliance` by nobody at all.

    It signs with `keys`, or else with what the AWS SDK finds.
    """

    bucket: str
    prefix: str
    region: str | None = None
    retain: timedelta = timedelta(days=30)
    mode: Literal["compliance", "governance"] = "compliance"
    endpoint: str | None = None
    path_style: bool = False
    keys: Renewing | None = None

    def put(self, head: Head, at: datetime) -> None:
        """See `Anchor`."""
        if any(found.head == head for found in self._beyond(head)):
            return
        self._call(
            "put_object",
            Key=self._key(head),
            Body=codec.encode(Said(at, head.count, head.hash)),
            ContentType="application/json",
            IfNoneMatch="*",
            ChecksumAlgorithm="SHA256",
            ObjectLockMode=self.mode.upper(),
            ObjectLockRetainUntilDate=at + self.retain,
        )

    def heads(self) -> Heads:
        """See `Anchor`. Every version of every object: a marker of deletion hides nothing."""
        listed = list(self._listed("list_object_versions", "Versions"))
        heads = tuple(found for one in listed if (found := self._anchored(one)) is not None)
        odd = tuple(self._place(one["Key"]) for one in listed if self._anchored(one) is None)
        return Heads(heads, odd)

    def _beyond(self, head: Head) -> list[Anchored]:
        """The heads of as many records, or more. Raises PassError where there is one that is not this one."""
        before = f"{self._folder}{head.count - 1:015}-~"
        listed = self._listed("list_objects_v2", "Contents", StartAfter=before)
        found = [one for one in map(self._anchored, listed) if one is not None]
        other = next((one for one in found if one.head != head), None)
        if other is not None:
            raise disagrees(other.place, f"it is a head that this log of {head.count} records does not have")
        return found

    def _listed(self, verb: str, member: str, **more: Any) -> Iterator[Mapping[str, Any]]:
        arguments: dict[str, Any] = {"Prefix": self._folder, **more}
        while True:
            page = self._call(verb, **arguments)
            yield from page.get(member, ())
            if not page.get("IsTruncated"):
                return
            arguments |= _next(page)

    def _anchored(self, listed: Mapping[str, Any]) -> Anchored | None:
        named = _KEY.fullmatch(str(listed["Key"]).removeprefix(self._folder))
        if named is None or int(named[1]) < 1:
            return None
        return Anchored(int(named[1]), named[2], listed["LastModified"], self._place(listed["Key"]))

    @property
    def _folder(self) -> str:
        return folder_of(self.prefix)

    def _key(self, head: Head) -> str:
        return f"{self._folder}{head.count:015}-{head.hash}.json"

    def _place(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def _call(self, verb: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self._client, verb)(Bucket=self.bucket, **arguments)
        except (BotoCoreError, ClientError) as error:
            answer = getattr(error, "response", {}).get("Error", {})
            if verb == "put_object" and answer.get("Code") in TAKEN:
                return None  # an earlier try got this far: the key names the content
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> PassError:
        how = "the bucket needs object lock (a bucket has it from its creation), and the runner s3:PutObject, "
        how += "s3:PutObjectRetention, s3:ListBucket and s3:ListBucketVersions"
        return PassError("AnchorUnreachable", f"{self._place(self._folder)}: the audit log's anchor: {error}; {how}.")

    @cached_property
    def _client(self) -> Any:
        return s3_client(
            self.region,
            self.endpoint,
            {},
            path_style=self.path_style,
            read_seconds=20,
            keys=self.keys,
        )


def folder_of(prefix: str) -> str:
    """How every key begins; empty: the bucket is the anchor's alone."""
    return f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _next(page: Mapping[str, Any]) -> dict[str, Any]:
    """Where a listing goes on."""
    if "NextContinuationToken" in page:
        return {"ContinuationToken": page["NextContinuationToken"]}
    return {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}

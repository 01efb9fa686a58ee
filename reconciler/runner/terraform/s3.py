"""States in S3, each at `<unit>.tfstate`, with Terraform's own lock beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reconciler.errors import UnitError
from reconciler.model import Json, UnitId
from reconciler.runner.access.keys import Renewing
from reconciler.runner.s3 import s3_client
from reconciler.runner.terraform.state import (
    KEPT_SUFFIX,
    MOST_OF_A_CLAIM,
    SUFFIX,
    State,
    aside,
    changed_meanwhile,
    check_move,
    claim_name,
    parse_state,
)
from reconciler.runner.terraform.statelock import ObjectLock, StateLock

# What a read of nothing answers; and a write of what is there, or is being written at this moment.
ABSENT = frozenset({"NoSuchKey", "404", "NotFound", "PreconditionFailed", "412", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class S3Backend:
    """The bucket of an environment.

    `options` go into Terraform's backend block as they are (`use_path_style`, `kms_key_id`, `endpoints`, ...).
    It is read with `keys`, which are renewed; else with `credentials`, the variables that the AWS SDKs read; with none,
    boto3 looks for its own.
    """

    bucket: str
    region: str
    options: Mapping[str, Json] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    endpoint: str | None = None
    keys: Renewing | None = None

    def read(self, unit: UnitId) -> State | None:
        """See `Backend`."""
        return self._get(_key(unit))

    def block(self, unit: UnitId, folder: Path) -> Mapping[str, Mapping[str, Json]]:  # noqa: ARG002 - the protocol's
        """The bucket and the key, with native locking for whoever uses this root by hand."""
        own: dict[str, Json] = {"bucket": self.bucket, "key": _key(unit), "region": self.region}
        if self.endpoint:
            own["endpoints"] = {"s3": self.endpoint}
        return {"s3": {"encrypt": True, **self.options, **own, "use_lockfile": True}}

    def lock(self, unit: UnitId) -> StateLock:
        """See `Backend`."""
        return ObjectLock(self.bucket, _key(unit), self._call, self._encryption)

    def bring(self, unit: UnitId, folder: Path) -> None:
        """Nothing: the engine reads the bucket itself."""

    def put(self, unit: UnitId, state: State, over: State | None) -> None:
        """See `Backend`. The bucket itself checks that it is still the object that was looked at."""
        condition = {"IfNoneMatch": "*"}
        there = self._call("get_object", _key(unit), absent_ok=True)
        if (there["Body"].read() if there else None) != (over.raw if over else None):
            raise changed_meanwhile(self._address(_key(unit)))
        if there:
            condition = {"IfMatch": there["ETag"]}
        said = {"Body": state.raw, "ContentType": "application/json", **self._encryption()}
        if self._call("put_object", _key(unit), absent_ok=True, **said, **condition) is None:
            raise changed_meanwhile(self._address(_key(unit)))

    def keep(self, unit: UnitId) -> None:
        """See `Backend`. Its key is the state's with `.kept`."""
        if self._call("head_object", _key(unit), absent_ok=True) is not None:
            self._copy(_key(unit), f"{_key(unit)}{KEPT_SUFFIX}")

    def restoring(self, unit: UnitId) -> str | None:
        """See `Backend`."""
        kept = f"{_key(unit)}{KEPT_SUFFIX}"
        if self._call("head_object", kept, absent_ok=True) is None:
            return None
        key = self.options.get("kms_key_id")
        sealed = ["--sse", "aws:kms", "--sse-kms-key-id", str(key)] if key else []
        return shlex.join(["aws", "s3", "cp", self._address(kept), self._address(_key(unit)), *sealed])

    def _address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def move(self, old: UnitId, new: UnitId) -> None:
        """See `Backend`. The old object stays under another key."""
        state, there = self.read(old), self.read(new)
        if not check_move(old, new, state, there) or state is None:
            return
        if there is None:
            self._copy(_key(old), _key(new))
            check_move(old, new, state, self.read(new))  # what arrived is what left
        self._set_aside(_key(old), aside("moved", state.mark))

    def retire(self, unit: UnitId) -> None:
        """See `Backend`. The object stays under another key."""
        if state := self.read(unit):
            self._set_aside(_key(unit), aside("forgotten", state.mark))

    def units(self, environment: str) -> tuple[UnitId, ...]:
        """See `Backend`."""
        found: list[UnitId] = []
        more: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=f"{environment}/", **more)
            keys = (str(one["Key"]) for one in page.get("Contents", ()))
            found += (UnitId(key.removesuffix(SUFFIX)) for key in keys if key.endswith(SUFFIX))
            if not page.get("IsTruncated"):
                return tuple(found)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def claim(self, environment: str) -> bytes | None:
        """See `Backend`."""
        answer = self._call("get_object", claim_name(environment), absent_ok=True)
        return answer["Body"].read(MOST_OF_A_CLAIM) if answer else None

    def write_claim(self, environment: str, claim: bytes, *, anew: bool) -> None:
        """See `Backend`."""
        condition = {"IfNoneMatch": "*"} if anew else {}
        arguments = {"Body": claim, **condition, **self._encryption()}
        self._call("put_object", claim_name(environment), absent_ok=anew, **arguments)

    @cached_property
    def _client(self) -> Any:
        return s3_client(
            self.region,
            self.endpoint,
            self.credentials,
            path_style=bool(self.options.get("use_path_style")),
            read_seconds=30,
            keys=self.keys,
        )

    def _get(self, key: str) -> State | None:
        answer = self._call("get_object", key, absent_ok=True)
        if answer is None:
            return None
        try:
            return parse_state(answer["Body"].read())
        except UnitError as error:
            raise UnitError(error.reason, f"s3://{self.bucket}/{key}: {error}") from error

    def _copy(self, source: str, target: str) -> None:
        self._call(
            "copy_object",
            target,
            CopySource={"Bucket": self.bucket, "Key": source},
            MetadataDirective="COPY",
            **self._encryption(),
        )

    def _encryption(self) -> dict[str, Any]:
        if key := self.options.get("kms_key_id"):
            return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": str(key)}
        return {"ServerSideEncryption": "AES256"} if self.options.get("encrypt", True) else {}

    def _set_aside(self, key: str, suffix: str) -> None:
        self._copy(key, f"{key}.{suffix}")
        self._call("delete_object", key)

    def _call(self, name: str, key: str | None, *, absent_ok: bool = False, **arguments: Any) -> Any:
        """`absent_ok`: None is the answer where there is no such object, or, for what writes a new one, where there is one."""
        from botocore.exceptions import BotoCoreError, ClientError

        if key is not None:
            arguments["Key"] = key
        try:
            return getattr(self._client, name)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if absent_ok and code in ABSENT:
                return None
            raise self._unavailable(key, error) from error
        except BotoCoreError as error:
            raise self._unavailable(key, error) from error

    def _unavailable(self, key: str | None, error: Exception) -> UnitError:
        return UnitError(
            "StateUnavailable",
            f"s3://{self.bucket}/{key or ''}: {error}. Check the backend's bucket and region in runner.yaml, and what the "
            "credentials may do there.",
            transient=True,
        )


def _key(unit: UnitId) -> str:
    return f"{unit}{SUFFIX}"

"""The table on AWS: the one place of the controller that speaks to boto3."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from reconciler.errors import PassError
from reconciler.store.dynamodb.table import (
    STAMP,
    Change,
    Item,
    Key,
    Page,
    Put,
    Range,
    Refused,
    Throttled,
    Unclear,
    Value,
    Write,
)

INDEX = "by-unit"
CONNECT_SECONDS, READ_SECONDS = 2, 3  # DynamoDB answers within 20 ms; a lease lasts 15 s
DEPLOY = "deploy/dynamodb"

_THROTTLES = frozenset({
    "ProvisionedThroughputExceededException", "ProvisionedThroughputExceeded", "ThrottlingException", "ThrottlingError", "Throttling",
    "RequestLimitExceeded", "TransactionConflictException", "TransactionConflict",
})  # fmt: skip
_UNCLEAR = frozenset({"InternalServerError", "InternalFailure", "ServiceUnavailable", "TransactionInProgressException"})
_DENIED = frozenset({
    "AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException", "ExpiredToken", "InvalidSignatureException",
    "MissingAuthenticationTokenException", "InvalidClientTokenId",
})  # fmt: skip
_FAILED = "ConditionalCheckFailed"


def open_client(region: str | None, endpoint: str | None) -> Any:
    """A client of boto3 with the credentials that it finds on the host. It asks once: who asks again is `Patient`.

    Raises:
        PassError: "StoreDenied": no region is known.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import NoRegionError

    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},
        tcp_keepalive=True,
    )
    try:
        return boto3.session.Session().client("dynamodb", region_name=region, endpoint_url=endpoint, config=config)
    except NoRegionError as error:
        raise PassError(
            "StoreDenied", "store.dynamodb: no region is known; write store.dynamodb.region, or set AWS_REGION"
        ) from error


@dataclass(frozen=True, slots=True)
class AwsTable:
    """`Table` by a client of boto3, which any thread may use."""

    client: Any
    name: str
    place: str

    def read(self, key: Key) -> Item | None:
        """See `Table`."""
        found = self._call("get_item", Key=_key(key), ConsistentRead=True).get("Item")
        return None if found is None else _item(found)

    def read_many(self, keys: Sequence[Key]) -> Mapping[Key, Item]:
        """See `Table`."""
        asked = {self.name: {"Keys": [_key(key) for key in keys], "ConsistentRead": True}}
        said = self._ask("batch_get_item", RequestItems=asked)
        if said.get("UnprocessedKeys"):
            raise Throttled("not every item was read")
        return {_key_of(one): _item(one) for one in said["Responses"].get(self.name, [])}

    def page(self, wanted: Range) -> Page:
        """See `Table`."""
        key = "#unit = :group" if wanted.unit is not None else "#pk = :group"
        names = {"#unit": "unit"} if wanted.unit is not None else {"#pk": "pk"}
        group = wanted.group if wanted.unit is None else wanted.unit
        asked: dict[str, Any] = {"IndexName": INDEX} if wanted.unit is not None else {"ConsistentRead": True}
        if wanted.limit is not None:
            asked["Limit"] = wanted.limit
        said = self._call(
            "query",
            KeyConditionExpression=f"{key} AND #sk BETWEEN :first AND :last",
            ExpressionAttributeNames={**names, "#sk": "sk"},
            ExpressionAttributeValues=_values({"group": group, "first": wanted.first, "last": wanted.last}),
            ScanIndexForward=not wanted.newest_first,
            **asked,
        )
        items = [(_key_of(one), _item(one)) for one in said["Items"]]
        end = said.get("LastEvaluatedKey")
        return Page(items, _rest(wanted, _key_of(end).number) if end else None)

    def write(self, writes: Sequence[Write], token: str) -> None:
        """See `Table`. One that needs no transaction is none: it costs half."""
        if len(writes) == 1 and isinstance(writes[0], Put | Change):
            name, asked = _operation(writes[0])
            self._call("put_item" if name == "Put" else "update_item", **asked)
            return
        items = [{name: {"TableName": self.name, **asked}} for name, asked in map(_operation, writes)]
        self._ask("transact_write_items", TransactItems=items, ClientRequestToken=token)

    def _call(self, verb: str, **asked: Any) -> dict[str, Any]:
        return self._ask(verb, TableName=self.name, **asked)

    def _ask(self, verb: str, **asked: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, NoCredentialsError
        from botocore.exceptions import ConnectionError as Unconnected

        try:
            said: dict[str, Any] = getattr(self.client, verb)(**asked)
        except ClientError as error:
            self._refuse(error.response)
        except (Unconnected, HTTPClientError) as error:
            raise Unclear(str(error)) from error
        except NoCredentialsError as error:
            raise self._denied(str(error)) from error
        except BotoCoreError as error:
            raise PassError("StoreFailed", f"{self.place}: {error}") from error
        return said

    def _refuse(self, said: Mapping[str, Any]) -> NoReturn:
        """Tell conditions, throttles, what nobody can tell, and what an admin has to mend apart."""
        code, message = said["Error"]["Code"], f"{said['Error']['Code']}: {said['Error'].get('Message', '')}"
        if code == "ConditionalCheckFailedException":
            raise Refused(0, _item(said["Item"]) if said.get("Item") else None)
        if code == "TransactionCanceledException":
            self._cancelled(said.get("CancellationReasons", []), message)
        if code in _THROTTLES:
            raise Throttled(message)
        if code in _UNCLEAR or said.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500:
            raise Unclear(message)
        if code in _DENIED:
            raise self._denied(message)
        raise self._unusable(code, message)

    def _cancelled(self, reasons: Iterable[Mapping[str, Any]], message: str) -> NoReturn:
        codes = [reason.get("Code") for reason in reasons]
        for index, reason in enumerate(reasons):
            if reason.get("Code") == _FAILED:
                raise Refused(index, _item(reason["Item"]) if reason.get("Item") else None)
        if any(code in _THROTTLES for code in codes):
            raise Throttled(message)
        raise self._unusable("TransactionCanceledException", message)

    def _denied(self, message: str) -> PassError:
        return PassError(
            "StoreDenied",
            f"{self.place}: {message}. The daemon's role needs what {DEPLOY}/policy.json lists, and its host valid credentials where "
            "the AWS SDKs look for them.",
        )

    def _unusable(self, code: str, message: str) -> PassError:
        if code == "ResourceNotFoundException":
            return PassError(
                "StoreMissing",
                f"{self.place}: there is no such table. Make it once, as an admin: aws dynamodb create-table --table-name {self.name} "
                f"--cli-input-json file://{DEPLOY}/table.json; or correct store.dynamodb (table, region, endpoint).",
            )
        return PassError(
            "StoreUnusable",
            f"{self.place}: {message}. If the table was made in another way than by {DEPLOY}/table.json, make another one by it.",
        )


def _operation(write: Write) -> tuple[str, dict[str, Any]]:
    """The write as a member of a transaction: its name there, and what it says."""
    said: dict[str, Any] = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    if isinstance(write, Put):
        return "Put", {
            **said,
            "Item": {**_key(write.key), **_attributes(write.item)},
            "ConditionExpression": "attribute_not_exists(#pk) OR #stamp <= :stamp",
            "ExpressionAttributeNames": {"#pk": "pk", "#stamp": STAMP},
            "ExpressionAttributeValues": _values({"stamp": write.item[STAMP]}),
        }
    names = {f"#{name}": name for name in (write.when or {"pk": ""})}
    condition = "attribute_not_exists(#pk)"
    if write.when is not None:
        condition = " AND ".join(f"#{name} = :was_{name}" for name in write.when)
    values = _values({f"was_{name}": value for name, value in (write.when or {}).items()})
    said |= {"Key": _key(write.key), "ConditionExpression": condition, "ExpressionAttributeNames": names}
    if isinstance(write, Change):
        names |= {f"#{name}": name for name in write.values}
        values |= _values(write.values)
        said["UpdateExpression"] = "SET " + ", ".join(f"#{name} = :{name}" for name in write.values)
    if values:
        said["ExpressionAttributeValues"] = values
    return ("Update" if isinstance(write, Change) else "ConditionCheck"), said


def _rest(wanted: Range, number: int) -> Range | None:
    """What is left of a range after the item of that number."""
    first, last = (wanted.first, number - 1) if wanted.newest_first else (number + 1, wanted.last)
    if first > last:
        return None
    return Range(wanted.group, first, last, wanted.newest_first, wanted.limit, wanted.unit)


def _key(key: Key) -> dict[str, Any]:
    return _attributes({"pk": key.group, "sk": key.number})


def _key_of(found: Mapping[str, Any]) -> Key:
    return Key(found["pk"]["S"], int(found["sk"]["N"]))


def _values(item: Item) -> dict[str, Any]:
    return {f":{name}": value for name, value in _attributes(item).items()}


def _attributes(item: Item) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in item.items()}


def _attribute(value: Value) -> dict[str, Any]:
    if isinstance(value, str):
        return {"S": value}
    return {"B": value} if isinstance(value, bytes) else {"N": str(value)}


def _item(found: Mapping[str, Any]) -> Item:
    return {name: _value(one) for name, one in found.items() if name not in {"pk", "sk"}}


def _value(found: Mapping[str, Any]) -> Value:
    ((kind, value),) = found.items()
    if kind == "N":
        return int(value)
    if kind in {"S", "B"}:
        known: Value = value
        return known
    raise ValueError(f"an attribute of type {kind}")

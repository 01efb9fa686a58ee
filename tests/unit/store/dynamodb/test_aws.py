"""What real boto3 makes of what DynamoDB and networks answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectTimeoutError, NoCredentialsError, ReadTimeoutError, SSLError

from reconciler.errors import PassError
from reconciler.store.dynamodb.aws import AwsTable, open_client
from reconciler.store.dynamodb.table import Change, Check, Key, Put, Range, Refused, Throttled, Unclear
from tests.kit.aws import REGION

KEY = Key("lease", 0)
ONE = Put(Key("journal", 1), {"body": "b", "stamp": "1"})
MINE = Check(KEY, {"holder": "me"})
CONDITION = {"Code": "ConditionalCheckFailed", "Message": "m", "Item": {"pk": {"S": "lease"}, "fence": {"N": "7"}}}
NONE = {"Code": "None"}
Answer = Callable[..., AWSResponse]


class Raw:
    """The body of an answer."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.body


def answer(status: int, said: dict[str, Any]) -> Answer:
    return lambda request, **_: AWSResponse(request.url, status, {}, Raw(json.dumps(said).encode()))


def error(code: str, status: int = 400, **more: Any) -> Answer:
    return answer(status, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "said so", **more})


def cancelled(*reasons: dict[str, Any]) -> Answer:
    return error("TransactionCanceledException", CancellationReasons=list(reasons))


def raising(what: Exception) -> Answer:
    def fails(**_: Any) -> AWSResponse:
        raise what

    return fails


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsTable]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    client = open_client(REGION, None)
    yield AwsTable(client, "t", "dynamodb:t")
    client.close()


def answers(table: AwsTable, *said: Answer) -> list[dict[str, Any]]:
    """What is said to each request in turn; the last to all others. What was asked."""
    left, asked = list(said), []

    def send(request: Any, **more: Any) -> AWSResponse:
        asked.append(json.loads(request.body))
        return (left.pop(0) if len(left) > 1 else left[0])(request=request, **more)

    table.client.meta.events.register("before-send.dynamodb", send)
    return asked


TIMEOUT = ReadTimeoutError(endpoint_url="https://x")
TRANSACTION = {
    "a throttled item": (cancelled(NONE, {"Code": "ProvisionedThroughputExceeded", "Message": "m"}), Throttled),
    "a throttled request": (cancelled({"Code": "ThrottlingError", "Message": "m"}, NONE), Throttled),
    "another transaction at the item": (cancelled({"Code": "TransactionConflict", "Message": "m"}, NONE), Throttled),
    "a condition": (cancelled(CONDITION, NONE), Refused),
    "a condition, and a throttle": (cancelled(CONDITION, {"Code": "ThrottlingError", "Message": "m"}), Refused),
    "the same token at work": (error("TransactionInProgressException"), Unclear),
}
ANY = {
    "throughput": (error("ProvisionedThroughputExceededException"), Throttled),
    "throttling": (error("ThrottlingException"), Throttled),
    "limit": (error("RequestLimitExceeded"), Throttled),
    "conflict": (error("TransactionConflictException"), Throttled),
    "server error": (error("InternalServerError", 500), Unclear),
    "unavailable": (error("ServiceUnavailable", 503), Unclear),
    "a proxy's page": (answer(502, {}), Unclear),
    "a read timeout": (raising(TIMEOUT), Unclear),
    "a connect timeout": (raising(ConnectTimeoutError(endpoint_url="https://x")), Unclear),
    "a certificate": (raising(SSLError(endpoint_url="https://x", error="bad")), Unclear),
}


@pytest.mark.parametrize("what", TRANSACTION)
def test_what_is_said_of_a_transaction(what: str, table: AwsTable) -> None:
    said, expected = TRANSACTION[what]
    asked = answers(table, said)
    with pytest.raises(expected):
        table.write([MINE, ONE], "token")
    assert len(asked) == 1, "who asks again knows for how long"
    assert asked[0]["ClientRequestToken"] == "token"


@pytest.mark.parametrize("what", ANY)
def test_what_is_said_of_any_request(what: str, table: AwsTable) -> None:
    said, expected = ANY[what]
    asked = answers(table, said)
    for ask in (
        lambda: table.read(KEY),
        lambda: table.read_many([KEY]),
        lambda: table.page(Range("journal", 1, 9)),
        lambda: table.write([ONE], "token"),
        lambda: table.write([MINE, ONE], "token"),
    ):
        with pytest.raises(expected):
            ask()
    assert len(asked) == 5


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (error("ResourceNotFoundException"), "StoreMissing", "create-table --table-name t"),
        (error("AccessDeniedException"), "StoreDenied", "policy.json"),
        (error("ExpiredTokenException"), "StoreDenied", "valid credentials"),
        (raising(NoCredentialsError()), "StoreDenied", "valid credentials"),
        (error("ValidationException"), "StoreUnusable", "table.json"),
        (cancelled({"Code": "ValidationError", "Message": "m"}), "StoreUnusable", "table.json"),
    ],
)
def test_what_an_admin_has_to_mend_is_said(said: Answer, reason: str, words: str, table: AwsTable) -> None:
    answers(table, said)
    with pytest.raises(PassError) as caught:
        table.write([MINE, ONE], "token")
    assert caught.value.reason == reason
    assert words in str(caught.value)


def test_the_item_that_refused_is_told(table: AwsTable) -> None:
    answers(table, cancelled(NONE, CONDITION), error("ConditionalCheckFailedException", Item={"fence": {"N": "8"}}))
    with pytest.raises(Refused) as caught:
        table.write([ONE, MINE], "token")
    assert (caught.value.index, caught.value.item) == (1, {"fence": 7})
    with pytest.raises(Refused) as caught:
        table.write([Change(KEY, {"beat": 1}, {"holder": "me"})], "token")
    assert (caught.value.index, caught.value.item) == (0, {"fence": 8})


def test_what_was_not_read_is_asked_again(table: AwsTable) -> None:
    answers(table, answer(200, {"Responses": {}, "UnprocessedKeys": {"t": {"Keys": [{"pk": {"S": "lease"}}]}}}))
    with pytest.raises(Throttled):
        table.read_many([KEY])


@pytest.mark.parametrize(
    ("newest_first", "last", "rest"),
    [(False, 3, Range("journal", 4, 9)), (True, 3, Range("journal", 1, 2, newest_first=True)), (False, 9, None)],
)
def test_a_range_goes_on_after_its_page(*, newest_first: bool, last: int, rest: Range | None, table: AwsTable) -> None:
    end = {"pk": {"S": "journal"}, "sk": {"N": str(last)}}
    asked = answers(table, answer(200, {"Items": [], "LastEvaluatedKey": end}))
    assert table.page(Range("journal", 1, 9, newest_first=newest_first)).rest == rest
    assert (asked[0]["ConsistentRead"], asked[0]["ScanIndexForward"]) == (True, not newest_first)


def test_a_region_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with pytest.raises(PassError, match=r"store\.dynamodb\.region"):
        open_client(None, None)

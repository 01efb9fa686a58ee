"""The other ways than a webhook: SNS against moto's server, and Apprise against a receiver of this host."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from reconciler.config.notify import Sink
from reconciler.demo.playground import free_port
from reconciler.errors import ConfigError
from reconciler.sinks import FailedError, RefusedError, Sender, open_sender
from reconciler.sinks.relay import LONGEST, said
from tests.kit.aws import REGION, Aws, serving
from tests.kit.hook import hook

TOPIC = f"arn:aws:sns:{REGION}:123456789012:reconciler"
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "7-abc",
    "source": "/reconciler/acme",
    "type": "reconciler.unit.failed",
    "subject": "prod/network",
    "time": "2026-11-24T10:00:00+00:00",
    "data": {"actor": "controller", "reason": "ApplyFailed", "message": "no *such* <b>thing</b>", "changes": 2},
}


def sender(**fields: object) -> Sender:
    return open_sender(Sink.model_validate({"name": "ops", **fields}))


# --- SNS


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with serving() as found:
        yield found


def queue_of(aws: Aws, *, fifo: bool = False) -> tuple[str, str]:
    """A topic, and the address of a queue that gets what it is sent."""
    name, kind = ("reconciler.fifo", {"FifoTopic": "true"}) if fifo else ("reconciler", {})
    topic = aws.client("sns").create_topic(Name=name, Attributes=kind)["TopicArn"]
    kinds = {"FifoQueue": "true"} if fifo else {}
    url = aws.client("sqs").create_queue(QueueName=name, Attributes=kinds)["QueueUrl"]
    arn = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    return topic, url


def taken(aws: Aws, url: str) -> list[dict[str, Any]]:
    asked = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "AttributeNames": ["All"]}
    found: list[dict[str, Any]] = aws.client("sqs").receive_message(QueueUrl=url, **asked).get("Messages", [])
    return found


def test_a_topic_gets_the_event_with_what_filters_ask_for(aws: Aws) -> None:
    topic, url = queue_of(aws)
    way = sender(sns={"topic": topic, "endpoint": aws.endpoint})
    way.send(EVENT)
    way.close()
    (message,) = taken(aws, url)
    assert json.loads(message["Body"]) == EVENT
    attributes = {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}
    assert attributes == {
        "specversion": "1.0", "id": "7-abc", "source": "/reconciler/acme", "type": "reconciler.unit.failed",
        "subject": "prod/network", "content-type": "application/cloudevents+json",
    }  # fmt: skip


def test_a_fifo_topic_knows_an_event_that_comes_twice(aws: Aws) -> None:
    topic, url = queue_of(aws, fifo=True)
    way = sender(sns={"topic": topic, "endpoint": aws.endpoint})
    way.send(EVENT)
    way.send(EVENT)
    way.close()
    (message,) = taken(aws, url)
    assert message["Attributes"]["MessageGroupId"] == "reconciler"


def test_a_topic_that_is_not_there_or_not_reached_is_tried_again(aws: Aws) -> None:
    way = sender(sns={"topic": TOPIC, "endpoint": aws.endpoint})
    with pytest.raises(FailedError, match="SNS answered NotFound"):
        way.send(EVENT)
    way.close()
    nowhere = sender(sns={"topic": TOPIC, "endpoint": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(FailedError, match="SNS was not reached \\(EndpointConnectionError"):
        nowhere.send(EVENT)
    with pytest.raises(FailedError, match="ProfileNotFound"):
        sender(sns={"topic": TOPIC, "profile": "nobody"}).send(EVENT)


def test_an_event_that_no_topic_takes_is_refused() -> None:
    with pytest.raises(RefusedError, match="256 KiB"):
        sender(sns={"topic": TOPIC}).send({**EVENT, "data": "x" * 262_144})


# --- Apprise


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # of what Apprise loads
def test_apprise_tells_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "address"
    with hook() as receiver:
        file.write_text(receiver.url.replace("http://", "json://") + "\n")
        way = sender(apprise={"url_file": str(file)})
        way.send(EVENT)
        (found,) = receiver.taken
        assert (found["title"], found["type"]) == ("unit.failed prod/network", "failure")
        assert found["message"].splitlines()[0] == "ApplyFailed: no *such* <b>thing</b>"
        receiver.answers.append(500)
        with pytest.raises(FailedError, match="could not hand it over") as failed:
            way.send(EVENT)
        assert "s3cret" not in str(failed.value)
    with pytest.raises(FailedError, match="could not hand it over"):
        way.send(EVENT)
    for wrong in ("nonsense://x", "json://a json://b", ""):
        file.write_text(wrong)
        with pytest.raises(FailedError, match="no address that Apprise knows"):
            way.send(EVENT)
    file.unlink()
    with pytest.raises(FailedError, match="cannot be read"):
        way.send(EVENT)
    way.close()


def test_without_the_extra_the_daemon_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    monkeypatch.setattr("reconciler.sinks.relay.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'gitops-reconciler\[apprise\]'"):
        sender(apprise={"url_file": str(tmp_path / "address")})


def test_a_sentence_has_an_end() -> None:
    title, text, kind = said({**EVENT, "type": "reconciler.unit.released", "data": {"message": "x" * 9000}})
    assert (title, len(text), kind) == ("unit.released prod/network", LONGEST, "info")


# --- the configuration


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "exactly one of url, sns, apprise"),
        ({"url": "https://a", "sns": {"topic": TOPIC}}, "exactly one of url, sns, apprise"),
        ({"sns": {"topic": TOPIC}, "secret_file": "/x"}, "secret_file is of a webhook; remove it"),
        ({"sns": {"topic": "reconciler"}}, "String should match pattern"),
        ({"sns": {"topic": TOPIC, "endpoint": "http://example.com"}}, "write https://"),
    ],
)
def test_a_sink_has_one_way(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sink.model_validate({"name": "ops", **fields})

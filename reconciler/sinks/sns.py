"""A topic of AWS SNS: the CloudEvent is the message, and what filters ask for stands in its attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from reconciler.config.notify import Sns
from reconciler.sinks.sender import DEADLINE, FailedError, RefusedError

CONNECT = 5.0  # seconds
LARGEST = 256 * 1024  # bytes of a message with its attributes, as SNS takes it
ATTRIBUTES = ("specversion", "id", "source", "type", "subject")
TOO_LARGE = "a message of SNS has at most 256 KiB"


class Topic:
    """Publishes events, as whoever boto3 finds that this process is, or as a profile of its AWS files."""

    def __init__(self, sns: Sns) -> None:
        self._sns = sns
        self._client: Any = None

    def send(self, event: Mapping[str, Any]) -> None:
        """Publish it. Raises FailedError, RefusedError."""
        from botocore.exceptions import BotoCoreError, ClientError

        asked = self._message(event)
        try:
            self._opened().publish(**asked)
        except ClientError as error:
            said = error.response.get("Error", {})
            raise FailedError(f"SNS answered {said.get('Code')}: {said.get('Message')}") from error
        except (BotoCoreError, OSError, ValueError) as error:
            self.close()
            raise FailedError(f"SNS was not reached ({type(error).__name__}: {error})") from error

    def close(self) -> None:
        """Let go of the client, and of the credentials that it had."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _message(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What is published. A FIFO topic keeps the order, and knows an event that comes twice by its id."""
        body = orjson.dumps(event).decode()
        told = {name: str(event[name]) for name in ATTRIBUTES if name in event}
        told["content-type"] = "application/cloudevents+json"
        if (
            len(body.encode()) + sum(len(name) + len("String") + len(value.encode()) for name, value in told.items())
            > LARGEST
        ):
            raise RefusedError(TOO_LARGE)
        attributes = {name: {"DataType": "String", "StringValue": value} for name, value in told.items()}
        asked = {"TopicArn": self._sns.topic, "Message": body, "MessageAttributes": attributes}
        if self._sns.fifo:
            asked |= {"MessageGroupId": "reconciler", "MessageDeduplicationId": str(event["id"])}
        return asked

    def _opened(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            once = Config(connect_timeout=CONNECT, read_timeout=DEADLINE, retries={"total_max_attempts": 1})
            session = boto3.Session(profile_name=self._sns.profile, region_name=self._sns.region)
            self._client = session.client("sns", endpoint_url=self._sns.endpoint, config=once)
        return self._client

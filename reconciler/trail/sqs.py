"""A queue of SQS. The one place of this package that knows boto3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.config.outofband import OutOfBand
from reconciler.errors import PassError
from reconciler.trail.consumer import Message

CONNECT = 5.0  # seconds
ANSWER = 10.0  # seconds, beside the time that a poll waits
HIDDEN = 120  # seconds in which nobody else is handed what was received: a fold has to be journaled by then
AT_ONCE = 10  # messages, as SQS has it


class Sqs:
    """Asked by one thread."""

    def __init__(self, config: OutOfBand) -> None:
        self._config = config
        self._client: Any = None

    def receive(self, wait: float) -> Sequence[Message]:
        """Some messages, once there are any, or none after `wait` seconds. Raises PassError "TrailUnreachable"."""
        answer = self._ask(
            "receive_message", MaxNumberOfMessages=AT_ONCE, WaitTimeSeconds=int(wait), VisibilityTimeout=int(HIDDEN)
        )
        return [
            Message(one["MessageId"], one["ReceiptHandle"], one.get("Body", "")) for one in answer.get("Messages", ())
        ]

    def delete(self, messages: Sequence[Message]) -> None:
        """They need not come again. What is not deleted does. Raises PassError "TrailUnreachable"."""
        for start in range(0, len(messages), AT_ONCE):
            entries = [
                {"Id": str(number), "ReceiptHandle": one.receipt}
                for number, one in enumerate(messages[start : start + AT_ONCE])
            ]
            self._ask("delete_message_batch", Entries=entries)

    def close(self) -> None:
        """Let go of the client, and of the credentials that it had."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, what: str, **words: object) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._opened(), what)(QueueUrl=self._config.queue_url, **words)
        except ClientError as error:
            said = error.response.get("Error", {})
            raise self._away(f"SQS answered {said.get('Code')}: {said.get('Message')}") from error
        except (BotoCoreError, OSError, ValueError) as error:
            self.close()
            raise self._away(f"SQS was not reached ({type(error).__name__}: {error})") from error
        return answer

    def _away(self, why: str) -> PassError:
        what = (
            "until it answers, nobody sees what others write in the accounts. What is sent meanwhile waits in the queue"
        )
        how = "the controller's credentials need sqs:ReceiveMessage and sqs:DeleteMessage there"
        return PassError("TrailUnreachable", f"out_of_band.queue_url: {why}; {what}; {how}.")

    def _opened(self) -> Any:
        if self._client is None:
            import boto3
            from botocore.config import Config

            once = Config(connect_timeout=CONNECT, read_timeout=ANSWER + 20, retries={"total_max_attempts": 1})
            session = boto3.Session(profile_name=self._config.profile, region_name=self._config.region)
            self._client = session.client("sqs", endpoint_url=self._config.endpoint, config=once)
        return self._client

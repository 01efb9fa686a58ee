"""Events of CloudTrail as EventBridge hands them on, and a queue of moto's to put them into."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.kit.aws import REGION, Aws

ACCOUNT = "111111111111"
MALLORY = f"arn:aws:iam::{ACCOUNT}:role/developers"
APPLIER = f"arn:aws:iam::{ACCOUNT}:role/reconciler-apply"
EMERGENCY = f"arn:aws:iam::{ACCOUNT}:role/emergency"


def by_role(arn: str = MALLORY, session: str = "mallory") -> dict[str, Any]:
    """A session of the role."""
    name = arn.rpartition("/")[2]
    return {
        "type": "AssumedRole",
        "principalId": f"AROAEXAMPLE:{session}",
        "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{session}",
        "accountId": ACCOUNT,
        "sessionContext": {"sessionIssuer": {"type": "Role", "arn": arn, "accountId": ACCOUNT, "userName": name}},
    }


def record(**changes: Any) -> dict[str, Any]:
    """What CloudTrail says of one call."""
    return {
        "eventVersion": "1.10",
        "userIdentity": by_role(),
        "eventTime": "2026-11-24T09:58:00Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "PutBucketPolicy",
        "awsRegion": REGION,
        "requestParameters": {"bucketName": "acme-logs", "bucketPolicy": {"Version": "2012-10-17"}},
        "responseElements": None,
        "readOnly": False,
        "eventID": "5f1b1a2e-0000-4000-8000-000000000001",
        "eventType": "AwsApiCall",
        "recipientAccountId": ACCOUNT,
        **changes,
    }


def told(**changes: Any) -> str:
    """The event as the queue has it."""
    detail = record(**changes)
    return json.dumps(
        {
            "version": "0",
            "id": "e1",
            "detail-type": "AWS API Call via CloudTrail",
            "source": "aws.s3",
            "account": ACCOUNT,
            "time": detail["eventTime"],
            "region": REGION,
            "resources": [],
            "detail": detail,
        }
    )


class Trail:
    """A queue on the server."""

    def __init__(self, aws: Aws, name: str = "reconciler-trail") -> None:
        self._client = aws.client("sqs")
        self.url: str = self._client.create_queue(QueueName=name)["QueueUrl"]
        self._endpoint = aws.endpoint

    def send(self, bodies: Iterable[str]) -> None:
        """Put messages into it."""
        waiting = list(bodies)
        for start in range(0, len(waiting), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(waiting[start : start + 10])]
            assert not self._client.send_message_batch(QueueUrl=self.url, Entries=entries).get("Failed")

    def left(self) -> int:
        """How many messages it has, those that were handed out included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def config(self, *environments: str) -> dict[str, Any]:
        """`out_of_band` of a reconciler.yaml that reads it."""
        return {
            "queue_url": self.url,
            "region": REGION,
            "endpoint": self._endpoint,
            "accounts": {ACCOUNT: list(environments or ("prod",))},
            "allowed": [APPLIER, "autoscaling.amazonaws.com", "arn:aws:iam::*:role/aws-service-role/*"],
            "break_glass": [EMERGENCY],
        }

"""Whoever calls a server on which identities count, and whether they were let."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.session import Session

from tests.kit.aws import REGION, Aws
from tests.kit.enforced import Decisions

REFUSED = frozenset({"AccessDenied", "AccessDeniedException", "403"})
Keys = tuple[str, str, str] | tuple[str, str]


class Caller:
    """Somebody's clients, who may become somebody else: to make clients anew for each takes longer than all that is asked."""

    def __init__(self, aws: Aws) -> None:
        self._aws, inner = aws, Session()
        inner.set_credentials("test", "test", "test")
        self._keys, self._session = inner.get_credentials(), boto3.Session(botocore_session=inner)
        self._clients: dict[str, Any] = {}

    def become(self, access_key: str, secret_key: str, token: str | None = None) -> None:
        self._keys.access_key, self._keys.secret_key, self._keys.token = access_key, secret_key, token

    def client(self, service: str) -> Any:
        if service not in self._clients:
            once = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})
            self._clients[service] = self._session.client(
                service, region_name=REGION, endpoint_url=self._aws.endpoint, config=once
            )
        return self._clients[service]


def session(aws: Aws, role: str) -> Keys:
    """The keys of a session of the role, which is given while identities do not count."""
    keys = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="tries")["Credentials"]
    return keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"]


def users(aws: Aws, names: Iterable[str]) -> dict[str, Keys]:
    """The keys of people, who may take whichever role lets them."""
    iam, found = aws.client("iam"), dict[str, Keys]()
    anything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}],
    }
    for name in names:
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(anything))
        keys = iam.create_access_key(UserName=name)["AccessKey"]
        found[name] = keys["AccessKeyId"], keys["SecretAccessKey"]
    return found


def attempt(call: Callable[[], object], right: str, decisions: Decisions) -> bool:
    """Whether it was let through; what became of it then is not looked at. It must have been asked for this right, or nothing was tried."""
    seen, refused, said = len(decisions.made), False, ""
    try:
        call()
    except ClientError as error:
        refused, said = error.response["Error"]["Code"] in REFUSED, str(error)
    decided = decisions.made[seen:]
    assert decided, (right, said)
    assert decided[0][1] == right, decided
    assert refused is not all(may for *_, may in decided), (refused, decided)
    return not refused

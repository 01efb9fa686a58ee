"""The server that answers as AWS does, with a guard before it: identities count, and sessions come to their end."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import boto3
import requests
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.kit.aws import ACCOUNT, BUCKET, REGION, Aws

ALL = "*"
Start = Callable[..., Any]
Words = dict[str, str]
KEY = re.compile(r"Credential=([A-Z0-9a-z]+)/")
BETWEEN = "<{0}>([^<]+)</{0}>"


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was given: what was asked for it, its keys, and when it ends as its holder was told."""

    asked: Words
    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(repr=False)
    ends: float = 0.0


@dataclass(eq=False)
class Guard:
    """Around the server. Sessions last `life` seconds as their holders are told.

    At the first request that `slow` means, the answer waits until the session that sent it has come to its end; whatever
    has ended by then counts no more. So no test depends on how fast anything is.
    """

    inner: Callable[..., Iterable[bytes]]
    life: float = 3600.0
    slow: Callable[[Mapping[str, Any], bytes], bool] = lambda _environ, _body: False
    sessions: list[Session] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    outlived: str | None = None
    _dead: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """One request."""
        body = self._body(environ)
        found = KEY.search(environ.get("HTTP_AUTHORIZATION", ""))
        key = found[1] if found else ""
        self.used.append(key)
        if key in self._dead:
            self.refused.append(key)
            return _expired(start)
        if b"Action=AssumeRole" in body:
            return self._give(environ, body, start)
        if key and self.outlived is None and self.slow(environ, body):
            answer = list(self.inner(environ, start))
            self._let_end(key)
            return answer
        return self.inner(environ, start)

    def _body(self, environ: dict[str, Any]) -> bytes:
        """The body, which can be read again; none of those that are streamed."""
        size = int(environ.get("CONTENT_LENGTH") or 0)
        if not size:
            return b""
        body: bytes = environ["wsgi.input"].read(size)
        environ["wsgi.input"] = io.BytesIO(body)
        return body

    def _give(self, environ: dict[str, Any], body: bytes, start: Start) -> Iterable[bytes]:
        ends = time.time() + self.life
        said: list[tuple[str, list[tuple[str, str]]]] = []
        text = b"".join(self.inner(environ, lambda status, headers, *_: said.append((status, headers)))).decode()
        if found := re.search(BETWEEN.format("AccessKeyId"), text):
            told = datetime.fromtimestamp(int(ends), UTC)
            text = re.sub(BETWEEN.format("Expiration"), f"<Expiration>{told:%Y-%m-%dT%H:%M:%SZ}</Expiration>", text)
            secret, token = (re.findall(BETWEEN.format(n), text)[0] for n in ("SecretAccessKey", "SessionToken"))
            asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            with self._lock:
                self.sessions.append(Session(asked, found[1], secret, token, int(ends)))
        status, headers = said[0]
        start(status, [(n, v) for n, v in headers if n.lower() != "content-length"])
        return [text.encode()]

    def _let_end(self, key: str) -> None:
        with self._lock:
            if self.outlived is not None:
                return
            session = next(one for one in self.sessions if one.access_key == key)
            time.sleep(max(0.0, session.ends + 1 - time.time()))  # the clock is the event
            self.outlived = key
            self._dead |= {one.access_key for one in self.sessions if one.ends < time.time()}

    def secrets(self) -> set[str]:
        """What of the sessions nobody may see."""
        with self._lock:
            return {text for one in self.sessions for text in (one.secret_key, one.token)}


def _expired(start: Start) -> Iterable[bytes]:
    said = json.dumps(
        {"__type": "ExpiredTokenException", "message": "The security token included in the request is expired"}
    )
    start(
        "403 Forbidden", [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", "ExpiredTokenException")]
    )
    return [said.encode()]


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object, **__: object) -> None:
        """Nothing."""


class Guarded(Aws):
    """The server behind its guard, with users and roles whose policies count."""

    def __init__(self, endpoint: str, guard: Guard) -> None:
        super().__init__(endpoint)
        self.guard = guard
        self.people: dict[str, Words] = {}

    def client(self, service: str) -> Any:
        """As the admin."""
        return self.client_of(service, "admin")

    def client_of(self, service: str, who: str) -> Any:
        """As one of the users."""
        return self.client_with(service, **self.people[who])

    def client_with(self, service: str, **keys: str) -> Any:
        """With these keys."""
        return boto3.client(service, region_name=REGION, endpoint_url=self.endpoint, **keys)

    def begin(self, users: Mapping[str, Json], roles: Mapping[str, Json]) -> None:
        """As if nobody had used it before, but with a bucket, an admin and these; from now on their policies count."""
        self._post("reset-auth", "inf")
        self._post("reset")
        iam = self.client_with("iam", aws_access_key_id="test", aws_secret_access_key="test")
        for name, policy in {"admin": allow(ALL), **users}.items():
            iam.create_user(UserName=name)
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
            made = iam.create_access_key(UserName=name)["AccessKey"]
            self.people[name] = {
                "aws_access_key_id": made["AccessKeyId"],
                "aws_secret_access_key": made["SecretAccessKey"],
            }
        runner = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/runner"}, "Action": "sts:*"}
        trust = json.dumps({"Version": "2012-10-17", "Statement": [runner]})
        for name, policy in roles.items():
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
            iam.put_role_policy(RoleName=name, PolicyName="own", PolicyDocument=json.dumps(policy))
        self.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        self._post("reset-auth", "0")

    def _post(self, what: str, data: str = "") -> None:
        requests.post(f"{self.endpoint}/moto-api/{what}", data=data.encode(), timeout=30).raise_for_status()


Json = dict[str, Any]


def allow(*actions: str, resource: str | list[str] = ALL) -> Json:
    """A policy of one statement."""
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement]}


def both(*policies: Json) -> Json:
    """The statements of all of them."""
    return {"Version": "2012-10-17", "Statement": [one for policy in policies for one in policy["Statement"]]}


def role_arn(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


@contextmanager
def guarded(**words: Any) -> Iterator[Guarded]:
    """The server while it is needed."""
    guard = Guard(DomainDispatcherApplication(create_backend_app), **words)
    server = make_server("127.0.0.1", 0, guard, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    aws = Guarded(f"http://127.0.0.1:{server.server_port}", guard)
    try:
        yield aws
    finally:
        aws._post("reset-auth", "inf")
        server.shutdown()
        thread.join()
        server.server_close()

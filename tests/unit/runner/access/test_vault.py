from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from reconciler.config.runner import Secret
from reconciler.errors import HeldError, UnitError
from reconciler.model import Operation
from reconciler.runner.access import vault
from reconciler.runner.access.keys import Keys, Renewing
from reconciler.runner.access.vault import Vault
from reconciler.runner.credentials import MOST
from tests.kit.aws import REGION, Aws, serving
from tests.kit.plane import ground, note, open_host

WHAT = "secret db_password of prod"
VALUE = "  Zx9-very/secret+value&<that>-nobody-sees\n"
KEYS = {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own-secret"}
ELSEWHERE = "us-east-1"


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    with serving() as found:
        yield found


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A runner's user without any AWS credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def opened(endpoint: str, region: str | None = REGION, **variables: str) -> Vault:
    return Vault(None, {**KEYS, "AWS_ENDPOINT_URL": endpoint, **variables}, region)


def held(vault: Vault, what: type[UnitError] = HeldError, **secret: str) -> tuple[str, str]:
    """Reason and message of the hold, which says whose secret it is and where that should be."""
    with pytest.raises(what) as caught:
        vault.read(Secret(**secret), WHAT)  # type: ignore[arg-type]
    ((place, name),) = secret.items()
    start = f"{WHAT}: {place}: {name}: "
    assert str(caught.value).startswith(start)
    return caught.value.reason, str(caught.value).removeprefix(start)


def made(aws: Aws, name: str, **value: Any) -> str:
    """A secret; its ARN."""
    return str(aws.client("secretsmanager").create_secret(Name=name, **value)["ARN"])


def test_a_value_is_read_as_it_is_stored_by_name_and_by_arn(aws: Aws) -> None:
    arn = made(aws, "prod/db", SecretString=VALUE)
    for name in ("prod/db", arn):
        assert opened(aws.endpoint).read(Secret(secretsmanager=name), WHAT) == VALUE
    aws.client("ssm").put_parameter(Name="/prod/db", Value="hushed", Type="SecureString")
    aws.client("ssm").put_parameter(Name="/prod/plain", Value="open", Type="String")
    for name, value in {"/prod/db": "hushed", "/prod/plain": "open"}.items():
        assert opened(aws.endpoint).read(Secret(ssm=name), WHAT) == value
    aws.client("ssm").put_parameter(Name="/prod/db", Value="rotated", Type="SecureString", Overwrite=True)
    assert opened(aws.endpoint).read(Secret(ssm="/prod/db"), WHAT) == "rotated"
    assert opened(aws.endpoint).read(Secret(ssm="/prod/db:1"), WHAT) == "hushed"


def test_it_is_where_its_arn_says_then_where_the_environment_is_then_where_its_states_are(aws: Aws) -> None:
    arn = made(aws, "prod/where", SecretString=VALUE)
    by_arn, by_name = Secret(secretsmanager=arn), Secret(secretsmanager="prod/where")
    assert opened(aws.endpoint, ELSEWHERE, AWS_REGION=ELSEWHERE).read(by_arn, WHAT) == VALUE
    assert opened(aws.endpoint, ELSEWHERE, AWS_REGION=REGION).read(by_name, WHAT) == VALUE
    assert opened(aws.endpoint, REGION).read(by_name, WHAT) == VALUE
    assert held(opened(aws.endpoint, ELSEWHERE), secretsmanager="prod/where")[0] == "SecretMissing"
    nowhere = held(opened(aws.endpoint, None), secretsmanager="prod/where")
    assert nowhere == (
        "SecretMissing",
        "no region is known; write its ARN, or AWS_REGION in the environment's `env`.",
    )


def test_what_is_not_there_or_is_no_text_is_held(aws: Aws) -> None:
    made(aws, "prod/binary", SecretBinary=b"\x00\xff")
    made(aws, "prod/going", SecretString="x")
    aws.client("secretsmanager").delete_secret(SecretId="prod/going")
    found = opened(aws.endpoint)
    reason, message = held(found, secretsmanager="prod/none")
    assert (reason, message) == (
        "SecretMissing",
        "there is no such secret (ResourceNotFoundException); correct its name in runner.yaml, or make it there.",
    )
    assert held(found, ssm="/none")[1].startswith("there is no such parameter (ParameterNotFound)")
    assert held(found, secretsmanager="prod/going")[1].startswith("the secret is being deleted")
    assert held(found, secretsmanager="prod/binary") == (
        "SecretMissing",
        "its value is binary; store a text (SecretString).",
    )


Answer = tuple[int, bytes]


@contextmanager
def answering(answer: Callable[[], Answer]) -> Iterator[str]:
    """A server that says the same to everybody; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, body = answer()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.end_headers()
            try:
                self.wfile.write(body)
            except ConnectionError:
                return

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusing(code: str) -> Callable[[], Answer]:
    """What AWS says may have the secret's neighbours in it, and is not told."""
    return lambda: (400, json.dumps({"__type": code, "message": "CANARY"}).encode())


@pytest.mark.parametrize(
    ("code", "reason", "says"),
    [
        ("AccessDeniedException", "SecretRefused", "the job's credentials may not read it"),
        ("UnrecognizedClientException", "SecretRefused", "AWS does not know the job's credentials"),
        ("DecryptionFailure", "SecretRefused", "the key that it is encrypted with cannot be used"),
        ("ParameterVersionNotFound", "SecretMissing", "there is no such version"),
        ("ExpiredTokenException", "SecretUnavailable", "AWS gives no value now"),
        ("SomethingNew", "SecretUnavailable", "AWS gives no value now"),
    ],
)
def test_a_refusal_is_told_by_its_code_with_what_to_do(code: str, reason: str, says: str) -> None:
    with answering(refusing(code)) as endpoint:
        found, message = held(opened(endpoint), ssm="/x")
    assert found == reason
    assert message.startswith(says)
    assert f" ({code}); " in message
    assert "CANARY" not in message


@pytest.mark.parametrize("code", ["x" * 65, "a b", "a\nb", ""])
def test_a_code_that_is_none_is_not_told(code: str) -> None:
    with answering(refusing(code)) as endpoint:
        reason, message = held(opened(endpoint), ssm="/x")
    assert reason == "SecretUnavailable"
    assert message.startswith("AWS gives no value now")
    assert not code or code not in message


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x" * (MOST + 1), f"its value is longer than {MOST} bytes; store less."),
        ("é" * MOST, f"its value is longer than {MOST} bytes; store less."),
        ("\ud800", "its value is no valid text; store another."),
        ("x" * vault.LARGEST, f"AWS answers with more than {vault.LARGEST} bytes; store less."),
    ],
)
def test_what_is_too_long_or_no_text_is_held(value: str, says: str) -> None:
    body = json.dumps({"SecretString": value}).encode()
    with answering(lambda: (200, body)) as endpoint:
        assert held(opened(endpoint), secretsmanager="x") == ("SecretMissing", says)


def test_the_longest_value_is_read() -> None:
    body = json.dumps({"SecretString": "\x01" * MOST}).encode()
    with answering(lambda: (200, body)) as endpoint:
        assert opened(endpoint).read(Secret(secretsmanager="x"), WHAT) == "\x01" * MOST


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b"{}", b'{"SecretString": 7}'])
def test_an_answer_that_is_none_is_no_secret(body: bytes) -> None:
    with answering(lambda: (200, body)) as endpoint:
        reason, message = held(opened(endpoint), secretsmanager="x")
    assert reason in ("SecretMissing", "SecretUnavailable"), message


def test_who_never_answers_keeps_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        reason, message = held(opened(f"http://127.0.0.1:{silent.getsockname()[1]}"), ssm="/x")
    assert reason == "SecretUnavailable"
    assert message.startswith(
        "AWS did not answer within 0 seconds; nothing is planned without it, and it is tried again"
    )


def test_who_cannot_be_reached_is_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = f"http://127.0.0.1:{gone.getsockname()[1]}"
    reason, message = held(opened(address), ssm="/x")
    assert (reason, message.partition("; ")[0]) == (
        "SecretUnavailable",
        "AWS does not answer (EndpointConnectionError)",
    )


def test_the_endpoint_of_the_service_wins(aws: Aws) -> None:
    made(aws, "prod/own", SecretString=VALUE)
    found = opened("http://127.0.0.1:9", AWS_ENDPOINT_URL_SECRETS_MANAGER=aws.endpoint)
    assert found.read(Secret(secretsmanager="prod/own"), WHAT) == VALUE


def test_an_authority_of_the_environment_counts(tmp_path: Path) -> None:
    reason, message = held(opened("https://127.0.0.1:9", AWS_CA_BUNDLE=str(tmp_path / "none.pem")), ssm="/x")
    assert reason == "SecretUnavailable", message


def test_without_credentials_it_says_for_what(aws: Aws) -> None:
    nobody = Vault(None, {"AWS_ENDPOINT_URL": aws.endpoint}, REGION)
    assert held(nobody, ssm="/x") == (
        "CredentialsMissing",
        "the job has no AWS credentials; write `credentials` for the environment in runner.yaml.",
    )

    def refused() -> Keys:
        raise HeldError("CredentialsRefused", "no session of that role")

    def away() -> Keys:
        raise UnitError("CredentialsUnavailable", "STS is away", transient=True)

    variables = {"AWS_ENDPOINT_URL": aws.endpoint}
    assert held(Vault(Renewing(refused), variables, REGION), ssm="/x") == (
        "CredentialsRefused",
        "no session of that role",
    )
    assert held(Vault(Renewing(away), variables, REGION), UnitError, ssm="/x") == (
        "CredentialsUnavailable",
        "STS is away",
    )


def test_nothing_of_it_is_shown_by_accident() -> None:
    assert "own-secret" not in repr(opened("http://127.0.0.1:9"))


# --- as a host has it


def host_yaml(folder: Path, aws: Aws) -> dict[str, Any]:
    """Prod with a secret at AWS, and keys that are printed for each operation anew."""
    code = (
        "import os; o = os.environ['RECONCILER_OPERATION']; "
        'print(\'{"Version": 1, "AccessKeyId": "A%s", "SecretAccessKey": "S", "SessionToken": "T"}\' % o)'
    )
    return {
        "env": {"AWS_ENDPOINT_URL": aws.endpoint, "AWS_REGION": REGION, "FILES_ROOT": str(folder)},
        "secrets": {"db_password": {"file": None, "ssm": "/host/db"}},
        "credentials": {name: {"command": [sys.executable, "-c", code]} for name in ("plan", "apply")},
    }


def test_each_operation_reads_with_its_own_keys(tmp_path: Path) -> None:
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["Authorization"].partition("Credential=")[2].partition("/")[0])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"Parameter": {"Value": "hushed"}}')

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    entries = {"a": note("${{ secret.db_password }}")}
    prod = host_yaml(tmp_path, Aws(f"http://127.0.0.1:{server.server_port}"))
    host = open_host(ground(tmp_path, entries, environments={"prod": prod}))
    for operation in (Operation.PLAN, Operation.APPLY):
        assert host.secret(host.environment("prod", operation), "db_password") == "hushed"
    server.shutdown()
    thread.join()
    server.server_close()
    assert seen == ["Aplan", "Aapply"]


def test_what_is_published_asks_no_network_and_names_what_the_last_job_found(tmp_path: Path, aws: Aws) -> None:
    """`facts` is answered by the service itself: where AWS is, here, nobody listens."""
    prod = host_yaml(tmp_path, Aws("http://127.0.0.1:9"))
    made = ground(tmp_path, {"a": note("${{ secret.db_password }}")}, environments={"prod": prod})
    host, again = open_host(made), open_host(made)
    before = host.facts().environments["prod"].secrets["db_password"]
    host.remember_secrets("prod", {"db_password": host.memory.seal("one")})
    assert again.facts().environments["prod"].secrets == {"db_password": host.memory.seal("one")}
    assert host.memory.seal("one") != before
    host.remember_secrets("prod", {"db_password": host.memory.seal("two")})
    assert again.facts().environments["prod"].secrets == {"db_password": host.memory.seal("two")}
    (file,) = (made.folder / "runner" / "secrets").rglob("*.json")
    assert "two" not in file.read_text()
    file.write_bytes(b"{")  # damaged: as if nobody had looked
    assert again.facts().environments["prod"].secrets == {"db_password": before}


def test_another_place_has_another_seal_until_a_job_looks_there(tmp_path: Path, aws: Aws) -> None:
    host = open_host(ground(tmp_path, {"a": note()}))
    seal, kept = host.memory.seal("one"), {"ssm": "/host/db"}
    host.memory.seal_secret("prod", "db_password", kept, seal)
    assert host.memory.sealed_secret("prod", "db_password", kept) == seal
    assert host.memory.sealed_secret("prod", "db_password", {"ssm": "/host/other"}) != seal
    assert host.memory.sealed_secret("stage", "db_password", kept) != seal

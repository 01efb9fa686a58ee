from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import Credential
from reconciler.errors import HeldError, UnitError
from reconciler.model import Commit, JobId, Operation, UnitId
from reconciler.runner.access import sources
from reconciler.runner.access.keys import Keys
from reconciler.runner.access.sdk import session_with
from reconciler.runner.access.sources import Access, Asked, draw
from reconciler.runner.access.sts import Errand, Wanted
from tests.kit.aws import ACCOUNT, REGION, Aws, serving

WHERE = "runner.yaml: environments.prod.credentials.plan"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reconciler-plan"
ERRAND = Errand(UnitId("prod/net"), Commit("c" * 40), JobId("20261123-1"))
OWN = {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own-secret"}


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


def credential(folder: Path, **said: Any) -> Credential:
    return Credential.model_validate(said, context={"folder": folder})


def asked(aws: Aws | None = None, **more: Any) -> Asked:
    variables = {"AWS_ENDPOINT_URL": aws.endpoint} if aws else {}
    return Asked(WHERE, Operation.PLAN, "acme", ERRAND, REGION, variables, **more)


def fetched(access: Access) -> Keys:
    renewing = access.keys()
    assert renewing is not None
    return renewing.current()


def program(folder: Path, code: str) -> list[str]:
    return [sys.executable, "-c", code]


def static(folder: Path, text: str) -> str:
    path = folder / "keys.env"
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


LINES = "AWS_ACCESS_KEY_ID=own\nAWS_SECRET_ACCESS_KEY=own-secret\n"


def test_none(tmp_path: Path) -> None:
    assert draw(None, asked()) == Access()
    assert draw(None, asked()).keys() is None


def test_a_file_and_variables_of_the_runner_are_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(credential(tmp_path, static_file=static(tmp_path, "TOKEN=x\n")), asked()).variables == {"TOKEN": "x"}
    own = credential(tmp_path, environment={"ARM_CLIENT_SECRET": "PROD_ARM"})
    with pytest.raises(
        HeldError, match=rf"^{WHERE}\.environment: the runner's own variable PROD_ARM is not set; set"
    ) as held:
        draw(own, asked())
    assert held.value.reason == "CredentialsMissing"
    monkeypatch.setenv("PROD_ARM", "hush")
    found = draw(own, asked())
    assert (found.variables, found.keys()) == ({"ARM_CLIENT_SECRET": "hush"}, None)
    assert "hush" not in repr(found)


def test_a_profile_gives_keys(tmp_path: Path) -> None:
    one = draw(credential(tmp_path, profile="prod"), asked())
    with pytest.raises(HeldError, match=rf"^{WHERE}\.profile: the AWS files of the runner's user have no profile prod"):
        fetched(one)
    (tmp_path / "credentials").write_text("[prod]\naws_access_key_id = A\naws_secret_access_key = B\n")
    assert (one.variables, fetched(one)) == ({}, Keys("A", "B"))
    (tmp_path / "credentials").write_text("[prod]\nregion = x\n")
    with pytest.raises(HeldError, match=r"the profile prod gives no keys; look at it with `aws configure list"):
        fetched(one)
    (tmp_path / "config").write_text("[profile prod]\ncredential_process = /bin/false\n")
    (tmp_path / "credentials").unlink()
    with pytest.raises(UnitError, match="gives no keys now") as away:
        fetched(one)
    assert (away.value.reason, away.value.transient) == ("CredentialsUnavailable", True)


def test_a_profile_whose_keys_end_is_asked_again(tmp_path: Path) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=0)
    said = json.dumps(
        {"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "B", "SessionToken": "C", "Expiration": ends.isoformat()}
    )
    (tmp_path / "said").write_text(said)
    (tmp_path / "config").write_text(f"[profile prod]\ncredential_process = /bin/cat {tmp_path / 'said'}\n")
    assert fetched(draw(credential(tmp_path, profile="prod"), asked())) == Keys("A", "B", "C", ends)


def test_a_command_prints_variables_and_is_told_what_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNRELATED", "x")
    code = (
        "import os; print('\\n'.join(f'V_{k}={v}' for k, v in os.environ.items() if k.startswith(('RECON', 'UNREL'))))"
    )
    found = draw(credential(tmp_path, command=program(tmp_path, code)), asked())
    assert found.keys() is None
    assert found.variables == {
        "V_RECONCILER_OPERATION": "plan",
        "V_RECONCILER_INSTALLATION": "acme",
        "V_RECONCILER_UNIT": "prod/net",
        "V_RECONCILER_COMMIT": "c" * 40,
        "V_RECONCILER_JOB": "20261123-1",
    }


def test_a_command_prints_keys_and_is_run_again_when_they_end(tmp_path: Path) -> None:
    code = (
        f"import pathlib; p = pathlib.Path({str(tmp_path / 'runs')!r}); p.open('a').write('x'); n = len(p.read_text()); "
        "print('{\"Version\": 1, \"AccessKeyId\": \"A%d\", \"SecretAccessKey\": \"B\", \"Expiration\": \"2020-01-01T00:00:00Z\"}' % n)"
    )  # fmt: skip
    found = draw(credential(tmp_path, command=program(tmp_path, code)), asked())
    renewing = found.keys()
    assert renewing is not None
    assert [renewing.current().access_key for _ in range(3)] == ["A1", "A2", "A3"]


COMMANDS = [
    ("print('no lines')", "CredentialsInvalid", r"command: write one NAME=value a line"),
    ("print('{\"AccessKeyId\": 1}')", "CredentialsInvalid", r"command: it must print lines NAME=value, or \{\"Version\""),
    ("print('{' * 100000)", "CredentialsInvalid", r"printed more than 65536 bytes"),
    ("print('hush'); raise SystemExit(3)", "CredentialsUnavailable", r"ended with exit code 3; run it by hand as"),
    ("import time; print('hush', flush=True); time.sleep(60)", "CredentialsUnavailable", r"said nothing for .* was ended"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "reason", "says"), COMMANDS)
def test_what_a_command_may_do_wrong(
    tmp_path: Path, code: str, reason: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in code:
        monkeypatch.setattr(sources, "SECONDS", 0.5)
    with pytest.raises(UnitError, match=says) as refused:
        draw(credential(tmp_path, command=program(tmp_path, code)), asked())
    assert refused.value.reason == reason
    assert str(refused.value).startswith(f"{WHERE}.command: ")
    assert "hush" not in str(refused.value)


def test_a_command_that_is_not_there_and_one_whose_keys_would_not_count(tmp_path: Path) -> None:
    with pytest.raises(HeldError, match=r"command: /nowhere/vault does not start \(No such file"):
        draw(credential(tmp_path, command=["/nowhere/vault"]), asked())
    printed = credential(tmp_path, command=["/bin/echo", '{"AccessKeyId": "A", "SecretAccessKey": "B"}'])
    with pytest.raises(HeldError, match="AWS_PROFILE in `env` would win over the keys that it prints; remove that"):
        draw(printed, replace(asked(), variables={"AWS_PROFILE": "x"}))


def test_a_role_is_assumed_with_keys_of_a_file(tmp_path: Path, aws: Aws) -> None:
    source = {"static_file": static(tmp_path, LINES)}
    found = draw(credential(tmp_path, assume_role={"role": ROLE, "source": source}), asked(aws))
    renewing = found.keys()
    assert renewing is not None
    keys = renewing.current()
    assert keys.expires is not None
    assert timedelta(minutes=59) < keys.expires - datetime.now(UTC) <= timedelta(hours=1)
    client = session_with(renewing).client("sts", region_name=REGION, endpoint_url=aws.endpoint)
    assert client.get_caller_identity()["Arn"] == (
        f"arn:aws:sts::{ACCOUNT}:assumed-role/reconciler-plan/reconciler-20261123-1"
    )


def test_a_role_without_anybody_to_assume_it(tmp_path: Path, aws: Aws) -> None:
    found = draw(credential(tmp_path, assume_role=ROLE), asked(aws))
    with pytest.raises(
        HeldError, match=rf"^{WHERE}\.assume_role: nobody is there to assume {ROLE}.* write `source`"
    ) as held:
        fetched(found)
    assert held.value.reason == "CredentialsMissing"
    source = {"static_file": static(tmp_path, "AWS_ACCESS_KEY_ID=own\n")}
    found = draw(credential(tmp_path, assume_role={"role": ROLE, "source": source}), asked(aws))
    with pytest.raises(HeldError, match=r"assume_role\.source: static_file: AWS_SECRET_ACCESS_KEY is not there"):
        fetched(found)


def test_sts_that_does_not_answer_is_asked_again(tmp_path: Path) -> None:
    source = {"static_file": static(tmp_path, LINES)}
    one = credential(tmp_path, assume_role={"role": ROLE, "source": source})
    found = draw(one, replace(asked(), variables={"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"}))
    with pytest.raises(
        UnitError, match=r"STS did not answer \(EndpointConnectionError\).*reach http://127.0.0.1:9"
    ) as away:
        fetched(found)
    assert (away.value.reason, away.value.transient) == ("CredentialsUnavailable", True)


def test_a_token_is_exchanged(tmp_path: Path, aws: Aws) -> None:
    one = credential(tmp_path, web_identity={"role": ROLE, "token_file": "token"})
    found = draw(one, asked(aws))
    for text in (None, b"", b"\xff", b"x" * 70_000):
        if text is not None:
            (tmp_path / "token").write_bytes(text)
        with pytest.raises(HeldError, match=rf"^{WHERE}\.web_identity: .*/token (cannot be read|holds no token)"):
            fetched(found)
    (tmp_path / "token").write_text("aaa.bbb.ccc\n")
    assert fetched(found).token


def test_what_a_session_says_of_itself() -> None:
    wanted = Wanted(ROLE, timedelta(hours=1), None, ERRAND, Operation.APPLY, "acme")
    assert (wanted.name, wanted.identity) == ("reconciler-20261123-1", "acme@cccccccccccc")
    assert {tag["Key"]: tag["Value"] for tag in wanted.tags} == {
        "reconciler:installation": "acme",
        "reconciler:operation": "apply",
        "reconciler:unit": "prod/net",
        "reconciler:commit": "c" * 40,
        "reconciler:job": "20261123-1",
    }
    bare = replace(wanted, errand=Errand(job=JobId("9" * 64)), installation="i" * 63)
    assert (len(bare.name), bare.identity) == (64, "i" * 58 + "@apply")

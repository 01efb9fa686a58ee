"""Whole jobs with a real engine: what it is handed, and that none of it stays anywhere."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler.model import Outcome
from tests.kit.plane import carry_out, ground, job, note, open_host

SECRET, SESSION, TOKEN = "canary-secret-key-0123", "canary-session-0123456", "canary-endpoint-token-0123456789abcdef"
AT_ONCE = "2020-01-01T00:00:00Z"  # keys that ended: each who asks gets others


def printer(folder: Path, code: str) -> list[str]:
    """A command for `credentials`."""
    path = folder / "keys.py"
    path.write_text(code)
    return [sys.executable, str(path)]


def keys(folder: Path) -> list[str]:
    said: dict[str, Any] = {"Version": 1, "AccessKeyId": "AKIACANARY0123", "SecretAccessKey": SECRET}
    return printer(folder, f"print({json.dumps(said | {'SessionToken': SESSION, 'Expiration': AT_ONCE})!r})")


def holding(folder: Path, *canaries: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    return [path for path in files if any(one.encode() in path.read_bytes() for one in canaries)]


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_urlsafe", lambda _bytes: TOKEN)


@pytest.mark.usefixtures("token")
def test_an_apply_leaves_no_key_and_no_token_anywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own").mkdir()
    credentials = {"apply": {"command": keys(tmp_path / "own")}}
    made = ground(tmp_path, {"a": note()}, environments={"prod": {"credentials": credentials}})
    host = open_host(made)
    result = carry_out(host, job("prod/a", made.environments.head))
    assert (result.outcome, result.reason) == (Outcome.SUCCEEDED, "Applied"), result.message
    assert holding(made.folder, SECRET, SESSION, TOKEN, "AKIACANARY0123") == []
    said = capfd.readouterr()
    assert not any(one in said.out + said.err for one in (SECRET, SESSION, TOKEN))


@pytest.mark.usefixtures("token")
def test_an_engine_that_prints_what_it_is_handed_shows_nothing(tmp_path: Path) -> None:
    """The worst engine: it fetches keys, and prints them, its token and its whole environment."""
    (tmp_path / "own").mkdir()
    credentials = {"apply": {"command": keys(tmp_path / "own")}}
    made = ground(tmp_path, {"a": note()}, environments={"prod": {"credentials": credentials}})
    host = open_host(made)
    engine = tmp_path / "engine.py"
    engine.write_text(
        f"#!{sys.executable}\n"
        "import os, sys, urllib.request\n"
        "url, token = (os.environ[f'AWS_CONTAINER_{n}'] for n in ('CREDENTIALS_FULL_URI', 'AUTHORIZATION_TOKEN'))\n"
        "asked = urllib.request.Request(url, headers={'Authorization': token})\n"
        "print('Error: I was handed', urllib.request.urlopen(asked).read().decode(), file=sys.stderr)\n"
        "print('Error: by', dict(os.environ), file=sys.stderr)\n"
        "sys.exit(1)\n"
    )
    engine.chmod(0o700)
    host.engine = replace_binary(host.engine, engine)
    result = carry_out(host, job("prod/a", made.environments.head))
    assert result.outcome is Outcome.FAILED
    assert "I was handed" in result.message
    assert not any(one in result.message for one in (SECRET, SESSION, TOKEN))
    assert holding(made.folder, SECRET, SESSION, TOKEN) == []


def replace_binary(engine: Any, path: Path) -> Any:
    from dataclasses import replace

    return replace(engine, binary=path)


def test_a_job_without_credentials_is_held_and_says_where(tmp_path: Path) -> None:
    credentials = {"apply": {"environment": {"TOKEN": "NO_SUCH_VARIABLE"}}, "plan": {"profile": "none"}}
    made = ground(tmp_path, {"a": note()}, environments={"prod": {"credentials": credentials}})
    host = open_host(made)
    held = carry_out(host, job("prod/a", made.environments.head))
    assert (held.outcome, held.reason) == (Outcome.HELD, "CredentialsMissing")
    assert held.message.startswith(
        "runner.yaml: environments.prod.credentials.apply.environment: the runner's own variable"
    )
    assert host.about()["environments"]["prod"]["credentials"] == {"plan": "profile", "apply": "environment"}  # type: ignore[index]

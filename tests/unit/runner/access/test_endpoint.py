from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from reconciler.durable import FileLock, is_locked
from reconciler.errors import HeldError, UnitError
from reconciler.runner.access.endpoint import AT_ONCE, Address, Endpoint, new_address
from reconciler.runner.access.keys import Keys, Renewing

SECONDS = 30.0


def counted(ends: Callable[[], datetime | None]) -> Callable[[], Keys]:
    given = iter(range(1, 1000))

    def fetch() -> Keys:
        number = next(given)
        return Keys(f"A{number}", f"secret-{number}", f"token-{number}", ends())

    return fetch


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def at_once() -> datetime:
    return datetime.now(UTC)


def refused() -> Keys:
    raise HeldError("CredentialsRefused", "no session of that role")


@pytest.fixture
def opened() -> Iterator[Callable[[Callable[[], Keys]], Endpoint]]:
    made: list[Endpoint] = []

    def open_(fetch: Callable[[], Keys]) -> Endpoint:
        made.append(Endpoint(Renewing(fetch)))
        return made[-1].start()

    yield open_
    for one in made:
        one.close()


Open = Callable[[Callable[[], Keys]], Endpoint]


def ask(endpoint: Endpoint, token: str | None = None, path: str = "") -> httpx.Response:
    variables = endpoint.variables
    token = variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] if token is None else token
    url = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] + path
    return httpx.get(url, headers={"Authorization": token}, timeout=SECONDS, trust_env=False)


def test_whoever_has_the_token_gets_keys(opened: Open) -> None:
    endpoint = opened(counted(in_an_hour))
    first = ask(endpoint)
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-store")
    found = first.json()
    assert (found["AccessKeyId"], found["SecretAccessKey"], found["Token"]) == ("A1", "secret-1", "token-1")
    assert timedelta(minutes=59) < datetime.fromisoformat(found["Expiration"]) - datetime.now(UTC)
    assert ask(endpoint).json() == found


@pytest.mark.parametrize(
    ("token", "path", "status"), [("", "", 401), ("guess", "", 401), ("ä", "", 401), (None, "/x", 404)]
)
def test_nobody_else_gets_any(opened: Open, token: str | None, path: str, status: int) -> None:
    endpoint = opened(counted(in_an_hour))
    variables = endpoint.variables
    said = variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] if token is None else token
    url = variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] + path
    answer = httpx.get(url, headers={b"Authorization": said.encode()}, timeout=SECONDS, trust_env=False)
    assert answer.status_code == status
    assert b"secret" not in answer.content
    assert httpx.post(url, timeout=SECONDS, trust_env=False).status_code == 501


def test_each_endpoint_has_a_token_of_its_own(opened: Open) -> None:
    one, two = opened(counted(in_an_hour)), opened(counted(in_an_hour))
    assert ask(one, two.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"]).status_code == 401
    assert len(one.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"]) >= 43


def test_keys_that_ended_are_renewed_and_the_job_knows_them_first(opened: Open) -> None:
    endpoint = opened(counted(at_once))
    known = endpoint.handed_out()
    found = ask(endpoint).json()
    assert found["SecretAccessKey"] not in known
    after = endpoint.handed_out()
    assert {found["SecretAccessKey"], found["Token"], endpoint.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"]} <= after
    assert ask(endpoint).json()["AccessKeyId"] != found["AccessKeyId"]


def test_without_keys_nothing_is_begun() -> None:
    endpoint = Endpoint(Renewing(refused))
    with pytest.raises(HeldError, match="no session of that role"):
        endpoint.start()
    endpoint.close()
    endpoint.close()


def test_a_source_that_fails_later_is_told_to_who_asks(opened: Open) -> None:
    answers: list[Keys | UnitError] = [
        Keys("A", "s", "t", at_once()),
        HeldError("CredentialsRefused", "the role is gone"),
        UnitError("CredentialsUnavailable", "STS is away", transient=True),
    ]

    def fetch() -> Keys:
        found = answers.pop(0)
        if isinstance(found, Keys):
            return found
        raise found

    endpoint = opened(fetch)
    held, away = ask(endpoint), ask(endpoint)
    assert (held.status_code, held.json()) == (400, {"code": "CredentialsRefused", "message": "the role is gone"})
    assert (away.status_code, away.json()["message"]) == (503, "STS is away")


def test_many_who_ask_and_say_nothing_do_not_keep_it_from_answering(opened: Open) -> None:
    import socket

    endpoint = opened(counted(in_an_hour))
    address = ("127.0.0.1", int(endpoint.variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"].split(":")[2].split("/")[0]))
    silent = [socket.create_connection(address, SECONDS) for _ in range(AT_ONCE - 1)]
    assert ask(endpoint).status_code == 200
    for one in silent:
        one.close()


def test_it_ends_with_the_last_who_holds_its_leash_and_holds_no_lock(opened: Open, tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.take()
    endpoint = opened(counted(in_an_hour))
    lock.release()
    assert ask(endpoint).status_code == 200
    assert not is_locked(tmp_path / "lock")
    engine = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[endpoint.leash])
    serving = os.pidfd_open(endpoint._pid or 0)
    os.close(endpoint._leash)  # as if the job were killed
    endpoint._leash = os.dup(2)
    assert ask(endpoint).status_code == 200
    engine.communicate(b"\n", SECONDS)
    assert select.select([serving], [], [], SECONDS)[0]
    os.close(serving)


CANDIDATE = """
import os, signal, sys
from datetime import datetime, timedelta, UTC
from reconciler.runner.access.endpoint import Endpoint
from reconciler.runner.access.keys import Keys, Renewing
keys = Keys("A", "kill-nine-secret", "kill-nine-token", datetime.now(UTC) + timedelta(hours=1))
endpoint = Endpoint(Renewing(lambda: keys)).start()
print(endpoint._pid, endpoint.variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_job_that_is_killed_leaves_nothing_on_disk_and_nobody_behind(tmp_path: Path) -> None:
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    died = subprocess.run(
        [sys.executable, "-c", CANDIDATE], cwd=tmp_path, env=env, capture_output=True, timeout=SECONDS, check=False
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    pid, token = died.stdout.decode().split()
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(int(pid))
        assert select.select([handle], [], [], SECONDS)[0]
        os.close(handle)
    assert token
    assert list(tmp_path.rglob("*")) == []
    assert died.stderr == b""


def test_what_it_answers_is_what_the_sdk_takes(opened: Open) -> None:
    """In a program of its own, with nothing in its environment but what the endpoint says."""
    endpoint = opened(counted(in_an_hour))
    code = "from botocore.session import Session; import json; c = Session().get_credentials(); print(json.dumps(c.get_frozen_credentials()))"
    env = {**endpoint.variables, "PATH": os.defpath}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=SECONDS, check=True)
    assert json.loads(said.stdout)[:3] == ["A1", "secret-1", "token-1"]


def test_a_place_that_stays_hands_out_the_keys_of_whoever_serves_it_now() -> None:
    place, fetch = new_address(), counted(in_an_hour)
    keeper = place.listener.dup()
    try:
        for number in ("A1", "A2"):
            waiting = socket.create_connection(keeper.getsockname())
            endpoint = Endpoint(Renewing(fetch), Address(keeper.dup(), place.token))
            with waiting:  # who asked while nobody served is not answered by the next one
                assert waiting.recv(1) == b""
            endpoint.start()
            assert endpoint.variables == place.variables
            assert ask(endpoint).json()["AccessKeyId"] == number
            endpoint.close()
    finally:
        keeper.close()
        place.listener.close()

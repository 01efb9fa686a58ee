"""What a pipeline runs, against a real listener over https."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from reconciler.actual.ledger import HeadAccepted, HoldChanged, JobDispatched, JobEnded
from reconciler.cli import main
from reconciler.cli.schema import published
from reconciler.model import Hold, UnitId
from tests.kit.issuer import Issuer
from tests.kit.sample import HEAD, NOW, desired, dispatched, plan, result, unit
from tests.kit.triggered import Watched, triggered

AT = NOW.timestamp()


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    one = Issuer(tmp_path / "issuer")
    yield one
    one.close()


@pytest.fixture
def world(tmp_path: Path, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watched, list[str]]]:
    """A listener at a commit with one unit in order, which reads its token from a variable as GitLab gives it."""
    authority = trustme.CA()
    certificate, ca_file = tmp_path / "tls.pem", tmp_path / "ca.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(ca_file))
    monkeypatch.setenv("CI_TOKEN", issuer.token(now=AT))
    for name in ("ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with triggered(tmp_path, issuer, tls={"cert_file": str(certificate), "key_file": str(certificate)}) as (
        watched,
        server,
    ):
        watched.store.append(HeadAccepted(HEAD))
        watched.desired = desired(unit("prod/network"))
        asked = dispatched("prod/network", watched.picture().expected[UnitId("prod/network")], job="j1")  # type: ignore[arg-type]
        watched.store.append(JobDispatched(asked), JobEnded(asked, result(asked, summary=plan()), None, None))
        watched.logs[asked.job.id] = b"::set-output name=x::y\n##[error]x\n\x1b[31mdone\n"
        watched.turn()
        yield watched, ["reconcile", "prod", "--server", server, "--ca-file", str(ca_file)]


def test_it_shows_the_log_gives_no_commands_to_the_ci_server_and_ends_well(
    world: tuple[Watched, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = world
    assert main([*words, "--token-env", "CI_TOKEN", "--commit", HEAD, "--wait"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(("prod/network | ", "UNIT"))] == []
    assert "##[" not in out
    assert "\x1b" not in out
    assert "1 units are in order" in err


def test_a_held_unit_is_told_and_ends_with_3(
    world: tuple[Watched, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    watched, words = world
    watched.store.append(HoldChanged(UnitId("prod/network"), Hold("DestroyLimit", "too much")))
    assert main([*words, "--token-env", "CI_TOKEN", "--commit", HEAD, "--wait", "-o", "json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["result"], told["units"][0]["reason"]) == ("Troubled", "DestroyLimit")


def test_time_that_is_up_ends_with_4_and_a_certificate_that_is_not_known_with_5(
    world: tuple[Watched, list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, words = world
    assert main([*words, "--token-env", "CI_TOKEN", "--commit", "f" * 40, "--wait", "--timeout", "1s"]) == 4
    monkeypatch.setattr("reconciler.cli.trigger._AGAIN", 60.0)
    assert main([*words[:4], "--token-env", "CI_TOKEN"]) == 5
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err


def test_without_a_token_it_says_where_one_comes_from(
    world: tuple[Watched, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, words = world
    for more in ([], ["--token-env", "NONE_SUCH"], ["--token-file", str(tmp_path / "none")]):
        assert main([*words, *more]) == 1
    said = capsys.readouterr().err
    assert "id-token: write" in said
    assert main(["reconcile", "prod", "--wait"]) == 64


def test_github_is_asked_for_a_token_of_the_audience(
    world: tuple[Watched, list[str]], issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, words = world
    asked: list[tuple[str, str | None]] = []

    class GitHub(BaseHTTPRequestHandler):
        def log_message(self, *_words: Any) -> None:
            """Nothing is printed."""

        def do_GET(self) -> None:
            asked.append((self.path, self.headers["authorization"]))
            body = json.dumps({"value": issuer.token(now=AT)}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), GitHub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/token?api-version=2"
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", url)
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "runner")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert main([*words, "--audience", "us"]) == 0
        server.shutdown()
        thread.join()
    assert asked == [("/token?api-version=2&audience=us", "bearer runner")]
    assert watched.counted("accepted") == 1


def test_the_published_interface_is_what_the_code_says() -> None:
    file = Path(__file__).parents[3] / "schemas" / "trigger.openapi.json"
    assert file.read_text() == published("trigger")

"""The published interface against the real listener, by a program that knows nothing but the document."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import httpx
import pytest
import trustme

from reconciler.actual.ledger import HeadAccepted
from reconciler.trigger.app import Bounds
from tests.kit.issuer import SUBJECT, Issuer
from tests.kit.sample import HEAD, NOW, desired, unit
from tests.kit.triggered import PLENTY, Watched, triggered

DOCUMENT = Path(__file__).parents[3] / "schemas" / "trigger.openapi.json"
SHORT = Bounds(in_all=PLENTY, peer=PLENTY, wakes=PLENTY, reads=PLENTY, pace=0.01, stream_seconds=0.02)
SCOPES = ["prod", "stage/app"]


def checked(server: str, folder: Path, *options: str, without: Sequence[str] = ()) -> str:
    """What schemathesis says; the test fails where it found anything."""
    words = [
        "-m", "schemathesis.cli", "run", str(DOCUMENT), "--url", server, "--checks", "all", "--seed", "4", "--max-examples", "12",
        "--no-color", *options,
    ]  # fmt: skip
    words += ["--exclude-checks", ",".join(without)] if without else []
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def nothing_else_happened(watched: Watched, actor: str) -> None:
    """What was woken is in the caller's scopes, and nothing is in the journal but that."""
    events = [one for one in watched.store.history("all", 1000) if one.action != "head-accepted"]
    assert {one.action for one in events} == {"reconcile-requested"}
    assert {one.actor for one in events} == {actor}
    woken = {str(name) for one in events for name in cast("list[str]", one.body["units"])}
    assert woken
    assert woken <= {"prod/network", "prod/app", "stage/app"}
    assert not watched.store.ledger().pauses


def begin(watched: Watched) -> None:
    watched.store.append(HeadAccepted(HEAD))
    units = ("prod/network", "prod/app", "stage/app", "stage/other", "dev/app")
    watched.desired = desired(*map(unit, units))


@pytest.mark.timeout(240)
def test_a_caller_with_a_token(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "issuer")
    try:
        with triggered(tmp_path, issuer, bounds=SHORT, oidc=[issuer.config(scopes=SCOPES)]) as (watched, server):
            begin(watched)
            token = issuer.token(now=NOW.timestamp())
            words = ("--header", f"Authorization: Bearer {token}", "--phases", "examples,coverage,stateful")
            checked(server, tmp_path, *words)
            nothing_else_happened(watched, f"trigger:{SUBJECT}")
    finally:
        issuer.close()


@pytest.mark.timeout(240)
def test_a_caller_with_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    for name in ("127.0.0.1", "ci.example"):
        authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own, ci, ca = (str(tmp_path / f"{name}.pem") for name in ("127.0.0.1", "ci.example", "ca"))
    clients = [{"name": "ci", "san": "ci.example", "scopes": SCOPES}]
    tls = {"cert_file": own, "key_file": own, "client_ca_file": ca}
    issuer = Issuer(tmp_path / "issuer")
    try:
        with triggered(tmp_path, issuer, bounds=SHORT, tls=tls, clients=clients, oidc=[]) as (watched, server):
            begin(watched)
            # There is no header to leave out: whoever has no certificate does not get as far as a request.
            checked(
                server, tmp_path, "--request-cert", ci, "--tls-verify", ca, "--phases", "examples,fuzzing",
                without=["ignored_auth"],
            )  # fmt: skip
            nothing_else_happened(watched, "trigger:ci")
    finally:
        issuer.close()


OTHERS = [
    "/", "/metrics", "/healthz", "/api/v1/status", "/api/v1/units", "/api/v1/units/prod/app", "/api/v1/history", "/api/v1/jobs/j1/log",
    "/api/v1/pulls", f"/api/v1/commits/{HEAD}", "/v1/pause", "/v1/resume", "/v1/accept-history", "/v1/state/prod/app", "/v1/jobs", "/v1",
    "/v1/reconcile/", "/v1/reconcile/../pause", "/v1/reconcile/%2e%2e/pause", "//v1/reconcile", "/admin", "/start",
]  # fmt: skip


def test_the_identity_of_ci_can_only_trigger(tmp_path: Path) -> None:
    """Proven, and with every scope: no other verb, no pause, no state, nothing of the other interface is there for it."""
    issuer = Issuer(tmp_path / "issuer")
    try:
        with triggered(tmp_path, issuer, bounds=SHORT) as (watched, server):
            begin(watched)
            headers = {"authorization": f"Bearer {issuer.token(now=NOW.timestamp())}"}
            asked = {"action": "pause", "scope": "all", "reason": "r", "until": "2027-01-01T00:00:00Z"}
            with httpx.Client(trust_env=False, headers=headers) as client:
                for path in OTHERS:
                    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"):
                        answer = client.request(method, f"{server}{path}", json=asked)
                        assert answer.status_code in (404, 405), (method, path, answer.text)
                refused = client.post(f"{server}/v1/reconcile", json=asked)
            assert refused.status_code == 400
            assert [one.action for one in watched.store.history("all", 9)] == ["head-accepted"]
            assert (watched.polls, watched.wakes) == (0, 0)
    finally:
        issuer.close()

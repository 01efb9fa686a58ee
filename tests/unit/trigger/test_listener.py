from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from reconciler.actual.ledger import HeadAccepted, HoldChanged, JobDispatched, JobEnded, Paused
from reconciler.errors import ConfigError
from reconciler.model import Commit, Hold, Outcome, Phase, UnitId
from reconciler.trigger.app import Bounds
from reconciler.trigger.edge import LONGEST_BODY, Edge
from reconciler.trust import Seen, Unproven
from reconciler.web.rates import Places, Rate, Rates
from tests.kit.issuer import SUBJECT, Issuer
from tests.kit.sample import HEAD, NOW, desired, dispatched, pause, plan, result, unit
from tests.kit.triggered import PLENTY, Hasty, Watched, bearer, triggered, wake

AT = NOW.timestamp()
OTHER = Commit("a" * 40)


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    one = Issuer(tmp_path_factory.mktemp("issuer"))
    yield one
    one.close()


@pytest.fixture
def world(tmp_path: Path, issuer: Issuer) -> Iterator[tuple[Watched, str]]:
    with triggered(tmp_path, issuer) as (watched, server):
        watched.store.append(HeadAccepted(HEAD))
        watched.desired = desired(unit("prod/network"), unit("prod/app", reads=["prod/network"]), unit("stage/app"))
        yield watched, server


def apply(watched: Watched, name: str, job: str, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    """Let a job of the unit begin and end."""
    fingerprint = watched.picture().expected[UnitId(name)]
    assert fingerprint is not None
    asked = dispatched(name, fingerprint, job=job)
    watched.store.append(JobDispatched(asked))
    later = NOW + timedelta(hours=1)
    retry_at = None if outcome is Outcome.SUCCEEDED else later
    watched.store.append(JobEnded(asked, result(asked, outcome, plan()), retry_at, later))


def get(server: str, path: str, token: str, code: int = 200) -> Any:
    answer = httpx.get(f"{server}{path}", headers=bearer(token), trust_env=False)
    assert answer.status_code == code, answer.text
    return answer.json()


# --- waking ------------------------------------------------------------------------------------------------------


def test_it_wakes_and_journals_who_asked(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    answer = wake(server, issuer.token(now=AT), "prod")
    assert (answer.status_code, answer.headers["connection"]) == (202, "close")
    assert answer.json()["scope"] == "prod"
    [event] = [e for e in watched.store.history("all", 9) if e.action == "reconcile-requested"]
    assert (event.actor, event.body["units"]) == (f"trigger:{SUBJECT}", ["prod/app", "prod/network"])
    assert (watched.polls, watched.wakes) == (1, 1)


def test_a_replay_is_harmless_and_another_token_asks_anew(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    first, again = (wake(server, issuer.token(now=AT), "prod").json() for _ in range(2))
    assert (first["id"], first["repeated"], again["repeated"]) == (again["id"], False, True)
    other_scope = wake(server, issuer.token(now=AT), "stage").json()
    other_token = wake(server, issuer.token(now=AT, jti="k"), "prod").json()
    assert len({first["id"], other_scope["id"], other_token["id"]}) == 3
    assert (watched.polls, watched.counted("accepted"), watched.counted("repeated")) == (3, 3, 1)


def test_a_commit_that_is_not_here_yet_only_has_the_branch_looked_at(
    world: tuple[Watched, str], issuer: Issuer
) -> None:
    watched, server = world
    wake(server, issuer.token(now=AT), "prod", commit=OTHER)
    assert watched.polls == 1
    assert [e.action for e in watched.store.history("all", 9)] == ["head-accepted"]


def test_with_an_accepted_commit_only_what_failed_is_tried_again(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    apply(watched, "prod/network", "j1")
    apply(watched, "stage/app", "j2", Outcome.FAILED)
    wake(server, issuer.token(now=AT), commit=HEAD)
    [event] = [e for e in watched.store.history("all", 9) if e.action == "reconcile-requested"]
    assert event.body["units"] == ["stage/app"]


BODIES = [
    b"",
    b"{}",
    b"[]",
    b'"all"',
    b'{"scope": "all", "content": "x"}',
    b'{"scope": "all", "commit": "main"}',
    b'{"scope": "all", "commit": "%s"}' % (b"A" * 40),
    b'{"scope": "all", "commit": ["%s"]}' % (b"a" * 40),
    b'{"scope": ["all"]}',
    b'{"scope": "../prod"}',
    b'{"scope": "prod/"}',
    b'{"scope": "PROD"}',
    b'{"scope": "prod\\u0000"}',
    b'{"scope": "%s"}' % (b"p/" * 150 + b"p"),
    b'{"scope": "all"',
    b"[" * 3000,
    b"\xff",
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:40]))
def test_a_body_that_is_none(world: tuple[Watched, str], issuer: Issuer, body: bytes) -> None:
    watched, server = world
    headers = {**bearer(issuer.token(now=AT)), "content-type": "application/json"}
    answer = httpx.post(f"{server}/v1/reconcile", content=body, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["reason"]) == (400, "Invalid")
    assert (watched.polls, watched.counted("invalid")) == (0, 1)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
def test_no_page_of_a_browser_can_ask(world: tuple[Watched, str], issuer: Issuer, kind: str) -> None:
    watched, server = world
    headers = {**bearer(issuer.token(now=AT)), "content-type": kind, "origin": "https://evil.example"}
    answer = httpx.post(f"{server}/v1/reconcile", content=b'{"scope": "all"}', headers=headers, trust_env=False)
    assert (answer.status_code, watched.polls) == (415, 0)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_body_that_is_too_long(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    answer = wake(server, issuer.token(now=AT), "x" * LONGEST_BODY)
    assert (answer.status_code, watched.polls) == (413, 0)


def test_headers_that_are_too_long(world: tuple[Watched, str]) -> None:
    watched, server = world
    assert wake(server, "x" * 40_000).status_code in (400, 401)
    assert watched.polls == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"), ("GET", "/v1/reconcile"), ("POST", "/v1/reconcile/"), ("PUT", "/v1/reconcile"), ("OPTIONS", "/v1/reconcile"),
        ("DELETE", "/v1/reconcile/" + "0" * 32), ("POST", "/v1/reconcile/" + "0" * 32), ("GET", "/api/v1/status"), ("GET", "/metrics"),
        ("POST", "/v1/apply"), ("GET", "/v1/reconcile/../reconcile/x/events/"), ("TRACE", "/v1/reconcile"),
    ],
)  # fmt: skip
def test_there_is_nothing_else(world: tuple[Watched, str], issuer: Issuer, method: str, path: str) -> None:
    watched, server = world
    answer = httpx.request(method, f"{server}{path}", headers=bearer(issuer.token(now=AT)), trust_env=False)
    assert answer.status_code in (404, 405)
    assert (watched.polls, watched.counted("accepted")) == (0, 0)
    assert "location" not in answer.headers


@pytest.mark.parametrize("scheme", ["Basic", "bearer", "Token"])
def test_only_a_bearer_token_counts(world: tuple[Watched, str], issuer: Issuer, scheme: str) -> None:
    _, server = world
    headers = {"authorization": f"{scheme} {issuer.token(now=AT)}"}
    answer = httpx.post(f"{server}/v1/reconcile", json={"scope": "all"}, headers=headers, trust_env=False)
    assert answer.status_code == (202 if scheme == "bearer" else 401)


# --- scopes ------------------------------------------------------------------------------------------------------


def test_a_caller_wakes_and_reads_its_scopes_only(tmp_path: Path, issuer: Issuer) -> None:
    other = "repo:acme/other:ref:refs/heads/main"
    callers = [issuer.config(scopes=["prod/network"]), issuer.config(subjects=[other], scopes=["stage"])]
    with triggered(tmp_path, issuer, oidc=callers) as (watched, server):
        mine, theirs = issuer.token(now=AT), issuer.token(now=AT, sub=other)
        for scope in ("all", "prod", "prod/app", "stage", "stage/app"):
            assert wake(server, mine, scope).status_code == 403
        assert (watched.polls, watched.counted("forbidden")) == (0, 5)
        name = wake(server, mine, "prod/network").json()["id"]
        assert get(server, f"/v1/reconcile/{name}", mine)["scope"] == "prod/network"
        for path in (
            f"/v1/reconcile/{name}",
            f"/v1/reconcile/{name}/events",
            f"/v1/reconcile/{'0' * 32}",
            "/v1/reconcile/x",
        ):
            assert get(server, path, theirs, 404)["reason"] == "Unknown"


# --- outcomes ----------------------------------------------------------------------------------------------------


def test_it_ends_when_every_unit_of_the_scope_is_settled_and_not_before(
    world: tuple[Watched, str], issuer: Issuer
) -> None:
    watched, server = world
    token = issuer.token(now=AT)
    name = wake(server, token, "prod").json()["id"]

    def verdict() -> tuple[str, str]:
        told = get(server, f"/v1/reconcile/{name}", token)
        return told["result"], told["reason"]

    assert verdict() == ("Waiting", "PollAwaited")
    watched.seen = Seen(NOW)
    assert verdict() == ("Waiting", "PassAwaited")
    watched.turn()
    assert verdict() == ("Waiting", "")
    apply(watched, "prod/network", "j1")
    assert verdict() == ("Waiting", "")
    watched.turn()
    apply(watched, "prod/app", "j2")
    assert verdict() == ("Fine", "")


def test_what_waits_for_a_unit_that_is_held_is_settled_too(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    name = wake(server, issuer.token(now=AT), "prod").json()["id"]
    watched.turn()
    watched.store.append(HoldChanged(UnitId("prod/app"), Hold("DependencyNotReady", "it waits")))
    assert get(server, f"/v1/reconcile/{name}", issuer.token(now=AT))["result"] == "Waiting"
    watched.store.append(HoldChanged(UnitId("prod/network"), Hold("DestroyLimit", "too much")))
    told = get(server, f"/v1/reconcile/{name}", issuer.token(now=AT))
    assert (told["result"], [u["reason"] for u in told["units"]]) == (
        "Troubled",
        ["DependencyNotReady", "DestroyLimit"],
    )


def test_what_failed_before_is_waited_for_until_it_was_tried_again(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    apply(watched, "stage/app", "j1", Outcome.FAILED)
    watched.clock.time += timedelta(minutes=1)
    token = issuer.token(now=AT)
    name = wake(server, token, "stage").json()["id"]
    watched.turn()
    assert get(server, f"/v1/reconcile/{name}", token)["result"] == "Waiting"


def test_a_commit_that_is_not_proven_or_frozen_out_is_told_with_its_reason(
    world: tuple[Watched, str], issuer: Issuer
) -> None:
    watched, server = world
    token = issuer.token(now=AT)
    name = wake(server, token, commit=OTHER).json()["id"]
    watched.seen = Seen(NOW, Unproven(OTHER, "ForgeUnreachable", "away", OTHER))
    assert get(server, f"/v1/reconcile/{name}", token)["result"] == "Waiting"
    watched.seen = Seen(NOW, Unproven(OTHER, "ApprovalMissing", "nobody approved it", OTHER))
    told = get(server, f"/v1/reconcile/{name}", token)
    assert (told["result"], told["reason"]) == ("Troubled", "ApprovalMissing")


def test_a_scope_that_is_none(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    token = issuer.token(now=AT)
    name = wake(server, token, "prod/none").json()["id"]
    watched.turn()
    assert get(server, f"/v1/reconcile/{name}", token)["result"] == "Unknown"
    assert [e.action for e in watched.store.history("all", 9)] == ["head-accepted"]


def test_a_pause_of_what_is_in_order_is_no_trouble(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    apply(watched, "stage/app", "j1")
    watched.store.append(Paused(pause("stage")))
    token = issuer.token(now=AT)
    name = wake(server, token, "stage").json()["id"]
    watched.turn()
    assert get(server, f"/v1/reconcile/{name}", token)["result"] == "Fine"


def test_events_tell_jobs_phases_and_the_log_in_whole_lines(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    token = issuer.token(now=AT)
    name = wake(server, token, "stage").json()["id"]
    fingerprint = watched.picture().expected[UnitId("stage/app")]
    assert fingerprint is not None
    asked = dispatched("stage/app", fingerprint, job="j1")
    watched.store.append(JobDispatched(asked))
    watched.phases[asked.job.id] = Phase.PLANNING
    watched.logs[asked.job.id] = "erste Zeile\nzweite ü".encode()[:-1]
    watched.turn()
    seen: list[dict[str, Any]] = []
    with (
        httpx.Client(trust_env=False) as client,
        client.stream("GET", f"{server}/v1/reconcile/{name}/events", headers=bearer(token)) as answer,
    ):
        assert answer.headers["content-type"] == "application/x-ndjson"
        for line in answer.iter_lines():
            seen.append(json.loads(line))
            if seen[-1]["event"] == "log" and len(seen) < 10 and asked.job.id in watched.phases:
                del watched.phases[asked.job.id]
                watched.logs[asked.job.id] = "erste Zeile\nzweite ü\nEnde".encode()
                later = NOW + timedelta(hours=1)
                watched.store.append(JobEnded(asked, result(asked, summary=plan()), None, later))
    kinds = [one["event"] for one in seen]
    assert (kinds[0], kinds[-1], seen[-1]["result"]) == ("commit", "end", "Fine")
    assert "".join(one["text"] for one in seen if one["event"] == "log") == "erste Zeile\nzweite ü\nEnde"
    assert [one["outcome"] for one in seen if one["event"] == "result"] == ["Succeeded"]
    assert "Planning" in [one["phase"] for one in seen if one["event"] == "unit"]
    assert all(one["unit"].startswith("stage/") for one in seen if "unit" in one)


def test_after_the_merge_was_applied_its_log_is_still_told(world: tuple[Watched, str], issuer: Issuer) -> None:
    watched, server = world
    apply(watched, "stage/app", "j1")
    watched.logs[dispatched(job="j1").job.id] = b"Apply complete!\n"
    watched.clock.time += timedelta(minutes=1)
    token = issuer.token(now=AT)
    name = wake(server, token, "stage", commit=HEAD).json()["id"]
    watched.turn()
    text = httpx.get(f"{server}/v1/reconcile/{name}/events", headers=bearer(token), trust_env=False).text
    assert "Apply complete!" in text


# --- bounds ------------------------------------------------------------------------------------------------------


def test_rates_for_a_caller_an_address_and_in_all(tmp_path: Path, issuer: Issuer) -> None:
    slow = Rate(0.001, 3)
    for number, bounds in enumerate((Bounds(PLENTY, PLENTY, slow), Bounds(PLENTY, slow), Bounds(slow, PLENTY))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with triggered(folder, issuer, bounds=bounds) as (watched, server):
            answers = [wake(server, issuer.token(now=AT, jti=str(n))) for n in range(5)]
            assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
            assert int(answers[-1].headers["retry-after"]) > 1
            assert (watched.polls, watched.counted("limited")) == (3, 2)


def test_a_bucket_fills_with_time_and_names_are_bounded() -> None:
    now = [0.0]
    rates = Rates(Rate(2, 2), names=2, clock=lambda: now[0])
    assert [rates.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    now[0] = 0.5
    assert [rates.take("a"), rates.take("a")] == [0.0, 0.5]
    assert [rates.take("b"), rates.take("c"), rates.take("a")] == [0.0, 0.0, 0.0]


def test_places_are_bounded_and_given_back() -> None:
    places = Places(3, 2)
    assert [places.take(name) for name in "aaabb"] == [True, True, False, True, False]
    places.free("a")
    assert [places.take(name) for name in "bb"] == [True, False]


def test_streams_are_bounded_and_end_with_a_word(tmp_path: Path, issuer: Issuer) -> None:
    bounds = Bounds(PLENTY, PLENTY, PLENTY, PLENTY, streams_each=1, stream_seconds=3.0, pace=0.01, silence=0.05)
    with triggered(tmp_path, issuer, bounds=bounds) as (_, server), httpx.Client(trust_env=False) as client:
        token = issuer.token(now=AT)
        path = f"{server}/v1/reconcile/{wake(server, token).json()['id']}/events"
        with client.stream("GET", path, headers=bearer(token)) as answer:
            assert client.get(path, headers=bearer(token)).status_code == 429
            seen = [json.loads(line)["event"] for line in answer.iter_lines()]
        assert (seen[0], seen[1], seen[-1]) == ("commit", "ping", "again")
        assert client.get(path, headers=bearer(token)).status_code == 200


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1", b"POST /v1/reconcile HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{"]
)
def test_whoever_sends_slowly_is_cut(tmp_path: Path, issuer: Issuer, sent: bytes) -> None:
    with triggered(tmp_path, issuer, protocol=Hasty) as (watched, server):
        host, port = server.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as peer:
            peer.sendall(sent)
            with suppress(ConnectionResetError):
                assert peer.recv(100) == b""
        assert watched.polls == 0
        assert wake(server, issuer.token(now=AT)).status_code == 202


def test_whoever_does_not_take_the_answer_is_cut() -> None:
    cut: list[bool] = []

    class Cutting:
        certificate = None

        def arrived(self) -> None:
            """The request is there."""

        def cut(self) -> None:
            cut.append(True)

    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    async def request() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    edge = Edge(app, taken=0.01)
    with pytest.raises(TimeoutError):
        asyncio.run(edge({"type": "http", "reconciler.connection": Cutting()}, request, never))
    assert cut == [True]


def test_more_connections_than_there_is_room_for_are_turned_away(tmp_path: Path, issuer: Issuer) -> None:
    with triggered(tmp_path, issuer) as (_, server):
        host, port = server.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port)), timeout=20) for _ in range(260)]
        try:
            assert wake(server, issuer.token(now=AT)).status_code == 503
        finally:
            for one in idle:
                one.close()


# --- TLS ---------------------------------------------------------------------------------------------------------


class Paper:
    """Certificates of one authority, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority = folder, trustme.CA()
        self.ca_file = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(self.ca_file))

    def issue(self, name: str, authority: trustme.CA | None = None) -> Path:
        """A certificate and its key in one file."""
        file = self.folder / f"{name}.pem"
        (authority or self.authority).issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(file))
        return file

    def tls(self, **more: str) -> dict[str, str]:
        file = str(self.issue("127.0.0.1"))
        return {"cert_file": file, "key_file": file, **more}

    def client(self, certificate: Path | None = None) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if certificate is not None:
            context.load_cert_chain(certificate)
        return httpx.Client(verify=context, trust_env=False)


def fingerprint(file: Path) -> str:
    text = file.read_bytes()
    return x509.load_pem_x509_certificate(text[text.index(b"-----BEGIN CERT") :]).fingerprint(hashes.SHA256()).hex(":")


def test_callers_with_a_certificate(tmp_path: Path, issuer: Issuer) -> None:
    paper = Paper(tmp_path)
    ci, named, other = paper.issue("ci"), paper.issue("deploy.example"), paper.issue("other.example")
    clients = [
        {"name": "ci", "fingerprint": fingerprint(ci).upper(), "scopes": ["stage"]},
        {"name": "deploy", "san": "deploy.example", "scopes": ["prod"]},
    ]
    tls = paper.tls(client_ca_file=str(paper.ca_file))
    with triggered(tmp_path, issuer, tls=tls, clients=clients) as (watched, server):

        def ask(certificate: Path | None, scope: str, **headers: str) -> int:
            with paper.client(certificate) as client:
                return client.post(f"{server}/v1/reconcile", json={"scope": scope}, headers=headers).status_code

        assert [ask(ci, "stage"), ask(ci, "prod"), ask(named, "prod"), ask(named, "stage")] == [202, 403, 202, 403]
        assert [ask(other, "stage"), ask(None, "stage")] == [403, 401]
        assert ask(None, "all", **bearer(issuer.token(now=AT))) == 202
        assert ask(ci, "stage", **bearer("none")) == 401
        foreign = paper.issue("ci-of-others", trustme.CA())
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError)):
            ask(foreign, "stage")
        assert watched.polls == 3


def test_without_issuers_nobody_connects_without_a_certificate(tmp_path: Path, issuer: Issuer) -> None:
    paper = Paper(tmp_path)
    clients = [{"name": "ci", "san": "ci", "scopes": ["all"]}]
    with triggered(tmp_path, issuer, tls=paper.tls(client_ca_file=str(paper.ca_file)), clients=clients, oidc=[]) as (
        _,
        server,
    ):
        with paper.client() as client, pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError)):
            client.post(f"{server}/v1/reconcile", json={"scope": "all"})
        with paper.client(paper.issue("ci")) as client:
            first, again = (client.post(f"{server}/v1/reconcile", json={"scope": "all"}).json() for _ in range(2))
        assert (first["id"], again["repeated"]) == (again["id"], True)


def test_files_that_cannot_be_used_are_told_before_it_listens(tmp_path: Path, issuer: Issuer) -> None:
    paper = Paper(tmp_path)
    missing = str(tmp_path / "none.pem")
    for tls in (
        {"cert_file": missing, "key_file": missing},
        paper.tls(key_file=str(paper.ca_file)),
        paper.tls(client_ca_file=missing),
    ):
        with pytest.raises(ConfigError, match=r"trigger\.tls"), triggered(tmp_path, issuer, tls=tls):
            pass

"""Whatever is sent to the trigger, jobs are those that the branch means: a real controller over a simulated world."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.actual.ledger import HeadAccepted
from reconciler.config.trigger import Oidc
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.model import Commit, JobId, Operation, Phase, UnitId
from reconciler.ports import HistoryEvent
from reconciler.status import Outlook, Picture
from reconciler.trigger.app import Desk, make_app
from reconciler.trigger.certificates import Certificates
from reconciler.trigger.outcome import Passed
from reconciler.trigger.tokens import Tokens
from reconciler.trigger.wakings import Wakings
from reconciler.trust import Seen, Standing
from tests.kit.facts import NOW, desired, entry, facts
from tests.kit.issuer import SUBJECT, Issuer
from tests.kit.triggered import FREE
from tests.kit.world import FakeClock, MemoryStore, Repository, Runner

UNITS = ("prod/net", "prod/app", "stage/net")


class Away:
    """Who nothing is told to."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_words, **_more: None


class Island:
    """A controller with everything around it, in one process; a caller may wake `prod` only."""

    def __init__(self, issuer: Issuer) -> None:
        self.clock = FakeClock(NOW)
        self.store = MemoryStore()
        meaning = desired(entry("prod/net"), entry("prod/app", reads=["prod/net"]), entry("stage/net"))
        self.repository = Repository([meaning], 1)
        self.runner = Runner(self.clock, self.repository, facts("prod", "stage"))
        self.store.append(HeadAccepted(meaning.commit))
        self.seen: Seen | None = Seen(NOW)
        self.runtime = Runtime(self.repository, self.store, self.runner, self.clock, Away(), Capacity(4, 4), 1)
        self.outlook = Outlook(self.repository.latest, self.store.ledger, lambda: self.runtime.facts, self.clock.now)
        self.polls = 0
        tokens = Tokens([Oidc.model_validate(issuer.config(scopes=["prod"]))], self.clock.now)
        wakings = Wakings(self, self.store, self, self.clock)
        self.app = make_app(Desk(self, wakings, tokens, Certificates([]), self.clock.now, Away(), FREE))

    def settle(self) -> None:
        """Turn the loop until nothing runs."""
        for _ in range(50):
            tick(self.runtime)
            if not self.runner.live():
                return
            for live in self.runner.live():
                self.runner.step(live)
        raise AssertionError("it never came to rest")

    def picture(self) -> Picture:
        return self.outlook.picture()

    def standing(self) -> Standing:
        ledger = self.store.ledger()
        return Standing(ledger.head, ledger.base, ledger.frozen, ledger.frozen_at, self.seen)

    def passed(self) -> Passed | None:
        decided = self.runtime.decided
        return Passed(decided.world.desired, decided.world.ledger, decided.world.now) if decided else None

    def accepted(self, commit: Commit) -> bool:
        return self.store.accepted(commit)

    def history(self, _scope: str, _limit: int) -> list[HistoryEvent]:
        return []

    def log(self, job: JobId, offset: int) -> bytes:
        return self.runner.log(job, offset)

    def phase(self, _job: JobId) -> Phase | None:
        return None

    def poll_now(self) -> None:
        self.polls += 1

    def wake(self) -> None:
        """The test turns the loop."""

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://trigger") as client:
                return await client.request(method, path, headers=headers, content=body)

        return asyncio.run(ask())


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    one = Issuer(tmp_path_factory.mktemp("issuer"))
    yield one
    one.close()


WORDS = st.sampled_from(
    [
        "all",
        "prod",
        "stage",
        "prod/net",
        "prod/app",
        "stage/net",
        "prod/none",
        "prod/../stage",
        "prod/**",
        "*",
        "",
        "PROD",
        "prod\n",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
COMMITS = st.sampled_from(["a" * 40, "c" * 40, "0" * 40, "A" * 40, "HEAD", "main", "a" * 39])
FIELDS = st.fixed_dictionaries(
    {"scope": WORDS | JSON},
    optional={
        "commit": COMMITS | JSON,
        "content": JSON,
        "operation": st.sampled_from(["apply", "destroy"]),
        "variables": JSON,
        "module": JSON,
    },
)
BODIES = (
    FIELDS.map(lambda said: json.dumps(said).encode())
    | JSON.map(lambda said: json.dumps(said).encode())
    | st.binary(max_size=60)
)
METHODS = st.sampled_from(["POST", "POST", "POST", "POST", "GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
PATHS = st.sampled_from(
    ["/v1/reconcile", "/v1/reconcile", "/v1/reconcile", "/v1/reconcile/", "/v1/apply", "/", "/v1/reconcile/" + "0" * 32]
)
PROOFS = st.sampled_from(["good", "good", "good", "foreign", "late", "none"])


def proof(issuer: Issuer, kind: str) -> dict[str, str]:
    at = NOW.timestamp()
    token = {
        "good": lambda: issuer.token(now=at),
        "foreign": lambda: issuer.token(now=at, sub=f"{SUBJECT}x"),
        "late": lambda: issuer.token(now=at, exp=int(at) - 60),
    }.get(kind)
    return {"content-type": "application/json", **({"authorization": f"Bearer {token()}"} if token else {})}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(METHODS, PATHS, PROOFS, BODIES), min_size=1, max_size=4))
def test_nothing_starts_but_what_the_branch_means_and_the_caller_may_wake(
    issuer: Issuer, requests: list[tuple[str, str, str, bytes]]
) -> None:
    island = Island(issuer)
    island.settle()
    before, head = dict(island.runner.jobs), island.repository.head.commit
    woken: set[UnitId] = set()
    for method, path, kind, body in requests:
        answer = island.send(method, path, proof(issuer, kind), body)
        assert answer.status_code in (202, 400, 401, 403, 404, 405, 415)
        if answer.status_code == 202:
            assert (method, path, kind) == ("POST", "/v1/reconcile", "good")
            said = json.loads(body)
            assert said.keys() <= {"scope", "commit"}
            assert said["scope"].partition("/")[0] == "prod"
            if said.get("commit") is None:
                woken |= {UnitId(unit) for unit in UNITS if said["scope"] in (unit, unit.partition("/")[0])}
        island.settle()
    started = [live.job for name, live in island.runner.jobs.items() if name not in before]
    assert {job.unit for job in started} == woken
    for job in started:
        assert (job.commit, job.pull) == (head, None)
        assert job.operation in (Operation.PLAN, Operation.APPLY)
    assert sorted(island.runner.created) == sorted(UNITS)
    assert island.runner.destroyed == []


def test_the_island_answers_when_it_is_at_rest(issuer: Issuer) -> None:
    island = Island(issuer)
    island.settle()
    name = island.send("POST", "/v1/reconcile", proof(issuer, "good"), b'{"scope": "prod"}').json()["id"]
    path = f"/v1/reconcile/{name}"
    assert island.send("GET", path, proof(issuer, "good"), b"").json()["result"] == "Waiting"
    island.settle()
    tick(island.runtime)
    found = island.send("GET", path, proof(issuer, "good"), b"").json()
    assert (found["result"], found["settled"]) == ("Fine", 2)

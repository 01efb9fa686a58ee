"""A served trigger: a real store, outlook and listener, an issuer over https, and a loop that a test turns."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from reconciler.config.trigger import Trigger
from reconciler.logs import open_log
from reconciler.model import Commit, Desired, JobId, Phase
from reconciler.observe import Observer
from reconciler.ports import HistoryEvent
from reconciler.status import Outlook, Picture
from reconciler.store.sqlite import SqliteStore
from reconciler.trigger.app import Bounds
from reconciler.trigger.edge import Protocol
from reconciler.trigger.outcome import Passed
from reconciler.trigger.server import TriggerServer
from reconciler.trust import Seen, Standing
from reconciler.web.rates import Rate
from tests.kit.issuer import Issuer
from tests.kit.sample import FixedClock
from tests.kit.served import FACTS

PLENTY = Rate(1e6, 1e6)
FREE = Bounds(in_all=PLENTY, peer=PLENTY, wakes=PLENTY, reads=PLENTY, pace=0.01)


@dataclass
class Watched:
    """A `trigger.view.Sight` and `Bell` whose parts a test sets."""

    store: SqliteStore
    clock: FixedClock
    desired: Desired | None = None
    seen: Seen | None = None
    passes: Passed | None = None
    logs: dict[JobId, bytes] = field(default_factory=dict)
    phases: dict[JobId, Phase] = field(default_factory=dict)
    polls: int = 0
    wakes: int = 0

    def __post_init__(self) -> None:
        self.said = io.StringIO()
        self.observer = Observer("0.1.0", open_log(self.said, as_json=True), self.clock.now)
        self.outlook = Outlook(lambda: self.desired, self.store.ledger, lambda: FACTS, self.clock.now)

    def turn(self) -> None:
        """The branch was looked at, and the loop has made its pass."""
        assert self.desired is not None
        self.seen = Seen(self.clock.now())
        self.passes = Passed(self.desired, self.store.ledger(), self.clock.now())

    def picture(self) -> Picture:
        return self.outlook.picture()

    def standing(self) -> Standing:
        ledger = self.store.ledger()
        return Standing(ledger.head, ledger.base, ledger.frozen, ledger.frozen_at, self.seen)

    def passed(self) -> Passed | None:
        return self.passes

    def accepted(self, commit: Commit) -> bool:
        return self.store.accepted(commit)

    def history(self, scope: str, limit: int) -> Sequence[HistoryEvent]:
        return self.store.history(scope, limit)

    def log(self, job: JobId, offset: int) -> bytes:
        return self.logs.get(job, b"")[offset:]

    def phase(self, job: JobId) -> Phase | None:
        return self.phases.get(job)

    def poll_now(self) -> None:
        self.polls += 1

    def wake(self) -> None:
        self.wakes += 1

    def counted(self, result: str) -> float | None:
        """The metric of that result."""
        return self.observer.registry.get_sample_value("reconciler_trigger_requests_total", {"result": result})


class Hasty(Protocol):
    """Does not wait long for a request."""

    arrives = 2.0


@contextmanager
def triggered(
    folder: Path, issuer: Issuer, *, bounds: Bounds = FREE, protocol: type[Protocol] = Protocol, **config: Any
) -> Iterator[tuple[Watched, str]]:
    """A served trigger, and its address."""
    clock = FixedClock()
    store = SqliteStore(folder / "journal.db", clock)
    watched = Watched(store, clock)
    said = {"listen": "127.0.0.1:1", "oidc": [issuer.config()], **config}
    trigger = Trigger.model_validate(said, context={"folder": folder}).model_copy(update={"listen": "127.0.0.1:0"})
    try:
        with TriggerServer(trigger, watched, store, watched, clock, watched.observer, bounds, protocol) as (host, port):
            yield watched, f"{'https' if trigger.tls else 'http'}://{host}:{port}"
    finally:
        store.close()


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"authorization": f"Bearer {token}"}


def wake(server: str, token: str, scope: str = "all", **more: Any) -> httpx.Response:
    """Wake a scope."""
    with httpx.Client(trust_env=False) as client:
        return client.post(f"{server}/v1/reconcile", json={"scope": scope, **more}, headers=bearer(token))

"""The queue, on a server that answers as SQS does: nothing is deleted that is not in the journal, and nothing counts twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from reconciler.actual.ledger import Event, OutOfBand
from reconciler.actual.outofband import Rules
from reconciler.config.outofband import OutOfBand as Config
from reconciler.demo.playground import free_port
from reconciler.errors import PassError
from reconciler.model import OutsideChange
from reconciler.ports import Chosen
from reconciler.store.sqlite import SqliteStore
from reconciler.trail import consumer as module
from reconciler.trail.consumer import Consumer, ConsumerThread, Message
from reconciler.trail.sqs import Sqs
from tests.kit.aws import Aws, serving
from tests.kit.trail import ACCOUNT, APPLIER, EMERGENCY, MALLORY, Trail, by_role, told

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 24, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Aws]:
    with serving() as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        yield found


@pytest.fixture
def trail(server: Aws, request: pytest.FixtureRequest) -> Trail:
    return Trail(server, f"q{abs(hash(request.node.name))}")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    kept = SqliteStore(tmp_path / "reconciler.db", Clock())
    yield kept
    kept.close()


@dataclass
class Clock:
    def now(self) -> datetime:
        return NOW


@dataclass
class Heard:
    """What the consumer says, and the steady clock that it looks at."""

    results: Counter[str] = field(default_factory=Counter)
    invalid: list[str] = field(default_factory=list)
    failed: list[PassError] = field(default_factory=list)
    changes: list[OutsideChange] = field(default_factory=list)
    woken: int = 0
    time: float = 0.0
    answered: threading.Event = field(default_factory=threading.Event)

    def trail_read(self, results: Mapping[str, int]) -> None:
        self.results.update(results)
        self.answered.set()

    def trail_failed(self, error: PassError) -> None:
        self.failed.append(error)
        self.answered.set()

    def trail_invalid(self, message: str) -> None:
        self.invalid.append(message)

    def written_outside(self, change: OutsideChange) -> None:
        self.changes.append(change)

    def wake(self) -> None:
        self.woken += 1


class Quick:
    """The queue without long polls; each takes a second of the steady clock."""

    def __init__(self, sqs: Sqs, heard: Heard) -> None:
        self._sqs, self._heard = sqs, heard

    def receive(self, wait: float) -> Sequence[Message]:
        found = self._sqs.receive(0)
        self._heard.time += 0.05 if found else 1.0
        return found

    def delete(self, messages: Sequence[Message]) -> None:
        self._sqs.delete(messages)


def consumer(trail: Trail, store: Any, heard: Heard) -> Consumer:
    config = Config.model_validate(trail.config())
    rules = Rules("reconciler", config.accounts, config.allowed, config.break_glass)
    queue = Quick(Sqs(config), heard)
    return Consumer(queue, store, rules, heard, Clock(), lambda: heard.time, heard.wake, frozenset)


def journaled(store: SqliteStore) -> list[Any]:
    return [one.body for one in store.history("all", 1000, Chosen(action="out-of-band"))]


def empty(trail: Trail, one: Consumer) -> None:
    while trail.left():
        one.turn()


def test_a_write_by_somebody_else_is_journaled_and_then_deleted(trail: Trail, store: SqliteStore) -> None:
    heard = Heard()
    trail.send(
        [
            told(),
            told(eventID="2", userIdentity=by_role(APPLIER)),
            told(eventID="3", userIdentity=by_role(EMERGENCY)),
            told(eventID="4", readOnly=True),
            "rubbish",
        ]
    )
    empty(trail, consumer(trail, store, heard))
    by = {one["change"]["principal"]: one["change"] for one in journaled(store)}
    assert set(by) == {MALLORY, EMERGENCY}
    assert by[MALLORY]["objects"] == ["acme-logs"]
    assert (by[EMERGENCY]["break_glass"], by[MALLORY]["break_glass"]) == (True, False)
    assert heard.results == {"outside": 1, "break-glass": 1, "allowed": 1, "ignored": 1, "invalid": 1}
    assert ("rubbish" in heard.invalid[0], "is no event" in heard.invalid[0]) == (False, True)
    assert [one.principal for one in store.ledger().outside] == sorted([MALLORY, EMERGENCY])
    assert heard.woken == 1
    assert [one.actor for one in store.history("prod", 9)] == ["cloudtrail"] * 2


def test_what_comes_twice_counts_once_also_after_a_restart(trail: Trail, store: SqliteStore) -> None:
    heard = Heard()
    trail.send([told(), told()])
    first = consumer(trail, store, heard)
    empty(trail, first)
    trail.send([told()])
    empty(trail, first)
    trail.send([told()])
    empty(trail, consumer(trail, store, heard))
    assert [one["change"]["count"] for one in journaled(store)] == [1]
    assert heard.results == {"outside": 1, "repeated": 3}


@dataclass
class Broken:
    """A store, or a queue, that fails once at some method."""

    inner: Any
    fails: str
    after: bool = False
    left: int = 1

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)

        def call(*words: Any, **more: Any) -> Any:
            if name != self.fails or not self.left:
                return found(*words, **more)
            self.left -= 1
            if self.after:
                found(*words, **more)
            raise PassError("Killed", f"at {name}")

        return call


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails", ["append", "delete", "receive"])
def test_wherever_it_ends_nothing_is_lost_and_nothing_counts_twice(
    fails: str, after: bool, trail: Trail, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.trail.sqs.HIDDEN", 0)  # what was handed out comes again at once
    heard = Heard()
    trail.send(told(eventID=str(number)) for number in range(5))
    one = consumer(trail, store, heard)
    if fails == "append":
        one.journal = Broken(store, fails, after)
    else:
        one.queue = Broken(one.queue, fails, after)
    with pytest.raises(PassError, match="at "):
        empty(trail, one)
    assert trail.left() == 5 or (fails, after) == ("delete", True)
    empty(trail, consumer(trail, store, heard))  # as after kill -9: nothing is known but what is on disk
    assert sum(body["change"]["count"] for body in journaled(store)) == 5
    assert trail.left() == 0


def test_a_flood_is_a_few_records(trail: Trail, store: SqliteStore) -> None:
    heard = Heard()
    trail.send(told(eventID=str(number)) for number in range(60))
    empty(trail, consumer(trail, store, heard))
    found = journaled(store)
    assert sum(body["change"]["count"] for body in found) == 60
    assert len(found) == 2  # the first at once, all others together
    (change,) = store.ledger().outside
    assert change.count == 60


def test_ten_thousand_at_once_have_records_and_rows_by_the_principal(store: SqliteStore) -> None:
    """The same without a server, which would take a minute."""
    heard = Heard()
    waiting = [
        Message(str(n), str(n), told(eventID=str(n), userIdentity=by_role(f"{MALLORY}{n}"))) for n in range(10_000)
    ]
    deleted: set[str] = set()

    class Full:
        def receive(self, wait: float) -> Sequence[Message]:
            found, waiting[:10] = waiting[:10], []
            heard.time += 0.05 if found else 1.0
            return found

        def delete(self, messages: Sequence[Message]) -> None:
            deleted.update(one.id for one in messages)

    rules = Rules("reconciler", {ACCOUNT: ["prod"]}, [APPLIER])
    one = Consumer(Full(), store, rules, heard, Clock(), lambda: heard.time, heard.wake, frozenset)
    while waiting:
        one.turn()
    assert len(deleted) == 10_000
    assert len(store.ledger().outside) <= 50
    found = journaled(store)
    assert sum(body["change"]["count"] for body in found) == 10_000
    assert len(found) <= 21 * 15  # fifty seconds of the clock, or so many of the largest records


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch, trail: Trail, store: SqliteStore) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    one = consumer(trail, store, Heard())
    trail.send(told(eventID=str(number)) for number in range(8))
    empty(trail, one)
    assert one._known is not None
    assert len(one._known) == 3


def test_a_message_that_finds_a_bug_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, trail: Trail, store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    def bad(body: str, *_: object) -> Any:
        raise RecursionError

    monkeypatch.setattr(module, "judge", bad)
    heard = Heard()
    trail.send([told()])
    empty(trail, consumer(trail, store, heard))
    assert heard.results == {"invalid": 1}
    assert "RecursionError" in caplog.text


def test_a_queue_that_is_away_is_told_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, trail: Trail, store: SqliteStore
) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)
    config = Config.model_validate(trail.config() | {"endpoint": f"http://127.0.0.1:{free_port()}"})
    heard = Heard()
    away = Consumer(Sqs(config), store, Rules("r", config.accounts), heard, Clock(), lambda: 0.0, heard.wake, frozenset)
    thread = ConsumerThread(away)
    thread.start()
    assert heard.answered.wait(60)
    thread.close()
    assert heard.failed[0].reason == "TrailUnreachable"
    assert "sqs:ReceiveMessage" in str(heard.failed[0])


def test_a_queue_that_is_none_is_told(trail: Trail) -> None:
    config = Config.model_validate(trail.config() | {"queue_url": trail.url + "-none"})
    with pytest.raises(PassError, match="SQS answered") as caught:
        Sqs(config).receive(0)
    assert caught.value.reason == "TrailUnreachable"


def test_a_thread_works_until_it_is_closed(
    trail: Trail, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    trail.send([told()])
    one = consumer(trail, store, heard)

    class Odd(Broken):
        def append(self, *events: Event, actor: str) -> None:
            assert isinstance(events[0], OutOfBand)
            raise ZeroDivisionError

    one.journal = Odd(store, "none")
    thread = ConsumerThread(one)
    assert thread._turn() == 1.0
    assert heard.failed[0].reason == "InternalError"
    assert "ZeroDivisionError" in caplog.text
    assert thread._turn() == 0.0

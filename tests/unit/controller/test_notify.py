from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import pytest
from pydantic import ValidationError

from reconciler.actual.ledger import (
    BreakGlassClosed,
    BreakGlassOpened,
    Frozen,
    HeadAccepted,
    HistoryAccepted,
    HoldChanged,
    JobEnded,
    LossAccepted,
    OutOfBand,
    Paused,
    Resumed,
    Thawed,
)
from reconciler.config.notify import Sink
from reconciler.controller.notify import FIRST_WAIT, LAST_WAIT, Notifier
from reconciler.demo.playground import free_port
from reconciler.model import Cause, Hold, Operation, Outcome
from reconciler.sinks import open_sender
from reconciler.sinks.events import KINDS, cloud_event, wanted
from reconciler.store.sqlite import SqliteStore
from tests.kit import facts as make
from tests.kit.hook import Hook, hook
from tests.kit.sample import HEAD, NETWORK, NOW, FixedClock, dispatched, outsider, pause, plan, result

CHANGES = plan(("file.a", ("create",)), ("file.b", ("read",)))


@dataclass
class Told:
    """A listener."""

    said: list[tuple[str, str, str]] = field(default_factory=list)

    def notified(self, sink: str, result: str, message: str = "") -> None:
        self.said.append((sink, result, message))


@dataclass
class Bench:
    """A journal, a receiver, and whoever tells it."""

    store: SqliteStore
    hook: Hook
    folder: Path
    told: Told = field(default_factory=Told)

    def notifier(self, **more: object) -> Notifier:
        sink = Sink.model_validate({"name": "ops", "url": self.hook.url, **more})
        memory = self.folder / "notify" / "ops.json"
        return Notifier(sink, self.store, self.told, "acme", memory, open_sender(sink, lambda: 1700.5))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = SqliteStore(tmp_path / "s.db", FixedClock())
    with hook() as receiver:
        yield Bench(store, receiver, tmp_path)
    store.close()


def drained(notifier: Notifier) -> float | None:
    """Send until there is nothing, or something does not get through."""
    while (wait := notifier.turn()) == 0:
        pass
    return wait


def ended(outcome: Outcome = Outcome.SUCCEEDED, **more: object) -> JobEnded:
    asked = dispatched(operation=Operation.APPLY)
    what = replace(result(asked, outcome, summary=CHANGES), **more)  # type: ignore[arg-type]
    return JobEnded(asked, what, None, None)


def test_each_kind_of_event_is_told_as_it_is_written(bench: Bench) -> None:
    notifier = bench.notifier()
    assert drained(notifier) is None  # from now on
    drift = dispatched(cause=Cause.DRIFT, operation=Operation.PLAN)
    bench.store.append(
        ended(),
        JobEnded(drift, replace(result(drift, summary=CHANGES), applied=None), None, None),
        ended(Outcome.FAILED, reason="ApplyFailed"),
        ended(Outcome.HELD, reason="DestroyLimit"),
        ended(Outcome.UNCERTAIN, reason="UncertainApply"),
        ended(Outcome.SUPERSEDED),
        HoldChanged(NETWORK, Hold("FreezeWindow", "until Monday")),
        HoldChanged(NETWORK, None),
        Paused(pause("prod")),
        Resumed("prod", "clock"),
        BreakGlassOpened(make.session()),
        BreakGlassClosed(make.session(), NOW, "clock"),
        LossAccepted("prod", "a test", "ann", (NETWORK,)),
        OutOfBand(outsider(), ("d1",)),
        HeadAccepted(HEAD),
        Frozen(Hold("HistoryRewritten", "see docs"), NOW),
        HistoryAccepted(HEAD, HEAD, (), (), "known"),
        Thawed(),
    )
    assert drained(notifier) is None
    assert bench.hook.types() == [
        "unit.applied", "unit.drifted", "unit.failed", "unit.held", "unit.uncertain", "unit.held", "unit.released",
        "scope.paused", "scope.resumed", "scope.opened", "scope.closed", "scope.accepted", "scope.outofband", "branch.accepted", "branch.frozen", "branch.rewritten", "branch.thawed",
    ]  # fmt: skip
    assert set(bench.hook.types()) == set(KINDS)
    applied, failed, paused = bench.hook.taken[0], bench.hook.taken[2], bench.hook.taken[7]
    assert applied["specversion"] == "1.0"
    assert (applied["source"], applied["subject"], applied["datacontenttype"]) == (
        "/reconciler/acme", NETWORK, "application/json",
    )  # fmt: skip
    assert datetime.fromisoformat(applied["time"]) == NOW
    assert (applied["data"]["operation"], applied["data"]["changes"], applied["data"]["commit"]) == ("apply", 1, HEAD)
    assert failed["data"]["reason"] == "ApplyFailed"
    assert (paused["data"]["scope"], paused["subject"]) == ("prod", "prod")
    outside = bench.hook.taken[12]
    assert (outside["subject"], outside["data"]["principal"], outside["data"]["count"]) == ("prod", "mallory", 7)
    assert (outside["data"]["calls"], "objects" in outside["data"]) == (["ec2:RunInstances"], False)
    opened, closed, given_up = bench.hook.taken[9:12]
    assert opened["data"] == closed["data"] == {
        "actor": "controller", "scope": "prod", "owner": "ann", "reason": "the site is down", "until": "2026-11-24T11:00:00Z",
    }  # fmt: skip
    assert given_up["data"] == {"actor": "controller", "scope": "prod", "reason": "a test", "units": 1}
    sequences = [one["sequence"] for one in bench.hook.taken]
    assert sequences == sorted(sequences)
    assert {result for _, result, _ in bench.told.said} == {"delivered"}


def test_an_event_is_tried_until_it_is_taken_and_later_ones_wait(bench: Bench) -> None:
    notifier = bench.notifier()
    drained(notifier)
    bench.store.append(ended(), Paused(pause("prod")))
    bench.hook.answers += [503, 500, 404]
    assert [drained(notifier) for _ in range(3)] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert bench.hook.taken == []
    assert drained(notifier) is None
    assert bench.hook.types() == ["unit.applied", "scope.paused"]
    assert [result for _, result, _ in bench.told.said] == ["failed"] * 3 + ["delivered"] * 2
    assert "s3cret" not in str(bench.told.said)  # many receivers are known by a key in their address
    notifier._failures = 100
    assert notifier._wait() == LAST_WAIT


def test_what_a_receiver_will_never_take_is_left_out_and_said(bench: Bench) -> None:
    notifier = bench.notifier()
    drained(notifier)
    bench.store.append(ended(), Paused(pause("prod")))
    bench.hook.answers.append(413)
    assert drained(notifier) is None
    assert bench.hook.types() == ["scope.paused"]
    assert [result for _, result, _ in bench.told.said] == ["refused", "delivered"]
    assert "413" in bench.told.said[0][2]


def test_another_process_goes_on_where_the_last_one_was(bench: Bench) -> None:
    drained(bench.notifier())
    bench.store.append(ended())
    drained(bench.notifier())
    bench.store.append(Paused(pause("prod")))
    bench.hook.answers.append(503)
    drained(bench.notifier())
    drained(bench.notifier())
    assert bench.hook.types() == ["unit.applied", "scope.paused"]
    assert len(bench.hook.taken) == 2


def test_a_crash_between_an_answer_and_its_note_sends_the_same_id_again(bench: Bench) -> None:
    notifier = bench.notifier()
    drained(notifier)
    before = notifier.memory.read_bytes()
    bench.store.append(ended())
    drained(notifier)
    notifier.memory.write_bytes(before)
    drained(bench.notifier())
    assert len(bench.hook.taken) == 2
    assert bench.hook.types() == ["unit.applied"]


def test_a_journal_that_was_restored_is_told_of_from_where_it_is(bench: Bench) -> None:
    notifier = bench.notifier()
    notifier._keep(5000)
    drained(notifier)
    bench.store.append(ended())
    assert drained(notifier) is None
    notifier.memory.write_text("damaged")
    bench.store.append(Paused(pause("prod")))
    drained(notifier)  # nobody knows how far it was told: from now on
    bench.store.append(Resumed("prod", "clock"))
    drained(notifier)
    assert bench.hook.types()[-1] == "scope.resumed"
    assert "scope.paused" not in bench.hook.types()


def test_only_the_chosen_kinds_are_sent_however_many_others_there_are(bench: Bench) -> None:
    notifier = bench.notifier(events=["unit.failed", "scope.*"])
    drained(notifier)
    bench.store.append(*(ended() for _ in range(250)), ended(Outcome.FAILED), Paused(pause("prod")))
    assert drained(notifier) is None
    assert bench.hook.types() == ["unit.failed", "scope.paused"]


def test_the_signature_is_over_the_time_and_the_body(bench: Bench) -> None:
    (bench.folder / "key").write_text("first\n")
    (bench.folder / "token").write_text("t0ken\n")
    notifier = bench.notifier(secret_file=str(bench.folder / "key"), token_file=str(bench.folder / "token"))
    drained(notifier)
    for key in (b"first", b"second"):  # rotated without a restart
        (bench.folder / "key").write_bytes(key)
        bench.store.append(ended())
        drained(notifier)
        headers, body = bench.hook.asked[-1]
        expected = hmac.new(key, b"1700." + body, sha256).hexdigest()
        assert headers["X-Reconciler-Signature"] == f"t=1700,v1={expected}"
        assert headers["Authorization"] == "Bearer t0ken"
        assert headers["Content-Type"].startswith("application/cloudevents+json")
    (bench.folder / "key").unlink()
    bench.store.append(ended())
    assert drained(notifier) == FIRST_WAIT  # without its key nothing is sent
    assert len(bench.hook.taken) == 2


def test_nobody_there_is_a_failure_and_no_redirect_is_followed(bench: Bench) -> None:
    notifier = bench.notifier(url=f"http://127.0.0.1:{free_port()}/")
    drained(notifier)
    bench.store.append(ended())
    assert drained(notifier) == FIRST_WAIT
    bench.hook.answers.append(307)
    assert drained(bench.notifier()) == FIRST_WAIT
    assert bench.hook.taken == []


def test_no_plan_and_no_address_leaves_the_house(bench: Bench) -> None:
    bench.store.append(ended())
    (happened,) = bench.store.since(0, 10)
    text = json.dumps(cloud_event(happened, "acme"))
    assert "file.a" not in text
    assert "outputs" not in text
    assert wanted({"type": "reconciler.unit.failed"}, ["unit.*"])
    assert not wanted({"type": "reconciler.unit.failed"}, ["unit.applied", "scope.*"])


@pytest.mark.parametrize("url", ["http://example.com/", "https://user:pw@example.com/", "ftp://x", "https:///x", "x"])
def test_only_https_or_this_host_is_told(url: str) -> None:
    with pytest.raises(ValidationError, match="write https://"):
        Sink.model_validate({"name": "ops", "url": url})

"""Nothing is worked out again that has not changed; and whatever changed is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler.actual.ledger import CheckScheduled, Event, HoldChanged
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.deciding.decide import Known, expected
from reconciler.deciding.passes import Passes
from reconciler.errors import PassError
from reconciler.model import Desired, EnvironmentClass, Hold, HostPart, Job, JobId, Result, RunnerFacts
from reconciler.ports import Lost, Running
from tests.kit.sample import APP, NETWORK, NOW, FixedClock, desired, unit
from tests.kit.synced import FAR, record_synced
from tests.kit.world import MemoryStore

FACTS = RunnerFacts("terraform", "1.11.4", {"prod": HostPart(EnvironmentClass.PROTECTED, "host", {})})
MEANING = desired(unit(NETWORK), unit(APP))


class Reluctant(MemoryStore):
    """A store whose disk is full when the test says so."""

    full = False

    def append(self, *events: Event, actor: str = "controller") -> None:
        if self.full:
            raise PassError("StoreFull", "Free space on its disk.")
        super().append(*events, actor=actor)


class Told:
    """A source, an executor and a watcher in one, which say what the test has set."""

    def __init__(self) -> None:
        self.meaning: Desired = MEANING
        self.facts = FACTS
        self.answers = True
        self.started: list[Job] = []

    def latest(self) -> Desired | None:
        return self.meaning

    def lead(self, fence: int) -> None:
        self.led = fence

    def describe(self) -> RunnerFacts:
        if not self.answers:
            raise PassError("RunnerUnavailable", "Start it.")
        return replace(self.facts)  # as over a socket: equal, and another object each time

    def start(self, job: Job) -> None:
        self.started.append(job)

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        return Lost(applying=False)

    def cancel(self, job_id: JobId) -> None: ...

    def log(self, job_id: JobId, offset: int) -> bytes:
        return b""

    def __getattr__(self, name: str) -> Any:  # a watcher's words
        return lambda *_, **__: None


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def rt(told: Told) -> Runtime:
    store = Reluctant()
    record_synced(store, MEANING, FACTS, NOW)
    runtime = Runtime(told, store, told, FixedClock(), told, Capacity(2, 2), 1)
    tick(runtime)
    assert not told.started
    return runtime


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by each time that the units are looked at."""
    seen: list[object] = []

    turn = Passes.turn

    def counted(*told: Any, **more: Any) -> Any:
        seen.append(told)
        return turn(*told, **more)

    monkeypatch.setattr(Passes, "turn", counted)
    return seen


def later(rt: Runtime, **much: float) -> None:
    assert isinstance(rt.clock, FixedClock)
    rt.clock.time += timedelta(**much)


def test_a_pass_over_what_has_not_changed_looks_at_no_unit(rt: Runtime, looks: list[object]) -> None:
    due = tick(rt)
    later(rt, minutes=5)  # the runner is asked again, and says the same

    assert tick(rt) == due == NOW + FAR
    assert not looks


def test_a_new_record_a_new_commit_and_another_host_are_looked_at(rt: Runtime, told: Told, looks: list[object]) -> None:
    rt.store.append(HoldChanged(APP, Hold("Paused", "for a test")))
    tick(rt)
    assert len(looks) == 1

    told.meaning = replace(MEANING, commit=told.meaning.commit)
    tick(rt)
    assert len(looks) == 2

    later(rt, minutes=1)
    told.facts = replace(FACTS, engine_version="1.11.5")
    tick(rt)
    assert len(looks) == 3
    assert len(told.started) == 2  # what ran on another engine may plan otherwise


def test_what_a_pass_overlooks_is_found_by_the_next_one_over_everything(
    rt: Runtime, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Passes, "_touch", lambda *_: None)  # as if nothing were touched by anything
    rt.store.append(HoldChanged(APP, Hold("Paused", "for a test")))
    tick(rt)
    assert rt.store.ledger().units[APP].hold is not None

    later(rt, minutes=11)
    rt.store.append(HoldChanged(NETWORK, Hold("Paused", "for a test")))
    tick(rt)
    assert [record.hold for record in rt.store.ledger().units.values()] == [None, None]


def test_a_runner_that_falls_silent_and_comes_back_is_looked_at(rt: Runtime, told: Told, looks: list[object]) -> None:
    told.answers = False
    later(rt, minutes=1)
    tick(rt)
    tick(rt)
    assert len(looks) == 1

    told.answers = True
    tick(rt)
    assert len(looks) == 2


def test_what_falls_due_is_looked_at(rt: Runtime, told: Told, looks: list[object]) -> None:
    rt.store.append(CheckScheduled(APP, NOW + timedelta(minutes=1)))
    assert tick(rt) == NOW + timedelta(minutes=1)
    later(rt, minutes=1)
    tick(rt)

    assert [job.unit for job in told.started] == [APP]
    assert len(looks) == 2


def test_a_clock_that_goes_back_is_no_reason_to_trust_the_last_pass(rt: Runtime, looks: list[object]) -> None:
    later(rt, minutes=-1)
    tick(rt)
    assert len(looks) == 1


def test_what_could_not_be_journaled_is_decided_again(rt: Runtime, told: Told) -> None:
    assert isinstance(rt.store, Reluctant)
    later(rt, days=2)
    rt.store.full = True
    with pytest.raises(PassError, match="Free space"):
        tick(rt)
    rt.store.full = False
    tick(rt)

    assert {job.unit for job in told.started} == {NETWORK, APP}


def test_what_is_known_changes_no_fingerprint() -> None:
    reader = desired(unit(NETWORK), unit(APP, reads=[NETWORK]))
    store, known = MemoryStore(), Known()
    applied_once = replace(reader, units={NETWORK: reader.units[NETWORK]}, order=(NETWORK,))
    record_synced(store, applied_once, FACTS, NOW)
    record = store.ledger().units[NETWORK]
    assert record.applied is not None
    elsewhere = replace(record, applied=replace(record.applied, outputs={"id": "hmac:other"}))
    found = replace(record, applied=replace(record.applied, outputs={"id": "hmac:1"}))
    other_host = replace(FACTS, environments={"prod": HostPart(EnvironmentClass.PROTECTED, "other", {})})

    for facts in (FACTS, other_host, None, FACTS):
        for one in (record, found, elsewhere, found):
            for meaning in (reader, applied_once, reader):
                ledger = replace(store.ledger(), units={NETWORK: one})
                assert expected(meaning, ledger, facts, known) == expected(meaning, ledger, facts)


def test_what_is_known_of_units_that_went_is_forgotten() -> None:
    known, ledger = Known(), MemoryStore().ledger()
    expected(MEANING, ledger, FACTS, known)
    assert known.keys() == {NETWORK, APP}

    expected(desired(unit(APP)), ledger, FACTS, known)
    assert known.keys() == {APP}

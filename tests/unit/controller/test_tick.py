"""One tick: what is journaled, asked and told, in which order, and what it survives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from reconciler.actual.ledger import (
    Event,
    Frozen,
    HoldChanged,
    JobDispatched,
    JobEnded,
    Paused,
    PullShown,
    Resumed,
    Thawed,
)
from reconciler.controller.tick import ASK_AGAIN, FACTS_MAX_AGE, Runtime, new_job_id, tick
from reconciler.deciding.budgets import Capacity, Cut, Limit, Pressure
from reconciler.deciding.decide import Held, expected
from reconciler.deciding.gates import policy
from reconciler.deciding.passes import Passes, Waiting
from reconciler.deciding.schedule import FIRST_RETRY, sooner
from reconciler.errors import PassError
from reconciler.model import (
    AuditFacts,
    BreakGlass,
    Cause,
    Desired,
    Dispatched,
    EnvironmentClass,
    Hold,
    HostPart,
    Job,
    JobId,
    Ledger,
    Load,
    Operation,
    Outcome,
    Phase,
    Presence,
    Result,
    RunnerFacts,
    StateMark,
    TrustFacts,
    Unexplained,
    UnitId,
    UnitRecord,
    Used,
)
from reconciler.ports import Lost, Running
from tests.kit import facts as make
from tests.kit.world import FakeClock, MemoryStore

NET, APP = UnitId("prod/net"), UnitId("prod/app")
TWO = make.desired(make.entry("prod/net"), make.entry("prod/app", reads=["prod/net"], after=["prod/net"]))
TWINS = make.desired(make.entry("prod/a"), make.entry("prod/b"))
FACTS = make.facts()
DOWN = PassError("RunnerUnavailable", "it is down")


class Store(MemoryStore):
    """Tells a common diary what was journaled."""

    def __init__(self, diary: list[str]) -> None:
        super().__init__()
        self.diary, self.events = diary, list[Event]()

    def append(self, *events: Event, actor: str = "controller") -> None:
        super().append(*events, actor=actor)
        self.events += events
        self.diary.append("+".join(type(event).__name__ for event in events))


@dataclass
class Runner:
    """A runner that says what it was told to say; `broken` names the verbs that it does not answer."""

    diary: list[str]
    states: dict[JobId, Running | Result | Lost] = field(default_factory=dict)
    facts: RunnerFacts = FACTS
    broken: set[str] = field(default_factory=set)
    refusals: dict[JobId, PassError] = field(default_factory=dict)
    described: int = 0
    led: list[int] = field(default_factory=list)

    def start(self, job: Job) -> None:
        self.diary.append(f"start {job.id}")
        self._answer("start")
        self.states[job.id] = Running(Phase.VERIFYING)

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        self._answer("poll")
        if job_id in self.refusals:
            raise self.refusals[job_id]
        return self.states.get(job_id, Lost(applying=False))

    def cancel(self, job_id: JobId) -> None:
        self._answer("cancel")
        self.diary.append(f"cancel {job_id}")

    def lead(self, fence: int) -> None:
        self._answer("lead")
        self.led.append(fence)

    def describe(self) -> RunnerFacts:
        self.described += 1
        self._answer("describe")
        return self.facts

    def log(self, job_id: JobId, offset: int) -> bytes:
        return b""

    def _answer(self, verb: str) -> None:
        if verb in self.broken:
            raise DOWN


@dataclass
class Watcher:
    """Writes down what it is told."""

    told: list[str] = field(default_factory=list)
    waiting: list[UnitId] = field(default_factory=list)
    limits: dict[str, Limit] = field(default_factory=dict)
    cuts: dict[str, int] = field(default_factory=dict)

    def job_started(self, dispatched: Dispatched) -> None:
        self.told.append(f"started {dispatched.job.unit}")

    def job_phase(self, dispatched: Dispatched, phase: Phase, load: Load) -> None:
        self.told.append(f"{dispatched.job.unit} {phase}")

    def job_ended(self, dispatched: Dispatched, result: Result) -> None:
        self.told.append(f"ended {dispatched.job.unit} {result.outcome}")

    def unit_held(self, held: Held) -> None:
        self.told.append(f"held {held.unit} {held.hold.reason if held.hold else '-'}")

    def queued(self, waiting: Waiting, capacity: Capacity) -> None:
        self.waiting = sorted(waiting.units)
        self.limits = dict(waiting.limits)

    def eased(self, dispatched: Dispatched, cuts: Mapping[str, Cut]) -> None:
        self.cuts = {name: one.jobs for name, one in cuts.items()}

    def serial_unexplained(self, dispatched: Dispatched, found: Unexplained) -> None:
        self.told.append(f"alarm {dispatched.job.unit} {found.found.serial}")

    def audit_seen(self, facts: AuditFacts) -> None:
        self.told.append(f"audit {facts.records}")

    def trust_seen(self, facts: TrustFacts) -> None:
        self.told.append(f"trust {facts.frozen}")

    def pull_shown(self, shown: PullShown) -> None:
        self.told.append(f"pull {shown.pull} {shown.unit} {shown.outcome}")

    def session_ended(self, session: BreakGlass) -> None:
        self.told.append(f"session of {session.scope} ended")

    def runner_silent(self, error: PassError) -> None:
        self.told.append(f"silent: {error}")


class World:
    """A runtime and everything it touches."""

    def __init__(self, want: Desired | None = TWO, capacity: Capacity | None = None) -> None:
        self.desired = want
        self.diary: list[str] = []
        self.clock = FakeClock(make.NOW)
        self.store, self.runner, self.watcher = Store(self.diary), Runner(self.diary), Watcher()
        self.jobs = 0
        self.rt = Runtime(
            source=self,
            store=self.store,
            executor=self.runner,
            clock=self.clock,
            watcher=self.watcher,
            capacity=capacity or Capacity(4, 4),
            fence=7,
            new_id=self.new_id,
        )

    def latest(self) -> Desired | None:
        return self.desired

    def new_id(self, now: datetime) -> JobId:
        self.jobs += 1
        return JobId(f"job-{self.jobs}")

    def tick(self) -> datetime | None:
        return tick(self.rt)

    def record(self, unit: str = "prod/net") -> UnitRecord:
        return self.store.ledger().units.get(UnitId(unit)) or UnitRecord(UnitId(unit))

    def begin(self, record: UnitRecord, asked: Dispatched) -> None:
        """A job that runs since before the first tick."""
        self.store.append(JobDispatched(asked))
        self.runner.states[asked.job.id] = Running(Phase.PLANNING)
        self.diary.clear()

    def pass_time(self, by: timedelta) -> None:
        self.clock.time += by


@pytest.fixture
def world() -> World:
    return World()


def wanted(want: Desired, unit: UnitId, ledger: Ledger | None = None) -> object:
    return expected(want, ledger or Ledger(), FACTS)[unit]


# --- dispatch


def test_a_job_is_journaled_before_the_runner_hears_of_it(world: World) -> None:
    world.tick()
    assert world.diary == ["HoldChanged", "JobDispatched", "start job-1"]
    assert world.watcher.told == ["held prod/app DependencyNotReady", "started prod/net"]


def test_what_is_journaled_is_all_that_the_next_daemon_needs(world: World) -> None:
    world.tick()
    job = Job(JobId("job-1"), Operation.APPLY, NET, make.HEAD, 7)
    unit = TWO.units[NET]
    assert world.record().job == Dispatched(job, wanted(TWO, NET), policy(unit), Cause.DESIRED, make.NOW)  # type: ignore[arg-type]


def test_an_apply_says_what_it_builds_on() -> None:
    world = World()
    net = make.in_order(TWO, FACTS, but=[APP]).units[NET]
    world.store.append(
        JobEnded(make.dispatched(), make.result(make.dispatched(), applied=net.applied), None, net.next_check)
    )
    world.tick()
    job = world.record("prod/app").job
    assert job is not None
    assert job.reads == {NET}


@pytest.mark.parametrize(("presence", "pause"), [(Presence.ABSENT, None), (Presence.PRESENT, make.pause())])
def test_who_goes_and_who_is_only_planned_builds_on_nothing(presence: Presence, pause: object) -> None:
    world = World(make.desired(make.entry("prod/net", presence=presence)))
    if pause is not None:
        world.store.append(Paused(make.pause()))
    world.tick()
    job = world.record().job
    assert job is not None
    assert job.job.operation is (Operation.PLAN if pause else Operation.APPLY)
    assert job.reads == frozenset()


def test_a_serial_that_nothing_explains_is_told_once(world: World) -> None:
    alarm = Unexplained(StateMark("lineage", 4), StateMark("lineage", 2))
    for number in (1, 2):
        world.tick()
        job = world.record().job
        assert job is not None
        world.runner.states[job.job.id] = make.result(job, unexplained=alarm)
        world.tick()
        assert world.record().unexplained == alarm
        assert world.watcher.told.count("alarm prod/net 4") == 1, number
        world.pass_time(timedelta(hours=9))


def test_how_far_the_runner_s_audit_log_is_reaches_the_metrics_although_nothing_else_changed(world: World) -> None:
    world.tick()
    world.runner.facts = replace(FACTS, audit=AuditFacts(3), trust=TrustFacts("HistoryRewritten"))
    facts = world.rt.facts
    world.pass_time(FACTS_MAX_AGE)
    world.tick()
    assert "audit 3" in world.watcher.told
    assert "trust HistoryRewritten" in world.watcher.told
    assert world.rt.facts is facts  # and nothing is decided anew for it


def test_a_second_tick_starts_nothing_twice(world: World) -> None:
    world.tick()
    world.diary.clear()
    world.tick()
    assert world.diary == []


def test_holds_are_journaled_together(world: World) -> None:
    world.runner.broken = {"describe"}
    world.tick()
    assert world.diary == ["HoldChanged+HoldChanged"]


def test_who_finds_no_slot_is_told_of() -> None:
    world = World(TWINS, Capacity(1, 1))
    world.tick()
    assert world.diary == ["JobDispatched", "start job-1"]
    assert world.watcher.waiting == ["prod/b"]


def test_a_start_that_fails_costs_a_try_and_no_more(world: World) -> None:
    world.runner.broken = {"start"}
    assert world.tick() == make.NOW + ASK_AGAIN
    assert world.record().job is not None
    assert world.watcher.told[-1] == "silent: it is down"
    world.runner.broken.clear()
    world.pass_time(ASK_AGAIN)
    assert world.tick() == world.clock.time + timedelta(seconds=1)
    failure = world.record().failure
    assert failure is not None
    assert (failure.outcome, failure.reason) == (Outcome.SUPERSEDED, "JobLost")
    world.pass_time(timedelta(seconds=1))
    world.tick()
    job = world.record().job
    assert job is not None
    assert job.job.id == "job-2"


def test_the_others_are_started_although_one_start_failed() -> None:
    world = World(TWINS)
    world.runner.broken = {"start"}
    world.tick()
    assert [line for line in world.diary if line.startswith("start")] == ["start job-1", "start job-2"]


# --- deciding only when something is another


class Counting(World):
    """Counts the passes, by what the watcher is told at the end of each."""

    def passes(self) -> int:
        before = self.rt.decided
        self.tick()
        return int(self.rt.decided is not before)


def test_a_tick_in_which_nothing_is_another_decides_nothing() -> None:
    world = Counting(TWINS)
    world.tick()
    world.tick()
    assert world.passes() == 0


@pytest.mark.parametrize("what", ["event", "commit", "facts", "silence", "due", "clock set back"])
def test_whatever_may_matter_makes_it_decide(what: str) -> None:
    world = Counting(TWINS)
    world.store.append(Paused(make.pause("dev", make.NOW + timedelta(seconds=3))))
    world.tick()
    world.tick()
    match what:
        case "event":
            world.store.append(Paused(make.pause("stage")))
        case "commit":
            world.desired = make.desired(make.entry("prod/a"), make.entry("prod/b"))
        case "facts":
            world.runner.facts = make.facts(host="another")
            world.rt.facts_at = None
        case "silence":
            world.runner.broken = {"poll"}
        case "due":
            world.pass_time(timedelta(seconds=3))
        case _:
            world.pass_time(-timedelta(seconds=3))
    assert world.passes() == 1


# --- collecting


def test_a_running_job_is_left_alone_and_its_phase_told(world: World) -> None:
    world.begin(world.record(), make.dispatched())
    world.tick()
    assert world.watcher.told[0] == "prod/net Planning"
    assert "JobEnded" not in world.diary


def test_a_result_is_journaled_with_when_to_look_again(world: World) -> None:
    world.tick()
    asked = world.record().job
    assert asked is not None
    done = make.applied(TWO.units[NET], asked.fingerprint)
    world.runner.states[asked.job.id] = make.result(asked, fingerprint=asked.fingerprint, applied=done)
    world.diary.clear()
    world.tick()
    assert world.diary == ["JobEnded", "HoldChanged", "JobDispatched", "start job-2"]
    record = world.record()
    assert (record.job, record.applied, record.failure) == (None, done, None)
    assert record.next_check is not None
    assert record.next_check > make.NOW


@pytest.mark.parametrize(
    ("applying", "outcome", "reason", "unfinished"),
    [
        (True, Outcome.UNCERTAIN, "UncertainApply", frozenset({"prod/x"})),
        (False, Outcome.SUPERSEDED, "JobLost", None),
    ],
)
def test_a_lost_job(applying: bool, outcome: Outcome, reason: str, unfinished: frozenset[str] | None) -> None:
    world = World()
    asked = make.dispatched(fp=wanted(TWO, NET), judged_by=policy(TWO.units[NET]), reads=["prod/x"])  # type: ignore[arg-type]
    world.begin(world.record(), asked)
    world.runner.states[asked.job.id] = Lost(applying)
    assert world.tick() == make.NOW + timedelta(seconds=1)
    record = world.record()
    assert record.failure is not None
    assert (record.failure.outcome, record.failure.reason) == (outcome, reason)
    assert record.unfinished == unfinished
    assert record.job is None


def test_a_job_of_a_unit_without_an_entry_is_collected_before_the_first_commit_is_known() -> None:
    world = World(want=None)
    asked = make.dispatched()
    world.begin(world.record(), asked)
    world.runner.states[asked.job.id] = make.result(asked, Outcome.FAILED)
    assert world.tick() is None
    failure = world.record().failure
    assert failure is not None
    # By the controller's clock; the job ended by the runner's.
    assert failure.retry_at == make.NOW + sooner(FIRST_RETRY, NET, make.NOW)


def test_a_runner_that_does_not_answer_loses_no_job(world: World) -> None:
    asked = make.dispatched()
    world.begin(world.record(), asked)
    world.tick()
    world.runner.broken = {"poll"}
    assert world.tick() == make.NOW + ASK_AGAIN
    assert world.record().job == asked
    assert world.rt.silent


@pytest.mark.parametrize("reason", ["BadRequest", "AnswerInvalid", "AnswerTooLong", "HostFault"])
def test_a_job_of_which_nothing_can_be_read_ends_and_the_others_go_on(reason: str) -> None:
    world = World(TWINS)
    world.tick()
    bad, good = world.record("prod/a").job, world.record("prod/b").job
    assert bad is not None
    assert good is not None
    world.runner.refusals[bad.job.id] = PassError(reason, "It is damaged.")
    done = make.applied(TWINS.units[UnitId("prod/b")], good.fingerprint)
    world.runner.states[good.job.id] = make.result(good, fingerprint=good.fingerprint, applied=done)
    assert world.tick() == make.NOW + timedelta(seconds=1)
    failure = world.record("prod/a").failure
    assert failure is not None
    assert (failure.outcome, failure.reason) == (Outcome.UNCERTAIN, "ResultUnreadable")
    assert "It is damaged." in failure.message
    assert "spool/job-1" in failure.message
    assert world.record("prod/b").applied == done
    assert not world.rt.silent
    assert not any(told.startswith("silent") for told in world.watcher.told)
    world.pass_time(timedelta(seconds=5))
    world.tick()
    again = world.record("prod/a").job
    assert again is not None
    assert again.job.id == "job-3"


def test_a_runner_that_lets_this_user_do_nothing_loses_no_job(world: World) -> None:
    asked = make.dispatched()
    world.begin(world.record(), asked)
    world.runner.refusals[asked.job.id] = PassError("NotAllowed", "See controller_uid.")
    assert world.tick() == make.NOW + ASK_AGAIN
    assert world.record().job == asked
    assert world.rt.silent


# --- budgets


def test_a_job_that_waits_lets_another_begin() -> None:
    world = World(TWINS, Capacity(1, 1))
    world.tick()
    assert world.watcher.limits == {"prod": Limit.ENVIRONMENT}
    world.runner.states[JobId("job-1")] = Running(Phase.APPLYING, Load(True, 64))
    world.diary.clear()
    world.tick()
    assert world.diary == ["JobDispatched", "start job-2"]
    assert world.watcher.waiting == []


def test_nothing_is_decided_anew_while_jobs_take_what_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    world, looks = World(TWINS, Capacity(1, 1)), list[int]()
    world.tick()
    world.tick()
    turn = Passes.turn

    def counted(*args: Any, **more: Any) -> Any:
        looks.append(1)
        return turn(*args, **more)

    monkeypatch.setattr(Passes, "turn", counted)
    world.tick()
    assert looks == []
    world.runner.states[JobId("job-1")] = Running(Phase.PLANNING, Load(False, 64))
    world.tick()
    assert looks == [1]


@pytest.mark.parametrize(("said", "seen", "kept"), [(Used(1.5, 300), 64, 300), (Used(1.5, 30), 640, 640), (None, 0, 0)])
def test_what_a_job_took_is_known_when_the_next_one_of_its_unit_begins(said: Used | None, seen: int, kept: int) -> None:
    world = World(TWINS, Capacity(1, 1))
    world.tick()
    job = world.record("prod/a").job
    assert job is not None
    world.runner.states[job.job.id] = Running(Phase.PLANNING, Load(False, seen))
    world.tick()
    world.runner.states[job.job.id] = make.result(job, outcome=Outcome.FAILED, used=said)
    world.tick()
    assert world.record("prod/a").memory == kept


def test_an_account_that_throttles_takes_fewer_and_more_again_by_the_minute() -> None:
    four = make.desired(*(make.entry(f"prod/{name}") for name in "abcd"), make.entry("stage/a"))
    world = World(four)
    shared = HostPart(EnvironmentClass.PROTECTED, "h1", {}, ("one",))
    world.runner.facts = replace(FACTS, environments=dict.fromkeys(("prod", "stage"), shared))
    world.tick()
    jobs = [record.job for record in world.store.ledger().units.values() if record.job is not None]
    assert len(jobs) == 4
    for asked in jobs[:3]:
        world.runner.states[asked.job.id] = make.result(asked, outcome=Outcome.FAILED, reason="Throttled")
    world.diary.clear()
    due = world.tick()
    assert world.watcher.cuts == {
        "prod": 2,
        "stage": 2,
    }  # four were there: half of them, and once for all that failed together
    assert [one for one in world.diary if one.startswith("start")] == ["start job-5"]
    world.pass_time(timedelta(seconds=30))
    assert world.tick() is not None
    assert set(world.watcher.limits.values()) == {Limit.THROTTLED}
    assert due is not None
    world.pass_time(timedelta(seconds=31))
    world.diary.clear()
    world.tick()
    assert [one for one in world.diary if one.startswith("start")] == ["start job-6"]


def test_who_waits_for_an_account_is_let_in_by_the_clock_alone() -> None:
    world = World(TWINS)
    world.rt.pressure = Pressure(cuts={"prod": Cut(1, make.NOW)})
    assert world.tick() == make.NOW + timedelta(minutes=1)


# --- what the runner says of itself


def test_facts_are_asked_for_once_in_a_while(world: World) -> None:
    for _ in range(3):
        world.tick()
    assert world.runner.described == 1
    world.pass_time(FACTS_MAX_AGE)
    world.tick()
    assert world.runner.described == 2


@pytest.mark.parametrize("seen", [7, 40])
def test_a_controller_that_begins_goes_beyond_the_fences_that_the_runner_knows(world: World, seen: int) -> None:
    world.runner.facts = replace(FACTS, fence=seen)
    world.tick()
    job = world.record().job
    assert job is not None
    assert job.job.fence == world.rt.fence == seen + 1
    assert world.store.next_fence() == seen + 2


def test_a_controller_that_has_begun_lets_another_one_take_over() -> None:
    world = World(TWINS, Capacity(1, 1))
    world.tick()
    first = world.record("prod/a").job
    assert first is not None
    world.runner.facts = replace(FACTS, fence=40)
    world.pass_time(FACTS_MAX_AGE)
    world.runner.states[first.job.id] = make.result(first, Outcome.FAILED)
    world.tick()
    second = world.record("prod/b").job
    assert second is not None
    assert (first.job.fence, second.job.fence) == (7, 7)


def test_a_fence_that_grows_is_no_other_host(world: World) -> None:
    world.tick()
    world.runner.facts = replace(FACTS, fence=7)
    world.pass_time(FACTS_MAX_AGE)
    world.tick()
    assert world.rt.facts is FACTS


def test_a_fence_that_cannot_be_kept_starts_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(above: int = 0) -> int:
        raise PassError("StoreFull", f"{above}")

    world.runner.facts = replace(FACTS, fence=40)
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "next_fence", full)
        with pytest.raises(PassError, match="40"):
            world.tick()
    assert not any(line.startswith("start") for line in world.diary)
    world.tick()
    assert world.rt.fence == 41


def test_while_it_is_silent_it_is_asked_at_every_tick_and_its_last_word_stands(world: World) -> None:
    world.tick()
    world.pass_time(FACTS_MAX_AGE)
    world.runner.broken = {"describe"}
    for _ in range(2):
        assert world.tick() == world.clock.time + ASK_AGAIN
    assert world.runner.described == 3
    assert world.rt.facts == FACTS
    world.runner.broken.clear()
    world.tick()
    assert not world.rt.silent


def test_an_earlier_due_time_is_kept_while_it_is_silent(world: World) -> None:
    soon = make.NOW + timedelta(seconds=1)
    world.store.append(Paused(make.pause(until=soon)))
    world.runner.broken = {"describe"}
    assert world.tick() == soon


def test_a_success_that_was_not_asked_for_makes_it_ask_again(world: World) -> None:
    world.tick()
    asked = world.record().job
    assert asked is not None
    other = make.applied(TWO.units[NET], make.fingerprint("other host"))
    world.runner.states[asked.job.id] = make.result(asked, fingerprint=other.fingerprint, applied=other)
    world.tick()
    world.tick()
    assert world.runner.described == 2
    assert world.record().failure is not None


# --- pauses


def test_a_pause_ends_when_its_time_is_up(world: World) -> None:
    world.store.append(Paused(make.pause("dev", make.NOW)), Paused(make.pause("stage")))
    world.tick()
    assert [pause.scope for pause in world.store.ledger().pauses] == ["stage"]
    assert Resumed("dev", "clock") in world.store.events


@pytest.mark.parametrize("want", [TWO, None], ids=["known", "no commit known yet"])
def test_a_pause_cancels_what_has_not_begun_once(want: Desired | None) -> None:
    world = World(want)
    world.begin(world.record(), make.dispatched())
    world.store.append(Paused(make.pause()))
    world.tick()
    world.tick()
    assert world.diary.count("cancel job-1") == 1


@pytest.mark.parametrize(
    ("operation", "scope"), [(Operation.PLAN, "prod"), (Operation.APPLY, "dev")], ids=["a plan", "another scope"]
)
def test_a_pause_leaves_alone(operation: Operation, scope: str) -> None:
    world = World()
    world.begin(world.record(), make.dispatched(operation=operation))
    world.store.append(Paused(make.pause(scope)))
    world.tick()
    assert "cancel job-1" not in world.diary


def test_a_rewritten_history_cancels_everything_and_starts_nothing() -> None:
    world = World(TWINS)
    world.begin(world.record(), make.dispatched("prod/a"))
    world.store.append(Frozen(Hold("HistoryRewritten", "m")))
    world.tick()
    assert "cancel job-1" in world.diary
    assert not any(line.startswith("start") for line in world.diary)
    assert world.record("prod/b").hold == Hold("HistoryRewritten", "m")
    world.store.append(Thawed())
    world.tick()
    assert world.record("prod/b").job is not None


def test_a_cancel_that_is_not_heard_is_asked_for_again(world: World) -> None:
    world.begin(world.record(), make.dispatched())
    world.store.append(Paused(make.pause()))
    world.runner.broken = {"cancel"}
    assert world.tick() == make.NOW + ASK_AGAIN
    world.runner.broken.clear()
    world.tick()
    assert world.diary.count("cancel job-1") == 1


def test_a_cancelled_job_is_forgotten_with_its_end(world: World) -> None:
    asked = make.dispatched()
    world.begin(world.record(), asked)
    world.store.append(Paused(make.pause()))
    world.tick()
    assert world.rt.cancelled == {asked.job.id}
    world.runner.states[asked.job.id] = make.result(asked, Outcome.SUPERSEDED)
    world.tick()
    assert world.rt.cancelled == set()
    assert "ended prod/net Superseded" in world.watcher.told


# --- names


def test_job_ids_sort_by_time_and_never_come_twice() -> None:
    ids = [new_job_id(make.NOW) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(one < new_job_id(make.NOW + timedelta(seconds=1)) for one in ids)
    assert ids[0].startswith("20261124T100000-")


def test_a_hold_that_ends_is_told(world: World) -> None:
    world.store.append(HoldChanged(NET, Hold("Paused", "m")))
    world.tick()
    assert "held prod/net -" in world.watcher.told
    assert replace(world.record(), job=None).hold is None


# --- who leads


def test_a_job_is_not_called_lost_before_the_runner_knows_who_leads(world: World) -> None:
    asked = make.dispatched()
    world.begin(world.record(), asked)
    world.runner.broken = {"lead"}
    held = world.runner.states.pop(asked.job.id)  # the runner never heard of it
    world.tick()
    assert world.record().job == asked
    world.runner.states[asked.job.id] = held
    assert world.rt.silent
    world.runner.broken = set()
    del world.runner.states[asked.job.id]
    world.tick()
    assert world.runner.led == [7]
    assert world.record().job != asked


def test_a_runner_that_knows_is_not_told_again(world: World) -> None:
    world.tick()
    world.runner.facts = replace(FACTS, fence=7)
    world.pass_time(FACTS_MAX_AGE)
    world.tick()
    assert world.runner.led == [7]


def test_a_job_of_a_term_before_that_the_runner_refused_has_not_failed(world: World) -> None:
    asked = make.dispatched()
    old = replace(asked, job=replace(asked.job, fence=6))
    world.begin(world.record(), old)
    world.runner.states[old.job.id] = make.result(old, Outcome.FAILED, reason="FenceStale")
    world.tick()
    failure = world.record().failure
    assert failure is not None
    assert failure.outcome is Outcome.SUPERSEDED


def test_nothing_is_handed_over_once_another_may_lead(world: World) -> None:
    looks: list[int] = []

    def overdue() -> None:
        looks.append(1)
        if len(looks) > 1:
            raise PassError("LeaseOverdue", "Look at the disk.")

    world.rt.still_leads = overdue
    with pytest.raises(PassError, match="disk"):
        world.tick()
    assert world.record().job is not None  # it is journaled, and found to be lost later
    assert not any(line.startswith("start") for line in world.diary)

"""The controller's side of open pull requests: what is planned when, and what nobody waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from reconciler.actual.ledger import Event, PullShown
from reconciler.branch.pulls import Proposal, Untold
from reconciler.deciding.schedule import FIRST_RETRY
from reconciler.errors import PassError
from reconciler.forge.facts import Pull
from reconciler.model import Commit, Desired, Job, JobId, Operation, Outcome, Phase, Result, RunnerFacts, UnitId
from reconciler.ports import Lost, Running
from reconciler.reviewing import AGAIN, AT_ONCE, Reviewing
from tests.kit import facts as make
from tests.kit.world import MemoryStore

NOW = make.NOW
PLAN = make.plan(make.change("module.unit.file.a"))


class Store(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[Event, str]] = []

    def append(self, *events: Event, actor: str = "controller") -> None:
        super().append(*events, actor=actor)
        self.events += [(event, actor) for event in events]


@dataclass
class Runner:
    """A runner that does as the test says."""

    jobs: dict[JobId, Job] = field(default_factory=dict)
    states: dict[JobId, Running | Result | Lost] = field(default_factory=dict)
    cancelled: list[JobId] = field(default_factory=list)
    down: bool = False

    def start(self, job: Job) -> None:
        self._answer()
        self.jobs[job.id], self.states[job.id] = job, Running(Phase.PLANNING)

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        self._answer()
        return self.states.get(job_id, Lost(applying=False))

    def cancel(self, job_id: JobId) -> None:
        self._answer()
        self.cancelled.append(job_id)

    def lead(self, fence: int) -> None:
        self._answer()

    def describe(self) -> RunnerFacts:
        return make.facts()

    def log(self, job_id: JobId, offset: int) -> bytes:
        return b""

    def _answer(self) -> None:
        if self.down:
            raise PassError("RunnerUnavailable", "It is down.")


@dataclass
class Desk:
    """What a turn works with."""

    store: Store = field(default_factory=Store)
    executor: Runner = field(default_factory=Runner)
    facts: RunnerFacts | None = field(default_factory=make.facts)
    fence: int = 3
    told: list[PullShown] = field(default_factory=list)
    count: int = 0

    @property
    def watcher(self) -> Desk:
        return self

    @property
    def new_id(self) -> Callable[[datetime], JobId]:
        return self._new_id

    def _new_id(self, _now: datetime) -> JobId:
        self.count += 1
        return JobId(f"p-{self.count}")

    def pull_shown(self, shown: PullShown) -> None:
        self.told.append(shown)

    def end(self, job: str, outcome: Outcome = Outcome.SUCCEEDED, reason: str = "Planned") -> None:
        asked = self.executor.jobs[JobId(job)]
        plan = PLAN if outcome is Outcome.SUCCEEDED else None
        self.executor.states[asked.id] = Result(asked, outcome, reason, "It is so.", NOW, NOW, plan=plan)


def pull(number: int = 1, head: str = "a") -> Pull:
    return Pull(number, Commit(head * 40), "main", "ada", True, "A change")


def proposal(want: Desired, one: Pull | None = None, **words: object) -> Proposal:
    return replace(Proposal(one or pull(), make.HEAD, want.units), **words)  # type: ignore[arg-type]  # words are fields


ONE = make.desired(make.entry("prod/net", size=2))
MANY = make.desired(*(make.entry(f"prod/u{n}") for n in range(5)))


def begun(*proposals: Proposal) -> tuple[Reviewing, Desk]:
    reviewing, desk = Reviewing(), Desk()
    reviewing.offer(proposals)
    reviewing.turn(desk, NOW, idle=True)
    return reviewing, desk


def test_the_job_names_the_pull_request_and_its_head_and_is_a_plan() -> None:
    reviewing, desk = begun(proposal(ONE))
    assert list(desk.executor.jobs.values()) == [
        Job(JobId("p-1"), Operation.PLAN, UnitId("prod/net"), pull().head, 3, pull=1)
    ]
    assert reviewing.began
    assert [unit.state for unit in reviewing.shown[0].units] == ["running"]


def test_what_was_shown_is_journaled_told_and_listed_once() -> None:
    reviewing, desk = begun(proposal(ONE))
    desk.end("p-1")
    assert reviewing.turn(desk, NOW, idle=True) == NOW + AGAIN
    ((event, actor),) = desk.store.events
    assert isinstance(event, PullShown)
    assert (event.pull, event.unit, event.plan, actor) == (1, "prod/net", PLAN, "pull request 1")
    assert desk.told == [event]
    assert desk.store.ledger().units == {}  # nothing of it is the unit's
    assert [(unit.state, unit.plan) for unit in reviewing.shown[0].units] == [("planned", PLAN)]
    reviewing.turn(desk, NOW + timedelta(hours=1), idle=True)
    assert len(desk.executor.jobs) == 1


def test_there_are_few_at_once_and_none_while_something_merged_waits() -> None:
    reviewing, desk = Reviewing(), Desk()
    reviewing.offer([proposal(MANY)])
    reviewing.turn(desk, NOW, idle=False)
    assert desk.executor.jobs == {}
    reviewing.turn(desk, NOW, idle=True)
    assert len(desk.executor.jobs) == AT_ONCE
    reviewing.turn(desk, NOW, idle=True)
    assert len(desk.executor.jobs) == AT_ONCE
    desk.end("p-1")
    reviewing.turn(desk, NOW, idle=True)
    assert len(desk.executor.jobs) == AT_ONCE + 1


def test_a_failure_is_tried_again_later_and_later_and_is_not_the_units() -> None:
    reviewing, desk = begun(proposal(ONE))
    desk.end("p-1", Outcome.HELD, "NotAllowed")
    assert reviewing.turn(desk, NOW, idle=True) == NOW + FIRST_RETRY
    assert [(unit.state, unit.reason) for unit in reviewing.shown[0].units] == [("failed", "NotAllowed")]
    later = NOW + FIRST_RETRY
    reviewing.turn(desk, later, idle=True)
    desk.end("p-2", Outcome.HELD, "NotAllowed")
    assert reviewing.turn(desk, later, idle=True) == later + 2 * FIRST_RETRY
    assert len(desk.store.events) == 1  # nothing new was said
    assert desk.store.ledger().units == {}


def test_the_same_again_once_what_is_applied_has_changed() -> None:
    reviewing, desk = begun(proposal(ONE))
    desk.end("p-1")
    reviewing.turn(desk, NOW, idle=True)
    desk.facts = make.facts(host="h2")
    reviewing.turn(desk, NOW, idle=True)
    assert len(desk.executor.jobs) == 2


def test_a_push_ends_what_ran_for_the_old_head() -> None:
    reviewing, desk = begun(proposal(ONE))
    reviewing.offer([proposal(ONE, pull(head="b"))])
    reviewing.turn(desk, NOW, idle=True)
    assert desk.executor.cancelled == ["p-1"]
    assert desk.executor.jobs[JobId("p-2")].commit == "b" * 40
    desk.end("p-1")
    desk.end("p-2")
    reviewing.turn(desk, NOW, idle=True)
    assert [event.head for event in desk.told] == ["b" * 40]  # the old one is not told


def test_a_closed_one_is_cancelled_and_gone() -> None:
    reviewing, desk = begun(proposal(ONE))
    reviewing.offer([])
    reviewing.turn(desk, NOW, idle=True)
    assert desk.executor.cancelled == ["p-1"]
    assert reviewing.shown == ()
    desk.end("p-1")
    assert reviewing.turn(desk, NOW, idle=True) is None
    assert desk.told == []


def test_a_runner_that_is_down_ends_the_turn_only() -> None:
    reviewing, desk = Reviewing(), Desk()
    desk.executor.down = True
    reviewing.offer([proposal(ONE)])
    reviewing.turn(desk, NOW, idle=True)
    desk.executor.down = False
    due = reviewing.turn(desk, NOW, idle=True)  # the runner never heard of it
    assert due is not None
    assert desk.told[0].reason == "JobLost"
    reviewing.turn(desk, due, idle=True)
    assert len(desk.executor.jobs) == 1


def test_what_is_not_planned_says_why() -> None:
    why = Untold("FollowsMerge", "Merge that first.")
    refused = proposal(ONE, pull(2), units={}, refused=Untold("PullConflicts", "Rebase it."))
    reviewing, desk = begun(proposal(ONE, units={}, untold={UnitId("prod/net"): why}), refused)
    assert desk.executor.jobs == {}
    one, two = reviewing.shown
    assert [(unit.state, unit.reason) for unit in one.units] == [("not planned", "FollowsMerge")]
    assert (two.reason, two.units) == ("PullConflicts", ())

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_SUBMITTED, JobSubmissionEvent

from reconciler.controller.clockwork import JUMP, MOST_MISSED, Every, Jumps, Punctuality, background

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_runs_that_a_later_one_stands_for_are_counted() -> None:
    missed: list[int] = []
    scheduler = background(missed.append)
    scheduler.start(paused=True)
    try:
        for name, seconds in (("poll", 60), ("pulls", 10)):
            scheduler.add_job(print, "interval", seconds=seconds, id=name)
        scheduler.add_job(print, "date", run_date=NOON, id="due")
        told = Punctuality(scheduler, missed.append)

        def submitted(job: str, after: int) -> None:
            at = NOON + timedelta(seconds=after)
            told(JobSubmissionEvent(EVENT_JOB_SUBMITTED, job, "default", [at]))

        for after in (0, 60, 120):
            submitted("poll", after)
        submitted("pulls", 0)
        submitted("due", 0)
        submitted("due", 5000)  # has no interval
        submitted("gone", 0)
        assert missed == []
        submitted("poll", 420)  # 180, 240, 300 and 360 did not come
        submitted("pulls", 20)
        assert missed == [4, 1]
        submitted("poll", 480)
        assert missed == [4, 1]
    finally:
        scheduler.shutdown()


def test_a_scheduler_tells_its_counter_of_what_it_really_submits() -> None:
    """The event of the installed APScheduler has what `Punctuality` reads, and a job in time counts as nothing."""
    missed: list[int] = []
    ran = threading.Semaphore(0)
    scheduler = background(missed.append)
    scheduler.add_job(ran.release, "interval", seconds=0.05, id="often", next_run_time=datetime.now(UTC))
    scheduler.start()
    try:
        assert ran.acquire(timeout=60)
        job = scheduler.get_job("often")
        job.modify(next_run_time=datetime.now(UTC) - timedelta(seconds=1))  # as after a host that slept
        for _ in range(3):
            assert ran.acquire(timeout=60)
    finally:
        scheduler.shutdown()
    assert all(count > 0 for count in missed)


def test_whatever_is_scheduled_comes_at_once_when_the_clock_was_set() -> None:
    wall, ticks = [NOON], [100.0]
    scheduler = background(lambda _: None)
    scheduler.start(paused=True)
    try:
        poll = scheduler.add_job(print, "interval", seconds=60, id="poll", next_run_time=NOON + timedelta(minutes=1))
        jumps = Jumps(scheduler, lambda: wall[0], lambda: ticks[0])

        def passes(seconds: float, shown: float) -> bool:
            ticks[0] += seconds
            wall[0] += timedelta(seconds=shown)
            return jumps.follow()

        assert not passes(30, 30)
        assert not passes(30, 30 + JUMP - 1)  # it was slewed
        assert poll.next_run_time == NOON + timedelta(minutes=1)
        for shown in (-3600.0, 5 * 365 * 86_400.0):
            assert passes(1, shown)
            assert scheduler.get_job("poll").next_run_time == wall[0]
            assert not passes(1, 1)
    finally:
        scheduler.shutdown()


def test_a_run_that_was_planned_by_a_clock_of_years_ahead_comes_now() -> None:
    """The scheduler had read the clock before it was put back, and wrote its plan after everything was brought forward."""
    scheduler = background(lambda _: None)
    scheduler.start(paused=True)
    try:
        poll = scheduler.add_job(print, "interval", seconds=60, id="poll", next_run_time=NOON)
        once = scheduler.add_job(print, "date", run_date=NOON + timedelta(days=9), id="due")
        jumps = Jumps(scheduler, lambda: NOON, lambda: 100.0)
        for planned in (60, 60 + JUMP):
            poll.modify(next_run_time=NOON + timedelta(seconds=planned))
            assert not jumps.follow()
            assert scheduler.get_job("poll").next_run_time == NOON + timedelta(seconds=planned)
        poll.modify(next_run_time=NOON + timedelta(days=180))
        assert not jumps.follow()
        assert scheduler.get_job("poll").next_run_time == NOON
        assert once.next_run_time == NOON + timedelta(days=9)  # it is planned anew with each pass
    finally:
        scheduler.shutdown()


def test_an_interval_counts_what_is_late_and_passes_over_what_a_jump_left_behind() -> None:
    every, second = Every(timedelta(seconds=1)), timedelta(seconds=1)
    late, ages = NOON + 10 * second, NOON + timedelta(days=20_000)
    assert every.get_next_fire_time(NOON, late) == NOON + second
    assert every.get_next_fire_time(NOON, NOON + MOST_MISSED * second) == NOON + second
    assert every.get_next_fire_time(NOON, ages) == ages + second

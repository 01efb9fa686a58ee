"""What wakes the daemon by the clock: late rather than never, and counted when it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_SUBMITTED, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.job import Job
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

MOST_MISSED = 100  # runs that are counted one by one
JUMP = 5.0  # seconds: a clock that differs by more from what has passed was set


def background(missed: Callable[[int], None]) -> BackgroundScheduler:
    """A scheduler that runs late jobs rather than dropping them. `missed` is told how many runs a later one stood for."""
    defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    pool = ThreadPoolExecutor(2)
    scheduler = BackgroundScheduler(executors={"default": pool}, job_defaults=defaults, timezone=UTC)
    scheduler.add_listener(Punctuality(scheduler, missed), EVENT_JOB_SUBMITTED)
    return scheduler


class Every(IntervalTrigger):  # type: ignore[misc] # it ships no types
    """An interval. Runs that a clock which was set has passed by are not gone through: of a host that began in 1970 they are millions."""

    def __init__(self, interval: timedelta) -> None:
        super().__init__(seconds=interval.total_seconds(), timezone=UTC)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """See `IntervalTrigger`."""
        if previous_fire_time is not None and now - previous_fire_time > MOST_MISSED * self.interval:
            return now + timedelta(seconds=self.interval_length)
        found: datetime | None = super().get_next_fire_time(previous_fire_time, now)
        return found


class Punctuality:
    """Counts the runs that were due and did not come.

    The scheduler itself tells of missed runs only where it drops them, and this one drops none.
    """

    def __init__(self, scheduler: BackgroundScheduler, missed: Callable[[int], None]) -> None:
        self._scheduler, self._missed = scheduler, missed
        self._last: dict[str, datetime] = {}

    def __call__(self, event: JobSubmissionEvent) -> None:
        """A job was handed to its thread. One without an interval comes once, whenever it is due."""
        job = self._scheduler.get_job(event.job_id)
        every: timedelta | None = getattr(job.trigger, "interval", None) if job else None
        if every is None:
            return
        due = event.scheduled_run_times[-1]
        between = round((due - self._last.get(event.job_id, due)) / every) - 1
        self._last[event.job_id] = due
        if between > 0:
            self._missed(between)


class Jumps:
    """Notices that the host's clock was set.

    What waits for a time of day would wait for as long as the clock was put back, polls included.
    """

    def __init__(
        self,
        scheduler: BackgroundScheduler,
        now: Callable[[], datetime],
        ticking: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scheduler, self._now, self._ticking = scheduler, now, ticking
        self._ahead = self._measure()

    def follow(self) -> bool:
        """Whether the clock was set since the last look. Then everything that is scheduled comes now.

        So does what waits for longer than its interval: the scheduler takes the time before it takes its lock, and may have
        planned a run by a clock that was put back while it waited, or back and forth between two looks.
        """
        ahead = self._measure()
        jumped, self._ahead = abs(ahead - self._ahead) > JUMP, ahead
        for job in self._scheduler.get_jobs():
            if jumped or self._waits_too_long(job):
                with suppress(JobLookupError):  # it has just had its turn
                    job.modify(next_run_time=self._now())
        return jumped

    def _waits_too_long(self, job: Job) -> bool:
        every: timedelta | None = getattr(job.trigger, "interval", None)
        due: datetime | None = job.next_run_time
        return every is not None and due is not None and due - self._now() > every + timedelta(seconds=JUMP)

    def _measure(self) -> float:
        return self._now().timestamp() - self._ticking()

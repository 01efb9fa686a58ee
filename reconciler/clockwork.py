"""What wakes the daemon by the clock: late rather than never, and counted when it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_SUBMITTED, JobSubmissionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler


def background(missed: Callable[[int], None]) -> BackgroundScheduler:
    """A scheduler that runs late jobs rather than dropping them. `missed` is told how many runs a later one stood for."""
    defaults = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
    pool = ThreadPoolExecutor(2)
    scheduler = BackgroundScheduler(executors={"default": pool}, job_defaults=defaults, timezone=UTC)
    scheduler.add_listener(Punctuality(scheduler, missed), EVENT_JOB_SUBMITTED)
    return scheduler


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

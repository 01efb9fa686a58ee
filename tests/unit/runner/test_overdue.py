"""A job's own deadline."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from reconciler.runner import overdue

SOON, LATER = timedelta(seconds=0.05), timedelta(hours=1)


def in_a_job(work: Callable[[], None]) -> int:
    """Its exit code, of a process of its own: 7 where it was overdue."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0)
        work()
        code = 0
    except overdue.OverdueError:
        code = 7
    finally:
        os._exit(code)


def waits() -> None:
    """For a byte that never comes, as long as it takes."""
    os.read(os.pipe()[0], 1)


def test_whatever_a_job_waits_for_it_ends() -> None:
    def work() -> None:
        overdue.arm(SOON)
        with suppress(Exception):  # what forgives a failure does not forgive this
            waits()

    assert in_a_job(work) == 7


def test_a_plan_has_its_own_time_and_an_apply_has_all_that_it_takes() -> None:
    def work() -> None:
        overdue.arm(timedelta(seconds=0.5))
        overdue.extend(LATER)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000
        overdue.extend(timedelta(seconds=0.5))
        overdue.end()
        time.sleep(0.7)  # the time that would have been up

    assert in_a_job(work) == 0


def test_who_is_no_job_has_no_deadline() -> None:
    before = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[1]
    overdue.extend(SOON)
    overdue.end()
    assert (signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[1]) == before


def test_two_plans_fit_and_what_is_around_them() -> None:
    assert overdue.planning(timedelta(minutes=15)) == timedelta(minutes=30) + overdue.SLACK

"""A job's own deadline until its apply begins: whatever it waits for, it ends by itself. An apply is never cut short by it.

Each wait inside has a deadline of its own; this one is for what they add up to, and for the wait that nobody thought of. To end
anywhere is safe before an apply: it is less than a `kill -9` there, which the journal is made for.
"""

from __future__ import annotations

import signal
from datetime import timedelta

VERIFYING = timedelta(minutes=20)  # until the engine is asked: fetches, proofs, credentials, secrets, states
SLACK = timedelta(
    minutes=20
)  # beyond the plans themselves: providers to fetch, modules to read, a last look at the branch
PLANS = 2  # the second one is for outputs that turn out to be sensitive
AGAIN = 30.0  # seconds: a first word that something swallowed is said again


class OverdueError(BaseException):
    """The job's time is over. No `Exception`: what forgives a failure on the way must not forgive this."""


def arm(within: timedelta = VERIFYING) -> None:
    """This process is a job, and has so long."""
    signal.signal(signal.SIGALRM, _ring)
    signal.setitimer(signal.ITIMER_REAL, within.total_seconds(), AGAIN)


def extend(within: timedelta) -> None:
    """From now on the job has so long; what was left before does not count any more. Does nothing where none was armed."""
    if signal.getsignal(signal.SIGALRM) is _ring:
        arm(within)


def end() -> None:
    """Nothing is cut short any more."""
    if signal.getsignal(signal.SIGALRM) is _ring:
        signal.setitimer(signal.ITIMER_REAL, 0)


def planning(timeout: timedelta) -> timedelta:
    """How long a job may take from its plan on, where one plan may take `timeout`."""
    return PLANS * timeout + SLACK


def _ring(_number: int, _frame: object) -> None:
    raise OverdueError

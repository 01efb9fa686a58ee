"""What a daemon that stands by does while the store does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from reconciler.controller.leading import PASSING, Leading
from reconciler.errors import PassError
from reconciler.logs import open_log
from reconciler.observe import Observer
from reconciler.ports import Term

OURS = Term("host/1/a", 3, 15.0)


@dataclass
class Lease:
    """Says these in turn, and then that it is ours."""

    said: list[PassError]
    looks: int = 0

    def acquire(self) -> int | None:
        self.looks += 1
        if self.said:
            raise self.said.pop(0)
        return OURS.fence

    def renew(self) -> None:
        raise AssertionError

    def check(self) -> None:
        raise AssertionError

    def release(self) -> None:
        raise AssertionError

    def term(self) -> Term | None:
        if self.said:
            raise PassError("StoreUnreachable", "dynamodb:t: no answer")
        return OURS


@dataclass
class Told(Observer):
    """Whom it tells of failures."""

    failures: list[str] = field(default_factory=list)

    def __init__(self) -> None:
        super().__init__("1", open_log(as_json=True), lambda: datetime.now(UTC))
        self.failures = []

    def pass_failed(self, error: PassError) -> None:
        self.failures.append(error.reason)


def leading(lease: Lease, told: Told, end: Callable[[], None] = lambda: None) -> Leading:
    return Leading(lease, "dynamodb:t", 0.01, told, threading.Event(), end)


def test_a_store_that_does_not_answer_is_waited_for_and_told_once() -> None:
    told = Told()
    lease = Lease([PassError("StoreUnreachable", "no answer")] * 3 + [PassError("StoreThrottled", "slow down")])
    assert leading(lease, told).wait() == OURS
    assert (lease.looks, told.failures) == (5, ["StoreUnreachable", "StoreThrottled"])


def test_readiness_says_that_the_store_does_not_answer() -> None:
    one = leading(Lease([PassError("StoreUnreachable", "no answer")]), Told())
    assert (one.check().ok, one.check().message) == (False, "dynamodb:t: no answer")


@pytest.mark.parametrize("reason", ["StoreDenied", "StoreMissing", "StoreTooNew", "AuditBroken", "LeaseLost"])
def test_what_does_not_pass_by_itself_ends_the_daemon(reason: str) -> None:
    assert reason not in PASSING
    with pytest.raises(PassError, match="m"):
        leading(Lease([PassError(reason, "m")]), Told()).wait()

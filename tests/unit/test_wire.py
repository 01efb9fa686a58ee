"""What comes over the runner's socket, and what the controller makes of an answer that makes no sense."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler import codec, wire
from reconciler.errors import PassError
from reconciler.executor.local import LocalExecutor
from reconciler.model import MOST_TOLD, Change, Commit, Job, JobId, Operation, Outcome, PlanSummary, Result, UnitId

DEADLINE = 20.0  # seconds
JOB = Job(JobId("job-1"), Operation.APPLY, UnitId("prod/net"), Commit("c" * 40), 1)


@contextmanager
def answering(path: Path, line: bytes) -> Iterator[LocalExecutor]:
    """A runner that says this, once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(DEADLINE)

        def answer() -> None:
            peer, _ = listener.accept()
            with peer, suppress(BrokenPipeError, ConnectionResetError):  # whoever has read enough goes
                wire.receive(peer)
                peer.sendall(line)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield LocalExecutor(path)
        finally:
            thread.join(DEADLINE)


def poll(executor: LocalExecutor) -> object:
    return executor.poll(JOB.id)


@pytest.mark.parametrize(
    ("answer", "ask"),
    [
        ({"state": "result", "result": "{}"}, poll),
        ({"state": "running", "phase": "Dreaming"}, poll),
        ({"state": "lost"}, poll),
        ({}, poll),
        ({"facts": "{}"}, LocalExecutor.describe),
        ({}, LocalExecutor.describe),
        ({"data": "x"}, lambda executor: executor.log(JOB.id, 0)),
    ],
)
def test_an_answer_that_makes_no_sense_is_told_as_such(
    tmp_path: Path, answer: dict[str, object], ask: Callable[[LocalExecutor], object]
) -> None:
    with (
        answering(tmp_path / "s", wire.pack(answer)) as executor,
        pytest.raises(PassError, match="one version") as caught,
    ):
        ask(executor)
    assert caught.value.reason == "AnswerInvalid"


def test_an_answer_that_is_too_long_is_not_a_runner_that_is_silent(tmp_path: Path) -> None:
    line = b"x" * (wire.MAX_LINE + 1)
    with (
        answering(tmp_path / "s", line) as executor,
        pytest.raises(PassError, match=f"`poll` .* more than {wire.MAX_LINE} bytes") as caught,
    ):
        poll(executor)
    assert caught.value.reason == "AnswerTooLong"


def test_the_longest_plan_that_is_told_fits(tmp_path: Path) -> None:
    address = "module.unit.module.things[" + '"key"' * 100 + "].aws_route53_record.this"
    plan = PlanSummary(
        (Change(address, "aws_route53_record", ("delete", "create"), "replace_because_cannot_update"),) * 7000,
        (address,) * 7000,
        False,
        "d" * 64,
    )
    now = datetime.now(UTC)
    result = Result(JOB, Outcome.HELD, "DestroyLimit", "m" * 10_000, now, now, plan=plan.told())
    answer = wire.pack({"state": "result", "result": codec.encode(result).decode()})
    with answering(tmp_path / "s", answer) as executor:
        assert poll(executor) == result
    assert result.plan is not None
    assert (len(result.plan.changes), len(result.plan.missing), result.plan.more) == (MOST_TOLD, MOST_TOLD, 6000)

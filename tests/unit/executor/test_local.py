from __future__ import annotations

from pathlib import Path

import pytest

from reconciler import wire
from reconciler.errors import PassError
from reconciler.executor.local import LocalExecutor
from reconciler.model import JobId, Load, Phase
from reconciler.ports import Running

JOB = JobId("job-1")


def answering(monkeypatch: pytest.MonkeyPatch, **answer: object) -> LocalExecutor:
    monkeypatch.setattr(wire, "ask", lambda *_: {"state": "running", "phase": "Applying", **answer})
    return LocalExecutor(Path("/nowhere"))


def test_a_running_job_comes_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answering(monkeypatch, load={"waits": True, "memory": 128}).poll(JOB)
    assert isinstance(found, Running)
    assert (found.phase, found.load) == (Phase.APPLYING, Load(True, 128))


def test_a_runner_of_before_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answering(monkeypatch).poll(JOB)
    assert isinstance(found, Running)
    assert found.load == Load()


@pytest.mark.parametrize("wrong", ["much", {"waits": "yes"}, [1]])
def test_nonsense_is_the_runner_s_fault(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PassError, match="not understood"):
        answering(monkeypatch, load=wrong).poll(JOB)

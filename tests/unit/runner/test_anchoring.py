"""The anchor follows the log, whoever dies; what goes wrong is noted and tried again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.config.audit import AnchorConfig, Audit, S3AnchorConfig
from reconciler.runner import anchoring
from reconciler.runner.anchoring import AGAIN, MANY, Anchoring, Keeper, open_anchor
from reconciler.runner.audit.anchor import FileAnchor
from reconciler.runner.audit.chain import Head
from reconciler.runner.audit.s3 import S3Anchor
from reconciler.runner.record import Anchored, Recorder

PATIENCE = 20.0


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    (tmp_path / "memory").mkdir()
    return Recorder(tmp_path / "memory" / "audit")


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(anchor=AnchorConfig(file=str(tmp_path / "anchor")), interval="10s")  # type: ignore[arg-type]


def anchored(tmp_path: Path) -> list[int]:
    path = tmp_path / "anchor"
    return [one.count for one in FileAnchor(path).heads().heads] if path.exists() else []


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a poll, not a wait


def test_heads_are_put_when_they_are_due(recorder: Recorder, audit: Audit, tmp_path: Path) -> None:
    now = 1000.0
    keeper = Keeper(audit, recorder, lambda: now)
    keeper.tend()
    assert anchored(tmp_path) == []
    recorder.event("paused")
    keeper.tend()
    recorder.event("resumed")
    keeper.tend()
    assert anchored(tmp_path) == [1]  # the interval is not over
    now += 10
    keeper.tend()
    keeper.tend()
    assert anchored(tmp_path) == [1, 2]
    for _ in range(MANY):
        recorder.event("paused")
    keeper.tend()
    assert anchored(tmp_path) == [1, 2, 2 + MANY]
    recorder.event("resumed")
    keeper.tend(now_or_never=True)
    assert anchored(tmp_path)[-1] == 3 + MANY
    assert recorder.anchored().head == recorder.log.mark().head


def test_an_anchor_that_is_away_is_noted_and_tried_again(
    recorder: Recorder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    audit = Audit(anchor=AnchorConfig(file=str(tmp_path / "mount" / "anchor")))  # type: ignore[arg-type]
    keeper = Keeper(audit, recorder, lambda: now)
    recorder.event("paused")
    for _ in range(3):
        keeper.tend()
    facts = recorder.facts(has_anchor=True)
    assert "does not answer" in facts.failure
    assert (facts.records, facts.anchored) == (1, 0)
    assert facts.waiting_since is not None
    assert capfd.readouterr().err.count("does not answer") == 1
    (tmp_path / "mount").mkdir()
    now += AGAIN
    keeper.tend()
    facts = recorder.facts(has_anchor=True)
    assert (facts.records, facts.anchored, facts.failure, facts.waiting_since) == (1, 1, "", None)


def test_an_older_log_is_not_anchored_over_a_newer_head(recorder: Recorder, audit: Audit, tmp_path: Path) -> None:
    recorder.event("paused")
    FileAnchor(tmp_path / "anchor").put(Head(9, "f" * 64), recorder.log.clock())
    Keeper(audit, recorder).tend()
    assert "run `reconciler audit verify`" in recorder.anchored().failure
    assert anchored(tmp_path) == [9]


def test_a_log_that_went_back_is_told_although_nothing_is_new(recorder: Recorder, audit: Audit) -> None:
    recorder.event("paused")
    for before in (Head(5, "f" * 64), Head(1, "f" * 64)):
        recorder.note_anchored(Anchored(before))
        Keeper(audit, recorder).tend()
        assert "anchored.json: it says that" in recorder.anchored().failure
        assert recorder.anchored().head == before


def test_a_process_keeps_it_and_ends_with_the_last_head(recorder: Recorder, audit: Audit, tmp_path: Path) -> None:
    held = Anchoring(audit, recorder)
    held.start(lambda: None)
    recorder.event("paused")
    until(lambda: anchored(tmp_path) == [1])
    recorder.event("resumed")
    child = held._child
    assert child is not None
    held.finish()
    assert anchored(tmp_path) == [1, 2]
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)


def test_one_that_is_killed_is_started_again(
    recorder: Recorder, audit: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(anchoring, "AGAIN", 0.0)
    held = Anchoring(audit, recorder)
    held.start(lambda: None)
    first = held._child
    assert first is not None
    os.kill(first, signal.SIGKILL)

    def again() -> bool:
        held.reap(lambda: None)
        return held._child != first

    until(again)
    recorder.event("paused")
    until(lambda: anchored(tmp_path) == [1])
    held.finish()


def test_without_an_anchor_there_is_no_process(recorder: Recorder) -> None:
    held = Anchoring(None, recorder)
    held.start(lambda: pytest.fail("a process began"))
    held.reap(lambda: None)
    held.finish()
    assert recorder.facts(has_anchor=False).anchored is None


def test_a_bucket_is_opened_with_its_own_credentials(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("AWS_ACCESS_KEY_ID=one\nAWS_SECRET_ACCESS_KEY=two\n")
    keys.chmod(0o600)
    given = S3AnchorConfig(bucket="b", region="eu-west-1", retain="7d", mode="governance", static_file=str(keys))  # type: ignore[arg-type]
    found = open_anchor(AnchorConfig(s3=given))
    expected = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two"}
    assert found == S3Anchor("b", "audit", "eu-west-1", timedelta(days=7), "governance", credentials=expected)

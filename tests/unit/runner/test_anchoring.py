"""The anchor follows the log, whoever dies; what goes wrong is noted and tried again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.config.audit import AnchorConfig, Audit
from reconciler.errors import HeldError
from reconciler.runner import anchoring
from reconciler.runner.access.keys import Keys
from reconciler.runner.anchoring import AGAIN, MANY, Anchoring, Keeper, open_anchor
from reconciler.runner.audit.anchor import FileAnchor
from reconciler.runner.audit.chain import Head
from reconciler.runner.audit.s3 import S3Anchor
from reconciler.runner.record import Anchored, Recorder
from tests.kit.aws import REGION
from tests.kit.guard import allow, guarded, role_arn

PATIENCE = 20.0
BUCKET = "acme-heads"


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
    keeper = Keeper(audit, recorder, "acme", lambda: now)
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
    keeper = Keeper(audit, recorder, "acme", lambda: now)
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
    Keeper(audit, recorder, "acme").tend()
    assert "run `reconciler audit verify`" in recorder.anchored().failure
    assert anchored(tmp_path) == [9]


def test_a_log_that_went_back_is_told_although_nothing_is_new(recorder: Recorder, audit: Audit) -> None:
    recorder.event("paused")
    for before in (Head(5, "f" * 64), Head(1, "f" * 64)):
        recorder.note_anchored(Anchored(before))
        Keeper(audit, recorder, "acme").tend()
        assert "anchored.json: it says that" in recorder.anchored().failure
        assert recorder.anchored().head == before


def test_a_process_keeps_it_and_ends_with_the_last_head(recorder: Recorder, audit: Audit, tmp_path: Path) -> None:
    held = Anchoring(audit, recorder, "acme")
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
    held = Anchoring(audit, recorder, "acme")
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
    held = Anchoring(None, recorder, "acme")
    held.start(lambda: pytest.fail("a process began"))
    held.reap(lambda: None)
    held.finish()
    assert recorder.facts(has_anchor=False).anchored is None


def s3(folder: Path, **said: object) -> AnchorConfig:
    given = {"bucket": BUCKET, "region": REGION, "retain": "7d", "mode": "governance", **said}
    return AnchorConfig.model_validate({"s3": given}, context={"folder": folder})


def written(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def keys_of(config: AnchorConfig) -> Keys:
    found = open_anchor(config, "acme")
    assert isinstance(found, S3Anchor)
    assert replace(found, keys=None) == S3Anchor(BUCKET, "audit", REGION, timedelta(days=7), "governance")
    assert found.keys is not None
    return found.keys.current()


def test_a_bucket_is_opened_with_its_own_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "AWS_ACCESS_KEY_ID=one\nAWS_SECRET_ACCESS_KEY=two\n"
    monkeypatch.setenv("OWN_KEY", "three")
    monkeypatch.setenv("OWN_SECRET", "four")
    monkeypatch.setenv(
        "AWS_CONFIG_FILE",
        written(tmp_path / "aws", "[profile audit]\naws_access_key_id=five\naws_secret_access_key=six\n"),
    )
    said = '{"Version": 1, "AccessKeyId": "seven", "SecretAccessKey": "eight"}'
    sources = {
        "static_file": written(tmp_path / "keys", lines),
        "environment": {"AWS_ACCESS_KEY_ID": "OWN_KEY", "AWS_SECRET_ACCESS_KEY": "OWN_SECRET"},
        "profile": "audit",
        "command": ["/bin/echo", said],
    }
    found = {kind: keys_of(s3(tmp_path, credentials={kind: source})) for kind, source in sources.items()}
    pairs = [("one", "two"), ("three", "four"), ("five", "six"), ("seven", "eight")]
    assert found == {kind: Keys(*pair) for kind, pair in zip(sources, pairs, strict=True)}
    assert open_anchor(s3(tmp_path), "acme") == S3Anchor(BUCKET, "audit", REGION, timedelta(days=7), "governance")


def test_a_bucket_whose_credentials_hold_no_keys_is_not_asked_with_others(tmp_path: Path) -> None:
    """The SDK would find those of the runner's host, and write heads as somebody else."""
    lines = s3(tmp_path, credentials={"static_file": written(tmp_path / "keys", "AWS_ACCESS_KEY_ID=one\n")})
    with pytest.raises(
        HeldError, match=r"audit\.anchor\.s3\.credentials: static_file: AWS_SECRET_ACCESS_KEY is not there"
    ):
        keys_of(lines)


def test_heads_are_written_in_sessions_of_a_role_which_are_renewed(
    recorder: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = allow("s3:PutObject", "s3:PutObjectRetention", "s3:ListBucket", "s3:ListBucketVersions")
    with guarded(life=3.0) as aws:
        aws.begin({"runner": allow("sts:*")}, {"heads": heads})
        aws.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}, ObjectLockEnabledForBucket=True
        )
        lines = "".join(f"{name.upper()}={value}\n" for name, value in aws.people["runner"].items())
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", aws.endpoint)
        role = {"role": role_arn("heads"), "source": {"static_file": written(tmp_path / "keys", lines)}}
        config = s3(tmp_path, credentials={"assume_role": role}, endpoint=aws.endpoint, use_path_style=True)
        keeper = Keeper(Audit(anchor=config), recorder, "acme")
        recorder.event("paused")
        keeper.tend(now_or_never=True)
        assert recorder.anchored().failure == ""
        first = aws.guard.sessions[-1]
        until(lambda: time.time() > first.ends)  # the clock is the event
        recorder.event("resumed")
        keeper.tend(now_or_never=True)
        assert (recorder.anchored().failure, recorder.anchored().head) == ("", recorder.log.mark().head)
        second = aws.guard.sessions[-1]
        assert second.access_key != first.access_key
        assert {first.access_key, second.access_key} < set(aws.guard.used)
        assert (second.asked["RoleSessionName"], second.asked["SourceIdentity"]) == ("reconciler-audit", "acme@audit")
        allowed = json.loads(second.asked["Policy"])["Statement"]
        assert allowed[0]["Resource"] == f"arn:aws:s3:::{BUCKET}/audit/*"
        assert not [one for one in str(allowed).split("'") if "Delete" in one or "Bypass" in one or one == "s3:*"]
        kept = aws.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]
        assert [one["Key"][:21] for one in kept] == ["audit/000000000000001", "audit/000000000000002"]


def test_a_bucket_that_failed_is_opened_anew(recorder: Recorder, tmp_path: Path) -> None:
    """Whoever renews a file of keys, or mends it, restarts nothing."""
    now = 0.0
    keys = tmp_path / "keys"
    config = s3(tmp_path, credentials={"static_file": str(keys)}, endpoint="http://127.0.0.1:9")
    keeper = Keeper(Audit(anchor=config), recorder, "acme", lambda: now)
    recorder.event("paused")
    keeper.tend()
    assert "keys cannot be read" in recorder.anchored().failure
    written(keys, "AWS_ACCESS_KEY_ID=one\nAWS_SECRET_ACCESS_KEY=two\n")
    now += AGAIN
    keeper.tend()
    assert "127.0.0.1:9" in recorder.anchored().failure

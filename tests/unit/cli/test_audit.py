"""`reconciler audit`: what it finds, what it says, and how it ends."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.actual.ledger import Started
from reconciler.cli import main
from reconciler.model import Cause, Commit, JobId, StateMark, UnitId
from reconciler.runner.audit.anchor import FileAnchor
from reconciler.runner.record import Change, Origin, Recorder, Vouched
from reconciler.store.sqlite import SqliteStore
from tests.kit.plane import LINEAGE

UNIT = UnitId("prod/net")
WHO = Vouched(Commit("c" * 40), "ada@example.com", "SHA256:k", 7, "bob", ("carol", "dan"))
ORIGIN = Origin(JobId("job-1"), 1, Vouched(Commit("d" * 40)), WHO, Cause.DESIRED, module="acme/net", version="1.0.0")


class Clock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of two applies and a state that somebody pushed; the anchor beside it has the first five records."""
    (tmp_path / "memory").mkdir()
    recorder = Recorder(tmp_path / "memory" / "audit")
    before = None
    for serial in (2, 5):
        begun = recorder.intent(UNIT, before, ORIGIN)
        before = StateMark(LINEAGE, serial)
        recorder.ended(UNIT, begun, ORIGIN.job, before, Change.APPLIED)
    recorder.event("paused", by="root", reason="a break")
    FileAnchor(tmp_path / "anchor").put(recorder.log.mark().head, datetime.now(UTC))
    recorder.seen(UNIT, StateMark(LINEAGE, 9), before, JobId("job-2"))
    return Path(recorder.cabinet.place)


def audit(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["audit", *map(str, words)])
    return code, capsys.readouterr().out


def test_a_log_that_fits(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = audit(capsys, "verify", "--file", log, "--anchor", tmp_path / "anchor")
    assert code == 0
    assert "6 records fit" in out
    assert "5 records are vouched for, 1 are beyond it" in out
    code, out = audit(
        capsys, "verify", "--file", log / "000000000001.jsonl", "--anchor", tmp_path / "anchor", "-o", "json"
    )
    said = json.loads(out)
    assert code == 0
    assert (said["fits"], said["records"], said["anchored"], said["beyond"]) == (True, 6, 5, 1)


def test_the_first_record_that_does_not_fit_is_named(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = log / "000000000001.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"pull":7', b'"pull":8', 1))
    code, out = audit(capsys, "verify", "--file", log, "--anchor", tmp_path / "anchor")
    assert code == 2
    assert "000000000001.jsonl: record 1 is not what was written" in out
    code, out = audit(capsys, "verify", "--file", log, "--anchor", tmp_path / "anchor", "-o", "json")
    assert (code, json.loads(out)["wrong"]["seq"]) == (2, 1)


def test_a_log_that_was_cut_is_found_by_the_anchor_and_by_the_runner_s_own_word(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment = log / "000000000001.jsonl"
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:4]))
    code, out = audit(capsys, "verify", "--file", segment, "--anchor", tmp_path / "anchor")
    assert (code, "record 5 is missing: 5 records were anchored" in out) == (2, True)
    code, out = audit(capsys, "verify", "--file", log)
    assert (code, "record 5 is missing: the runner wrote 6" in out) == (2, True)


def test_without_an_anchor_that_is_said(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = audit(capsys, "verify", "--file", log, "--config", "/nowhere/runner.yaml")
    assert (code, "none: a tail that was rewritten as a whole would not show" in out) == (0, True)


def test_what_cannot_be_checked_is_an_error(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit(capsys, "verify", "--file", log, "--anchor", tmp_path / "none")[0] == 1
    assert audit(capsys, "verify", "--config", tmp_path / "none.yaml")[0] == 1


def test_who_made_a_serial(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = audit(capsys, "show", UNIT, "--serial", 4, "--file", log)
    _heading, row = out.splitlines()
    assert code == 0
    assert "2 -> 5" in row
    for word in ("applied", "cccccccccccc", "#7", "carol, dan", "ada@example.com", "acme/net 1.0.0"):
        assert word in row
    code, out = audit(capsys, "show", "--file", log, "-o", "json")
    assert [one["change"] for one in json.loads(out)] == ["applied", "applied", "unexplained"]
    assert audit(capsys, "show", "prod/none", "--file", log)[0] == 1
    assert audit(capsys, "show", UNIT, "--serial", 10, "--file", log)[0] == 1


def test_a_line_that_is_no_record_is_named_with_its_place(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (log / "000000000001.jsonl").open("ab") as file:
        file.write(b"what\n")
    assert main(["audit", "show", "--file", str(log)]) == 1
    assert "000000000001.jsonl:7" in capsys.readouterr().err


def test_a_controller_s_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reconciler.db"
    store = SqliteStore(path, Clock())
    store.append(Started("1", 1), Started("1", 2))
    try:
        code, out = audit(capsys, "verify", "--store", path)  # with the daemon at work
        assert (code, "2 records fit" in out) == (0, True)
        store._db.execute("UPDATE events SET actor = 'nobody' WHERE seq = 2")
        code, out = audit(capsys, "verify", "--store", path, "-o", "json")
        assert (code, json.loads(out)["fits"]) == (2, False)
    finally:
        store.close()
    path.write_bytes(os.urandom(4096))
    assert audit(capsys, "verify", "--store", path)[0] == 1

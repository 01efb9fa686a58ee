"""One record for every change of a serial, however often it is asked for; an alarm for what nothing of ours made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.errors import HeldError
from reconciler.git.proofs import Proof
from reconciler.model import Cause, Commit, JobId, StateMark, Unexplained, UnitId
from reconciler.runner.audit.chain import Record, read
from reconciler.runner.audit.verify import segments_of, verify
from reconciler.runner.memory import EngineMark
from reconciler.runner.record import Anchored, Change, Origin, Recorder, Vouched, vouched_by
from tests.kit.plane import LINEAGE, NOW

NET, OTHER = UnitId("prod/net"), UnitId("prod/other")
JOB, NEXT = JobId("job-1"), JobId("job-2")
COMMIT = Commit("c" * 40)
ENGINE = EngineMark("terraform", "1.11.4", "e" * 64)
WHO = Vouched(COMMIT, "ada@example.com", "SHA256:abc", 7, "bob", ("carol", "dan"))
ORIGIN = Origin(JOB, 3, WHO, WHO, Cause.DESIRED, "l" * 64, "acme/net", "1.0.0", "sha256:t", "p" * 64, "b" * 64, ENGINE)


def at(serial: int, lineage: str = LINEAGE) -> StateMark:
    return StateMark(lineage, serial)


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    (tmp_path / "memory").mkdir()
    return Recorder(tmp_path / "memory" / "audit")


def records(recorder: Recorder, kind: str = "state") -> list[Record]:
    found = verify(segments_of(Path(recorder.cabinet.place)), least=recorder.log.mark().count)
    assert (found.wrong, found.torn) == (None, 0)
    lines = [line for _, data in segments_of(Path(recorder.cabinet.place)) for line in data.splitlines()]
    return [record for record in map(read, lines) if record.kind == kind]


def told(recorder: Recorder) -> list[tuple[str, str, int | None, int | None]]:
    return [
        (r.body["unit"], r.body["change"], *((r.body[side] or {}).get("serial") for side in ("before", "after")))
        for r in records(recorder)
    ]


def applies(recorder: Recorder, unit: UnitId, before: StateMark | None, after: StateMark | None) -> None:
    begun = recorder.intent(unit, before, ORIGIN)
    recorder.ended(unit, begun, JOB, after, Change.APPLIED)


def test_an_apply_has_an_intent_and_an_end_that_says_all_of_it(recorder: Recorder) -> None:
    begun = recorder.intent(NET, None, ORIGIN)
    recorder.ended(NET, begun, JOB, at(2), Change.APPLIED)
    (intent,), (end,) = records(recorder, "intent"), records(recorder)
    assert intent.seq == begun == end.body["intent"]
    assert end.body["origin"] == intent.body["origin"]
    assert end.body["origin"]["change"] == {
        "commit": COMMIT, "signer": "ada@example.com", "key": "SHA256:abc", "pull": 7, "author": "bob",
        "approvers": ["carol", "dan"],
    }  # fmt: skip
    assert (end.body["before"], end.body["after"]) == (None, {"lineage": LINEAGE, "serial": 2})
    assert end.body["origin"]["engine"]["sha256"] == "e" * 64


def test_the_end_of_an_apply_is_recorded_once(recorder: Recorder) -> None:
    begun = recorder.intent(NET, None, ORIGIN)
    for change in (Change.APPLIED, Change.RECOVERED):  # the job died after its record; the next one finds the state
        recorder.ended(NET, begun, JOB, at(2), change)
    recorder.ended(NET, recorder.intent(NET, at(2), ORIGIN), JOB, at(5), Change.FAILED)
    assert told(recorder) == [("prod/net", "applied", None, 2), ("prod/net", "failed", 2, 5)]


def test_an_end_stays_recorded_when_somebody_meddled_after_it(recorder: Recorder) -> None:
    begun = recorder.intent(NET, None, ORIGIN)
    recorder.ended(NET, begun, JOB, at(2), Change.RECOVERED)
    assert recorder.seen(NET, at(4), at(2), NEXT) == Unexplained(at(4), at(2))
    recorder.ended(NET, begun, JOB, at(4), Change.RECOVERED)
    assert told(recorder) == [("prod/net", "recovered", None, 2), ("prod/net", "unexplained", 2, 4)]


def test_an_apply_from_before_the_log_is_recovered_once(recorder: Recorder) -> None:
    for _ in range(2):
        recorder.ended(NET, 0, JOB, at(3), Change.RECOVERED)
    assert told(recorder) == [("prod/net", "recovered", None, 3)]


def test_an_apply_that_left_no_state_has_an_end(recorder: Recorder) -> None:
    begun = recorder.intent(NET, None, ORIGIN)
    recorder.ended(NET, begun, JOB, None, Change.FAILED)
    assert recorder.seen(NET, None, None, NEXT) is None
    assert told(recorder) == [("prod/net", "failed", None, None)]


# --- what nothing of ours made


def test_a_serial_that_nothing_explains_raises_an_alarm_until_a_job_makes_the_next(recorder: Recorder) -> None:
    applies(recorder, NET, None, at(1))
    assert recorder.seen(NET, at(1), at(1), NEXT) is None
    for _ in range(3):
        assert recorder.seen(NET, at(4), at(4), NEXT) == Unexplained(at(4), at(1))
    applies(recorder, NET, at(4), at(5))
    assert recorder.seen(NET, at(5), at(5), NEXT) is None
    assert [one[1:] for one in told(recorder)] == [("applied", None, 1), ("unexplained", 1, 4), ("applied", 4, 5)]


@pytest.mark.parametrize("found", [at(9, "another"), at(0), at(2)])
def test_whatever_is_not_the_recorded_state_is_unexplained(found: StateMark, recorder: Recorder) -> None:
    applies(recorder, NET, None, at(1))
    assert recorder.seen(NET, found, at(1), NEXT) == Unexplained(found, at(1))


def test_a_state_from_before_the_log_is_taken_up_without_alarm_if_the_memory_knows_it(recorder: Recorder) -> None:
    assert recorder.seen(NET, at(7), at(7), JOB) is None
    assert recorder.seen(OTHER, at(8), at(7), JOB) == Unexplained(at(8), at(7))
    assert recorder.seen(UnitId("prod/new"), at(1), None, JOB) == Unexplained(at(1), None)
    assert [one[1:] for one in told(recorder)] == [
        ("known", None, 7),
        ("unexplained", 7, 8),
        ("unexplained", None, 1),
    ]


def test_an_alarm_says_what_to_do() -> None:
    assert "serial 4, and serial 1 was the last" in str(Unexplained(at(4), at(1)))
    assert "none was recorded" in str(Unexplained(at(4)))


# --- names


def test_a_move_is_recorded_once_and_the_serial_goes_with_it(recorder: Recorder) -> None:
    applies(recorder, NET, None, at(1))
    for _ in range(2):
        recorder.moved(NET, OTHER, at(1), NEXT)
    assert recorder.seen(OTHER, at(1), at(1), NEXT) is None
    assert records(recorder)[-1].body["moved_from"] == NET
    recorder.moved(OTHER, NET, at(1), NEXT)  # and back, as a merge of its own
    assert [one[:2] for one in told(recorder)] == [
        ("prod/net", "applied"),
        ("prod/other", "moved"),
        ("prod/net", "moved"),
    ]
    assert recorder.seen(NET, at(1), at(1), NEXT) is None


def test_a_move_that_was_taken_back_before_it_was_recorded_leaves_no_record(recorder: Recorder) -> None:
    applies(recorder, NET, None, at(1))
    recorder.moved_back(OTHER, NET, NEXT)
    assert len(told(recorder)) == 1
    recorder.moved(NET, OTHER, at(1), NEXT)
    recorder.moved_back(OTHER, NET, NEXT)
    assert told(recorder)[-1] == ("prod/net", "moved", 1, 1)


def test_an_unfinished_apply_that_moved_is_not_recovered_twice(recorder: Recorder) -> None:
    begun = recorder.intent(NET, None, ORIGIN)
    recorder.ended(NET, begun, JOB, at(1), Change.RECOVERED)
    recorder.moved(NET, OTHER, at(1), NEXT)
    recorder.ended(OTHER, begun, JOB, at(1), Change.RECOVERED)
    assert [one[1] for one in told(recorder)] == ["recovered", "moved"]


def test_what_is_let_go_is_recorded_once_and_the_name_is_free(recorder: Recorder) -> None:
    applies(recorder, NET, None, at(1))
    for _ in range(2):
        recorder.forgotten(NET, at(1), ORIGIN)
    applies(recorder, NET, None, at(1, "new"))
    assert [one[1:] for one in told(recorder)] == [
        ("applied", None, 1),
        ("forgotten", 1, None),
        ("applied", None, 1),
    ]


# --- everything else


def test_heads_and_engines_are_recorded_when_they_are_others(recorder: Recorder) -> None:
    chain = [Vouched(Commit(f"{number:040x}")) for number in range(60)]
    for _ in range(2):
        recorder.head(chain[-1].commit, COMMIT, chain)
    recorder.head(COMMIT, chain[-1].commit, [WHO])
    first, second = records(recorder, "head")
    assert (len(first.body["chain"]), first.body["more"]) == (50, 10)
    assert first.body["chain"][-1]["commit"] == chain[-1].commit
    assert second.body["chain"][0]["pull"] == 7
    applies(recorder, NET, None, at(1))
    applies(recorder, NET, at(1), at(2))
    assert [one.body["version"] for one in records(recorder, "engine")] == ["1.11.4"]


def test_what_comes_from_outside_is_bounded(recorder: Recorder) -> None:
    proof = Proof(COMMIT, NOW, "s" * 9999, "", 1, "a" * 9999, ("ä" * 9999,) * 999)
    who = vouched_by(proof)
    assert who.key is None
    assert max(map(len, (who.signer or "", who.author or "", *who.approvers))) <= 201
    recorder.head(COMMIT, None, [who] * 999)
    recorder.seen(NET, at(1, "l" * 99_999), None, JOB)
    assert len(records(recorder)[0].body["after"]["lineage"]) == 201


def test_where_the_anchor_is_required_applies_wait_for_it_once_it_is_late(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    recorder = Recorder(tmp_path / "memory" / "audit", timedelta(minutes=15))
    recorder.intent(NET, None, ORIGIN)
    recorder.log.clock = lambda: datetime.now(UTC)
    assert recorder.facts(has_anchor=True).waiting_since is not None
    late = Recorder(tmp_path / "memory" / "audit", timedelta(0))
    late.note_anchored(Anchored(failure="s3://bucket does not answer"))
    with pytest.raises(HeldError, match="s3://bucket does not answer") as held:
        late.intent(NET, None, ORIGIN)
    assert held.value.reason == "AuditNotAnchored"
    late.note_anchored(Anchored(recorder.log.mark().head))
    late.intent(NET, None, ORIGIN)
    assert recorder.facts(has_anchor=False).anchored is None

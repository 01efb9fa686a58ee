"""The log on disk: what a crash leaves is put right, what anybody else leaves is refused."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler import codec
from reconciler.errors import PassError
from reconciler.runner.audit.chain import LONGEST, ChainError, Head, Record, follow, link, read
from reconciler.runner.audit.log import AuditLog, Mark, segments
from reconciler.runner.audit.verify import segments_of, verify
from tests.kit.plane import NOW


class Killed(BaseException):
    """The process dies here."""


@pytest.fixture
def followed() -> list[int]:
    """The numbers of the records whose consequences were drawn."""
    return []


@pytest.fixture
def log(followed: list[int], tmp_path: Path) -> AuditLog:
    return AuditLog(tmp_path / "audit", lambda record: followed.append(record.seq), lambda: NOW, segment=700)


def write(log: AuditLog, count: int) -> None:
    for number in range(count):
        with log.writing() as writer:
            writer.append("state", {"number": number})


def records(log: AuditLog) -> list[Record]:
    return [read(line) for _, data in segments_of(log.folder) for line in data.splitlines()]


def fits(log: AuditLog) -> int:
    found = verify(segments_of(log.folder), least=log.mark().count)
    assert (found.wrong, found.torn) == (None, 0)
    return found.head.count


def last_segment(log: AuditLog) -> Path:
    return log.folder / segments(log.folder)[-1]


def test_records_follow_each_other_through_segments(log: AuditLog, followed: list[int]) -> None:
    write(log, 7)
    assert fits(log) == 7
    assert followed == [1, 2, 3, 4, 5, 6, 7]
    assert len(segments(log.folder)) > 1
    assert [one.body for one in records(log)] == [{"number": number} for number in range(7)]
    assert [found.seq for number in range(1, 8) if (found := log.find(number))] == [*range(1, 8)]
    assert log.find(0) is log.find(8) is None
    assert all(path.stat().st_mode & 0o077 == 0 for path in log.folder.iterdir())


def test_a_line_that_a_crash_overtook_counts_and_its_consequence_is_drawn(log: AuditLog, followed: list[int]) -> None:
    write(log, 2)
    before = (log.folder / "head.json").read_bytes()
    write(log, 1)
    (log.folder / "head.json").write_bytes(before)  # as if the process had died between the two
    del followed[:]
    with log.writing() as writer:
        assert followed == [3]
        assert writer.append("state", {}) == 4
    assert fits(log) == 4


@pytest.mark.parametrize("length", [1, 50, 200, -1])
def test_a_torn_line_is_cut_off_and_that_is_recorded(length: int, log: AuditLog) -> None:
    write(log, 3)
    line = link(log.mark().head, NOW, "state", {"number": "torn"})[:-1]
    with last_segment(log).open("ab") as file:
        file.write(line[:length])
    write(log, 1)
    assert fits(log) == 5
    cut = records(log)[3]
    assert (cut.kind, cut.body["bytes"]) == ("tail-cut", len(line[:length]))
    assert records(log)[4].body == {"number": 0}


def test_an_empty_segment_that_a_crash_left_is_filled(log: AuditLog) -> None:
    write(log, 1)
    (log.folder / "000000000002.jsonl").touch()
    write(log, 1)
    assert fits(log) == 2


def test_a_write_that_fails_leaves_nothing(log: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    write(log, 1)
    real: Callable[[int, bytes], int] = os.write

    def full(handle: int, data: bytes) -> int:
        real(handle, bytes(data)[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        write(log, 1)
    monkeypatch.undo()
    assert last_segment(log).stat().st_size == log.mark().offset
    write(log, 1)
    assert fits(log) == 2


def _shorten(log: AuditLog) -> None:
    os.truncate(last_segment(log), last_segment(log).stat().st_size - 1)


def _lose_a_record(log: AuditLog) -> None:
    lines = last_segment(log).read_bytes().splitlines(keepends=True)
    last_segment(log).write_bytes(b"".join(lines[:-1]))


def _change(log: AuditLog) -> None:
    text = last_segment(log).read_bytes()
    last_segment(log).write_bytes(text[:-10] + b"0" + text[-9:])


def _append_what_is_none(log: AuditLog) -> None:
    with last_segment(log).open("ab") as file:
        file.write(b'{"seq":5}\n')


def _append_what_does_not_follow(log: AuditLog) -> None:
    with last_segment(log).open("ab") as file:
        file.write(link(Head(4, "f" * 64), NOW, "state", {}))


def _lose_the_segment(log: AuditLog) -> None:
    last_segment(log).unlink()


def _lose_the_head(log: AuditLog) -> None:
    (log.folder / "head.json").unlink()


def _damage_the_head(log: AuditLog) -> None:
    (log.folder / "head.json").write_bytes(b"{")


def _tear_before_another_segment(log: AuditLog) -> None:
    mark = log.mark()
    with last_segment(log).open("ab") as file:
        file.write(b"{")
    (log.folder / f"{mark.count + 1:012}.jsonl").touch()


@pytest.mark.parametrize(
    "meddle",
    [
        _shorten, _lose_a_record, _change, _append_what_is_none, _append_what_does_not_follow, _lose_the_segment,
        _lose_the_head, _damage_the_head, _tear_before_another_segment,
    ],
)  # fmt: skip
def test_what_no_crash_leaves_is_refused_and_nothing_is_written(
    meddle: Callable[[AuditLog], None], log: AuditLog
) -> None:
    write(log, 4)
    meddle(log)
    before = {path.name: path.read_bytes() for path in log.folder.iterdir()}
    with pytest.raises(PassError, match="audit verify") as failed:
        write(log, 1)
    assert failed.value.reason == "AuditBroken"
    assert {path.name: path.read_bytes() for path in log.folder.iterdir()} == before


def test_the_head_is_there_before_the_first_record(log: AuditLog) -> None:
    with log.writing():
        assert codec.decode(Mark, (log.folder / "head.json").read_bytes()) == Mark()


def test_killed_anywhere_the_log_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Die at each call that reaches the disk, once; then somebody else writes."""
    calls = 0
    real_fsync, real_replace = os.fsync, os.replace

    def counting(real: Callable[..., object], at: int) -> Callable[..., object]:
        def passing(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                raise Killed
            return real(*args)

        return passing

    for at in range(1, 40):
        calls = 0
        drawn: set[int] = set()
        log = AuditLog(tmp_path / str(at), lambda record, drawn=drawn: drawn.add(record.seq), lambda: NOW, segment=300)  # type: ignore[misc]
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", counting(real_fsync, at))
            patched.setattr(os, "replace", counting(real_replace, at))
            try:
                write(log, 4)
            except Killed:
                pass
            else:
                break
        write(log, 1)
        count = fits(log)
        assert drawn >= {*range(1, count + 1)}
    else:
        pytest.fail("it never came to its end")


# --- the line


def test_a_line_is_json_that_ends_in_its_hash() -> None:
    line = link(Head(), NOW, "state", {"unit": "prod/ä", "at": NOW})
    assert line.endswith(b'"}\n')
    said = json.loads(line)
    assert [*said] == ["seq", "previous", "at", "kind", "body", "hash"]
    assert said["body"] == {"unit": "prod/ä", "at": "2026-11-24T00:00:00Z"}
    assert follow(Head(), line[:-1]) == Head(1, said["hash"])


@pytest.mark.parametrize("line", [b"", b"{}", b"\xff" * 300, b"[" * 5000, b"x" * (LONGEST + 1)])
def test_anything_else_is_no_record(line: bytes) -> None:
    with pytest.raises(ChainError, match="is no record"):
        follow(Head(), line)


def test_a_record_that_no_reader_would_take_is_not_written() -> None:
    with pytest.raises(ChainError, match=re.escape(f"{LONGEST} is the most")):
        link(Head(), NOW, "state", {"text": "x" * LONGEST})

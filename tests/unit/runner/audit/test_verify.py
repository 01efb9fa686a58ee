"""Whatever is done to the log behind the runner, the anchor shows it."""

# ruff: noqa: S311 - what is drawn here is tried out, not kept secret

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from reconciler.runner.audit.anchor import Anchored
from reconciler.runner.audit.chain import Head, follow, link
from reconciler.runner.audit.verify import Segment, verify

START = datetime(2026, 11, 24, tzinfo=UTC)
CASES = 10_000
PER_SEGMENT = 7


@dataclass(frozen=True)
class Log:
    """A log in segments, and every head that an anchor has of it: here of each record."""

    lines: tuple[bytes, ...]

    @property
    def heads(self) -> list[Anchored]:
        head, found = Head(), []
        for line in self.lines:
            head = follow(head, line[:-1])
            found.append(Anchored(head.count, head.hash, START, "anchor"))
        return found

    @property
    def segments(self) -> list[Segment]:
        return cut(self.lines)


def cut(lines: tuple[bytes, ...]) -> list[Segment]:
    """As the runner would have it on disk."""
    starts = range(0, len(lines), PER_SEGMENT)
    return [(f"{start + 1:012}.jsonl", b"".join(lines[start : start + PER_SEGMENT])) for start in starts]


def written(chance: random.Random, records: int) -> Log:
    head, lines = Head(), []
    for number in range(records):
        body = {"unit": f"prod/u{chance.randrange(9)}", "serial": number, "text": "x" * chance.randrange(60)}
        line = link(head, START + timedelta(seconds=number), "state", body)
        head = follow(head, line[:-1])
        lines.append(line)
    return Log(tuple(lines))


def chained(lines: list[tuple[str, bytes]], start: list[bytes]) -> tuple[bytes, ...]:
    """What somebody writes who knows how: other bodies with hashes that fit."""
    head = Head()
    for line in start:
        head = follow(head, line[:-1])
    made = list(start)
    for kind, text in lines:
        line = link(head, START, kind, {"forged": text.decode("latin-1")})
        head = follow(head, line[:-1])
        made.append(line)
    return tuple(made)


# --- what somebody does to it: each gives other segments than there were


def flip(log: Log, chance: random.Random) -> list[Segment]:
    segments = log.segments
    which = chance.randrange(len(segments))
    name, data = segments[which]
    changed, at = bytearray(data), chance.randrange(len(data))
    changed[at] ^= 1 << chance.randrange(8)
    segments[which] = (name, bytes(changed))
    return segments


def drop(log: Log, chance: random.Random) -> list[Segment]:
    at = chance.randrange(len(log.lines))
    return cut(log.lines[:at] + log.lines[at + 1 :])


def reorder(log: Log, chance: random.Random) -> list[Segment]:
    one, other = chance.sample(range(len(log.lines)), 2)
    lines = list(log.lines)
    lines[one], lines[other] = lines[other], lines[one]
    return cut(tuple(lines))


def duplicate(log: Log, chance: random.Random) -> list[Segment]:
    at, to = chance.randrange(len(log.lines)), chance.randrange(len(log.lines) + 1)
    return cut((*log.lines[:to], log.lines[at], *log.lines[to:]))


def truncate(log: Log, chance: random.Random) -> list[Segment]:
    segments = log.segments
    left = chance.randrange(sum(len(data) for _, data in segments))
    kept = []
    for name, data in segments:
        if left > 0:
            kept.append((name, data[:left]))
        left -= len(data)
    return kept


def rewrite_tail(log: Log, chance: random.Random) -> list[Segment]:
    at = chance.randrange(len(log.lines))
    forged = [("state", b"%d" % chance.getrandbits(64)) for _ in log.lines[at:]]
    return cut(chained(forged, list(log.lines[:at])))


def rewrite_and_grow(log: Log, chance: random.Random) -> list[Segment]:
    at = chance.randrange(len(log.lines))
    forged = [("state", b"%d" % chance.getrandbits(64)) for _ in range(len(log.lines) - at + chance.randrange(1, 9))]
    return cut(chained(forged, list(log.lines[:at])))


def older_copy(log: Log, chance: random.Random) -> list[Segment]:
    return cut(log.lines[: chance.randrange(len(log.lines))])


def another_log(log: Log, chance: random.Random) -> list[Segment]:
    return cut(written(random.Random(chance.getrandbits(32)), len(log.lines)).lines)


def swap_files(log: Log, chance: random.Random) -> list[Segment]:
    segments = log.segments
    one, other = chance.sample(range(len(segments)), 2)
    names = [name for name, _ in segments]
    data = [text for _, text in segments]
    data[one], data[other] = data[other], data[one]
    return list(zip(names, data, strict=True))


def remove_file(log: Log, chance: random.Random) -> list[Segment]:
    segments = log.segments
    del segments[chance.randrange(len(segments))]
    return segments


def append_garbage(log: Log, chance: random.Random) -> list[Segment]:
    *segments, (name, data) = log.segments
    return [*segments, (name, data + chance.randbytes(chance.randrange(1, 90)) + b"\n")]


MUTATIONS: tuple[Callable[[Log, random.Random], list[Segment]], ...] = (
    flip, drop, reorder, duplicate, truncate, rewrite_tail, rewrite_and_grow, older_copy, another_log, swap_files,
    remove_file, append_garbage,
)  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.__name__)
def test_every_mutation_is_found_against_the_anchor(mutation: Callable[[Log, random.Random], list[Segment]]) -> None:
    chance = random.Random(mutation.__name__)
    logs = [written(chance, chance.randrange(8, 30)) for _ in range(20)]
    heads = [log.heads for log in logs]
    tried = 0
    while tried < CASES / len(MUTATIONS):
        which = chance.randrange(len(logs))
        changed = mutation(logs[which], chance)
        if changed == logs[which].segments:
            continue
        tried += 1
        found = verify(changed, heads[which])
        assert found.wrong is not None, (mutation.__name__, tried)
        assert 1 <= found.wrong.seq == found.head.count + 1


def test_what_was_written_fits_with_and_without_anchor() -> None:
    chance = random.Random(4)
    for _ in range(200):
        log = written(chance, chance.randrange(1, 30))
        heads = chance.sample(log.heads, chance.randrange(len(log.lines) + 1))
        found = verify(log.segments, heads, least=len(log.lines))
        assert (found.wrong, found.head.count, found.torn) == (None, len(log.lines), 0)
        assert found.anchored == max((one.count for one in heads), default=0)
        assert found.beyond == len(log.lines) - found.anchored


def test_only_the_anchor_finds_a_tail_that_was_rewritten_with_new_hashes() -> None:
    log = written(random.Random(1), 12)
    forged = rewrite_tail(log, random.Random(2))
    assert verify(forged).wrong is None
    found = verify(forged, log.heads)
    assert found.wrong is not None
    assert "is not the one that was anchored (anchor, 2026-11-24 00:00:00 UTC)" in str(found.wrong)


def test_the_first_record_that_does_not_fit_is_named() -> None:
    log = written(random.Random(1), 10)
    found = verify(cut(log.lines[:7] + log.lines[8:]))
    assert found.wrong is not None
    assert str(found.wrong) == "000000000008.jsonl: record 8 has number 9"


def test_an_unfinished_last_line_is_no_tampering_beyond_what_is_known() -> None:
    log = written(random.Random(1), 10)
    torn = cut((*log.lines[:9], log.lines[9][:40]))
    found = verify(torn, log.heads[:9], least=9)
    assert (found.wrong, found.torn, found.head.count) == (None, 40, 9)
    assert verify(torn, log.heads).wrong is not None
    missing = verify(torn, least=10).wrong
    assert missing is not None
    assert "record 10 is missing: the runner wrote 10" in str(missing)

"""Whether an audit log is what was written: against itself, and against every head that an anchor has. Reads bytes only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.runner.audit.anchor import Anchored
from reconciler.runner.audit.chain import ChainError, Head, follow, read
from reconciler.runner.audit.log import first_of, segments

Segment = tuple[str, bytes]  # its file's name, and what is in it


@dataclass(frozen=True, slots=True)
class Wrong:
    """What does not fit: the number of the first record, where, and why."""

    seq: int
    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: record {self.seq} {self.what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a log was found to be.

    `head` is after the last record that fits; `anchored` how many records the anchor vouches for, `beyond` how many nobody
    does yet; `torn` the bytes of an unfinished last line, which a crash or a writer at work leaves.
    """

    head: Head
    anchored: int
    torn: int = 0
    wrong: Wrong | None = None

    @property
    def beyond(self) -> int:
        """Records that only the log itself speaks for."""
        return self.head.count - self.anchored


@dataclass(slots=True)
class _Walk:
    """Where a reading is."""

    wanted: Mapping[int, list[Anchored]]
    head: Head = field(default_factory=Head)
    anchored: int = 0
    torn: int = 0

    def step(self, name: str, line: bytes) -> Wrong | None:
        """Go on by one record."""
        try:
            head = follow(self.head, line)
            read(line)
        except ChainError as error:
            return Wrong(self.head.count + 1, name, str(error))
        for said in self.wanted.get(head.count, ()):
            if said.hash != head.hash:
                return Wrong(head.count, name, f"is not the one that was anchored ({said.place}, {said.at:%F %T} UTC)")
            self.anchored = head.count
        self.head = head
        return None


def verify(log: Iterable[Segment], anchored: Iterable[Anchored] = (), least: int = 0) -> Verdict:
    """Recompute the chain. `least`: how many records the writer itself says that there are."""
    wanted: dict[int, list[Anchored]] = {}
    for said in anchored:
        wanted.setdefault(said.count, []).append(said)
    walk = _Walk(wanted)
    wrong = next(_wrongs(log, walk), None)
    if wrong is None:
        wrong = _missing(walk.head, wanted, least)
    return Verdict(walk.head, walk.anchored, walk.torn, wrong)


def _wrongs(log: Iterable[Segment], walk: _Walk) -> Iterator[Wrong]:
    for name, data in log:
        if walk.torn:
            yield Wrong(walk.head.count + 1, name, "does not follow: the segment before ends in the middle of a record")
        if first_of(name) not in (0, walk.head.count + 1):
            yield Wrong(walk.head.count + 1, name, "is missing: the segment begins elsewhere")
        *lines, rest = data.split(b"\n")
        yield from filter(None, (walk.step(name, line) for line in lines))
        walk.torn = len(rest)


def _missing(head: Head, wanted: Mapping[int, list[Anchored]], least: int) -> Wrong | None:
    """A log that ends too early."""
    last = max(wanted, default=0)
    if last > head.count:
        said = wanted[last][0]
        return Wrong(head.count + 1, said.place, f"is missing: {last} records were anchored at {said.at:%F %T} UTC")
    if least > head.count:
        return Wrong(head.count + 1, "head.json", f"is missing: the runner wrote {least}")
    return None


def segments_of(path: Path) -> Iterator[Segment]:
    """The segments of a log's folder, or the one file."""
    if path.is_dir():
        yield from ((name, (path / name).read_bytes()) for name in segments(path))
    else:
        yield path.name, path.read_bytes()

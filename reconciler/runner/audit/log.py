"""The audit log on disk: segments of lines, one writer at a time; what a crash left is put right, all else is refused.

    head.json             the newest record whose consequences are on disk: how many there are, its hash, where it ends
    000000000001.jsonl    a segment, named after its first record

Order of a write: the line, on disk; what follows from it; the head, once for all lines of a writer. A line beyond the head is one that a crash
overtook, or one from which nothing follows. A whole one counts, and what follows from it is done now. One that is not whole was relied on by nobody: it is cut off, and
that it was is a record itself. Whatever else does not fit was not done by this program.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from reconciler import codec
from reconciler.durable import FileLock, sync_folder, write_atomic
from reconciler.errors import PassError
from reconciler.runner.audit.chain import GENESIS, ChainError, Head, Record, follow, link, read

SEGMENT = 8 << 20  # bytes after which the next segment begins
NEAR = 64 << 10  # bytes from the end in which a record is looked for first
CUT = "tail-cut"  # the kind of the record that says that a torn line was cut off
ENDING = b',"hash":"%b"}\n'


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the log ends, as far as all that follows from it is on disk."""

    count: int = 0
    hash: str = GENESIS
    segment: str = ""
    offset: int = 0

    @property
    def head(self) -> Head:
        """The newest record."""
        return Head(self.count, self.hash)


class AuditLog:
    """A folder with one chain in it. `consequence` does what follows from a record; it may be done again."""

    def __init__(
        self,
        folder: Path,
        consequence: Callable[[Record], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        segment: int = SEGMENT,
        idle: Collection[str] = (),
    ) -> None:
        """`idle`: kinds of records from which nothing follows. For them alone the head is not moved: the next writer comes past them."""
        self.folder, self.consequence, self.clock, self.segment = folder, consequence, clock, segment
        self.idle = frozenset(idle)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def mark(self) -> Mark:
        """Where the log ends. Asks for no lock.

        Raises:
            PassError: "AuditBroken".
        """
        try:
            return codec.decode(Mark, (self.folder / "head.json").read_bytes())
        except FileNotFoundError:
            if segments(self.folder):
                raise broken(self.folder, "head.json is missing, and there are records") from None
            return Mark()
        except ValueError as error:
            raise broken(self.folder, "head.json is damaged") from error

    @contextmanager
    def writing(self) -> Iterator[Writer]:
        """Hold the right to append. What an earlier writer did not finish is finished first.

        Raises:
            PassError: "AuditBroken": the log is not what this program left.
        """
        with FileLock(self.folder / "lock"):
            if not (self.folder / "head.json").exists() and not segments(self.folder):
                write_atomic(
                    self.folder / "head.json", codec.encode(Mark())
                )  # before any record: none goes without one
            writer = Writer(self, self.mark())
            writer.catch_up()
            yield writer
            writer.settle()

    def find(self, seq: int) -> Record | None:
        """The record of that number; None: there is none."""
        names = [name for name in segments(self.folder) if first_of(name) <= seq]
        if not names or seq < 1:
            return None
        start = b'{"seq":%d,' % seq
        with (self.folder / names[-1]).open("rb") as file:
            if file.seek(0, os.SEEK_END) > NEAR:  # what is looked for is nearly always new
                file.seek(-NEAR, os.SEEK_END)
                file.readline()  # the rest of one
                if found := _line(file, start):
                    return read(found)
            file.seek(0)
            found = _line(file, start)
        return read(found) if found else None


class Writer:
    """Appends, while the lock is held."""

    def __init__(self, log: AuditLog, mark: Mark) -> None:
        self._log, self._mark, self._behind = log, mark, False

    def settle(self) -> None:
        """Move the head, if anything follows from what was written since. A loss of power may leave the head of before: then its lines are
        read again, as after any crash.
        """
        if self._behind:
            write_atomic(self._log.folder / "head.json", codec.encode(self._mark), named=False)

    def append(self, kind: str, body: object) -> int:
        """Write a record and return its number; it is on disk then, and what follows from it."""
        mark = self._mark = self._room()
        line = link(mark.head, self._log.clock(), kind, body)
        handle = os.open(self._log.folder / mark.segment, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _write(handle, line, mark.offset)
        finally:
            os.close(handle)
        if mark.offset == 0:
            sync_folder(self._log.folder)
        self._take(line[:-1])
        return self._mark.count

    def catch_up(self) -> None:
        """Do what follows from records that a crash overtook, and cut off one that it tore."""
        names = segments(self._log.folder)
        if self._mark.segment and self._mark.segment not in names:
            raise broken(self._log.folder, f"{self._mark.segment} is gone, and it had record {self._mark.count}")
        for name in names:
            if name >= self._mark.segment:
                self._read_on(name, last=name == names[-1])

    def _room(self) -> Mark:
        mark = self._mark
        if mark.segment and mark.offset < self._log.segment:
            return mark
        return replace(mark, segment=f"{mark.count + 1:012}.jsonl", offset=0)

    def _read_on(self, name: str, *, last: bool) -> None:
        if name != self._mark.segment:
            self._mark = replace(self._mark, segment=name, offset=0)
        *lines, torn = self._rest().split(b"\n")
        for line in lines:
            self._take(line)
        if torn and not last:
            raise broken(self._log.folder, f"{name} ends in the middle of a record, and another segment follows")
        if torn:
            self._cut(torn)

    def _rest(self) -> bytes:
        """What the segment has beyond the mark."""
        mark, ending = self._mark, ENDING % self._mark.hash.encode()
        with (self._log.folder / mark.segment).open("rb") as file:
            if mark.offset:
                file.seek(mark.offset - len(ending))
                if file.read(len(ending)) != ending:
                    raise broken(self._log.folder, f"record {mark.count} is not where it was left in {mark.segment}")
            return file.read()

    def _take(self, line: bytes) -> None:
        """Let the line count, and do what follows from it."""
        mark = self._mark
        try:
            head, record = follow(mark.head, line), read(line)
            self._log.consequence(record)
        except ChainError as error:
            raise broken(self._log.folder, f"{mark.segment}: record {mark.count + 1} {error}") from error
        self._mark = Mark(head.count, head.hash, mark.segment, mark.offset + len(line) + 1)
        self._behind = self._behind or record.kind not in self._log.idle

    def _cut(self, torn: bytes) -> None:
        with (self._log.folder / self._mark.segment).open("r+b") as file:
            file.truncate(self._mark.offset)
            os.fsync(file.fileno())
        self.append(CUT, {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()})


def _line(file: BinaryIO, start: bytes) -> bytes | None:
    """The next line that begins so."""
    return next((line for line in file if line.startswith(start)), None)


def segments(folder: Path) -> list[str]:
    """The names of the segments, oldest first."""
    return sorted(path.name for path in folder.glob("*.jsonl"))


def first_of(segment: str) -> int:
    """The number of the segment's first record; 0 where the name has none."""
    stem = segment.removesuffix(".jsonl")
    return int(stem) if stem.isascii() and stem.isdigit() else 0


def broken(folder: Path, what: str) -> PassError:
    """The log is not what this program left: an apply that cannot be recorded is not begun."""
    return PassError(
        "AuditBroken",
        f"{folder}: {what}. Something else changed the audit log: keep a copy as evidence, run `reconciler audit verify` "
        "against the anchor, and bring back the log that verifies.",
    )


def _write(handle: int, line: bytes, offset: int) -> None:
    """Append the line where the log ends; where that fails, nothing of it stays."""
    if os.fstat(handle).st_size != offset:
        raise OSError(f"the segment ends elsewhere than at {offset}")
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except OSError:
        with suppress(OSError):
            os.ftruncate(handle, offset)
        raise

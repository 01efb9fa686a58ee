"""The audit log in a bucket: an object per record, made once and never written over; whoever is second reads on, and tries the next number.

    head.json             the newest record whose consequences are there: how many there are, and its hash
    000000000001.jsonl    record 1: its one line

Order of a write: the record; what follows from it; the head. Whoever comes next does what a writer that died left undone. Copied
into a folder, the objects are a log that `audit verify` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from reconciler import codec
from reconciler.cabinet import Cabinet, ConflictError
from reconciler.errors import PassError
from reconciler.runner.audit.chain import ChainError, Record, follow, link, read
from reconciler.runner.audit.log import Mark
from reconciler.runner.audit.verify import Segment

HEAD = "head.json"
TRIES = 8
Write = Callable[[str, bytes], None]


class ObjectLog:
    """One chain in a cabinet. `consequence` says what follows from a record, by `write`; it is asked again where somebody was faster."""

    def __init__(
        self,
        cabinet: Cabinet,
        consequence: Callable[[Record, Write], None] = lambda *_: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.cabinet, self.consequence, self.clock = cabinet, consequence, clock

    def mark(self) -> Mark:
        """Where the log ends. Raises PassError "AuditBroken"."""
        raw = self.cabinet.read(HEAD)
        if raw is None and self.cabinet.look(name_of(1)) is not None:
            raw = self.cabinet.read(HEAD)  # it was made in between
            if raw is None:
                raise self.broken(f"{HEAD} is missing, and there are records")
        if raw is None:
            return Mark()
        try:
            return codec.decode(Mark, raw)
        except ValueError as error:
            raise self.broken(f"{HEAD} is damaged") from error

    @contextmanager
    def writing(self) -> Iterator[ObjectWriter]:
        """The right to try to append. What an earlier writer did not finish is finished first.

        Raises:
            PassError: "AuditBroken": the log is not what this program left.
        """
        mark = self.mark()
        if not mark.count:
            self.cabinet.create(HEAD, codec.encode(mark))  # before any record: none goes without one
        writer = ObjectWriter(self, mark)
        writer.catch_up()
        yield writer

    def find(self, seq: int) -> Record | None:
        """The record of that number; None: there is none."""
        line = self.cabinet.read(name_of(seq)) if seq >= 1 else None
        return read(line) if line else None

    def segments(self) -> Iterator[Segment]:
        """Every record, for `verify`: one list, and a request for each."""
        for name in sorted(one for one in self.cabinet.names("") if one.endswith(".jsonl")):
            yield name, self.cabinet.read(name) or b""

    def broken(self, what: str) -> PassError:
        """The log is not what this program left: an apply that cannot be recorded is not begun."""
        return PassError(
            "AuditBroken",
            f"{self.cabinet.place}: {what}. Something else changed the audit log: keep a copy as evidence, run `reconciler audit verify` "
            "against the anchor, and bring back the versions of the objects that verify.",
        )


class ObjectWriter:
    """Appends at the next number, if it is still free."""

    def __init__(self, log: ObjectLog, mark: Mark) -> None:
        self._log, self._mark = log, mark

    def append(self, kind: str, body: object) -> int:
        """Write a record and return its number; it, and what follows from it, is there then.

        Raises:
            ConflictError: somebody else wrote the record of that number: look again at what was decided by the log.
        """
        mark = self._mark
        line = link(mark.head, self._log.clock(), kind, body)
        name = name_of(mark.count + 1)
        if not self._log.cabinet.create(name, line):
            raise ConflictError(f"{self._log.cabinet.place}/{name}")
        self._take(name, line)
        return self._mark.count

    def catch_up(self) -> None:
        """Do what follows from records whose writer died, or is just about to."""
        while (line := self._log.cabinet.read(name_of(self._mark.count + 1))) is not None:
            self._take(name_of(self._mark.count + 1), line)

    def _take(self, name: str, line: bytes) -> None:
        """Let the record count, and see to what follows from it: once, whoever does it, and never over what follows from a later one."""
        mark = self._mark
        try:
            head = follow(mark.head, line.removesuffix(b"\n"))
            record = read(line)
        except ChainError as error:
            raise self._log.broken(f"{name}: {error}") from error
        after = Mark(head.count, head.hash, name, len(line))
        for _ in range(TRIES):
            if self._settled(record, after):
                self._mark = after
                return
        raise ConflictError(f"{self._log.cabinet.place}/{name}")

    def _settled(self, record: Record, after: Mark) -> bool:
        """Try to. What is written over is read before the head is: if that has not come so far, nothing later is among it."""
        cabinet, drafts = self._log.cabinet, dict[str, bytes]()

        def draft(name: str, data: bytes) -> None:
            cabinet.read(name)
            drafts[name] = data

        self._log.consequence(record, draft)
        if self._log.mark().count >= record.seq:
            return True
        try:
            for name, data in drafts.items():
                cabinet.write(name, data)
            cabinet.write(HEAD, codec.encode(after))
        except ConflictError:
            return False
        return True


def name_of(seq: int) -> str:
    """The name of a record."""
    return f"{seq:012}.jsonl"

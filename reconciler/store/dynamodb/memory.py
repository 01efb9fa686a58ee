"""What a leader has in memory of the table, and how it is read there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from reconciler.actual.ledger import Event
from reconciler.codec import ACTIONS, Newer, decode_kept
from reconciler.model import Commit
from reconciler.store.chain import Record, Tip, check
from reconciler.store.dynamodb.folding import Meaning, unfold
from reconciler.store.dynamodb.journal import Journal
from reconciler.store.dynamodb.office import Office, corrupt, too_new
from reconciler.store.dynamodb.patience import Patient
from reconciler.store.projection import Delta, Projection, project

AT_ONCE = 200  # records


@dataclass(slots=True)
class Memory:
    """The journal up to `tip`, as it is meant. `grown`: bytes of events since the last snapshot that counts."""

    projection: Projection
    commits: set[Commit]
    tip: Tip = field(default_factory=Tip)
    grown: int = 0

    def follow(self, delta: Delta, last: Record, size: int) -> None:
        """Some records more, that are in the table."""
        self.projection.advance(delta)
        for commit, accepted in delta.commits.items():
            (self.commits.add if accepted else self.commits.discard)(commit)
        self.tip, self.grown = Tip(last.seq, last.hash), self.grown + size

    def meaning(self) -> Meaning:
        """For a snapshot."""
        return Meaning(self.projection.ledger(), tuple(sorted(self.commits)))


def blank() -> Memory:
    """Of an empty table."""
    return Memory(Projection(Meaning().ledger), set())


def load(table: Patient, office: Office, between: Callable[[], None]) -> Memory:
    """The last snapshot, and what came after it. `between`: called now and then, since it may take long.

    Raises:
        PassError: "AuditBroken": a record is not there, or not what was written. "StoreTooNew", "StoreCorrupt"; see `Patient`.
    """
    meaning = unfold(table, office.folded) if office.folded else Meaning()
    start = office.folded.tip if office.folded else Tip()
    memory = Memory(Projection(meaning.ledger), set(meaning.commits), start)
    records = Journal(table).records(start.seq + 1, office.tip.seq)
    check(_followed(memory, records, table.place, between), office.tip, table.place, start)
    return memory


def _followed(memory: Memory, records: Iterable[Record], place: str, between: Callable[[], None]) -> Iterator[Record]:
    """The records, taken into memory once whoever iterates has checked them: some at a time, since each time copies the ledger."""
    some: list[Record] = []
    for record in records:
        yield record
        some.append(record)
        if len(some) == AT_ONCE:
            _follow(memory, some, place)
            some.clear()
            between()
    if some:
        _follow(memory, some, place)


def _follow(memory: Memory, some: Sequence[Record], place: str) -> None:
    delta = project(memory.projection.ledger(), [_event(record, place) for record in some])
    memory.follow(delta, some[-1], sum(len(record.body) for record in some))


def _event(record: Record, place: str) -> Event:
    kind = ACTIONS.get(record.action)
    if kind is None:
        raise too_new(place, f"an event {record.action!r}")
    try:
        return decode_kept(kind, record.body)
    except Newer as error:
        raise too_new(place, str(error)) from error
    except ValueError as error:
        raise corrupt(place, f"record {record.seq} of the journal cannot be read: {error}") from error

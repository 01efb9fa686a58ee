"""Several daemons on one table, over a network that loses requests and answers, and holds some of them up.

The store is the real one; the table is in memory, with DynamoDB's conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from reconciler.model import Ledger
from reconciler.ports import Term
from reconciler.store.dynamodb.memory import load
from reconciler.store.dynamodb.office import OFFICE, Office, office_of
from reconciler.store.dynamodb.patience import Patient
from reconciler.store.dynamodb.store import DynamoStore, Sizes
from reconciler.store.dynamodb.table import Change, Check, Item, Key, Page, Range, Refused, Throttled, Unclear, Write
from reconciler.store.lease import Steady
from tests.kit.dynamo import FakeTable
from tests.kit.pair import TTL, Daemon, Home

PLACE = "dynamodb:simulated"


@dataclass
class Line:
    """The way of one daemon to the table. At each write it may be stopped before and after, and the network may fail."""

    table: FakeTable
    daemon: Daemon
    home: TableHome
    renewing: bool = False

    def read(self, key: Key) -> Item | None:
        if self.home.fails():
            raise Unclear("the answer was lost")
        return self.table.read(key)

    def read_many(self, keys: Sequence[Key]) -> Mapping[Key, Item]:
        return self.table.read_many(keys)

    def page(self, wanted: Range) -> Page:
        self.daemon.wait("reads")
        if self.home.fails():
            raise Unclear("the answer was lost")
        return self.table.page(wanted)

    def write(self, writes: Sequence[Write], token: str) -> None:
        self.stops("is about to write")
        trouble = self.home.luck.choice(["throttled", "lost", "late", "answer"]) if self.home.fails() else ""
        if trouble == "throttled":
            raise Throttled("too many requests")
        if trouble == "late":
            self.home.late.append((self, writes, token))
        if trouble in {"lost", "late"}:
            raise Unclear("the request was lost")
        self.land(writes, token)
        self.stops("has written to the table")
        if trouble == "answer":
            raise Unclear("the answer was lost")

    def land(self, writes: Sequence[Write], token: str) -> None:
        done = token in self.table.done
        self.table.write(writes, token)
        journaled = isinstance(writes[0], Check) or (isinstance(writes[0], Change) and "seq" in writes[0].values)
        if journaled and not done and "version" not in getattr(writes[0], "values", {}):
            term = self.home.term()
            assert term.holder == self.daemon.store._holder, f"{self.daemon.name} wrote; {term} leads"
            self.home.terms = max(self.home.terms, term.fence)

    def stops(self, moment: str) -> None:
        """The lease is kept by a thread of its own meanwhile."""
        self.daemon.wait(moment)
        store = self.daemon.store
        assert isinstance(store, DynamoStore)
        if not self.renewing and not store._renewing.locked():
            self.renewing = True
            try:
                self.daemon.renew()
            finally:
                self.renewing = False


@dataclass
class TableHome(Home):
    """Hosts that share a table."""

    moments: ClassVar[Sequence[str]] = ("is about to write", "has written to the table", "reads", "backs off")
    table: FakeTable = field(default_factory=FakeTable)
    late: list[tuple[Line, Sequence[Write], str]] = field(default_factory=list)

    def begin(self) -> None:
        self.patient = Patient(self.table, PLACE, TTL, Steady(), lambda _: None)

    def open(self, daemon: Daemon) -> DynamoStore:
        line = Line(self.table, daemon, self)
        sizes = Sizes(items=4, fold=6000)
        return DynamoStore(
            line, PLACE, daemon.clock, ttl=TTL, lead=False, steady=daemon.clock, sizes=sizes,
            sleep=lambda _: daemon.wait("backs off"),
        )  # fmt: skip

    def fails(self) -> bool:
        return self.luck.random() < self.bad

    def arrive_late(self) -> None:
        if self.late:
            line, writes, token = self.late.pop(self.luck.randrange(len(self.late)))
            with suppress(Refused):
                line.land(writes, token)

    def let_go(self, store: Any) -> None:
        pass

    def has_written(self, daemon: Daemon) -> None:
        """Others may have run between the write and its answer: it was checked as it arrived."""

    def office(self) -> Office:
        found = office_of(self.table.read(OFFICE), PLACE)
        assert found is not None
        return found

    def term(self) -> Term:
        return self.office().term

    def ledger(self) -> Ledger:
        if self.table.read(OFFICE) is None:
            return Ledger()
        return load(self.patient, self.office(), lambda: None).projection.ledger()

    def verify(self) -> int:
        store = DynamoStore(self.table, PLACE, self.true_clock, lead=False)
        return store.verify()

    def end(self) -> None:
        pass

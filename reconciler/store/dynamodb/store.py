"""The store in a table: each append is one transaction that also looks whether this process leads, and moves the journal's tip."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC

from reconciler.actual.ledger import Event
from reconciler.codec import encode_event
from reconciler.errors import PassError
from reconciler.model import Commit, Ledger
from reconciler.ports import ALL, Chosen, Clock, HistoryEvent, Term
from reconciler.store import lease
from reconciler.store.chain import Record, Tip, check, link
from reconciler.store.dynamodb.folding import LEAST, Folding, begin, is_due
from reconciler.store.dynamodb.journal import Journal, batches, puts_of, stamp_of
from reconciler.store.dynamodb.memory import blank, load
from reconciler.store.dynamodb.office import OFFICE, Folded, Office, corrupt, moved_to, new_office, office_of, said_of
from reconciler.store.dynamodb.patience import Patient
from reconciler.store.dynamodb.table import MOST_BYTES, MOST_ITEMS, Change, Check, Item, Refused, Table
from reconciler.store.lease import TTL, Steady
from reconciler.store.projection import project, subject_of

LOADS = 4  # tries, where a record is not there yet


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much goes into one transaction, and after how many bytes of events there is a snapshot."""

    items: int = MOST_ITEMS
    bytes: int = MOST_BYTES
    fold: int = LEAST


class DynamoStore:
    """`ports.Store`, `notify.Journal` and `ports.Lease` over one table.

    Memory is the projection of the journal up to the tip, and follows each append once it is in the table. An append that
    does not fit into one transaction is written beyond the tip first, where nobody reads; the last transaction moves the tip.
    """

    def __init__(
        self,
        table: Table,
        place: str,
        clock: Clock,
        *,
        ttl: float = TTL,
        lead: bool = True,
        steady: Steady | None = None,
        sizes: Sizes = Sizes(),
        sleep: Callable[[float], None] = time.sleep,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """`place`: the table's name for people. `lead`: at once; otherwise nothing is read until `acquire`.

        Raises:
            PassError: another process leads, a newer version wrote it, or it cannot be read.
        """
        self._place, self._clock, self._ttl, self._sizes = place, clock, ttl, sizes
        self._steady, self._sleep, self._close = steady or Steady(), sleep, close
        # A third of the lease: what waits longer than that for an answer could not renew in time anyway.
        self._table = Patient(table, place, ttl / 3, self._steady, sleep)
        self._journal = Journal(self._table)
        self._holder, self._fence, self._until = lease.new_holder(), 0, 0.0
        self._beat, self._attempt = 0, 0
        self._watched = lease.Waiting()
        self._guard = threading.RLock()  # of memory; a renewal does not wait for an append
        self._renewing = threading.Lock()
        self._doubtful = False
        self._memory = blank()
        self._folded: Folded | None = None  # the snapshot that counts
        self._folding: Folding | None = None  # the one that is being written
        if lead:
            self._lead_alone()

    def close(self) -> None:
        """Let go of the lease and of the connections. Whatever `append` returned from is in the table."""
        self.release()
        self._close()

    # --- Lease -----------------------------------------------------------------------------------------------------

    def acquire(self) -> int | None:
        """See `Lease`. Memory is read from the table once nobody else can write there any more."""
        with self._guard:
            if self._fence:
                return self._fence
            before = self._steady.waiting()
            office = self._office()
            began = self._steady.holding()
            term = office.term if office else Term("", 0, 0)
            ours = term.holder == self._holder  # an answer was lost, or loading failed: this process leads nobody
            if not ours and not self._watched.lets(term, before, self._steady.waiting(), free=False):
                return None
            taken = Term(self._holder, term.fence + 1, self._ttl)
            if not self._replace(term if office else None, taken):
                return None
            self._begin(taken, began)
            return self._fence

    def _replace(self, seen: Term | None, taken: Term) -> bool:
        """Take the place of the term that was seen; whether it was still that one."""
        if seen is None:
            change = Change(OFFICE, new_office(taken), None)
        else:
            when: Item = {"holder": seen.holder, "fence": seen.fence, "beat": seen.beat}
            change = Change(OFFICE, said_of(taken), when)
        try:
            self._table.write(change)
        except Refused as refused:  # the answer to a try before this may have been lost
            there = self._said(refused)
            return there is not None and (there.term.holder, there.term.fence) == (taken.holder, taken.fence)
        return True

    def _begin(self, taken: Term, began: float) -> None:
        self._fence, self._beat, self._until = taken.fence, taken.beat, began + self._ttl * (1 - lease.MARGIN)
        try:
            self._load()
        except BaseException:
            self.release()
            raise

    def renew(self) -> None:
        """See `Lease`. Beside an append that takes long, so that a table that is slow does not cost the lease."""
        with self._renewing:
            if not self._fence:
                raise self._standing_by()
            began, beat = self._steady.holding(), self._beat + 1
            self._beat = beat  # counted although no answer may come: the next one must be another
            try:
                self._table.write(Change(OFFICE, {"beat": beat, "ttl": str(self._ttl)}, {"holder": self._holder}))
            except Refused as refused:
                raise self._lost(self._said(refused)) from None
            self._until = began + self._ttl * (1 - lease.MARGIN)

    def check(self) -> None:
        """See `Lease`."""
        if self._steady.holding() >= self._until:
            raise PassError(
                "LeaseOverdue",
                f"{self._place}: the lease could not be renewed for {self._ttl * (1 - lease.MARGIN):g} s, so nothing is begun until it "
                "is: look at the network between this host and DynamoDB, and at throttled requests. It is tried again by itself.",
            )

    def release(self) -> None:
        """See `Lease`."""
        with self._guard:
            if self._fence:
                # Of this term alone: a request that arrives late must not end a later one of this process.
                with suppress(PassError, Refused):
                    self._table.write(Change(OFFICE, {"holder": ""}, {"holder": self._holder, "fence": self._fence}))
            with self._renewing:
                self._fence, self._until = 0, 0.0

    def term(self) -> Term | None:
        """See `Lease`. What a standby saw at its last look, so that nobody who asks costs a request."""
        if self._fence:
            return Term(self._holder, self._fence, self._ttl, self._beat)
        if self._watched.seen is not None:
            return self._watched.seen
        office = self._office()
        return office.term if office else None

    def _office(self) -> Office | None:
        return office_of(self._table.read(OFFICE), self._place)

    def _said(self, refused: Refused) -> Office | None:
        """The item as it was when a write was refused."""
        return office_of(refused.item, self._place)

    def _standing_by(self) -> PassError:
        return lease.standing_by(self._place, self._watched.seen)

    def _lost(self, there: Office | None) -> PassError:
        """Why a write was refused that only the leader may do."""
        if there is None:
            return corrupt(self._place, "the item of the lease is gone: somebody emptied the table behind the daemon")
        return lease.lost(self._place, self._fence, there.term)

    def _lead_alone(self) -> None:
        if self.acquire() is None:
            raise PassError(
                "StoreLocked",
                f"{self._place}: another reconciler runs on this store; stop it first, or give this one its own table",
            )

    # --- Store -----------------------------------------------------------------------------------------------------

    def ledger(self) -> Ledger:
        """The projection as of the last event: a snapshot that never changes, and the same object until it would.

        Raises:
            PassError: "Standby": this process does not lead, and nothing that it knew would be true.
        """
        with self._guard:
            if not self._fence:
                raise self._standing_by()
            return self._memory.projection.ledger()

    def accepted(self, commit: Commit) -> bool:
        """Whether the commit was ever part of an accepted head's first-parent chain. Raises PassError "Standby"."""
        with self._guard:
            if not self._fence:
                raise self._standing_by()
            return commit in self._memory.commits

    def append(self, *events: Event, actor: str = "controller") -> None:
        """Journal the events, all or none, and project them.

        Raises:
            PassError: nothing of it was recorded, or no answer came and nobody can tell: then the next append looks first,
                and says so (`StoreUnclear`) where it was. The message says what to do.
        """
        with self._guard:
            if not self._fence:
                raise self._standing_by()
            self._settle()
            delta = project(self._memory.projection.ledger(), events)
            records = self._records(events, actor)
            if not records:
                return
            folded = self._folding.folded if self._folding is not None and self._folding.done else None
            self._write(records, folded)
            self._memory.follow(delta, records[-1], sum(len(record.body) for record in records))
            if folded is not None:
                self._folded, self._folding = folded, None
            self._fold()

    def next_fence(self, above: int = 0) -> int:
        """A number greater than `above` and than every one handed out before.

        Raises:
            PassError: none was handed out; the message says what to do.
        """
        with self._guard:
            if not self._fence:
                raise self._standing_by()
            self._settle()
            fence = max(self._fence, above) + 1
            self._doubtful = True
            try:
                self._table.write(Change(OFFICE, {"fence": fence}, {"holder": self._holder, "fence": self._fence}))
            except Refused as refused:
                there = self._said(refused)
                if there is None or (there.term.holder, there.term.fence) != (self._holder, fence):
                    raise self._lost(there) from None
            self._fence, self._doubtful = fence, False
            return fence

    # --- Journal ---------------------------------------------------------------------------------------------------

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        """The newest events of a unit, of an environment or of `all`, newest first; with the pauses that cover it."""
        return self._journal.newest(scope, limit, chosen, self._last())

    def since(self, number: int, limit: int) -> Sequence[HistoryEvent]:
        """The events after the one of that number, oldest first."""
        return self._journal.following(number, limit, self._last())

    def verify(self) -> int:
        """Recompute the hash chain over the whole journal and return the number of records."""
        office = self._office()
        tip = office.tip if office else Tip()
        return check(self._journal.records(1, tip.seq), tip, self._place)

    def _last(self) -> int:
        """The number of the last record that counts."""
        if self._fence:
            return self._memory.tip.seq
        office = self._office()
        return office.tip.seq if office else 0

    # --- writing ---------------------------------------------------------------------------------------------------

    def _records(self, events: Sequence[Event], actor: str) -> list[Record]:
        at = self._clock.now().astimezone(UTC).isoformat()
        records: list[Record] = []
        tip = self._memory.tip
        for event in events:
            action, body = encode_event(event)
            record = link(tip, at=at, actor=actor, action=action, unit=subject_of(event), body=body.decode())
            records.append(record)
            tip = Tip(record.seq, record.hash)
        return records

    def _write(self, records: Sequence[Record], folded: Folded | None) -> None:
        """Everything but the last transaction goes beyond the tip, and counts only once that one has moved it."""
        stamp, last = self._stamp(), records[-1]
        puts = [put for record in records for put in puts_of(record, stamp)]
        *ahead, final = batches(puts, self._sizes.items, self._sizes.bytes)
        mine: Item = {
            "holder": self._holder,
            "fence": self._fence,
            "seq": self._memory.tip.seq,
            "hash": self._memory.tip.hash,
        }
        self._doubtful = True
        try:
            for some in ahead:
                self._table.write(Check(OFFICE, mine), *some)
            self._table.write(Change(OFFICE, moved_to(Tip(last.seq, last.hash), folded), mine), *final)
        except Refused as refused:
            if refused.index or not self._has_landed(self._said(refused), last):
                raise self._why(refused) from None
        self._doubtful = False

    def _stamp(self) -> str:
        self._attempt += 1
        return stamp_of(self._fence, self._attempt)

    def _has_landed(self, there: Office | None, last: Record) -> bool:
        """Whether a write was refused because it is done already: the answer to a try before this one was lost."""
        return there is not None and there.term.holder == self._holder and there.tip == Tip(last.seq, last.hash)

    def _why(self, refused: Refused) -> PassError:
        if refused.index:
            return corrupt(self._place, "a record beyond the journal's end is of a later term than the one that leads")
        there = self._said(refused)
        if there is None or there.term.holder != self._holder:
            return self._lost(there)
        return self._unclear()

    def _unclear(self) -> PassError:
        return PassError(
            "StoreUnclear",
            f"{self._place}: the answer to an earlier write was lost, and it was recorded after all. It is known now, and everything is "
            "decided afresh at once; if you asked for something, look whether it is so, and ask again if not.",
        )

    def _settle(self) -> None:
        """After a write whose end nobody knows: look what is there before the next one builds on it.

        Raises:
            PassError: "StoreUnclear": it was recorded, so what is asked for now was decided on what is not so.
        """
        if not self._doubtful:
            return
        if self._ours().tip != self._memory.tip:
            self._load()
            raise self._unclear()
        self._doubtful = False

    def _fold(self) -> None:
        """Go on with a snapshot, or begin one. What goes wrong is tried again with the next append: nothing depends on it."""
        with suppress(PassError):
            if self._folding is not None:
                self._folding = self._folding.go_on(self._table)
            elif is_due(self._memory.grown, self._sizes.fold, self._folded):
                self._folding = begin(self._memory.meaning(), self._memory.tip, self._folded, self._stamp())
                self._memory.grown = 0

    # --- reading ---------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        """Read what the journal means. Only this process can write meanwhile.

        A transaction that ended a moment ago may be seen in one item and not yet in another: then the chain has a gap, and
        it is read again.
        """
        for turn in range(LOADS):
            office = self._ours()
            try:
                memory = load(self._table, office, self._renew_in_time)
            except PassError as error:
                if error.reason != "AuditBroken" or turn == LOADS - 1:
                    raise
                self._sleep(0.2 * 2**turn)
            else:
                self._memory, self._folded, self._folding, self._doubtful = memory, office.folded, None, False
                return

    def _renew_in_time(self) -> None:
        """Reading may take longer than the lease lasts."""
        if self._until - self._steady.holding() < self._ttl / 2:
            self.renew()

    def _ours(self) -> Office:
        """The item, which says that this process leads. A fence that was handed out without an answer is known from now on."""
        office = self._office()
        if office is None or office.term.holder != self._holder:
            raise self._lost(office)
        self._fence = office.term.fence  # nobody led between: no other process has this name
        return office

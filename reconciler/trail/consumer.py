"""Reads the queue: what others wrote is journaled, and only then deleted there.

A message may come twice: after a crash between the two, and whenever the queue likes. So the digests of what was journaled are in
the journal, and the newest of them in the ledger. Of a flood a record is written every few seconds, whatever its size.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Protocol

from reconciler.actual.ledger import Event, OutOfBand
from reconciler.actual.outofband import Rules, Seen, Verdict, fold, judge
from reconciler.errors import PassError
from reconciler.model import Ledger, OutsideChange
from reconciler.ports import Clock

WAIT = 20.0  # seconds that a poll waits for the first message
BETWEEN = 5.0  # seconds between two records while messages go on coming
MOST = 1000  # messages of one record
REMEMBERED = 20_000  # digests
FIRST_WAIT, LAST_WAIT = 1.0, 60.0  # seconds after a poll that failed
CLOSING = 1.0  # seconds in which a poll may end by itself
ACTOR = "cloudtrail"
REPEATED = "repeated"  # beside the verdicts


@dataclass(frozen=True, slots=True)
class Message:
    """One of the queue. `receipt` deletes it."""

    id: str
    receipt: str
    body: str


@dataclass(slots=True)
class Pending:
    """What is yet to be journaled, by its digest, and the messages that brought it."""

    outside: dict[str, Seen] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)


class Queue(Protocol):
    """Where the messages are. Whatever goes wrong there is a PassError."""

    def receive(self, wait: float) -> Sequence[Message]:
        """Some messages; after `wait` seconds perhaps none."""

    def delete(self, messages: Sequence[Message]) -> None:
        """They need not come again."""


class Journal(Protocol):
    """Where what others wrote is kept."""

    def append(self, *events: Event, actor: str) -> None:
        """On disk when this returns."""

    def ledger(self) -> Ledger:
        """What is known; of it, which events were journaled last."""


class Listener(Protocol):
    """Who is told. Nothing depends on it."""

    def trail_read(self, results: Mapping[str, int]) -> None:
        """The queue answered; what its messages were."""

    def trail_failed(self, error: PassError) -> None:
        """The queue did not answer, or what it said could not be journaled."""

    def trail_invalid(self, message: str) -> None:
        """A message is no event, and was deleted."""

    def written_outside(self, change: OutsideChange) -> None:
        """What somebody else wrote is in the journal."""


@dataclass(slots=True)
class Consumer:
    """One queue. `open_to` says in which environments people may write now."""

    queue: Queue
    journal: Journal
    rules: Rules
    listener: Listener
    clock: Clock
    steady: Callable[[], float]
    wake: Callable[[], None]
    open_to: Callable[[], AbstractSet[str]]
    _known: dict[str, None] | None = field(default=None, init=False)
    _written: float | None = field(default=None, init=False)

    def turn(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Wait for messages, and deal with them. Raises PassError: the queue or the journal is away; nothing is lost."""
        if self._known is None:
            self._known = dict.fromkeys(self.journal.ledger().told)
        pending = Pending()
        self._sift(self.queue.receive(WAIT), pending)
        while pending.messages and len(pending.messages) < MOST and (left := self._rest()) > 0 and not stopping():
            self._sift(self.queue.receive(min(left, WAIT)), pending)
        if pending.messages:
            self._write(pending)

    def _rest(self) -> float:
        """Seconds until the next record may be written; at least one is waited, or none."""
        left = 0.0 if self._written is None else self._written + BETWEEN - self.steady()
        return left if left >= 1 else 0.0

    def _sift(self, messages: Sequence[Message], pending: Pending) -> None:
        """Keep what is to be journaled, with its messages: one that comes twice is one. All others are deleted at once."""
        results: Counter[str] = Counter()
        done: list[Message] = []
        for message in messages:
            seen = self._judged(message)
            written, twice = seen.digest in (self._known or ()), seen.digest in pending.outside
            results[REPEATED if seen.changes and (written or twice) else seen.verdict.value] += 1
            if not seen.changes or written:
                done.append(message)
                continue
            pending.outside.setdefault(seen.digest, seen)
            pending.messages.append(message)
        self.listener.trail_read(results)
        if done:
            self.queue.delete(done)

    def _judged(self, message: Message) -> Seen:
        """What the message is. One in which this program finds a bug of its own is taken for no event, and logged whole."""
        try:
            seen = judge(message.body, self.rules, self.open_to())
        except Exception:  # nothing that somebody sends may stop the queue
            logging.getLogger(__name__).exception("Message %s of out_of_band.queue_url was not understood", message.id)
            seen = Seen(Verdict.INVALID)
        if seen.verdict is Verdict.INVALID:
            what = f"message {message.id} of out_of_band.queue_url ({len(message.body)} characters) is no event of CloudTrail's"
            self.listener.trail_invalid(f"{what}, and was deleted: only EventBridge should be let to send there")
        return seen

    def _write(self, pending: Pending) -> None:
        now = self.clock.now()
        changes = fold(replace(change, seen_at=now) for seen in pending.outside.values() for change in seen.changes)
        digests = tuple(pending.outside)
        # All digests are in the first record: all of them are written together, or none.
        events = [OutOfBand(change, () if number else digests) for number, change in enumerate(changes)]
        self.journal.append(*events, actor=ACTOR)
        self._written = self.steady()
        self._remember(digests)
        self.wake()
        for change in changes:
            self.listener.written_outside(change)
        self.queue.delete(pending.messages)

    def _remember(self, digests: Iterable[str]) -> None:
        known = self._known if self._known is not None else {}
        known.update(dict.fromkeys(digests))
        while len(known) > REMEMBERED:
            del known[next(iter(known))]


class ConsumerThread:
    """Lets a consumer work beside everything else, until it is told to end."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._ending = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._work, name="trail", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Read no more. What a poll still brings comes again after the next start."""
        self._ending.set()
        self._thread.join(CLOSING)

    def _work(self) -> None:
        while not self._ending.is_set():
            self._ending.wait(self._turn())

    def _turn(self) -> float:
        """Seconds to wait until the next one."""
        try:
            self._consumer.turn(self._ending.is_set)
        except PassError as error:
            self._failed(error)
        except Exception as error:  # a bug: logged whole; nothing else depends on what the queue has
            logging.getLogger(__name__).exception("A look at the trail ended in a way that nobody foresaw")
            self._failed(PassError("InternalError", f"out_of_band: {type(error).__name__}; the log has it whole"))
        else:
            self._failures = 0
            return 0.0
        return min(LAST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures - 1, 16))

    def _failed(self, error: PassError) -> None:
        self._failures += 1
        if not self._ending.is_set():
            self._consumer.listener.trail_failed(error)

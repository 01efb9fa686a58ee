"""Says at the forge what pull requests would do and what became of merges. Nothing waits for it, and nothing depends on it.

What is to be said is worked out from what is known now; what was said is remembered, on disk too, so that only differences
are sent. Of each thing there is at most one message on its way, and the newest wins: however long a forge is away, no
backlog grows, and what it shows at the end is true.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from reconciler import codec
from reconciler.controller.reports import Merge, changed_by, comment_of, fits, marker, marks_of, marks_of_merge
from reconciler.durable import write_atomic
from reconciler.errors import PassError
from reconciler.forge import Limited, Status, Voice
from reconciler.model import Commit, Desired, UnitId
from reconciler.reviewing import PullStatus
from reconciler.status import Picture

MERGES = 20  # accepted commits whose statuses are kept true; the newest
AT_REST = 5.0  # seconds between two messages about the same thing
BETWEEN = 0.8  # seconds between two messages: GitHub takes 80 a minute that make content
FIRST_WAIT, LAST_WAIT = 10.0, 900.0  # seconds after a message that did not get through
REMEMBERED = 5000  # messages that are known to have been said
UNASKED = "PullAuthorUnknown"  # who may not write is not answered: anybody may open pull requests


class Sight(Protocol):
    """What is to be told of; safe to ask from any thread."""

    def picture(self) -> Picture:
        """How everything fares now."""

    def pulls(self) -> Sequence[PullStatus]:
        """The open pull requests, and what each would do."""


class Listener(Protocol):
    """Who is told how it went. Nothing depends on it."""

    def reported(self, sink: str, error: PassError | None) -> None:
        """A message got through, or did not. `sink`: comment or status."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What a message is about: the comment of a pull request, or a commit in a context."""

    pull: int = 0
    commit: str = ""
    context: str = ""

    @property
    def sink(self) -> str:
        """Its kind, for metrics."""
        return "comment" if self.pull else "status"

    def __str__(self) -> str:
        return f"#{self.pull}" if self.pull else f"{self.commit} {self.context}"


@dataclass(frozen=True, slots=True)
class Said:
    """What was said last, as a digest; and which comment it is."""

    digest: str
    comment: int = 0


@dataclass(frozen=True, slots=True)
class Notes:
    """What outlives the process: what was said by topic, the merges that are followed, and the last commit that was seen."""

    said: Mapping[str, Said] = field(default_factory=dict)
    merges: tuple[Merge, ...] = ()
    head: Commit | None = None


@dataclass(slots=True)
class _Wait:
    """When a topic may be spoken of again, and how often it failed."""

    until: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class Reporter:
    """One thread's work. `memory` is a file of its own: lost, everything is said once more, and in place."""

    voice: Voice
    sight: Sight
    listener: Listener
    installation: str
    memory: Path
    clock: Callable[[], float]  # monotonic seconds
    page: str = ""
    comments: bool = True
    statuses: bool = True
    _notes: Notes = field(default_factory=Notes)
    _waits: dict[Topic, _Wait] = field(default_factory=dict)
    _desired: Desired | None = None
    _looked_at: tuple[object, ...] = ()
    _silent_until: float = 0.0

    def __post_init__(self) -> None:
        """Remember what a process before this one said."""
        with suppress(OSError, ValueError):
            self._notes = codec.decode(Notes, self.memory.read_bytes())

    def turn(self) -> float | None:
        """Say one thing that is not said yet; seconds until the next may be, None: there is none."""
        picture, pulls = self.sight.picture(), tuple(self.sight.pulls())
        if self._looked_at[:2] == (id(picture.overview), pulls):
            return None
        wanted = self._wanted(picture, pulls)
        for topic in [topic for topic in self._waits if topic not in wanted]:
            del self._waits[topic]
        due = [topic for topic, message in wanted.items() if self._fresh(topic, message)]
        if not due:
            self._looked_at = id(picture.overview), pulls, picture.overview  # kept, so that its id stays its own
            return None
        topic, now = min(due, key=self._free_at), self.clock()
        wait = max(self._free_at(topic), self._silent_until) - now
        if wait > 0:
            return wait
        self._say(topic, wanted[topic])
        return BETWEEN

    # --- what is to be said

    def _wanted(self, picture: Picture, pulls: Sequence[PullStatus]) -> dict[Topic, str | Status]:
        found = dict[Topic, str | Status]()
        self._follow(picture)
        for shown in pulls:
            if shown.reason == UNASKED:
                continue
            if self.statuses:
                found |= self._marks(shown.pull.head, marks_of(shown))
            if self.comments:
                found[Topic(pull=shown.pull.number)] = fits(comment_of(shown, self.installation))
        if self.statuses:
            for merge in self._notes.merges:
                found |= self._marks(merge.commit, marks_of_merge(merge, picture))
        return found

    def _marks(self, commit: str, marks: Mapping[str, Status]) -> dict[Topic, str | Status]:
        return {Topic(commit=commit, context=name): replace(one, url=self.page) for name, one in marks.items()}

    def _follow(self, picture: Picture) -> None:
        """Notice that another commit was accepted, and what it changes."""
        desired, known = picture.desired, self._notes.head
        if desired is None or desired is self._desired:
            return
        before, self._desired = self._desired, desired
        if desired.commit == known:
            return
        units = changed_by(before, desired) if before is not None else _not_in_order(picture)
        self._notes = replace(self._notes, head=desired.commit)
        if known is not None and units:
            merges = (
                *(_overtaken(one, units, desired.commit) for one in self._notes.merges),
                Merge(desired.commit, units),
            )
            self._notes = replace(self._notes, merges=merges[-MERGES:])
        self._keep()

    def _fresh(self, topic: Topic, message: str | Status) -> bool:
        known = self._notes.said.get(str(topic))
        return known is None or known.digest != _digest(message)

    def _free_at(self, topic: Topic) -> float:
        wait = self._waits.get(topic)
        return wait.until if wait else 0.0

    # --- saying it

    def _say(self, topic: Topic, message: str | Status) -> None:
        wait = self._waits.setdefault(topic, _Wait())
        try:
            comment = self._comment(topic, message) if isinstance(message, str) else self._mark(topic, message)
        except PassError as error:
            wait.failures += 1
            wait.until = self.clock() + min(FIRST_WAIT * (1 << min(wait.failures - 1, 20)), LAST_WAIT)
            if isinstance(error, Limited):
                self._silent_until = self.clock() + min(max(error.seconds or FIRST_WAIT, 1.0), 2 * LAST_WAIT)
            self.listener.reported(topic.sink, error)
            return
        wait.failures, wait.until = 0, self.clock() + AT_REST
        self._remember(topic, Said(_digest(message), comment))
        self.listener.reported(topic.sink, None)

    def _mark(self, topic: Topic, status: Status) -> int:
        self.voice.mark(Commit(topic.commit), topic.context, status)
        return 0

    def _comment(self, topic: Topic, body: str) -> int:
        """Edit the comment that is there, or write the first."""
        known = self._notes.said.get(str(topic))
        comment = known.comment if known else self._found(topic.pull)
        if comment and self.voice.edit(topic.pull, comment, body):
            return comment
        return self.voice.comment(topic.pull, body)

    def _found(self, pull: int) -> int:
        """The comment of a process before this one; 0: there is none. Somebody else's with our marker is not ours."""
        begin = marker(self.installation)
        return next((c.id for c in self.voice.comments(pull) if c.mine and c.body.startswith(begin)), 0)

    def _remember(self, topic: Topic, said: Said) -> None:
        name = str(topic)
        kept = {known: one for known, one in self._notes.said.items() if known != name} | {name: said}
        newest = dict(list(kept.items())[-REMEMBERED:])
        self._notes = replace(self._notes, said=newest)
        self._keep()

    def _keep(self) -> None:
        try:
            write_atomic(self.memory, codec.encode(self._notes), durable=False)
        except OSError as error:  # it is said once more after a restart, in place
            logging.getLogger(__name__).warning("%s: what was reported is not remembered: %s", self.memory, error)


def _not_in_order(picture: Picture) -> frozenset[UnitId]:
    """What a commit that came while nobody looked may have changed."""
    return frozenset(unit.unit for unit in picture.overview.units if not unit.in_order)


def _overtaken(merge: Merge, units: frozenset[UnitId], commit: Commit) -> Merge:
    """The merge, once another has changed some of its units again."""
    return replace(merge, later={**merge.later, **dict.fromkeys(merge.units & units, commit)})


def _digest(message: str | Status) -> str:
    said = message if isinstance(message, str) else f"{message.mark} {message.url} {message.text}"
    return sha256(said.encode()).hexdigest()[:32]


class ReporterThread:
    """Lets a reporter work beside everything else, until it is told to end."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._awake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="reports", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something may be new."""
        self._awake.set()

    def close(self) -> None:
        """Say no more. A message on its way has a deadline of its own, and ends with the process."""
        self._ending.set()
        self._awake.set()
        self._thread.join()

    def _work(self) -> None:
        wait: float | None = None
        while not self._ending.is_set():
            if wait is None:
                self._awake.wait()
                self._awake.clear()
            elif self._ending.wait(wait):
                return
            if self._ending.is_set():
                return
            try:
                wait = self._reporter.turn()
            except Exception:  # a bug: logged whole; nothing else depends on what is said
                logging.getLogger(__name__).exception("A report ended in a way that nobody foresaw")
                wait = LAST_WAIT

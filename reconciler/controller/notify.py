"""Tells sinks what happened: in order, each event until it was taken. Nothing waits for it, and nothing depends on it.

The journal is the queue. What is kept besides, in a file for each sink, is the number of the last event that was taken; it is
written after the event was, so after a crash one may come twice (with the same id), and none is left out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from reconciler.config.notify import Sink
from reconciler.durable import write_atomic
from reconciler.errors import PassError
from reconciler.ports import HistoryEvent
from reconciler.sinks import FailedError, RefusedError, Sender
from reconciler.sinks.events import cloud_event, wanted
from reconciler.sinks.sender import DEADLINE

BATCH = 100  # events read at a time
FIRST_WAIT, LAST_WAIT = 1.0, 300.0  # seconds after one that did not get through
DELIVERED, FAILED, REFUSED = RESULTS = ("delivered", "failed", "refused")


class Journal(Protocol):
    """What happened."""

    def history(self, scope: str, limit: int) -> Sequence[HistoryEvent]:
        """The newest events, newest first."""

    def since(self, number: int, limit: int) -> Sequence[HistoryEvent]:
        """The events after that number, oldest first."""


class Listener(Protocol):
    """Who is told how it went. Nothing depends on it."""

    def notified(self, sink: str, result: str, message: str = "") -> None:
        """An event was delivered, failed for now, or was refused for good."""


@dataclass(slots=True)
class Notifier:
    """One sink. `memory`: how far it was told; without the file it is told from now on."""

    sink: Sink
    journal: Journal
    listener: Listener
    installation: str
    memory: Path
    sender: Sender
    _failures: int = field(default=0, init=False)

    def turn(self) -> float | None:
        """Send one event that is due; seconds until the next may be, None: there is none."""
        told = self._told()
        batch = self.journal.since(told, BATCH)
        for happened in batch:
            event = cloud_event(happened, self.installation)
            if event is None or not wanted(event, self.sink.events):
                told = happened.seq
                continue
            if not self._send(event):
                self._keep(told)
                return self._wait()
            self._failures = 0
            self._keep(happened.seq)
            return 0.0
        if batch:
            self._keep(told)
        return 0.0 if len(batch) == BATCH else None

    def _told(self) -> int:
        """The number of the last event that needs no more sending. A journal that was restored may be behind it."""
        newest = next((one.seq for one in self.journal.history("all", 1)), 0)
        try:
            kept = int(orjson.loads(self.memory.read_bytes())["told"])
        except (OSError, ValueError, KeyError, TypeError):
            self._keep(newest)
            return newest
        return min(kept, newest)

    def _keep(self, told: int) -> None:
        self.memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self.memory, orjson.dumps({"told": told}))

    def _wait(self) -> float:
        """Longer each time."""
        self._failures += 1
        return float(min(LAST_WAIT, FIRST_WAIT * 2.0 ** min(self._failures - 1, 16)))

    def _send(self, event: Mapping[str, Any]) -> bool:
        """Whether it needs no more sending: it was taken, or will never be."""
        name, which = self.sink.name, f"event {event['id']} ({event['type']})"
        try:
            self.sender.send(event)
        except RefusedError as error:
            self.listener.notified(name, REFUSED, f"notify: {name} takes no {which}, and it is left out: {error}")
            return True
        except FailedError as error:
            self.listener.notified(name, FAILED, f"notify: {name} did not take {which}, and it is tried again: {error}")
            return False
        self.listener.notified(name, DELIVERED)
        return True


class NotifierThread:
    """Lets a notifier work beside everything else, until it is told to end."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._awake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"notify-{notifier.sink.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Something may be new."""
        self._awake.set()

    def close(self) -> None:
        """Send no more. What was not taken yet is sent after the next start."""
        self._ending.set()
        self._awake.set()
        self._thread.join(DEADLINE)

    def _work(self) -> None:
        wait: float | None = 0.0
        while not self._ending.is_set():
            if wait is None:
                self._awake.wait()
            elif self._ending.wait(wait):
                return
            self._awake.clear()
            if self._ending.is_set():
                return
            wait = self._turn()

    def _turn(self) -> float | None:
        try:
            return self._notifier.turn()
        except (PassError, OSError) as error:  # the journal, or how far it was told, cannot be read or written now
            logging.getLogger(__name__).warning("notify %s: %s", self._notifier.sink.name, error)
        except Exception:  # a bug: logged whole; nothing else depends on what is sent
            logging.getLogger(__name__).exception("A notification ended in a way that nobody foresaw")
        return LAST_WAIT

"""What was asked for and by whom, for as long as its outcome may be read; and the one thing that asking does."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.actual.ledger import ReconcileRequested
from reconciler.model import Commit, UnitId
from reconciler.ports import Clock, Store
from reconciler.status import Picture
from reconciler.trigger.callers import Caller, RefusedError, within
from reconciler.trigger.outcome import Outcome, Wanted, outcome
from reconciler.trigger.view import Bell, Sight

READABLE = timedelta(hours=24)
MOST = 10_000


@dataclass(frozen=True, slots=True)
class Waking:
    """One request that was accepted."""

    id: str  # 32 hex digits
    caller: str
    wanted: Wanted
    until: datetime  # the same again before then is a repetition


class Wakings:
    """The accepted requests. They are forgotten when the daemon ends: asking once more is harmless."""

    def __init__(self, sight: Sight, store: Store, bell: Bell, clock: Clock) -> None:
        self._sight, self._store, self._bell, self._clock = sight, store, bell, clock
        self._guard = threading.Lock()
        self._known: OrderedDict[str, Waking] = OrderedDict()

    def ask(self, caller: Caller, scope: str, commit: Commit | None) -> tuple[Waking, bool]:
        """Wake the scope; whether this is new. What was asked for already with the same proof is not asked for again.

        Raises:
            RefusedError: the scope is not one of the caller's.
            PassError: it could not be journaled, and nothing was done.
        """
        if not caller.may(scope):
            message = f"{caller.name} may not wake {scope}; it may wake {', '.join(caller.scopes)}"
            raise RefusedError(403, "forbidden", message, caller=caller.name)
        name = hashlib.sha256(f"{caller.proof}\0{scope}\0{commit or ''}".encode()).hexdigest()[:32]
        with self._guard:
            now = self._clock.now()
            self._forget(now)
            known = self._known.get(name)
            if known is not None and now < known.until:
                return known, False
            waking = Waking(name, caller.name, Wanted(scope, commit, now), caller.until)
            self._wake(waking)
            self._known[name] = waking
            self._known.move_to_end(name)
            return waking, True

    def _forget(self, now: datetime) -> None:
        while self._known and (len(self._known) >= MOST or next(iter(self._known.values())).wanted.at + READABLE < now):
            self._known.popitem(last=False)

    def _wake(self, waking: Waking) -> None:
        units = tuple(self._looked_at(waking.wanted))
        if units:
            actor = f"trigger:{waking.caller}"
            event = ReconcileRequested(waking.wanted.scope, actor, units, waking.wanted.at)
            self._store.append(event, actor=actor)
        self._bell.poll_now()
        self._bell.wake()

    def _looked_at(self, wanted: Wanted) -> Iterator[UnitId]:
        """The units to look at though nothing was merged: with a commit only those that failed, and not before it is here."""
        if wanted.commit is not None and not self._sight.accepted(wanted.commit):
            return
        picture = self._sight.picture()
        for name in within(wanted.scope, _units(picture)):
            record = picture.ledger.units.get(UnitId(name))
            if wanted.commit is None or (record is not None and record.failure is not None):
                yield UnitId(name)

    def get(self, caller: Caller, name: str) -> Waking:
        """What was asked for under that id. Raises RefusedError: there is none that the caller may know of."""
        with self._guard:
            found = self._known.get(name)
        if found is None or not caller.may(found.wanted.scope):
            message = "no such id that you may read: ids end with the daemon, and after a day; ask once more"
            raise RefusedError(404, "unknown", message, caller=caller.name)
        return found

    def outcome(self, waking: Waking) -> Outcome:
        """How far it is."""
        wanted, sight = waking.wanted, self._sight
        accepted = wanted.commit is None or sight.accepted(wanted.commit)
        passed = sight.passed()  # before the picture: what is decided on a newer one is not yet in it
        return outcome(wanted, sight.picture(), sight.standing(), passed, accepted=accepted)


def _units(picture: Picture) -> list[str]:
    desired = set(picture.desired.units) | set(picture.desired.broken) if picture.desired else set()
    return sorted(desired | set(picture.ledger.units))

"""What guards the protected branch at its forge, looked at beside the polls: shown and measured, and nothing waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from reconciler.errors import PassError
from reconciler.forge import Forge, Protection
from reconciler.observe import Observer
from reconciler.ports import Clock

EVERY = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Looked:
    """The last look that had an answer."""

    at: datetime
    rules: tuple[Protection, ...]


class Guards:
    """Looks, and keeps what was seen last."""

    def __init__(self, forge: Forge, repository: str, observer: Observer, clock: Clock) -> None:
        """`repository`: its name in logs and metrics."""
        self._forge, self._repository, self._observer, self._clock = forge, repository, observer, clock
        self._last: Looked | None = None
        self._since: datetime | None = None  # when it was last seen, or first asked for
        self._error: PassError | None = None

    def look(self) -> None:
        """Ask the forge once. What it does not answer leaves what was seen last, with its age."""
        now = self._clock.now()
        try:
            self._last = Looked(now, self._forge.protections())
        except PassError as error:
            self._error, self._since = error, self._since or now
            self._observer.protection_unknown(self._repository, error, self._since)
            return
        self._error, self._since = None, now
        rules = {rule.rule: (rule.holds, rule.message) for rule in self._last.rules}
        self._observer.protection_seen(self._repository, rules, self._last.at)

    def said(self) -> str:
        """What is to be done about it, in a sentence for people; empty while all is well."""
        if self._last is None:
            return f"The branch's protection was not seen yet. {self._error or 'The forge is being asked.'}"
        wanting = [f"{rule.rule}: {rule.message}" for rule in self._last.rules if not rule.holds]
        seen = f"As seen {self._last.at.isoformat(timespec='seconds')}" if wanting or self._error else ""
        stale = f"; it cannot be seen now: {self._error}" if self._error else ""
        return f"{seen}{stale}{': ' if wanting else ''}{'; '.join(wanting)}{'.' if wanting else ''}"

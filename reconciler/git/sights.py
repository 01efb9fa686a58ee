"""When this plane first saw commits that are not proven yet: the only date that their author does not choose.

What is kept is the look *before* the one that found a commit: after that one it came onto the branch. Two files beside the
proofs: `looked`, whose time of change is the last look, and `sights.json`, each head that brought something new. Heads that a look
does not show stay there: the server may be a replica that lags, and what it shows again later was first seen when it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from reconciler.cabinet import Cabinet, again, cabinet_of
from reconciler.durable import json_of
from reconciler.git.head import Head
from reconciler.model import Commit

LOOKED, SIGHTS = "looked", "sights.json"
_AWAY = 100  # heads that are remembered although the branch does not show them now


class Sights:
    """The looks at one branch."""

    def __init__(self, place: Path | Cabinet) -> None:
        self._cabinet = cabinet_of(place)
        self._chain: dict[Commit, int] = {}
        self._sights: list[tuple[int, datetime | None]] = []

    def look(self, head: Head, now: datetime) -> None:
        """The branch was fetched and is at `head`. Keeps what is needed until everything up to it is accepted."""
        previous = self.last_look()
        if head.chain:
            self._chain = {commit: place for place, commit in enumerate(head.chain)}
            tips = again(lambda: self._with(head.commit, previous))
            self._sights = [(self._chain[tip], _moment(at)) for tip, at in tips.items() if tip in self._chain]
        self._cabinet.stamp(LOOKED, now)

    def _with(self, tip: Commit, previous: datetime | None) -> Mapping[Commit, float | None]:
        """Every head that is remembered, this one with them. `previous`: the last look, which did not find it."""
        tips = {Commit(known): at for known, at in self._load()}
        if tip not in tips:
            tips[tip] = previous.timestamp() if previous else None
            self._cabinet.write(SIGHTS, json.dumps(self._kept(tips)).encode())
        return tips

    def last_look(self) -> datetime | None:
        """When the branch was last fetched; None before the first time."""
        return self._cabinet.stamped(LOOKED)

    def looked_before(self, commit: Commit) -> datetime | None:
        """The last look that did not find the commit; None if there was none, and so nothing is known."""
        place = self._chain.get(commit)
        if place is None:  # not of the branch as it was polled: an admin asks, and it was in no look so far
            return self.last_look()
        return next((at for tip, at in self._sights if tip >= place), None)

    def _kept(self, tips: Mapping[Commit, float | None]) -> list[tuple[Commit, float | None]]:
        """In the order in which they were seen: all of the chain, and of the others the newest."""
        away = [tip for tip in tips if tip not in self._chain]
        gone = frozenset(away[:-_AWAY])
        return [(tip, at) for tip, at in tips.items() if tip not in gone]

    def _load(self) -> list[tuple[str, float | None]]:
        raw = self._cabinet.read(SIGHTS)
        if raw is None:
            return []
        found = json_of(raw, f"{self._cabinet.place}/{SIGHTS}")
        return [(tip, at) for tip, at in found] if isinstance(found, list) else []


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

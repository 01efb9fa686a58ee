"""When this plane first saw commits that are not proven yet: the only date that their author does not choose.

What is kept is the look *before* the one that found a commit: after that one it came onto the branch. Two files beside the
proofs: `looked`, whose time of change is the last look, and `sights.json`, each head that brought something new. Heads that a look
does not show stay there: the server may be a replica that lags, and what it shows again later was first seen when it was.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from reconciler.durable import read_json, write_atomic
from reconciler.git.head import Head
from reconciler.model import Commit

_AWAY = 100  # heads that are remembered although the branch does not show them now


class Sights:
    """The looks at one branch."""

    def __init__(self, folder: Path) -> None:
        self._looked, self._file = folder / "looked", folder / "sights.json"
        self._chain: dict[Commit, int] = {}
        self._sights: list[tuple[int, datetime | None]] = []

    def look(self, head: Head, now: datetime) -> None:
        """The branch was fetched and is at `head`. Keeps what is needed until everything up to it is accepted."""
        previous = self.last_look()
        self._looked.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if head.chain:
            self._chain = {commit: place for place, commit in enumerate(head.chain)}
            tips = {Commit(tip): at for tip, at in self._load()}
            if head.commit not in tips:
                tips[head.commit] = previous.timestamp() if previous else None
                write_atomic(self._file, json.dumps(self._kept(tips)).encode())
            self._sights = [(self._chain[tip], _moment(at)) for tip, at in tips.items() if tip in self._chain]
        self._looked.touch(mode=0o600)
        os.utime(self._looked, (now.timestamp(), now.timestamp()))

    def last_look(self) -> datetime | None:
        """When the branch was last fetched; None before the first time."""
        try:
            return datetime.fromtimestamp(self._looked.stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

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
        try:
            found = read_json(self._file)
        except FileNotFoundError:
            return []
        return [(tip, at) for tip, at in found] if isinstance(found, list) else []


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

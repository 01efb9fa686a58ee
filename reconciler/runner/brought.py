"""What a job brings to its unit: which pull requests, and what was shown of them before they were merged."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.deciding.judge import Shown
from reconciler.model import Commit, Unit
from reconciler.runner.host import Host
from reconciler.runner.reviews import Review, shown, slipped_in


@dataclass(frozen=True, slots=True)
class Brought:
    """The commits up to `commit`; after `applied`, the one that the unit is at, or None if it was never applied."""

    host: Host
    unit: Unit
    commit: Commit
    applied: Commit | None

    def shown(self, upstream: str) -> Shown | None:
        """What the review showed of it. `upstream` is that part of the unit's fingerprint."""
        known = self._reviews()
        merged = self._merged(known)

        def was_merged(head: Commit) -> bool:
            return head in self.host.history.heads_since(self.applied or known[0].base, self.commit)

        return shown(known, merged, self.unit.intent, upstream, was_merged) or self._slipped_in()

    def merged(self) -> tuple[int, ...]:
        """The pull requests of the commits, newest first.

        None that was merged since the job began: what those were shown to do binds the job that brings them.
        """
        return self._merged(self._reviews())

    def _merged(self, known: tuple[Review, ...]) -> tuple[int, ...]:
        return self.host.history.merged_since(self.applied or known[0].base, self.commit) if known else ()

    def _reviews(self) -> tuple[Review, ...]:
        """What was shown of the unit, also under the name that it had until its state moved here: none is shaken off by that."""
        reviews, memory, old = self.host.reviews, self.host.memory, self.unit.entry.moved_from
        before = reviews.of(old) if old and memory.unit(old).moved_to == self.unit.id else ()
        return tuple(sorted((*before, *reviews.of(self.unit.id)), key=lambda one: one.at))

    def _slipped_in(self) -> Shown | None:
        """Of a unit that no review names: that it was shown not to be touched, where all that was merged since was shown."""
        reviews, history = self.host.reviews, self.host.history
        newest = history.pull_of(self.commit)
        scope = reviews.scope(newest) if newest is not None else None
        since = self.applied or (scope.base if scope else None)
        merged = history.only_merged_since(since, self.commit) if since and scope else ()
        return slipped_in({pull: reviews.scope(pull) for pull in merged}, self.unit.id)

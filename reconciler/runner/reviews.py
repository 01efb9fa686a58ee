"""What open pull requests were shown to do, kept until what they brought is applied: one file per unit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from reconciler import codec
from reconciler.cabinet import Cabinet, again, cabinet_of
from reconciler.deciding.judge import Shown
from reconciler.model import Change, Commit, Digest, UnitId

LIFE = timedelta(days=30)  # of a review whose pull request is open; it is planned anew long before
CLOSED = timedelta(days=1)  # of one whose request is gone, while nothing says that it was merged
MOST_SCOPES = 1000  # pull requests of which is remembered what they touch
MOST = 20  # of a unit, besides those that were merged and the last of each open request


_SCOPES = ".pulls"  # no environment has such a name


@dataclass(frozen=True, slots=True)
class Review:
    """What one pull request, at one head, would do to one unit.

    `base` is the accepted head that it was merged into to see it, `intent` what the unit is then. `changes` are all there
    were, free of values. `upstream` is that part of the fingerprint; empty where it could not be known. `follows`: what
    the unit reads changes with the same pull request, or is not there yet.
    """

    unit: UnitId
    pull: int
    head: Commit
    base: Commit
    intent: Digest
    at: datetime
    changes: tuple[Change, ...]
    follows: bool = False
    upstream: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The file of a unit, oldest review first."""

    reviews: tuple[Review, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """The units that a pull request touched when it was last looked at. `base`: the accepted head of then."""

    pull: int
    base: Commit
    units: frozenset[UnitId]


class Reviews:
    """Every unit's. Written by the jobs of pull requests, which do not hold the unit, and by its applies, which do."""

    def __init__(self, place: Path | Cabinet) -> None:
        self._cabinet = cabinet_of(place)

    def of(self, unit: UnitId) -> tuple[Review, ...]:
        """The unit's, oldest first."""
        raw = self._cabinet.read(_name(unit))
        return codec.decode(Kept, raw).reviews if raw is not None else ()

    def add(self, review: Review, unmerged: Collection[int], merged: Collection[int]) -> None:
        """Keep a review in place of the one of the same pull request and intent. `unmerged` are open, `merged` are in."""
        again(lambda: self._add(review, unmerged, merged))

    def _add(self, review: Review, unmerged: Collection[int], merged: Collection[int]) -> None:
        with self._held(_name(review.unit)):
            before = [r for r in self.of(review.unit) if (r.pull, r.intent) != (review.pull, review.intent)]
            self._save(review.unit, pruned([*before, review], review.at, unmerged, merged))

    def applied(self, unit: UnitId, merged: Collection[int]) -> None:
        """Forget those of the pull requests whose changes are in the world now."""
        if merged and self._cabinet.look(_name(unit)) is not None:
            again(lambda: self._forget(unit, merged))

    def _forget(self, unit: UnitId, merged: Collection[int]) -> None:
        with self._held(_name(unit)):
            self._save(unit, [review for review in self.of(unit) if review.pull not in merged])

    def looked(self, scope: Scope) -> None:
        """Remember what a pull request touches as it is now."""
        again(lambda: self._looked(scope))

    def _looked(self, scope: Scope) -> None:
        with self._held(_scope(scope.pull)):
            self._cabinet.write(_scope(scope.pull), codec.encode(scope))
            for old in self._cabinet.names(_SCOPES, oldest_first=True)[:-MOST_SCOPES]:
                self._cabinet.delete(old)

    def scope(self, pull: int) -> Scope | None:
        """What the pull request touched when it was last looked at; None: nobody looked."""
        raw = self._cabinet.read(_scope(pull))
        return codec.decode(Scope, raw) if raw is not None else None

    def _held(self, over: str) -> AbstractContextManager[None]:
        return self._cabinet.exclusive("lock", over)

    def _save(self, unit: UnitId, reviews: Sequence[Review]) -> None:
        if not reviews:
            self._cabinet.delete(_name(unit))
        else:
            self._cabinet.write(_name(unit), codec.encode(Kept(tuple(reviews))))


def _name(unit: UnitId) -> str:
    return f"{unit}.json"


def _scope(pull: int) -> str:
    return f"{_SCOPES}/{pull}.json"


def pruned(
    reviews: Sequence[Review], now: datetime, unmerged: Collection[int], merged: Collection[int]
) -> list[Review]:
    """Those that may still be needed.

    What was merged and is not applied yet always is, and what each open request showed last: who opens many, or pushes often,
    must not drive out what somebody approved.
    """
    kept = [review for review in reviews if review.pull in merged or _lives(review, now, review.pull in unmerged)]
    last = {review.pull: review for review in kept if review.pull in unmerged}
    others = [review for review in kept if review.pull not in merged and last.get(review.pull) is not review]
    surplus = others[: max(len(others) - MOST, 0)]
    return [review for review in kept if review not in surplus]


def _lives(review: Review, now: datetime, is_open: bool) -> bool:
    return now - review.at < (LIFE if is_open else CLOSED)


def shown(
    reviews: Sequence[Review],
    merged: Sequence[int],
    intent: Digest,
    upstream: str,
    was_merged: Callable[[Commit], bool] = lambda _: False,
) -> Shown | None:
    """What the pull requests that brought the change were shown to do. `merged`: their numbers, newest first.

    The review of exactly this intent counts. Where a request was planned, but not at what was merged in the end, what was
    shown of it last counts, so that nothing slips in with a last push. Where several were merged, and nobody saw them together,
    what each of the others showed counts as well, if `was_merged` says that this very head was.
    """
    found = {pull: [one for one in reviews if one.pull == pull] for pull in merged}
    for pull, its in found.items():
        if exact := [one for one in its if one.intent == intent]:
            return Shown(pull, exact[-1].changes, _follows(exact[-1], upstream))
    each = [its[-1] for its in found.values() if its]
    if not each:
        return None
    last = [each[0], *(one for one in each[1:] if was_merged(one.head))]
    changes = tuple(dict.fromkeys(change for one in last for change in one.changes))
    follows = any(_follows(one, upstream) for one in last)
    also = tuple(one.pull for one in last[1:])
    return Shown(last[0].pull, changes, follows, moved_on=True, also=also)


def _follows(review: Review, upstream: str) -> bool:
    return review.follows or review.upstream != upstream


def slipped_in(scopes: Mapping[int, Scope | None], unit: UnitId) -> Shown | None:
    """What was shown of a unit that none of the pull requests touched when they were looked at last: that nothing happens.

    `scopes` are those of all by which the branch came here, newest first. Where one of them was never looked at, it may be
    what brought the change, and nothing is known.
    """
    if not scopes or any(scope is None or unit in scope.units for scope in scopes.values()):
        return None
    return Shown(next(iter(scopes)), (), follows=False, moved_on=True)

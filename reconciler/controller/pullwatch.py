"""Keeps an eye on open pull requests, beside everything else: a slow forge stops neither a poll nor a decision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from reconciler.branch.protected import Basis, ProtectedBranch
from reconciler.branch.pulls import Proposal, Proposals, Untold, failed
from reconciler.errors import PassError, UnitError
from reconciler.forge.facts import Forge, Pull
from reconciler.observe import Observer
from reconciler.ports import Clock, Source

MOST_PULLS = 100  # that are looked at; the others say so
FIRST_WAIT, LAST_WAIT = timedelta(minutes=1), timedelta(hours=1)
# What another look at the same commits would not change.
SETTLED = frozenset({"PullConflicts", "PullTooLarge", "PullUnrelated"})


@dataclass(frozen=True, slots=True)
class _Seen:
    """A pull request as it was worked out last; `again` is when, where that failed, and how often it has."""

    proposal: Proposal
    again: datetime | None = None
    failures: int = 0


class PullWatch:
    """Asks the forge what is open, works out what each would change, and offers that to the loop."""

    def __init__(
        self,
        forge: Forge,
        proposals: Proposals,
        branch: ProtectedBranch,
        source: Source,
        offer: Callable[[Sequence[Proposal]], None],
        observer: Observer,
        clock: Clock,
    ) -> None:
        """`branch` is for this thread alone."""
        self._forge, self._proposals, self._branch, self._source = forge, proposals, branch, source
        self._offer, self._observer, self._clock = offer, observer, clock
        self._seen: dict[int, _Seen] = {}

    def look(self) -> None:
        """Look once. Whatever goes wrong, what was known stays; one pull request's fault is its own."""
        desired = self._source.latest()
        if desired is None:
            return
        try:
            pulls = self._forge.open_pulls()
            basis = self._branch.basis(desired.commit)
        except (PassError, UnitError) as error:
            self._observer.pulls_polled(None, str(error))
            return
        known = {pull.number: self._one(pull, basis) for pull in self._in_turn(pulls)}
        self._seen = known
        rest = [_left_out(pull, basis) for pull in pulls if pull.number not in known]
        self._tidy(pulls)
        self._offer([*(known[number].proposal for number in sorted(known)), *rest])
        self._observer.pulls_polled(len(pulls), "")

    def _in_turn(self, pulls: Sequence[Pull]) -> list[Pull]:
        """Those that went well before go first, so that a hostile one costs the others nothing but time at the end."""

        def failures(pull: Pull) -> int:
            return self._seen[pull.number].failures if pull.number in self._seen else 0

        return sorted(pulls[:MOST_PULLS], key=lambda pull: (failures(pull), pull.number))

    def _one(self, pull: Pull, basis: Basis) -> _Seen:
        now, before = self._clock.now(), self._seen.get(pull.number)
        if before is not None and _stands(before, pull, basis, now):
            return replace(before, proposal=replace(before.proposal, pull=pull))
        try:
            return _Seen(self._proposals.of(pull, self._forge.head_ref(pull.number), basis))
        except PassError as error:
            proposal = failed(pull, basis.desired.commit, error)
            if error.reason in SETTLED:
                return _Seen(proposal)
            failures = before.failures if before else 0
            return _Seen(proposal, now + min(FIRST_WAIT * (1 << min(failures, 10)), LAST_WAIT), failures + 1)

    def _tidy(self, pulls: Sequence[Pull]) -> None:
        try:
            self._proposals.mirror.forget(pull.number for pull in pulls)
        except PassError as error:
            self._observer.pulls_polled(None, str(error))


def _stands(seen: _Seen, pull: Pull, basis: Basis, now: datetime) -> bool:
    """Whether working it out again would say the same, or it is too early to try."""
    if seen.again is not None:
        return now < seen.again and seen.proposal.pull.head == pull.head
    return seen.proposal.base == basis.desired.commit and replace(seen.proposal.pull, title=pull.title) == pull


def _left_out(pull: Pull, basis: Basis) -> Proposal:
    why = f"{MOST_PULLS} pull requests are looked at, and this one is not among them; close some that are older."
    return Proposal(pull, basis.desired.commit, refused=Untold("TooManyPulls", why))

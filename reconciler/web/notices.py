"""What stands above every page: whatever keeps the whole installation, or a part of it, from working. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from reconciler.status import Picture, written_lately
from reconciler.web.sentences import short, when
from reconciler.web.view import View

STILL = timedelta(minutes=1)  # without a pass of the loop, which shows that it lives every 10 seconds


@dataclass(frozen=True, slots=True)
class Notice:
    """One of them. `grave`: nothing, or not everything, is done until somebody acts."""

    title: str
    message: str
    grave: bool = True


def notices(view: View, picture: Picture) -> list[Notice]:
    """The worst first."""
    found = [
        *_of_sessions(picture),
        *_of_others(picture),
        *_of_trust(view),
        *_of_runner(picture),
        *_of_checks(view),
        *_of_loop(view, picture),
    ]
    return sorted(found, key=lambda one: not one.grave)


def _of_sessions(picture: Picture) -> Iterator[Notice]:
    for one in picture.ledger.sessions:
        what = f"Nothing is applied there; {one.owner} works by hand: {one.reason}"
        yield Notice(f"Break-glass in {one.scope} until {when(one.until)}", what)


def _of_others(picture: Picture) -> Iterator[Notice]:
    """What others wrote in the accounts: the newest few; the journal has them all."""
    found = written_lately(picture)
    for one in found[:3]:
        change, role = one.change, "The break-glass role" if one.change.break_glass else "Somebody else"
        looked = f"{one.unsettled} of its units are not known to be in order since" if one.unsettled else ""
        settled = looked or "every unit of it that there was has been found in order since"
        what = f"{change.principal}: {', '.join(change.calls[:3])}, {change.count} in all, last at {when(change.until)}"
        more = f" {len(found) - 3} more are in the journal." if len(found) > 3 and one is found[0] else ""
        grave = bool(one.unsettled) and not change.break_glass
        yield Notice(f"{role} wrote in {change.environment}'s account", f"{what}; {settled}.{more}", grave)


def _of_trust(view: View) -> Iterator[Notice]:
    standing = view.standing()
    if standing.frozen is not None:
        since = f" since {when(standing.frozen_at)}" if standing.frozen_at else ""
        yield Notice(f"Frozen{since}: {standing.frozen.reason}", standing.frozen.message)
    seen = standing.seen
    if seen is not None and seen.unproven is not None:
        found = seen.unproven
        yield Notice(f"Commit {short(found.commit)} is not proven: {found.reason}", found.message)


def _of_runner(picture: Picture) -> Iterator[Notice]:
    trust = picture.facts.trust if picture.facts else None
    if trust is not None and trust.frozen:
        yield Notice(
            f"The runner is frozen: {trust.frozen}", "It applies nothing; `reconciler runner describe` says more."
        )
    if trust is not None and trust.unproven:
        yield Notice("The runner waits with a commit", f"It is not proven there: {trust.unproven}")


def _of_checks(view: View) -> Iterator[Notice]:
    titles = {"git": "Git", "runner": "The runner is silent", "store": "Store", "protection": "Branch protection"}
    for name, check in view.checks().items():
        if not check.ok or check.message:
            yield Notice(titles.get(name, name.capitalize()), check.message, grave=not check.ok)


def _of_loop(view: View, picture: Picture) -> Iterator[Notice]:
    beat = view.heartbeat()
    if beat is not None and picture.now - beat > STILL:
        yield Notice("The loop stands still", f"Its last pass ended at {when(beat)}: see the controller's log.")
    if picture.desired is None:
        yield Notice(
            "No commit is accepted yet", "Units are listed once the first one is proven and read.", grave=False
        )

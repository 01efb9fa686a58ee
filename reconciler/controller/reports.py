"""What is said at the forge of pull requests and merge commits: pure, from what is known of them.

Everything that a person or an engine wrote is data here: it stands in code, on one line, and is cut, so that it can name
nobody, start no command of the forge's and close no block.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler.forge.voice import Mark, Status
from reconciler.model import Change, Commit, Desired, Health, Sync, UnitId
from reconciler.reviewing import PullStatus, UnitShown
from reconciler.status import CHOSEN, Picture, UnitStatus

LONGEST_COMMENT = 65_536  # characters: GitHub's limit
ROOM = 60_000  # of them for what is told of the units
MOST_ADDRESSES = 200  # of one unit that are told
MOST_CONTEXTS = 30  # units of one commit that have a status each; of more there is one for all
LONGEST_ADDRESS, LONGEST_MESSAGE = 300, 1500  # characters
VALIDATE, PLAN, APPLY = "reconciler/validate", "reconciler/plan", "reconciler/apply"

# Why a unit of a pull request is not planned, though nothing in it is wrong.
_WAITS_FOR_MERGE = frozenset({"RefNotPlanned", "FollowsMerge", "Orphaned"})
_SIGNS: Mapping[tuple[str, ...], str] = {
    ("create",): "+",
    ("delete",): "-",
    ("update",): "!",
    ("forget",): "#",
    ("read",): "#",
}
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")


# --- a pull request


def marker(installation: str) -> str:
    """How the comment is found again: it begins with this, and shows nothing of it."""
    return f"<!-- reconciler: {installation} -->"


def comment_of(shown: PullStatus, installation: str) -> str:
    """The one comment of a pull request, whole: what merging it would do to each unit."""
    head = shown.pull.head[:12]
    parts = [marker(installation), f"### What merging this would do, as of `{head}`", _summary(shown)]
    left = ROOM
    for unit in sorted(shown.units, key=_rank):
        section = _section(unit)
        left -= len(section)
        if left < 0:
            parts.append("More units than fit here: `reconciler pulls` shows them all.")
            break
        parts.append(section)
    parts.append(
        "<sub>Addresses and actions, no values. Merging is what applies it; this comment is edited in place.</sub>"
    )
    return "\n\n".join(parts)


def _summary(shown: PullStatus) -> str:
    if shown.reason:
        return f"Nothing of it is planned ({code(shown.reason)}):\n\n{block(shown.message)}"
    if not shown.units:
        return "It changes no unit."
    count = Counter(unit.state for unit in shown.units)
    return ", ".join(f"{number} {state}" for state, number in sorted(count.items())) + "."


def _rank(unit: UnitShown) -> tuple[bool, UnitId]:
    """What went wrong, or would, first."""
    return not unit.would_be_held and unit.state not in ("failed", "not planned"), unit.unit


def _section(unit: UnitShown) -> str:
    plan = _plan(unit) if unit.plan is not None and unit.plan.changes else ""
    said = block(unit.message) if unit.message and (not plan or unit.would_be_held) else ""
    body = "\n\n".join(filter(None, (said, plan)))
    title = f"<code>{html.escape(unit.unit)}</code> {html.escape(_said(unit))}"
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if body else f"- {title}"


def _said(unit: UnitShown) -> str:
    if unit.plan is not None and unit.state == "planned":
        held = f"; merged as it is, it is held ({unit.reason})" if unit.would_be_held else ""
        return (counted(unit.plan.changes, unit.plan.more) or "nothing changes") + held
    return f"{unit.state}{f' ({unit.reason})' if unit.reason and unit.state != 'planned' else ''}"


def counted(changes: Sequence[Change], more: int = 0) -> str:
    """`2 to create, 1 to replace`; empty where there is nothing."""
    words = Counter("replace" if change.replaces else change.actions[0] for change in changes if change.actions)
    said = [f"{number} to {word}" for word, number in sorted(words.items())]
    return ", ".join([*said, *([f"{more} more"] if more else [])])


def _plan(unit: UnitShown) -> str:
    assert unit.plan is not None  # noqa: S101 - the caller's condition
    lines = [_line(change) for change in unit.plan.changes[:MOST_ADDRESSES]]
    rest = len(unit.plan.changes) - len(lines) + unit.plan.more
    return block("\n".join([*lines, *([f"# and {rest} more"] if rest else [])]), "diff", lines=True)


def _line(change: Change) -> str:
    sign = "-" if change.replaces else _SIGNS.get(change.actions, "!")
    what = " (replaced)" if change.replaces else ""
    return f"{sign} {_flat(change.address, LONGEST_ADDRESS)}{what}"


def marks_of(shown: PullStatus) -> Mapping[str, Status]:
    """The statuses of a pull request's head, by context."""
    wrong = [unit for unit in shown.units if unit.state == "not planned" and unit.reason not in _WAITS_FOR_MERGE]
    if shown.reason:
        refused = Status(Mark.FAILURE, f"{shown.reason}: {shown.message}")
        return {VALIDATE: refused, PLAN: refused}
    valid = Status(Mark.SUCCESS, f"{len(shown.units)} units are affected")
    if wrong:
        valid = Status(Mark.FAILURE, f"{wrong[0].unit}: {wrong[0].message}")
    return {VALIDATE: valid, PLAN: _planned(shown.units)}


def _planned(units: Sequence[UnitShown]) -> Status:
    failed = [unit for unit in units if unit.state == "failed" or unit.would_be_held]
    open_ = [unit for unit in units if unit.state in ("waiting", "running")]
    if open_:
        return Status(Mark.PENDING, f"{len(units) - len(open_)} of {len(units)} units are planned")
    if failed:
        return Status(Mark.FAILURE, f"{failed[0].unit}: {failed[0].reason}: {failed[0].message}")
    changes = [change for unit in units if unit.plan for change in unit.plan.changes]
    more = sum(unit.plan.more for unit in units if unit.plan)
    return Status(Mark.SUCCESS, counted(changes, more) or "nothing changes")


# --- a merge commit


@dataclass(frozen=True, slots=True)
class Merge:
    """An accepted commit and the units that it changed; `later`: those that a newer one has changed again, and which."""

    commit: Commit
    units: frozenset[UnitId]
    later: Mapping[UnitId, Commit] = field(default_factory=dict)


def changed_by(before: Desired, desired: Desired) -> frozenset[UnitId]:
    """The units that are another thing than before, or broken in another way."""
    fresh = (one.id for one in desired.units.values() if _intent(before, one.id) != one.intent)
    broken = (unit for unit, problem in desired.broken.items() if before.broken.get(unit) != problem)
    gone = before.units.keys() - desired.units.keys() - desired.broken.keys()
    return frozenset([*fresh, *broken, *gone])


def _intent(desired: Desired, unit: UnitId) -> str | None:
    known = desired.units.get(unit)
    return known.intent if known else None


def marks_of_merge(merge: Merge, picture: Picture) -> Mapping[str, Status]:
    """The statuses of a merge commit, by context: one for each unit, or one for all where they are many."""
    each = {unit: _unit_mark(picture.status(unit), merge.later.get(unit)) for unit in sorted(merge.units)}
    if len(each) <= MOST_CONTEXTS:
        return {f"{APPLY}: {unit}": status for unit, status in each.items()}
    return {APPLY: _together(each)}


def _unit_mark(status: UnitStatus | None, later: Commit | None) -> Status:
    since = f" with {later[:12]}, which came later" if later else ""
    if status is None:
        return Status(Mark.SUCCESS, f"It is gone{since}")
    if status.in_order or (status.sync is Sync.OUT_OF_SYNC and status.health is Health.HEALTHY):
        return Status(Mark.SUCCESS, f"It is as it shall be{since}")
    said = f"{status.reason}: {status.message}" if status.reason else status.phase or status.health.value
    troubled = status.held or status.health is Health.DEGRADED
    return Status(Mark.FAILURE if troubled and status.reason not in CHOSEN else Mark.PENDING, said)


def _together(each: Mapping[UnitId, Status]) -> Status:
    count = Counter(status.mark for status in each.values())
    said = f"{count[Mark.SUCCESS]} of {len(each)} units are as they shall be"
    first = next((f"; {unit}: {one.text}" for unit, one in each.items() if one.mark is Mark.FAILURE), "")
    mark = Mark.FAILURE if first else Mark.PENDING if count[Mark.PENDING] else Mark.SUCCESS
    return Status(mark, f"{said}{first}")


# --- words of others


def code(text: str) -> str:
    """A word in a line."""
    return f"`{_flat(text, LONGEST_ADDRESS).replace('`', chr(0x2019))}`"


def block(text: str, language: str = "text", *, lines: bool = False) -> str:
    """Text that nothing in it can end. `lines`: it is made of lines already, each of them flat."""
    flat = re.sub("(?m)^/", " /", text if lines else _flat(text, LONGEST_MESSAGE))  # no line is a command of GitLab's
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{flat}\n{fence}"


def _flat(text: str, longest: int) -> str:
    """One line, without what would break it or turn it around."""
    line = _BREAKS.sub(" ", text).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def fits(comment: str) -> str:
    """The comment, cut where a forge would refuse it. `ROOM` makes that all but impossible."""
    return comment if len(comment) <= LONGEST_COMMENT else comment[: LONGEST_COMMENT - 1] + "…"

"""Which files a commit of the environments repository has: all of them once, and then what differs from the commit before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import intern

from reconciler.branch.before import ENVIRONMENTS
from reconciler.desired.load import most_bytes
from reconciler.desired.paths import LOCK_PATH
from reconciler.desired.strict import FILE_LIMIT, too_many_bytes
from reconciler.errors import PassError, Place
from reconciler.git.source import EnvironmentsSource
from reconciler.git.tree import TreeEntry, TreeLimits
from reconciler.layered import Layered
from reconciler.model import Commit, Problem

MOST_NAMED = 1000  # files that git is asked for by name; beyond, it is asked for all
_LIMITS = TreeLimits()


@dataclass(frozen=True, slots=True)
class Files:
    """Those that may be read, path -> blob, and what is wrong with the others, by path. `size`: at most so many bytes are in all of them."""

    commit: Commit
    blobs: Layered[str, str]
    problems: Layered[str, Problem]
    size: int

    def in_order(self) -> Sequence[Problem]:
        """The problems by their paths, as they stand in the tree."""
        return [self.problems[path] for path in sorted(self.problems)]


def files_of(source: EnvironmentsSource, commit: Commit, before: Files | None = None) -> Files:
    """The files of a commit; from those of another one where little differs.

    Raises:
        PassError: too large (`TreeTooLarge`), or the mirror cannot be read.
    """
    return (before and _after(source, before, commit)) or _all(source, commit)


def sorted_out(entries: Iterable[TreeEntry]) -> tuple[dict[str, str], list[Problem]]:
    """The files that may be read, path -> blob, and what is wrong with the others. None that is too large is ever read."""
    blobs: dict[str, str] = {}
    problems: list[Problem] = []
    for entry in entries:
        if problem := _problem(entry):
            problems.append(problem)
        else:
            blobs[intern(entry.path)] = entry.blob_id  # the entry's place, and the unit's, are this very string
    return blobs, problems


def _all(source: EnvironmentsSource, commit: Commit) -> Files:
    entries = list(source.read_tree(commit, ENVIRONMENTS, LOCK_PATH))
    blobs, problems = sorted_out(entries)
    by_path = {problem.place.path: problem for problem in problems}
    return Files(commit, Layered(blobs), Layered(by_path), sum(entry.size for entry in entries))


def _after(source: EnvironmentsSource, before: Files, commit: Commit) -> Files | None:
    """As `_all`; None where that is the simpler way: much is another, names are odd, or the limits are near."""
    try:
        changes = source.changed_paths(before.commit, commit, ENVIRONMENTS, LOCK_PATH)
    except PassError:  # whatever it is about the one before: this one is read by itself
        return None
    if len(changes) > MOST_NAMED or any(change.problem for change in changes):
        return None
    named = {change.path for change in changes if not change.removed}
    entries = [entry for entry in source.read_tree(commit, *sorted(named)) if entry.path in named] if named else []
    size = before.size + sum(entry.size for entry in entries)
    gone = dict.fromkeys(change.path for change in changes)
    blobs, problems = sorted_out(entries)
    found = Files(
        commit,
        before.blobs.after({**gone, **blobs}),
        before.problems.after({**gone, **{problem.place.path: problem for problem in problems}}),
        size,
    )
    return None if size > _LIMITS.total or len(found.blobs) + len(found.problems) > _LIMITS.entries else found


def _problem(entry: TreeEntry) -> Problem | None:
    if entry.problem:
        return Problem(Place(entry.path), "PathInvalid", entry.problem)
    if entry.size > FILE_LIMIT and entry.size > (limit := most_bytes(entry.path)):  # nearly none: no look at its path
        return too_many_bytes(entry.path, entry.size, limit)
    return None

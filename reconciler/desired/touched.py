"""What a commit means of which an earlier one may have meant something else: so that each costs only what differs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.desired.links import Tree
from reconciler.desired.lock import LockFile
from reconciler.desired.pins import Refs
from reconciler.layered import Layered, differing
from reconciler.model import Commit, Desired, Entry, Environment, EnvironmentClass, Problem, Unit, UnitId


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a commit means, and what is kept of it so that the next one costs only what differs.

    `given` are the entries as they were read, `unread` the problems of units whose files could not be. `knotted`: units wait for each
    other in a circle.
    """

    desired: Desired
    tree: Tree = field(default_factory=Tree)
    units: Layered[UnitId, Unit] = field(default_factory=Layered)
    given: Mapping[UnitId, Entry] = field(default_factory=dict)
    unread: Mapping[UnitId, Problem] = field(default_factory=dict)
    lock: LockFile = field(default_factory=LockFile)
    refs: Refs = field(default_factory=dict)
    knotted: bool = False


NOTHING = Resolved(Desired(Commit("")))


def touched(
    before: Resolved,
    tree: Tree,
    changed: Iterable[UnitId],
    sound: Mapping[str, Environment],
    lock: LockFile,
    refs: Refs,
) -> set[UnitId]:
    """The units of which something else may come than before, beside those of the files that `changed`."""
    old = before.tree
    if _classes(old) != _classes(tree):
        return {*old.entries, *tree.entries}
    found = before.desired.broken.keys() - before.unread.keys()  # what is wrong, and its words, may hang on everything
    for unit in changed:
        found.update(_lookers(old, tree, unit))
    grown = differing(old.members, tree.members)
    names = {name for name, one in sound.items() if not grown.isdisjoint(one.depends_on)}
    for name in names | differing(before.desired.environments, sound):
        found |= tree.members.get(name, frozenset())
    for module in _repinned(before, lock, refs):
        found |= tree.users.get(module, frozenset())
    return found


def _classes(tree: Tree) -> dict[str, EnvironmentClass]:
    return {name: one.klass for name, one in tree.environments.items()}


def _lookers(old: Tree, new: Tree, unit: UnitId) -> Iterator[UnitId]:
    """Who sees that the unit's file is another: those that name it, and those that want the same state as it."""
    if old.sight(unit) != new.sight(unit):
        yield from new.namers.get(unit, frozenset())
    for entry in (old.entries.get(unit), new.entries.get(unit)):
        if entry is not None and entry.moved_from is not None:
            yield from new.sources.get(entry.moved_from, frozenset())
        if entry is not None and entry.adopt is not None:
            yield from new.adopters.get(entry.adopt, frozenset())


def _repinned(before: Resolved, lock: LockFile, refs: Refs) -> Iterator[str]:
    """The modules of which some version, or some branch, may be another now."""
    yield from (
        module for module, ref in {*before.refs, *refs} if before.refs.get((module, ref)) != refs.get((module, ref))
    )
    if lock is before.lock:
        return
    old, new = before.lock.lock.modules, lock.lock.modules
    yield from (module for module in {*old, *new} if old.get(module) != new.get(module))
    yield from (
        key[0] for key in {*before.lock.broken, *lock.broken} if before.lock.broken.get(key) != lock.broken.get(key)
    )

"""What one commit means: every entry tied to its pin, its environment and the units that it reads. Pure.

A broken entry is a problem of that entry alone: it is missing from `units` and named in `broken`, and what depends on
it stays in `units`, waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, TypeVar, cast

from reconciler.desired import fingerprint
from reconciler.desired.links import (
    Tree,
    environment_of,
    environments_without_file,
    problems_of_entry,
    problems_of_environment,
)
from reconciler.desired.lock import LockFile
from reconciler.desired.order import components, cycle_in
from reconciler.desired.paths import EnvironmentPath, classify, environment_path
from reconciler.desired.pins import Refs, pin_of
from reconciler.desired.template import named, spell
from reconciler.desired.touched import NOTHING, Resolved, touched
from reconciler.errors import INTERNAL, Place, bug
from reconciler.layered import differing
from reconciler.model import (
    Commit,
    Desired,
    Digest,
    Entry,
    Environment,
    Pin,
    Problem,
    Reference,
    SecretReference,
    Unit,
    UnitId,
)

T = TypeVar("T")

_TOLD = 50  # problems of one entry: mending these is enough to do, and finding more takes time
_HINTS = 50  # after so many problems none gets a "did you mean" any more: looking for it takes time
_AFTER = "environment "  # marks, in the graph, the end of an environment; no unit's id has a space


@dataclass(frozen=True, slots=True, eq=False)
class Union(AbstractSet[UnitId]):
    """Disjoint sets as one, without copying: thousands of units may follow the thousands of another environment."""

    sets: tuple[frozenset[UnitId], ...]

    @classmethod
    def _from_iterable(cls, units: Iterable[Any]) -> frozenset[Any]:  # what & and | and - answer with
        return frozenset(units)

    def __contains__(self, unit: object) -> bool:
        return any(unit in one for one in self.sets)

    def __iter__(self) -> Iterator[UnitId]:
        return chain.from_iterable(self.sets)

    def __len__(self) -> int:
        return sum(map(len, self.sets))


def resolve(
    commit: Commit,
    environments: Mapping[str, Environment],
    entries: Mapping[UnitId, Entry],
    lock: LockFile,
    problems: Sequence[Problem],
    *,
    refs: Refs | None = None,
    before: Resolved = NOTHING,
) -> Resolved:
    """Tie everything together.

    `problems` are those of reading the files; one with a unit says that this unit is broken. `refs` gives the pin of
    each (module, branch) that a sandbox entry names. `before` is any earlier commit: what is unchanged is taken from there, and
    the answer is the same whichever it is.
    """
    refs = refs or {}
    unread = {problem.unit: problem for problem in reversed(problems) if problem.unit is not None}
    changed = differing(before.given, entries) | differing(before.unread, unread)
    tree = before.tree.after(
        environments, {id_: entries.get(id_) if id_ not in unread else None for id_ in changed}, unread
    )
    found = list(problems)
    sound = _sound_environments(tree, found)
    if lock.unreadable and tree.entries and lock.unreadable not in found:
        found.append(lock.unreadable)
    work = _Work(tree, sound, lock, refs, before.units, dict(unread), found)
    again = changed | touched(before, tree, changed, sound, lock, refs)
    for id_ in sorted(again & tree.entries.keys()):
        work.add_or_break(tree.entries[id_])
    units = before.units.after({**dict.fromkeys(sorted(again)), **work.units})
    order: tuple[UnitId, ...] = before.desired.order
    knots: tuple[Problem, ...] = ()
    if before.knotted or any(_before_it(before.units.get(id_)) != _before_it(units.get(id_)) for id_ in again):
        order, knots = _untangled(units, tree, sound)
        work.give_up(knots)
        units = units.after(dict.fromkeys(UnitId(str(knot.unit)) for knot in knots))
    locked = (
        before.desired.locked if lock is before.lock else frozenset((p.module, p.version) for p in lock.lock.pins())
    )
    desired = Desired(commit, units, work.broken, sound, tuple(sorted(found, key=by_place)), order, locked)
    return Resolved(desired, tree, units, entries, unread, lock, refs, bool(knots))


def by_place(problem: Problem) -> tuple[str, int, int, str]:
    """The order in which people read problems."""
    place = problem.place
    return place.path, place.line, place.column, problem.message


def _sound_environments(tree: Tree, found: list[Problem]) -> dict[str, Environment]:
    """The environments that nothing is wrong with; what is wrong with the others goes to `found`."""
    unsound = {problem.place.path for problem in found}
    unread = [name for name in _named_by(unsound) if name not in tree.environments]
    new = [*environments_without_file(tree, unread)]
    for environment in tree.environments.values():
        new += problems_of_environment(tree, environment, {*unread, *tree.members})
    found += new
    unsound.update(problem.place.path for problem in new)
    return {name: one for name, one in tree.environments.items() if environment_path(name) not in unsound}


def _named_by(paths: Iterable[str]) -> Iterator[str]:
    """The environments whose own files are among the paths."""
    for path in paths:
        kind = classify(path)
        if isinstance(kind, EnvironmentPath):
            yield kind.name


@dataclass(slots=True)
class _Work:
    """Entries on their way to units. `units`, `broken` and `found` grow."""

    tree: Tree
    environments: Mapping[str, Environment]
    lock: LockFile
    refs: Refs
    before: Mapping[UnitId, Unit]
    broken: dict[UnitId, Problem]
    found: list[Problem]
    units: dict[UnitId, Unit] = field(default_factory=dict)
    same: dict[object, object] = field(default_factory=dict)  # equal sets are one: thousands read the same
    modules: dict[tuple[str, str], Digest] = field(default_factory=dict)
    settings: dict[str, Digest] = field(default_factory=dict)

    def add_or_break(self, entry: Entry) -> None:
        """As `add`. An entry in which the program finds a bug of its own is broken, and no other is."""
        try:
            self.add(entry)
        except Exception as error:  # noqa: BLE001 - see above; it is said where people look
            self.give_up([Problem(entry.place, INTERNAL, bug(error), entry.unit)])

    def add(self, entry: Entry) -> None:
        """Make a unit of the entry, or a problem."""
        environment = self.environments.get(environment_of(entry.unit))
        if environment is None:
            self.broken[entry.unit] = _environment_first(entry.unit)
            return
        if self.lock.unreadable:
            self.broken[entry.unit] = replace(self.lock.unreadable, unit=entry.unit)
            return
        old = self.before.get(entry.unit)
        names = (old.references, old.secrets) if old and old.entry is entry else _names(entry)
        pin = pin_of(entry, environment, self.lock, self.refs)
        hint = len(self.found) < _HINTS
        problems = [*islice(problems_of_entry(self.tree, entry, environment, names[0], hint=hint), _TOLD)]
        if isinstance(pin, Problem):
            self.give_up([pin, *problems])
        elif problems:
            self.give_up(problems)
        else:
            self.units[entry.unit] = self._unit(entry, environment, pin, *names)

    def give_up(self, problems: Iterable[Problem]) -> None:
        """The units of these problems are broken; each for the first of its own."""
        for problem in problems:
            self.broken.setdefault(UnitId(str(problem.unit)), problem)
            self.found.append(problem)

    def _unit(
        self,
        entry: Entry,
        environment: Environment,
        pin: Pin,
        references: frozenset[Reference],
        secrets: frozenset[str],
    ) -> Unit:
        upstream = self._upstream(entry, environment, references)
        old = self.before.get(entry.unit)
        if old and old.entry is entry and old.environment is environment and old.pin == pin:
            return old if _same(old.upstream, upstream) else replace(old, upstream=upstream)
        module = self.modules.get((pin.module, pin.version)) or fingerprint.module_part(pin)
        settings = self.settings.get(environment.name) or fingerprint.settings_part(environment)
        self.modules[pin.module, pin.version] = module
        self.settings[environment.name] = settings
        inputs = fingerprint.inputs_part(entry)
        intent = fingerprint.intent(module, inputs, settings, references)
        references, secrets = self._one(references), self._one(secrets)
        upstream = self._one(upstream) if isinstance(upstream, frozenset) else upstream
        return Unit(
            entry.unit, entry, environment, pin, references, secrets, upstream, module, inputs, settings, intent
        )

    def _one(self, some: frozenset[T]) -> frozenset[T]:
        """The set itself, or an equal one that another unit has."""
        return cast("frozenset[T]", self.same.setdefault(some, some))

    def _upstream(
        self, entry: Entry, environment: Environment, references: frozenset[Reference]
    ) -> frozenset[UnitId] | Union:
        """What must be in order first, as far as there is a file for it."""
        own = {*(one.unit for one in references), *entry.depends_on}
        after = [name for name in environment.depends_on if name in self.tree.members]
        rest = frozenset(unit for unit in own if self.tree.has(unit) and environment_of(unit) not in after)
        return Union((rest, *(self.tree.members[name] for name in after))) if after else rest


def _same(old: AbstractSet[UnitId], new: frozenset[UnitId] | Union) -> bool:
    """Whether both are the same units. Those of environments by identity: looking inside takes long."""
    if isinstance(new, Union):
        return (
            isinstance(old, Union)
            and old.sets[0] == new.sets[0]
            and [*map(id, old.sets[1:])] == [*map(id, new.sets[1:])]
        )
    return old == new


def _before_it(unit: Unit | None) -> object:
    """What the order of the units hangs on."""
    return unit and (unit.reads | {*unit.entry.depends_on}, unit.environment.depends_on)


def _untangled(
    units: Mapping[UnitId, Unit], tree: Tree, environments: Mapping[str, Environment]
) -> tuple[tuple[UnitId, ...], tuple[Problem, ...]]:
    """The order of the units, upstream first, and the problems of those on a cycle, which are in no order."""
    graph = _graph(units, tree, environments)
    order: list[UnitId] = []
    knots: list[Problem] = []
    for component in components(graph):
        nodes = [UnitId(node) for node in component if node in units]
        if cycle := cycle_in(graph, component):
            knots += (_cyclic(units[node], cycle) for node in sorted(nodes))
        else:
            order += nodes
    return tuple(order), tuple(knots)


def _graph(units: Mapping[UnitId, Unit], tree: Tree, environments: Mapping[str, Environment]) -> dict[str, list[str]]:
    """What comes before each unit; before an environment's end come all of its units."""
    graph: dict[str, list[str]] = {}
    for id_ in sorted(units):
        unit = units[id_]
        graph[id_] = sorted({*unit.reads, *unit.entry.depends_on})
        graph[id_] += (_AFTER + name for name in unit.environment.depends_on)
    for name in sorted({name for one in environments.values() for name in one.depends_on}):
        graph[_AFTER + name] = sorted(tree.members.get(name, ()))
    return graph


def _cyclic(unit: Unit, cycle: Sequence[str]) -> Problem:
    place = unit.environment.place
    following = cycle[cycle.index(unit.id) + 1] if unit.id in cycle[:-1] else ""
    names = [*sorted(spell(one) for one in unit.references if one.unit == following)]
    names += (f"depends_on[{n}]" for n, one in enumerate(unit.entry.depends_on) if one == following)
    if not following.startswith(_AFTER):
        place = unit.entry.at(names[0]) if names else unit.entry.place
    message = f"this is a cycle, each waiting for the next: {' -> '.join(cycle)}; break it at one of them"
    return Problem(place, "DependencyCycle", message, unit.id)


def _environment_first(unit: UnitId) -> Problem:
    path = environment_path(environment_of(unit))
    return Problem(Place(path), "EnvironmentInvalid", f"{path} is missing or wrong; correct it first", unit)


def _names(entry: Entry) -> tuple[frozenset[Reference], frozenset[str]]:
    """The outputs and the secrets that the entry reads."""
    found = [*named(entry.inputs)]
    secrets = frozenset(one.name for one in found if isinstance(one, SecretReference))
    return frozenset(one for one in found if isinstance(one, Reference)), secrets

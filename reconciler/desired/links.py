"""What an entry and an environment say of others, held against what there is."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from reconciler.desired.paths import environment_path
from reconciler.desired.template import named, spell
from reconciler.desired.wording import close_to
from reconciler.errors import Place
from reconciler.layered import Index, Layered, reindexed
from reconciler.model import Entry, Environment, EnvironmentClass, Presence, Problem, Reference, UnitId


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything that one commit holds, whether it is sound or not.

    `members` are the units of each environment that there is a file for; `sources` the entries that take the state of a former name,
    `adopters` those that take one that others made. `namers` are the entries that name a unit, whether it exists or not; `users` those
    of a module.
    """

    environments: Mapping[str, Environment] = field(default_factory=dict)
    entries: Layered[UnitId, Entry] = field(default_factory=Layered)
    members: Index[str, UnitId] = field(default_factory=Layered)
    sources: Index[UnitId, UnitId] = field(default_factory=Layered)
    adopters: Index[str, UnitId] = field(default_factory=Layered)
    namers: Index[UnitId, UnitId] = field(default_factory=Layered)
    users: Index[str, UnitId] = field(default_factory=Layered)

    def after(
        self,
        environments: Mapping[str, Environment],
        changes: Mapping[UnitId, Entry | None],
        unread: Container[UnitId],
    ) -> Tree:
        """The tree with these entries instead; None: there is none that can be read. `unread`: there is a file all the same."""
        old = [entry for unit in changes if (entry := self.entries.get(unit)) is not None]
        new = [entry for entry in changes.values() if entry is not None]
        had = {(environment_of(unit), unit) for unit in changes if self.has(unit)}
        has = {(environment_of(unit), unit) for unit, one in changes.items() if one is not None or unit in unread}
        return Tree(
            environments,
            self.entries.after(changes),
            reindexed(self.members, had, has),
            reindexed(self.sources, {*_moves(old)}, {*_moves(new)}),
            reindexed(self.adopters, {*_adoptions(old)}, {*_adoptions(new)}),
            reindexed(self.namers, {*_namings(old)}, {*_namings(new)}),
            reindexed(self.users, {(one.module, one.unit) for one in old}, {(one.module, one.unit) for one in new}),
        )

    def has(self, unit: UnitId) -> bool:
        """Whether there is a file for the unit."""
        return unit in self.members.get(environment_of(unit), ())

    def sight(self, unit: UnitId) -> tuple[bool, Presence | None]:
        """What others see of the unit that they name."""
        entry = self.entries.get(unit)
        return self.has(unit), entry.presence if entry is not None else None

    def is_sandbox(self, environment: str) -> bool:
        """Whether the environment is known to be a sandbox."""
        found = self.environments.get(environment)
        return found is not None and found.klass is EnvironmentClass.SANDBOX


def environment_of(unit: UnitId) -> str:
    """The name of the unit's environment."""
    return unit.partition("/")[0]


def _moves(entries: Iterable[Entry]) -> Iterator[tuple[UnitId, UnitId]]:
    return ((one.moved_from, one.unit) for one in entries if one.moved_from is not None)


def _adoptions(entries: Iterable[Entry]) -> Iterator[tuple[str, UnitId]]:
    return ((one.adopt, one.unit) for one in entries if one.adopt is not None)


def _namings(entries: Iterable[Entry]) -> Iterator[tuple[UnitId, UnitId]]:
    for one in entries:
        yield from ((found.unit, one.unit) for found in named(one.inputs) if isinstance(found, Reference))
        yield from ((unit, one.unit) for unit in one.depends_on)
        if one.moved_from is not None:
            yield one.moved_from, one.unit


def problems_of_environment(tree: Tree, environment: Environment, broken: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with the environments that this one follows. `broken` are those that could not be read."""
    known = {*tree.environments, *broken}
    # Only what the file says: what was in force before may name an environment that is gone, and then holds for good.
    rules = environment.says.promotion if environment.says else environment.promotion
    follows = [("depends_on", name) for name in environment.depends_on]
    follows += [("promotion.after", rule.after) for rule in rules]
    for where, name in follows:
        if name not in known:
            hint = close_to(name, sorted(known - {environment.name}))
            yield _of_environment(environment, "ReferenceMissing", f"{where}: there is no environment {name}{hint}")
        elif environment.klass is EnvironmentClass.PROTECTED and tree.is_sandbox(name):
            message = f"{where}: {name} is a sandbox, and a protected environment never follows one; remove it"
            yield _of_environment(environment, "ReadsSandbox", message)


def environments_without_file(tree: Tree, broken: Iterable[str]) -> Iterator[Problem]:
    """The environments that have entries and nothing else."""
    for name in sorted({*tree.members} - {*tree.environments, *broken}):
        message = f"{name} has entries and no environment.yaml; add one that says class: protected or class: sandbox"
        yield Problem(Place(environment_path(name)), "EnvironmentMissing", message)


def problems_of_entry(
    tree: Tree, entry: Entry, environment: Environment, references: Iterable[Reference], *, hint: bool
) -> Iterator[Problem]:
    """What is wrong with what the entry says of others. `hint`: take the time to look for what may be meant."""
    yield from _providers(entry, environment)
    yield from _move(tree, entry)
    yield from _adoption(tree, entry)
    for reference in sorted(references, key=spell):
        yield from _target(tree, entry, environment, reference.unit, spell(reference), hint=hint)
    for number, unit in enumerate(entry.depends_on):
        yield from _target(tree, entry, environment, unit, f"depends_on[{number}]", hint=hint)


def _target(
    tree: Tree, entry: Entry, environment: Environment, unit: UnitId, name: str, *, hint: bool
) -> Iterator[Problem]:
    """What is wrong with the unit that the entry names at `name`."""
    other = environment_of(unit)
    if environment.klass is EnvironmentClass.PROTECTED and tree.is_sandbox(other):
        message = f"{unit} is in a sandbox, and a protected environment never reads or follows one; remove it"
        yield Problem(entry.at(name), "ReadsSandbox", message, entry.unit)
    if entry.presence is not Presence.PRESENT:
        return  # it goes, and what it reads may go before its file does
    if not tree.has(unit):
        meant = _meant(tree, unit) if hint else "; correct the name"
        yield Problem(entry.at(name), "ReferenceMissing", f"there is no unit {unit}{meant}", entry.unit)
    elif (target := tree.entries.get(unit)) and target.presence is not Presence.PRESENT:
        message = f"{unit} has state: {target.presence}; stop reading it first, or keep it"
        yield Problem(entry.at(name), "ReferenceToAbsent", message, entry.unit)


def _meant(tree: Tree, unit: UnitId) -> str:
    environment, _, name = unit.partition("/")
    members = tree.members.get(environment)
    if members is None:
        return f"; there is no environment {environment}{close_to(environment, sorted(tree.members))}"
    names = {one.partition("/")[2]: one for one in sorted(members)}
    close = get_close_matches(name, names, 1, 0.6) or [one for one in names if one.endswith(f"/{name}")]
    return f'; did you mean "{names[close[0]]}"?' if close else "; correct the name, or add its entry"


def _providers(entry: Entry, environment: Environment) -> Iterator[Problem]:
    for inner, outer in entry.providers.items():
        if outer not in environment.providers:
            message = (
                f"{environment.name} configures no provider {outer}{close_to(outer, sorted(environment.providers))}"
            )
            yield Problem(entry.at(f"providers.{inner}"), "ProviderMissing", message, entry.unit)


def _move(tree: Tree, entry: Entry) -> Iterator[Problem]:
    source = entry.moved_from
    if source is None:
        return
    if tree.has(source):
        message = f"{source} is still there; a move keeps one of the two: remove its file"
        yield Problem(entry.at("moved_from"), "MoveInvalid", message, entry.unit)
    others = [unit for unit in tree.sources.get(source, ()) if unit != entry.unit]
    if others:
        message = f"{', '.join(sorted(others))} moves from {source} too; only one can have its state"
        yield Problem(entry.at("moved_from"), "MoveInvalid", message, entry.unit)


def _adoption(tree: Tree, entry: Entry) -> Iterator[Problem]:
    others = [unit for unit in tree.adopters.get(entry.adopt, ()) if unit != entry.unit] if entry.adopt else []
    if others:
        message = f"{', '.join(sorted(others))} adopts the same state; only one can have its objects"
        yield Problem(entry.at("adopt.state"), "AdoptInvalid", message, entry.unit)


def _of_environment(environment: Environment, reason: str, message: str) -> Problem:
    return Problem(environment.place, reason, message)

"""What an entry and an environment say of others, held against what there is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.desired.paths import environment_path
from reconciler.desired.template import spell
from reconciler.desired.wording import close_to
from reconciler.errors import Place
from reconciler.model import Entry, Environment, EnvironmentClass, Presence, Problem, Reference, UnitId


@dataclass(frozen=True, slots=True)
class Tree:
    """Everything that one commit holds, whether it is sound or not.

    `members` are the units of each environment; `sources` the entries that take the state of a former name, `adopters` those that take
    one that others made.
    """

    environments: Mapping[str, Environment]
    entries: Mapping[UnitId, Entry]
    members: Mapping[str, frozenset[UnitId]]
    sources: Mapping[UnitId, list[UnitId]]
    adopters: Mapping[str, list[UnitId]]

    @classmethod
    def of(
        cls, environments: Mapping[str, Environment], entries: Mapping[UnitId, Entry], broken: Iterable[UnitId]
    ) -> Tree:
        """Gather it. `broken` are the units whose files could not be read."""
        members: dict[str, set[UnitId]] = defaultdict(set)
        for unit in (*entries, *broken):
            members[environment_of(unit)].add(unit)
        sources: dict[UnitId, list[UnitId]] = defaultdict(list)
        adopters: dict[str, list[UnitId]] = defaultdict(list)
        for entry in entries.values():
            if entry.moved_from is not None:
                sources[entry.moved_from].append(entry.unit)
            if entry.adopt is not None:
                adopters[entry.adopt].append(entry.unit)
        named = {name: frozenset(units) for name, units in members.items()}
        return cls(environments, entries, named, sources, adopters)

    def has(self, unit: UnitId) -> bool:
        """Whether there is a file for the unit."""
        return unit in self.members.get(environment_of(unit), ())

    def is_sandbox(self, environment: str) -> bool:
        """Whether the environment is known to be a sandbox."""
        found = self.environments.get(environment)
        return found is not None and found.klass is EnvironmentClass.SANDBOX


def environment_of(unit: UnitId) -> str:
    """The name of the unit's environment."""
    return unit.partition("/")[0]


def problems_of_environment(tree: Tree, environment: Environment, broken: Iterable[str]) -> Iterator[Problem]:
    """What is wrong with the environments that this one follows. `broken` are those that could not be read."""
    known = {*tree.environments, *broken}
    # Only what the file says: what was in force before may name an environment that is gone, and then holds for good.
    rules = environment.says.promotion if environment.says else environment.promotion
    named = [("depends_on", name) for name in environment.depends_on]
    named += [("promotion.after", rule.after) for rule in rules]
    for field, name in named:
        if name not in known:
            hint = close_to(name, sorted(known - {environment.name}))
            yield _of_environment(environment, "ReferenceMissing", f"{field}: there is no environment {name}{hint}")
        elif environment.klass is EnvironmentClass.PROTECTED and tree.is_sandbox(name):
            message = f"{field}: {name} is a sandbox, and a protected environment never follows one; remove it"
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
    others = [unit for unit in tree.sources[source] if unit != entry.unit]
    if others:
        message = f"{', '.join(sorted(others))} moves from {source} too; only one can have its state"
        yield Problem(entry.at("moved_from"), "MoveInvalid", message, entry.unit)


def _adoption(tree: Tree, entry: Entry) -> Iterator[Problem]:
    others = [unit for unit in tree.adopters[entry.adopt] if unit != entry.unit] if entry.adopt else []
    if others:
        message = f"{', '.join(sorted(others))} adopts the same state; only one can have its objects"
        yield Problem(entry.at("adopt.state"), "AdoptInvalid", message, entry.unit)


def _of_environment(environment: Environment, reason: str, message: str) -> Problem:
    return Problem(environment.place, reason, message)

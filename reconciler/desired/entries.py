"""An entry and an environment.yaml: bytes in; a fact, or everything that is wrong with it, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any

from reconciler.desired import freeze, strict, template
from reconciler.desired.document import Document, Node
from reconciler.desired.packed import packed
from reconciler.desired.paths import EntryPath, EnvironmentPath, classify
from reconciler.desired.schema import EntryModel, EnvironmentModel, FreezeModel
from reconciler.desired.shape import check, short
from reconciler.errors import Place
from reconciler.model import (
    Allowances,
    DriftMode,
    Entry,
    Environment,
    EnvironmentClass,
    Expression,
    Limits,
    Presence,
    Problem,
    Promotion,
    ReviewMode,
    Timeouts,
    UnitId,
    Window,
)

_NO_ALLOWANCES = Allowances()


@dataclass(frozen=True, slots=True)
class Places(Mapping[str, Place]):
    """Where everything in an entry stands, worked out from the file when somebody asks: errors are rare, entries many.

    Names are `version`, `inputs.tags.owner`, `depends_on[0]`, and `spell(reference)` for the first place of a reference.
    """

    path: str
    data: bytes

    def __getitem__(self, name: str) -> Place:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> Mapping[str, Place]:
        return _places(self.path, self.data)


@lru_cache(maxsize=4)  # an entry with one mistake often has many, and each asks for its place
def _places(path: str, data: bytes) -> Mapping[str, Place]:
    document = strict.parse(path, data)
    places: dict[str, Place] = {}
    if isinstance(document, Document):
        _collect(document, document.root, "", _environment_of(path), places)
    return places


def parse_entry(path: str, data: bytes) -> Entry | list[Problem]:
    """Read `environments/<environment>/**/<name>.yaml`. Every problem carries the unit's id."""
    kind = classify(path)
    if not isinstance(kind, EntryPath):
        return [kind if isinstance(kind, Problem) else Problem(Place(path), "PathInvalid", "this is no entry's path")]
    found = _entry(path, data, kind.unit)
    if isinstance(found, list):
        return [Problem(p.place, p.reason, p.message, kind.unit) for p in found]
    return found


def parse_environment(path: str, data: bytes) -> Environment | list[Problem]:
    """Read `environments/<name>/environment.yaml`."""
    kind = classify(path)
    if not isinstance(kind, EnvironmentPath):
        return [Problem(Place(path), "PathInvalid", "this is no environment.yaml's path")]
    document = strict.parse(path, data)
    if not isinstance(document, Document):
        return document
    model = check(EnvironmentModel, document)
    if isinstance(model, list):
        return model
    problems = list(_environment(document, model, kind.name))
    return problems or _environment_fact(document, model, kind.name)


def _entry(path: str, data: bytes, unit: UnitId) -> Entry | list[Problem]:
    document = strict.parse(path, data)
    if not isinstance(document, Document):
        return document
    model = check(EntryModel, document)
    if isinstance(model, list):
        return model
    environment = unit.partition("/")[0]
    problems = [*_version(document, model), *_one_state(document, model)]
    problems += _elsewhere(document)
    inputs = {name: _expression(document, ("inputs", name), value, environment, problems)
              for name, value in model.inputs.items()}  # fmt: skip
    moved_from = _moved_from(document, model, unit, problems)
    depends_on = tuple(_absolute(name, environment) for name in model.depends_on)
    problems += _dependencies(document, unit, depends_on)
    if problems:
        return problems
    return Entry(
        unit=unit,
        place=Place(path),
        module=intern(model.module),
        version=model.version and intern(model.version),
        ref=model.ref,
        inputs=packed(inputs),
        providers=model.providers,
        depends_on=depends_on,
        presence=Presence(model.state),
        allowances=_allowances(model),
        moved_from=moved_from,
        promotion_skip=model.promotion_skip,
        imports=model.imports,
        adopt=model.adopt.state if model.adopt else None,
        places=Places(path, data),
    )


def _allowances(model: EntryModel) -> Allowances:
    """The same object for all that have none."""
    found = Allowances(model.allow_destroy, model.allow_downgrade, tuple(model.replace))
    return _NO_ALLOWANCES if found == _NO_ALLOWANCES else found


def _version(document: Document, model: EntryModel) -> Iterator[Problem]:
    if model.version is None and model.ref is None:
        yield _problem(document.place_of(()), 'the field "version" is missing; add a version of catalog-lock.yaml')
    if model.version is not None and model.ref is not None:
        yield _problem(document.place_of(("ref",), key=True), "version and ref exclude each other; remove one of them")


def _one_state(document: Document, model: EntryModel) -> Iterator[Problem]:
    if model.adopt is not None and model.moved_from is not None:
        message = "adopt and moved_from exclude each other, since a unit has one state; remove one of them"
        yield _problem(document.place_of(("adopt",), key=True), message)


def _elsewhere(document: Document) -> Iterator[Problem]:
    """`${{` outside of inputs is a mistake, not text."""
    for name, node in document.root.value.items():
        if name != "inputs":
            yield from _no_templates(document, node)


def _no_templates(document: Document, node: Node) -> Iterator[Problem]:
    if template.OPEN not in document.text and "\\" not in document.text:
        return
    for one in _scalars(node):
        if isinstance(one.value, str) and template.OPEN in one.value:
            message = "${{ }} stands for a value only inside the inputs of an entry; write the value itself"
            yield Problem(_openings(document, one)[0], "TemplateInvalid", message)


def _scalars(node: Node) -> Iterator[Node]:
    if type(node.value) is dict or type(node.value) is list:
        for one in node.value.values() if type(node.value) is dict else node.value:
            yield from _scalars(one)
    else:
        yield node


def _expression(
    document: Document, location: tuple[str | int, ...], value: Any, environment: str, problems: list[Problem]
) -> Expression:
    """The input with its references in place of their text; what is wrong with it goes to `problems`."""
    if type(value) is str:
        found = template.parse(value, environment)
        if not isinstance(found, template.Mistake):
            return found
        place = _openings(document, document.find(location))[found.number]
        problems.append(Problem(place, "TemplateInvalid", found.message))
    elif type(value) is dict:
        for key in value:
            if template.OPEN in key:
                place = document.place_of((*location, key), key=True)
                problems.append(Problem(place, "TemplateInvalid", "a key cannot hold ${{ }}; write the key itself"))
        return {k: _expression(document, (*location, k), v, environment, problems) for k, v in value.items()}
    elif type(value) is list:
        return [_expression(document, (*location, n), v, environment, problems) for n, v in enumerate(value)]
    return value


def _openings(document: Document, node: Node) -> list[Place]:
    """Where each `${{` of a scalar stands in the file, in one go; its beginning for each where escapes hide them."""
    raw, count = document.raw(node), str(node.value).count(template.OPEN)
    if raw.count(template.OPEN) != count:
        return [document.place(node.start)] * count
    places: list[Place] = []
    line, column, last = node.start.line + 1, node.start.column + 1, 0
    while (index := raw.find(template.OPEN, last)) >= 0:
        if breaks := raw.count("\n", last, index):
            line, column = line + breaks, index - raw.rfind("\n", last, index)
        else:
            column += index - last
        places.append(Place(document.path, line, column))
        last = index + len(template.OPEN)
        column += len(template.OPEN)
    return places


def _absolute(name: str, environment: str) -> UnitId:
    return UnitId(name[1:] if name.startswith("/") else f"{environment}/{name}")


def _moved_from(document: Document, model: EntryModel, unit: UnitId, problems: list[Problem]) -> UnitId | None:
    if model.moved_from is None:
        return None
    environment = unit.partition("/")[0]
    source = _absolute(model.moved_from, environment)
    place = document.place_of(("moved_from",))
    if source == unit:
        problems.append(Problem(place, "MoveInvalid", "an entry cannot move from itself; write its former name"))
    elif not source.startswith(f"{environment}/"):
        message = f"a state can move only inside its environment; write a name of {environment}"
        problems.append(Problem(place, "MoveInvalid", message))
    return source


def _dependencies(document: Document, unit: UnitId, names: tuple[UnitId, ...]) -> Iterator[Problem]:
    for number, name in enumerate(names):
        if "/" not in name:
            message = f"/{name} names an environment; write /environment/unit, or depends_on in environment.yaml"
            yield _problem(document.place_of(("depends_on", number)), message)
        elif name == unit:
            yield _problem(document.place_of(("depends_on", number)), "an entry cannot depend on itself; remove it")


def _environment(document: Document, model: EnvironmentModel, name: str) -> Iterator[Problem]:
    if name in model.depends_on:
        place = document.place_of(("depends_on", model.depends_on.index(name)))
        yield _problem(place, "an environment cannot depend on itself; remove it")
    if model.promotion is not None and model.promotion.after == name:
        place = document.place_of(("promotion", "after"))
        yield _problem(place, "promotion.after: nothing is promoted into where it comes from; name another environment")
    for number, window in enumerate(model.freeze):
        for field, wrong in _window(window):
            place = document.place_of(("freeze", number, field))
            yield _problem(place, f"freeze[{number}].{field}: {wrong}")
    yield from _no_templates(document, document.root)


def _window(window: FreezeModel) -> Iterator[tuple[str, str]]:
    """What is wrong with a freeze window: the field, and what to write instead."""
    if wrong := freeze.wrong_cron(window.cron):
        yield "cron", wrong
    if window.duration > freeze.LONGEST:
        yield "duration", f"{short(window.duration)} is too long; write at most {short(freeze.LONGEST)}"
    if wrong := freeze.wrong_zone(window.timezone):
        yield "timezone", wrong


def _environment_fact(document: Document, model: EnvironmentModel, name: str) -> Environment:
    limits = model.limits
    return Environment(
        name=name,
        place=Place(document.path),
        klass=EnvironmentClass(model.klass),
        providers=model.providers,
        drift=DriftMode(model.drift),
        drift_interval=model.drift_interval,
        depends_on=tuple(model.depends_on),
        review=ReviewMode(model.review),
        limits=Limits(limits.destroy, limits.recreate, frozenset(limits.free_replace)),
        timeouts=Timeouts(model.timeouts.plan, model.timeouts.apply),
        promotion=(Promotion(model.promotion.after, model.promotion.soak),) if model.promotion else (),
        freeze=tuple(Window(one.cron, one.duration, one.timezone, one.reason) for one in model.freeze),
        rules=tuple(rule.fact for rule in model.rules),
    )


def _collect(document: Document, node: Node, name: str, environment: str, places: dict[str, Place]) -> None:
    """Note where the node and everything below it stands."""
    if name:
        places[name] = document.place(node.start)
    if type(node.value) is dict:
        for key, one in node.value.items():
            _collect(document, one, f"{name}.{key}" if name else key, environment, places)
    elif type(node.value) is list:
        for number, one in enumerate(node.value):
            _collect(document, one, f"{name}[{number}]", environment, places)
    elif type(node.value) is str and name.startswith("inputs."):
        openings = _openings(document, node)
        for number, reference in template.references(node.value, environment):
            places.setdefault(template.spell(reference), openings[number])


def _environment_of(path: str) -> str:
    return path.split("/")[1]


def _problem(place: Place, message: str) -> Problem:
    return Problem(place, "SchemaInvalid", message)

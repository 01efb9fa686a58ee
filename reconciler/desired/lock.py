"""`catalog-lock.yaml`: bytes -> pins. One broken version does not take the others with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import semver
from pydantic import ValidationError

from reconciler.desired import strict
from reconciler.desired.document import Document
from reconciler.desired.schema import LockedVersionModel, LockModel
from reconciler.desired.shape import problem_of
from reconciler.desired.strict import LOCK_LIMIT
from reconciler.errors import Place
from reconciler.model import Commit, Digest, Lock, Pin, Problem, ProviderPin

MOST_TOLD = 200  # problems of a lock
_AND_MORE = f"this is wrong as well, after {MOST_TOLD} other mistakes; correct those first"


@dataclass(frozen=True, slots=True)
class LockFile:
    """The lock as far as it could be read.

    `broken` has the problem of each (module, version) that could not; a module that is broken as a whole has the
    version "". `unreadable` is set when nothing could be read.
    """

    lock: Lock = field(default_factory=Lock)
    problems: tuple[Problem, ...] = ()
    broken: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    unreadable: Problem | None = None


def parse_lock(path: str, data: bytes) -> Lock | list[Problem]:
    """Read the lock, all of it or nothing: what `catalog` and `validate` ask for."""
    found = read_lock(path, data)
    return list(found.problems) if found.problems else found.lock


def read_lock(path: str, data: bytes) -> LockFile:
    """Read what can be read of the lock: what a running daemon goes on with."""
    document = strict.parse(path, data, LOCK_LIMIT)
    if not isinstance(document, Document):
        problems = tuple(Problem(p.place, "LockInvalid", p.message) for p in document)
        return LockFile(problems=problems, unreadable=problems[0])
    plain = document.root.plain()
    try:
        return LockFile(_lock(LockModel.model_validate(plain)))
    except ValidationError as error:
        return _without_broken(document, plain, error)


def newest(versions: Mapping[str, Pin]) -> Pin | None:
    """The newest version that is not yanked."""
    usable = [pin for pin in versions.values() if pin.yanked is None]
    return max(usable, key=lambda pin: (semver.Version.parse(pin.version), pin.version), default=None)


def ordered(versions: Mapping[str, Pin]) -> list[str]:
    """The versions, oldest first."""
    return sorted(versions, key=lambda version: (semver.Version.parse(version), version))


def _without_broken(document: Document, plain: Any, error: ValidationError) -> LockFile:
    problems: list[Problem] = []
    broken: dict[tuple[str, str], Problem] = {}
    unreadable: Problem | None = None
    for number, detail in enumerate(error.errors(include_url=False)):
        if number < MOST_TOLD:
            found = problem_of(LockModel, document, detail)
            problem = Problem(found.place, "LockInvalid", found.message)
            problems.append(problem)
        else:  # it is as broken as the others, but nobody reads on, and finding the words takes time
            problem = Problem(document.place_of(detail["loc"]), "LockInvalid", _AND_MORE)
        match detail["loc"]:
            case ("modules", str(module), "versions", str(version), *_):
                broken.setdefault((module, version), problem)
            case ("modules", str(module), *_):
                broken.setdefault((module, ""), problem)
            case _:
                unreadable = unreadable or problem
    problems.sort(key=lambda problem: (problem.place.line, problem.place.column))
    if unreadable:
        return LockFile(problems=tuple(problems), unreadable=unreadable)
    for module, version in broken:
        _drop(plain["modules"], module, version)
    return LockFile(_lock(LockModel.model_validate(plain)), tuple(problems), broken)


def _drop(modules: dict[str, Any], module: str, version: str) -> None:
    if not version:
        modules.pop(module, None)
    elif module in modules:
        modules[module]["versions"].pop(version, None)


def missing_lock(path: str) -> LockFile:
    """The lock of a tree that has none: no version is pinned."""
    message = "there is no lock; `reconciler catalog add <module>@<version>` writes it"
    return LockFile(unreadable=Problem(Place(path), "CatalogPinMissing", message))


def _lock(model: LockModel) -> Lock:
    return Lock({
        name: {version: _pin(name, version, module.path, locked) for version, locked in module.versions.items()}
        for name, module in model.modules.items()
    })  # fmt: skip


def _pin(module: str, version: str, path: str, locked: LockedVersionModel) -> Pin:
    return Pin(
        module=module,
        version=version,
        path=path,
        ref=locked.ref,
        commit=Commit(locked.commit),
        digest=Digest(locked.digest),
        providers=tuple(_providers(locked)),
        yanked=locked.yanked,
    )


def _providers(locked: LockedVersionModel) -> Iterator[ProviderPin]:
    for source, provider in sorted(locked.providers.items()):
        hashes = {host: tuple(found) for host, found in provider.hashes.items()}
        yield ProviderPin(source, provider.version, hashes)

"""Which path of the environments repository means what. Every other path under environments/ is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from sys import intern

from reconciler.desired.template import SEGMENT
from reconciler.desired.wording import printable
from reconciler.errors import Place
from reconciler.model import Problem, UnitId

ROOT = "environments/"
LOCK_PATH = "catalog-lock.yaml"
ID_LIMIT = 200  # characters of a unit's id: it becomes part of keys and of file names

_SEGMENT = re.compile(SEGMENT)
# Names with a meaning of their own: `${{ secret.x }}` is no output of a unit, environment.yaml no entry, `all` a scope.
_RESERVED = {"secret", "environment"}
_IGNORED = re.compile(
    r"(?:^|/)(?:\.[^/]*|README(?:\.(?:txt|rst|adoc))?|CODEOWNERS|[^/]*\.(?:md|markdown))$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class EnvironmentPath:
    """`environments/<name>/environment.yaml`."""

    name: str


@dataclass(frozen=True, slots=True)
class EntryPath:
    """`environments/<environment>/**/<name>.yaml`."""

    unit: UnitId


@dataclass(frozen=True, slots=True)
class LockPath:
    """`catalog-lock.yaml`."""


def classify(path: str) -> EnvironmentPath | EntryPath | LockPath | Problem | None:
    """What the file at `path` is; None where it means nothing, a Problem where it cannot be what it tries to be."""
    if path == LOCK_PATH:
        return LockPath()
    if not path.startswith(ROOT) or _IGNORED.search(path):
        return None
    *folders, file = path.removeprefix(ROOT).split("/")
    stem, _, suffix = file.rpartition(".")
    if suffix != "yaml":
        return _wrong_suffix(path, suffix)
    if not folders:
        return _problem(path, f"an entry belongs to an environment; move it to {ROOT}<environment>/{printable(file)}")
    wrong = next((name for name in [*folders, stem] if not _SEGMENT.fullmatch(name)), None)
    if wrong is not None:
        rule = "lower-case letters, digits, - and _ (at most 63, none of - and _ first)"
        return _problem(path, f'"{printable(wrong)}" is no name for a folder or an entry; write it in {rule}')
    if len(folders) == 1 and stem == "environment":
        return EnvironmentPath(folders[0]) if folders[0] != "all" else _problem(path, '"all" is reserved; rename it')
    return _entry(path, "/".join([*folders, stem]), stem)


def environment_path(name: str) -> str:
    """Where the environment's own file stands."""
    return f"{ROOT}{name}/environment.yaml"


def entry_path(unit: UnitId) -> str:
    """Where the unit's entry stands."""
    return f"{ROOT}{unit}.yaml"


def unit_of(path: str) -> UnitId | None:
    """The unit that a file stands for, or would stand for if it were called .yaml."""
    found = classify(re.sub(r"\.yml$", ".yaml", path))
    return found.unit if isinstance(found, EntryPath) else None


def _entry(path: str, unit: str, stem: str) -> EntryPath | Problem:
    if len(unit) > ID_LIMIT:
        return _problem(path, f"the entry's id has {len(unit)} characters and may have {ID_LIMIT}; shorten it")
    if stem in _RESERVED:
        return _problem(path, f'"{stem}" is reserved, an entry cannot be called so; rename it')
    return EntryPath(UnitId(intern(unit)))


def _wrong_suffix(path: str, suffix: str) -> Problem:
    if suffix == "yml":
        return _problem(path, "rename it to .yaml")
    return _problem(path, f"only .yaml files belong under {ROOT}; move it elsewhere, or rename it to .yaml")


def _problem(path: str, message: str) -> Problem:
    return Problem(Place(path if path.isprintable() else printable(path, len(path))), "PathInvalid", message)

"""From the blobs of one commit to what it means, parsing only the files that changed since the last one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from reconciler.desired.entries import parse_entry, parse_environment
from reconciler.desired.lock import LockFile, missing_lock, read_lock
from reconciler.desired.paths import (
    LOCK_PATH,
    EntryPath,
    EnvironmentPath,
    LockPath,
    classify,
    unit_of,
)
from reconciler.desired.pins import Refs
from reconciler.desired.policy import before_the_first, judged_with
from reconciler.desired.resolve import resolve
from reconciler.desired.strict import FILE_LIMIT, LOCK_LIMIT
from reconciler.errors import INTERNAL, Place, bug
from reconciler.model import Commit, Desired, Entry, Environment, Policy, Problem, UnitId

# Answers with the content of each blob that it is asked for.
Read = Callable[[Iterable[str]], Mapping[str, bytes]]
# Answers with the pin of each (module, branch) that it is asked for and that exists.
ResolveRefs = Callable[[frozenset[tuple[str, str]]], Refs]

Parsed = Entry | Environment | LockFile | Sequence[Problem] | None


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was last read."""

    blob: str
    parsed: Parsed


class Loader:
    """Remembers what the files of the last commit meant."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._desired: Desired | None = None
        self._arguments: tuple[object, ...] = ()
        self._judged: dict[str, tuple[Environment, Policy | None, Environment]] = {}

    @property
    def lock(self) -> LockFile:
        """The lock of the last commit."""
        found = (file.parsed for file in self._files.values() if isinstance(file.parsed, LockFile))
        return next(found, missing_lock(LOCK_PATH))

    def fork(self) -> Loader:
        """Another one that knows the same, so that what might become of the last commit costs only what differs."""
        other = Loader()
        other._files, other._desired = dict(self._files), self._desired
        return other

    def load(
        self,
        commit: Commit,
        blobs: Mapping[str, str],
        read: Read,
        tree_problems: Sequence[Problem] = (),
        *,
        refs: ResolveRefs | None = None,
        before: Mapping[str, Policy | None] = MappingProxyType({}),
    ) -> Desired:
        """What the commit means. `blobs` maps each path of its tree to the id of its content.

        `read` is called once, for the blobs that are new. `tree_problems` are those of paths that are not in `blobs`
        (a link, a file too large). `refs` is asked for the branches that sandboxes use, at every load. `before` has what was
        in force of each environment whose file the commit changed; None: it is new.
        """
        self._read(blobs, read)
        wanted = self._wanted()
        pins = dict(refs(wanted)) if refs and wanted else {}
        arguments = (dict(blobs), tuple(tree_problems), pins, dict(before))
        if self._desired is not None and arguments == self._arguments:
            self._desired = replace(self._desired, commit=commit)
        else:
            self._desired = self._resolve(commit, tree_problems, pins, before)
            self._arguments = arguments
        return self._desired

    def _read(self, blobs: Mapping[str, str], read: Read) -> None:
        """Bring `_files` to what the commit holds, and to nothing else."""
        new = {path: blob for path, blob in blobs.items() if path not in self._files or self._files[path].blob != blob}
        asked = {path: blob for path, blob in new.items() if _has_content(path)}
        contents = read(set(asked.values())) if asked else {}
        files = {path: file for path, file in self._files.items() if path in blobs}
        for path, blob in new.items():
            files[path] = _File(blob, _parse(path, contents[blob] if path in asked else b""))
        self._files = files

    def _wanted(self) -> frozenset[tuple[str, str]]:
        parsed = (file.parsed for file in self._files.values())
        return frozenset((one.module, one.ref) for one in parsed if isinstance(one, Entry) and one.ref is not None)

    def _judged_by(self, environment: Environment, before: Mapping[str, Policy | None]) -> Environment:
        """The environment as jobs are judged by it; the same object again while nothing changes."""
        if environment.name not in before:
            return environment
        old = before[environment.name]
        last = self._judged.get(environment.name)
        if last is None or last[0] is not environment or last[1] != old:
            last = environment, old, judged_with(environment, old or before_the_first(environment))
            self._judged[environment.name] = last
        return last[2]

    def _resolve(
        self, commit: Commit, tree_problems: Sequence[Problem], pins: Refs, policies: Mapping[str, Policy | None]
    ) -> Desired:
        problems = [_with_unit(problem) for problem in tree_problems]
        environments: dict[str, Environment] = {}
        entries: dict[UnitId, Entry] = {}
        lock = missing_lock(LOCK_PATH)
        for file in self._files.values():
            match file.parsed:
                case Entry() as entry:
                    entries[entry.unit] = entry
                case Environment() as environment:
                    environments[environment.name] = self._judged_by(environment, policies)
                case LockFile() as lock:
                    problems += lock.problems
                case None:
                    pass
                case found:
                    problems += found
        before = self._desired.units if self._desired else None
        return resolve(commit, environments, entries, lock, problems, refs=pins, before=before)


def most_bytes(path: str) -> int | float:
    """How many bytes the file may have. What is in a file that means nothing does not matter."""
    if path == LOCK_PATH:
        return LOCK_LIMIT
    return FILE_LIMIT if _has_content(path) else math.inf


def _has_content(path: str) -> bool:
    """Whether it matters what is in the file."""
    return isinstance(classify(path), EntryPath | EnvironmentPath | LockPath)


def _parse(path: str, data: bytes) -> Parsed:
    """What the file says. One in which the program finds a bug of its own is broken, and no other is; without a lock nothing is."""
    try:
        return _understood(path, data)
    except Exception as error:
        if path == LOCK_PATH:
            raise
        return [_with_unit(Problem(Place(path), INTERNAL, bug(error)))]


def _understood(path: str, data: bytes) -> Parsed:
    match classify(path):
        case EntryPath():
            return parse_entry(path, data)
        case EnvironmentPath():
            return parse_environment(path, data)
        case LockPath():
            return read_lock(path, data)
        case Problem() as problem:
            return [_with_unit(problem)]
        case _:
            return None


def _with_unit(problem: Problem) -> Problem:
    """The problem of a path, with the unit that the path would be: that unit is broken then, not gone."""
    return problem if problem.unit is not None else replace(problem, unit=unit_of(problem.place.path))

"""From the blobs of one commit to what it means, parsing only the files that changed since the last one."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
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
from reconciler.desired.touched import NOTHING, Resolved
from reconciler.errors import INTERNAL, Place, bug
from reconciler.layered import Layered, differing
from reconciler.model import Commit, Desired, Entry, Environment, Policy, Problem, UnitId

# Answers with the content of each blob that it is asked for.
Read = Callable[[Iterable[str]], Mapping[str, bytes]]
# Answers with those of the files, path -> id of content, whose entries were parsed before.
Known = Callable[[Mapping[str, str]], Mapping[str, Entry]]
# Answers with the pin of each (module, branch) that it is asked for and that exists.
ResolveRefs = Callable[[frozenset[tuple[str, str]]], Refs]

Kind = EntryPath | EnvironmentPath | LockPath | Problem | None
Parsed = Entry | Environment | LockFile | Sequence[Problem] | None


class Loader:
    """Remembers what the files of the last commit meant."""

    def __init__(self, known: Known = lambda _: {}) -> None:
        self._known = known
        self._blobs: Mapping[str, str] = {}
        self._entries: Layered[UnitId, Entry] = Layered()
        self._environments: dict[str, Environment] = {}
        self._faults: dict[str, Sequence[Problem]] = {}  # by path
        self._lock = missing_lock(LOCK_PATH)
        self._floating: dict[UnitId, tuple[str, str]] = {}  # the module and branch that a sandbox's entry names
        self._resolved: Resolved = NOTHING
        self._arguments: tuple[object, ...] | None = None
        self._judged: dict[str, tuple[Environment, Policy | None, Environment]] = {}

    @property
    def lock(self) -> LockFile:
        """The lock of the last commit."""
        return self._lock

    @property
    def entries(self) -> tuple[Collection[Entry], Mapping[str, str]]:
        """The entries of the last commit, and the ids of its files' contents by their paths."""
        return self._entries.values(), self._blobs

    def fork(self) -> Loader:
        """Another one that knows the same, so that what might become of the last commit costs only what differs."""
        other = Loader(self._known)
        other._blobs, other._entries, other._lock = self._blobs, self._entries, self._lock
        other._environments, other._faults = dict(self._environments), dict(self._faults)
        other._floating, other._judged = dict(self._floating), dict(self._judged)
        other._resolved, other._arguments = self._resolved, self._arguments
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
        """What the commit means. `blobs` maps each path of its tree to the id of its content, and never changes.

        `read` is called once, for the blobs that are new. `tree_problems` are those of paths that are not in `blobs`
        (a link, a file too large). `refs` is asked for the branches that sandboxes use, at every load. `before` has what was
        in force of each environment whose file the commit changed; None: it is new.
        """
        self._read(blobs, read)
        wanted = frozenset(self._floating.values())
        pins = dict(refs(wanted)) if refs and wanted else {}
        arguments = (tuple(tree_problems), pins, dict(before))
        if arguments == self._arguments:
            self._resolved = replace(self._resolved, desired=replace(self._resolved.desired, commit=commit))
        else:
            self._resolved = self._resolve(commit, tree_problems, pins, before)
            self._arguments = arguments
        return self._resolved.desired

    def _read(self, blobs: Mapping[str, str], read: Read) -> None:
        """Bring what is remembered to what the commit holds."""
        old = self._blobs
        changed = {path: blobs.get(path) for path in differing(old, blobs) if old.get(path) != blobs.get(path)}
        kinds = {path: classify(path) for path in sorted(changed)}
        there = {path: blob for path in kinds if (blob := changed[path]) is not None}
        known = self._known({path: blob for path, blob in there.items() if isinstance(kinds[path], EntryPath)})
        asked = {path: blob for path, blob in there.items() if path not in known and _content(kinds[path])}
        contents = read(set(asked.values())) if asked else {}
        parsed = {
            path: known.get(path) or _parse(path, kind, contents[asked[path]] if path in asked else b"")
            if path in there
            else None
            for path, kind in kinds.items()
        }
        if parsed:
            self._arguments = None
        self._keep(kinds, parsed)
        self._blobs = blobs

    def _keep(self, kinds: Mapping[str, Kind], parsed: Mapping[str, Parsed]) -> None:
        """Put these files in the place of what stood at their paths; None is of files that mean nothing, or are gone."""
        entries: dict[UnitId, Entry | None] = {}
        for path, found in parsed.items():
            self._faults.pop(path, None)
            match kinds[path]:
                case EntryPath(unit):
                    entries[unit] = found if isinstance(found, Entry) else None
                    self._floating.pop(unit, None)
                case EnvironmentPath(name):
                    self._environments.pop(name, None)
                case LockPath():
                    self._lock = missing_lock(LOCK_PATH)
            match found:
                case Entry(module=module, ref=str(ref)) as entry:
                    self._floating[entry.unit] = module, ref
                case Environment() as environment:
                    self._environments[environment.name] = environment
                case LockFile() as lock:
                    self._lock = lock
                case None | Entry():
                    pass
                case _:
                    self._faults[path] = found
        self._entries = self._entries.after(entries)

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
    ) -> Resolved:
        problems = [_with_unit(problem) for problem in tree_problems]
        problems += self._lock.problems
        for path in sorted(self._faults):
            problems += self._faults[path]
        environments = {name: self._judged_by(one, policies) for name, one in sorted(self._environments.items())}
        return resolve(commit, environments, self._entries, self._lock, problems, refs=pins, before=self._resolved)


def most_bytes(path: str) -> int | float:
    """How many bytes the file may have. What is in a file that means nothing does not matter."""
    if path == LOCK_PATH:
        return LOCK_LIMIT
    return FILE_LIMIT if _content(classify(path)) else math.inf


def _content(kind: Kind) -> bool:
    """Whether it matters what is in the file."""
    return isinstance(kind, EntryPath | EnvironmentPath | LockPath)


def _parse(path: str, kind: Kind, data: bytes) -> Parsed:
    """What the file says. One in which the program finds a bug of its own is broken, and no other is; without a lock nothing is."""
    try:
        return _understood(path, kind, data)
    except Exception as error:
        if path == LOCK_PATH:
            raise
        return [_with_unit(Problem(Place(path), INTERNAL, bug(error)))]


def _understood(path: str, kind: Kind, data: bytes) -> Parsed:
    match kind:
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

"""From the version, or in a sandbox the branch, that an entry names to exactly one pinned tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reconciler.desired.lock import LockFile, newest, ordered
from reconciler.desired.wording import close_to
from reconciler.model import Entry, Environment, EnvironmentClass, Pin, Problem

# (module, branch) -> the pin of what the branch is now; its path and its providers come from the lock.
Refs = Mapping[tuple[str, str], Pin]

_SHOWN = 10  # versions in a message, the newest


def pin_of(entry: Entry, environment: Environment, lock: LockFile, refs: Refs) -> Pin | Problem:
    """The pin of the entry, or why there is none."""
    versions = lock.lock.modules.get(entry.module)
    if versions is None or not versions:
        return _no_module(entry, lock)
    if entry.ref is not None:
        return _branch(entry, entry.ref, environment, versions, refs)
    version = str(entry.version)
    if version in versions:
        return versions[version]
    if broken := lock.broken.get((entry.module, version)):
        return _problem(entry, "version", f"the lock's version {version} of {entry.module} is broken: {broken}")
    known = ", ".join(ordered(versions)[-_SHOWN:])
    message = f"version {version} is not in catalog-lock.yaml; {entry.module} has {known}"
    return _problem(entry, "version", message)


def _no_module(entry: Entry, lock: LockFile) -> Problem:
    broken = [problem for (module, _), problem in lock.broken.items() if module == entry.module]
    if broken:
        return _problem(entry, "module", f"{entry.module} is broken in the lock: {broken[0]}")
    message = f"{entry.module} is not in catalog-lock.yaml{close_to(entry.module, list(lock.lock.modules))}"
    return _problem(entry, "module", message)


def _branch(entry: Entry, ref: str, environment: Environment, versions: Mapping[str, Pin], refs: Refs) -> Pin | Problem:
    if environment.klass is not EnvironmentClass.SANDBOX:
        message = f"ref is for sandboxes, and {environment.name} is protected; write a version of catalog-lock.yaml"
        return _problem(entry, "ref", message, "RefNotAllowed")
    model = newest(versions)
    if model is None:
        message = f"every version of {entry.module} is yanked, and its providers come from the newest; add a version"
        return _problem(entry, "ref", message)
    tip = refs.get((entry.module, ref))
    if tip is None:
        message = f"there is no branch {ref} in the catalog repository of {entry.module}; push it, or correct the name"
        return _problem(entry, "ref", message, "RefMissing")
    return replace(tip, module=entry.module, version=ref, ref=ref, path=model.path, providers=model.providers)


def _problem(entry: Entry, field: str, message: str, reason: str = "CatalogPinMissing") -> Problem:
    return Problem(entry.at(field), reason, message, entry.unit)

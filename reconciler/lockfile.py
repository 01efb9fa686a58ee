"""Writing `catalog-lock.yaml`: one version is put in its place, and every other byte stays as it is. Pure.

The file is reviewed like any change, so a new version must show as exactly its own lines, and what people wrote beside
other versions (`yanked`, comments) must survive. What comes out is read back and compared before anyone gets it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import semver

from reconciler.desired import strict
from reconciler.desired.document import Document, Node
from reconciler.desired.lock import parse_lock
from reconciler.desired.strict import LOCK_LIMIT
from reconciler.errors import Place, UnitError
from reconciler.model import Lock, Pin, ProviderPin

HEADER = """\
# yaml-language-server: $schema=schemas/lock.schema.json
# Written by `reconciler catalog add`, checked by `reconciler catalog verify`, reviewed like any change.
lock_version: 1
modules: {}
"""
_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_./@+-]|:(?=[A-Za-z0-9]))*")
_WORDS = {"null", "true", "false"}


class Lines:
    """Where things stand in a lock that can be read."""

    def __init__(self, path: str, text: str) -> None:
        found = strict.parse(path, text.encode(), LOCK_LIMIT)
        if not isinstance(found, Document):
            raise UnitError("LockInvalid", "\n".join(map(str, found)))
        self._document = found

    @property
    def root(self) -> Node:
        """The whole."""
        return self._document.root

    def place(self, module: str, version: str | None = None, field: str | None = None) -> Place:
        """Of a module, a version, or a field of either."""
        location: tuple[str, ...] = ("modules", module)
        if version is not None:
            location += ("versions", version)
        if field is not None:
            return self._document.place_of((*location, field))
        return self._document.place_of(location, key=True)


def with_pin(path: str, text: str, pin: Pin, *, replaces: bool = False) -> str:
    """The lock's text with this version in it; `text` is empty where there is no lock yet.

    A version that is there already keeps its `yanked`, and gains hashes of other registries. `replaces`: it may get
    another commit or other providers.

    Raises:
        UnitError: "LockInvalid" (not readable, or in a form that cannot be edited line by line) or
            "CatalogPinConflict" (the version means something else already).
    """
    text = text or HEADER
    before = _read(path, text)
    lines = Lines(path, text)
    known = before.modules.get(pin.module, {})
    pin = _joined(lines, known.get(pin.version), pin, replaces=replaces)
    _check_path(lines, known, pin)
    written = _edited(text, lines.root, pin)
    expected = {**before.modules, pin.module: {**known, pin.version: pin}}
    found = parse_lock(path, written.encode())
    if not isinstance(found, Lock) or _plain(found) != _plain(Lock(expected)):
        raise UnitError(
            "LockInvalid",
            f"{path}: {pin.module} {pin.version} cannot be put in line by line; write the file in block style, one field "
            "a line, two blanks deeper each level",
        )
    return written


def _read(path: str, text: str) -> Lock:
    """The lock. Raises UnitError("LockInvalid") with every problem."""
    found = parse_lock(path, text.encode())
    if isinstance(found, Lock):
        return found
    raise UnitError("LockInvalid", "\n".join(map(str, found)))


# --- what the new version says -----------------------------------------------------------------------------------


def _joined(lines: Lines, old: Pin | None, new: Pin, *, replaces: bool) -> Pin:
    """The new pin with what is worth keeping of the one that it replaces."""
    if old is None:
        return new
    new = replace(new, yanked=old.yanked)
    if replaces:
        return new
    place = lines.place(new.module, new.version)
    if (old.commit, old.digest) != (new.commit, new.digest):
        raise UnitError(
            "CatalogPinConflict",
            f"{place}: {new.module} {new.version} is locked at {old.commit}, and {new.ref} is {new.commit} now: a released "
            "version does not change. Find out who moved the tag and release a new version; `--replace` only if the lock "
            "was wrong from the start",
        )
    if {p.source: p.version for p in old.providers} != {p.source: p.version for p in new.providers}:
        raise UnitError(
            "CatalogPinConflict",
            f"{place}: {new.module} {new.version} is locked with {_named(old.providers)}, and the engine finds "
            f"{_named(new.providers)} now. Release a new version for newer providers, or say `--replace`",
        )
    return replace(new, ref=old.ref, providers=tuple(_united(old.providers, new.providers)))


def _named(providers: Sequence[ProviderPin]) -> str:
    return ", ".join(f"{p.source} {p.version}" for p in providers) or "no providers"


def _united(old: Sequence[ProviderPin], new: Sequence[ProviderPin]) -> Iterator[ProviderPin]:
    """The same providers with the hashes of both: of another registry, or of platforms that one of them did not see."""
    before = {provider.source: provider for provider in old}
    for provider in new:
        hashes = {host: set(found) for host, found in before[provider.source].hashes.items()}
        for host, found in provider.hashes.items():
            hashes.setdefault(host, set()).update(found)
        yield replace(provider, hashes={host: tuple(sorted(found)) for host, found in sorted(hashes.items())})


def _check_path(lines: Lines, known: Mapping[str, Pin], pin: Pin) -> None:
    others = {p.path for version, p in known.items() if version != pin.version} - {pin.path}
    if others:
        raise UnitError(
            "CatalogPinConflict",
            f"{lines.place(pin.module)}: the other versions of {pin.module} lie in {min(others)}, this one in "
            f"{pin.path}. A module that moved is a new module: lock it by another name, `--path {pin.path}`",
        )


# --- where it goes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Slot:
    """Lines of a file, counted from 0: what stands in [start, end) goes, the new lines come."""

    start: int
    end: int


def _edited(text: str, root: Node, pin: Pin) -> str:
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    modules = root.value.get("modules")
    if modules is None or not modules.value:
        lines = [line for line in lines if not line.startswith("modules:")]
        return "".join([*lines, "modules:\n", *_module_lines(pin, 2)])
    module = modules.value.get(pin.module)
    if module is None:
        slot, column = _slot(lines, modules, pin.module, str), _column(modules)
        new = _module_lines(pin, column)
    else:
        versions = module.value["versions"]
        slot, column = _slot(lines, versions, pin.version, semver.Version.parse), _column(versions, module)
        new = _version_lines(pin, column)
    return "".join([*lines[: slot.start], *new, *lines[slot.end :]])


def _slot(lines: Sequence[str], mapping: Node, key: str, rank: Callable[[str], Any]) -> _Slot:
    """Where a member belongs: in its own place if it is there, before the first that comes after it, else at the end."""
    members: dict[str, Node] = mapping.value
    if key in members:
        start = _key_line(members[key])
        return _Slot(start, _last_line(members[key]) + 1)
    for other, node in members.items():
        if rank(other) > rank(key):
            start = _with_comments(lines, _key_line(node))
            return _Slot(start, start)
    end = max((_last_line(node) for node in members.values()), default=mapping.start.line) + 1
    return _Slot(end, end)


def _key_line(node: Node) -> int:
    assert node.key is not None  # noqa: S101 - a member of a mapping has a key
    return node.key.line


def _with_comments(lines: Sequence[str], line: int) -> int:
    """Up over the comments that stand right above a line, which belong to what follows them."""
    while line > 0 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
    return line


def _last_line(node: Node) -> int:
    """The last line of a node's text. A block's own end mark stands where the next token begins, far below it."""
    value = node.value
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return max([_last_line(child) for child in inner] or [node.end.line])


def _column(mapping: Node, around: Node | None = None) -> int:
    """The column of a mapping's keys; two more than those around it where it has none."""
    for node in mapping.value.values():
        return int(node.key.column)
    return _column(around) + 2 if around else 2


# --- how it is written -------------------------------------------------------------------------------------------


def _module_lines(pin: Pin, column: int) -> list[str]:
    inner = " " * (column + 2)
    return [
        f"{' ' * column}{pin.module}:\n",
        f"{inner}path: {_scalar(pin.path)}\n",
        f"{inner}versions:\n",
        *_version_lines(pin, column + 4),
    ]


def _version_lines(pin: Pin, column: int) -> list[str]:
    lines = [f'"{pin.version}":']
    # In quotes: 40 digits with an `e` among them, or with no letter at all, would be a number.
    lines += [f"  ref: {_scalar(pin.ref)}", f'  commit: "{pin.commit}"', f"  digest: {pin.digest}"]
    if pin.providers:
        lines.append("  providers:")
    for provider in sorted(pin.providers, key=lambda p: p.source):
        lines += [f"    {provider.source}:", f"      version: {_scalar(provider.version)}", "      hashes:"]
        for host, hashes in sorted(provider.hashes.items()):
            lines += [f"        {host}:", *(f'          - "{found}"' for found in sorted(hashes))]
    if pin.yanked is not None:
        lines.append(f"  yanked: {_scalar(pin.yanked)}")
    return [f"{' ' * column}{line}\n" for line in lines]


def _scalar(text: str) -> str:
    """Plain where nothing else could be meant, else in double quotes."""
    plain = _PLAIN.fullmatch(text) and text not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)


def _plain(lock: Lock) -> dict[tuple[str, str], Pin]:
    """Comparable whatever the order was."""
    return {(pin.module, pin.version): _sorted(pin) for pin in lock.pins()}


def _sorted(pin: Pin) -> Pin:
    providers = (
        replace(p, hashes={host: tuple(sorted(found)) for host, found in p.hashes.items()}) for p in pin.providers
    )
    return replace(pin, providers=tuple(sorted(providers, key=lambda p: p.source)))

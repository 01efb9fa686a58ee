"""The lock and the entries beside it, and where the catalogs are: what the commands of `catalog` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from reconciler.desired.entries import parse_entry
from reconciler.desired.lock import ordered, parse_lock
from reconciler.desired.paths import LOCK_PATH, ROOT
from reconciler.errors import UnitError
from reconciler.model import Entry, Lock, Pin

F = TypeVar("F", bound=Callable[..., Any])

LOCK = click.option(
    "--lock", "lock_path", type=click.Path(dir_okay=False, path_type=Path), default=LOCK_PATH, show_default=True,
    help="The lock; environments/ lies beside it.",
)  # fmt: skip


def _named(_context: click.Context, _parameter: click.Parameter, values: Iterable[str]) -> dict[str, str]:
    for value in values:
        if "=" not in value:
            raise click.BadParameter(f"{value}: write NAME=URL, as in acme=https://git.example.com/catalog.git")
    return dict(value.split("=", 1) for value in values)


def catalogs_option(function: F) -> F:
    """`--catalog`, `--config` and `--branch`: where the catalogs are; the command gets them as `where`."""
    options = (
        click.option("--catalog", "named", metavar="NAME=URL", multiple=True, callback=_named, help="Where a catalog is; may be repeated."),
        click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A reconciler.yaml that says where the catalogs are."),
        click.option("--branch", default="main", show_default=True, help="The protected branch of every --catalog."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def read_lock(path: Path) -> tuple[Lock, str]:
    """The lock and its text. Raises UnitError("LockInvalid") with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UnitError(
            "LockInvalid",
            f"{path}: {error.strerror}: go to the root of the environments repository, or say --lock FILE",
        ) from error
    found = parse_lock(str(path), text.encode())
    if isinstance(found, Lock):
        return found, text
    raise UnitError("LockInvalid", "\n".join(map(str, found)))


def users_of(folder: Path) -> dict[tuple[str, str], list[str]]:
    """(module, version) -> the entries beside the lock that name it. What cannot be read is for `validate` to tell."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted((folder / ROOT).rglob("*.yaml")):
        entry = parse_entry(path.relative_to(folder).as_posix(), path.read_bytes())
        if isinstance(entry, Entry) and entry.version is not None:
            found.setdefault((entry.module, entry.version), []).append(entry.unit)
    return found


def split_wanted(wanted: str) -> tuple[str, str | None]:
    """`acme/vpc@1.4.2` -> module and version."""
    module, _, version = wanted.partition("@")
    catalog, slash, name = module.partition("/")
    if not (catalog and slash and name):
        raise click.UsageError(f"{wanted}: a module is <catalog>/<name>, as in acme/vpc@1.4.2")
    return module, version.removeprefix("v") or None


def chosen_pins(lock: Lock, wanted: str) -> list[Pin]:
    """The pins that a name means, oldest first."""
    module, version = split_wanted(wanted)
    pins = lock.modules.get(module, {})
    if not pins or (version is not None and version not in pins):
        known = ", ".join(ordered(pins)) if pins else ", ".join(sorted(lock.modules)) or "nothing"
        raise UnitError("CatalogPinMissing", f"{wanted} is not in the lock, which has {known}")
    return [pins[version]] if version is not None else [pins[one] for one in ordered(pins)]

"""`reconciler catalog outdated`: what could be newer, in the entries and in the lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import semver

from reconciler.cli.ask import output_option
from reconciler.cli.exits import DIFFERENCE, FINE
from reconciler.cli.locked import LOCK, catalogs_option, read_lock, users_of
from reconciler.cli.shelf import Shelf, open_shelf
from reconciler.cli.show import as_json_text, progress, table
from reconciler.model import Lock, Pin

Row = dict[str, Any]


@click.command("outdated")
@LOCK
@catalogs_option
@click.option("--prereleases", is_flag=True, help="Let versions like 2.0.0-rc.1 count as newer.")
@output_option
def command(
    lock_path: Path, named: Mapping[str, str], config: Path | None, branch: str, prereleases: bool, as_json: bool
) -> int:
    """Entries on a version that is not the lock's newest, and releases of the catalogs that the lock does not have.

    Catalogs are asked where --catalog or --config say where they are. Exits with 2 if there is anything to tell:
    `entry` (the lock has a newer version), `yanked` (the entry's version was yanked), `missing` (the entry's version is not
    in the lock: `catalog add` it), `release` (the catalog has a newer tag).
    """
    lock, _ = read_lock(lock_path)
    rows = list(_entries(lock, users_of(lock_path.parent), prereleases=prereleases))
    if named or config:
        with open_shelf(named, config, branch) as shelf:
            rows += _releases(lock, shelf, prereleases=prereleases)
    else:
        progress("The catalogs were not asked: say --catalog NAME=URL, or --config reconciler.yaml")
    if as_json:
        as_json_text(rows)
    elif rows:
        cells = ((r["kind"], r["module"], r["version"] or "", r["newest"] or "", r["said"]) for r in rows)
        table(("KIND", "MODULE", "VERSION", "NEWEST", ""), cells)
    return DIFFERENCE if rows else FINE


def _entries(lock: Lock, users: Mapping[tuple[str, str], list[str]], *, prereleases: bool) -> Iterator[Row]:
    """What entries use, beside what the lock has."""
    for (module, version), units in sorted(users.items()):
        pins = lock.modules.get(module, {})
        pin, who = pins.get(version), ", ".join(units)
        usable = [other.version for other in pins.values() if other.yanked is None]
        newest = _newest(usable, prereleases=prereleases or _is_prerelease(version))
        if pin is None:
            yield _row("missing", module, version, newest, who, units)
        elif pin.yanked is not None:
            yield _row("yanked", module, version, newest, f"{who}: {pin.yanked}", units)
        elif newest is not None and _rank(newest) > _rank(version):
            yield _row("entry", module, version, newest, who, units)


def _releases(lock: Lock, shelf: Shelf, *, prereleases: bool) -> Iterator[Row]:
    """The newest tag of each module that is newer than everything that the lock has of it, yanked or not."""
    for module, pins in sorted(lock.modules.items()):
        have = _newest(list(pins), prereleases=True)
        tags = {version: tag for version, tag in shelf.tags(module) if prereleases or not _is_prerelease(version)}
        newer = [v for v in sorted(tags, key=_rank, reverse=True) if have is None or _rank(v) > _rank(have)]
        some = next(iter(pins.values()), None)
        found = next((v for v in newer if some is not None and shelf.offers(some, tags[v])), None)
        if found is not None:
            add = f"{tags[found]}: reconciler catalog add {module}@{found}{_more(some)}"
            yield _row("release", module, have, found, add, [])


def _more(pin: Pin | None) -> str:
    """The option without which `catalog add` would look for the module elsewhere."""
    usual = pin is None or pin.path == f"modules/{pin.module.partition('/')[2]}"
    return "" if usual or pin is None else f" --path {pin.path}"


def _row(kind: str, module: str, version: str | None, newest: str | None, said: str, units: Sequence[str]) -> Row:
    return {"kind": kind, "module": module, "version": version, "newest": newest, "units": list(units), "said": said}


def _newest(versions: Sequence[str], *, prereleases: bool) -> str | None:
    return max((v for v in versions if prereleases or not _is_prerelease(v)), key=_rank, default=None)


def _rank(version: str) -> tuple[semver.Version, str]:
    return semver.Version.parse(version), version


def _is_prerelease(version: str) -> bool:
    return semver.Version.is_valid(version) and semver.Version.parse(version).prerelease is not None

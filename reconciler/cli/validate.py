"""`reconciler validate [DIR]`: what a pull request would mean, checked offline in a work tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sized
from pathlib import Path

import click

from reconciler.cli.locked import catalogs_option
from reconciler.cli.problems import FORMATS
from reconciler.cli.shelf import open_shelf
from reconciler.cli.vetted import Shelved
from reconciler.desired.load import Loader
from reconciler.desired.lock import parse_lock
from reconciler.desired.paths import LOCK_PATH, ROOT, classify
from reconciler.desired.strict import LOCK_LIMIT
from reconciler.errors import Place
from reconciler.lockfile import Lines
from reconciler.model import Commit, Desired, Digest, Lock, Pin, Problem

_NOWHERE = Commit("0" * 40)


@click.command()
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(exists=True, file_okay=False, path_type=Path))
@catalogs_option
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="text", help="How to tell the problems.")
def command(folder: Path, named: Mapping[str, str], config: Path | None, branch: str, output: str) -> None:
    """Check the environments and the lock in DIR (the current folder), offline.

    Reports every problem with its file, line and column. Exits 0 if there is none, and 1 otherwise. Branches that a
    sandbox names (ref:) are taken to exist. With --catalog (a local clone will do) or --config (the daemon's own copies),
    every module of the lock is vetted too.
    """
    if not (folder / ROOT).is_dir() and not (folder / LOCK_PATH).exists():
        raise click.ClickException(f"{folder} has neither {ROOT} nor {LOCK_PATH}; name the environments repository")
    desired = read(folder)
    problems = [*desired.problems, *_vetted(folder, named, config, branch)]
    if shown := FORMATS[output](problems):
        click.echo(shown)
    counts: dict[str, Sized] = {"unit": desired.units, "environment": desired.environments, "problem": problems}
    click.echo(", ".join(f"{len(of)} {what}{'' if len(of) == 1 else 's'}" for what, of in counts.items()), err=True)
    raise SystemExit(1 if problems else 0)


def read(folder: Path) -> Desired:
    """What the work tree in `folder` would mean as a commit."""
    blobs: dict[str, str] = {}
    problems: list[Problem] = []
    for path in sorted(_paths(folder)):
        if complaint := _complaint(folder / path):
            if classify(path) is not None:
                problems.append(Problem(Place(path), "PathInvalid", complaint))
        else:
            blobs[path] = path
    return Loader().load(_NOWHERE, blobs, lambda paths: _contents(folder, paths), problems, refs=_assumed)


def _vetted(folder: Path, named: Mapping[str, str], config: Path | None, branch: str) -> list[Problem]:
    """What the audit says of the lock's modules. A lock with problems has been told already."""
    if not named and config is None:
        click.echo("modules were not vetted: say --catalog NAME=FOLDER or --config FILE", err=True)
        return []
    path = folder / LOCK_PATH
    data = _head(path) if path.exists() and not _complaint(path) else b""
    lock = parse_lock(LOCK_PATH, data)
    if not isinstance(lock, Lock):
        return []
    with open_shelf(named, config, branch) as shelf:
        return [*Shelved(shelf, named, config).problems(Lines(LOCK_PATH, data.decode()), lock)]


def _paths(folder: Path) -> Iterator[str]:
    """The files that a commit of the folder could hold, as git names them."""
    if (folder / LOCK_PATH).exists() or (folder / LOCK_PATH).is_symlink():
        yield LOCK_PATH
    for parent, folders, files in os.walk(folder / ROOT):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            yield Path(parent, name).relative_to(folder).as_posix()


def _complaint(path: Path) -> str | None:
    """Why the file could not be part of a commit that means something."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "a symbolic link is never followed; put the file itself here"
    if not stat.S_ISREG(mode):
        return "this is no file; remove it"
    if mode & stat.S_IXUSR:
        return "the file is executable; take that away (chmod -x)"
    return None


def _contents(folder: Path, paths: Iterable[str]) -> Mapping[str, bytes]:
    return {path: _head(folder / path) for path in paths}


def _head(path: Path) -> bytes:
    """The content, cut where it is too long anyway."""
    with path.open("rb") as file:
        return file.read(LOCK_LIMIT + 1)


def _assumed(wanted: frozenset[tuple[str, str]]) -> Mapping[tuple[str, str], Pin]:
    """Branches are known to the catalog alone, which is not asked here."""
    digest = Digest("sha256:" + "0" * 64)
    return {(module, ref): Pin(module, ref, "", ref, _NOWHERE, digest) for module, ref in wanted}

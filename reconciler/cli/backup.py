"""`reconciler backup` and `reconciler restore`: one file with what cannot be fetched again, of either plane or both."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from reconciler import __version__, archive, replacing
from reconciler.cli.show import line, progress
from reconciler.cli.who import actor
from reconciler.config import ControllerConfig, RunnerConfig, load_controller, load_runner
from reconciler.controller.daemon import SystemClock
from reconciler.errors import ConfigError, PassError

F = TypeVar("F", bound=Callable[..., object])
CONTROLLER, RUNNER = Path("/etc/reconciler/reconciler.yaml"), Path("/etc/reconciler/runner.yaml")
_PATH = click.Path(path_type=Path, dir_okay=False)


def planes_option(command: F) -> F:
    """Which planes: `--config` and `--runner`; the command gets them as `controller` and `runner`."""
    runner = click.option("--runner", "runner", type=_PATH, help=f"The runner's file. [default: {RUNNER}, if there]")
    config = click.option(
        "--config", "controller", type=_PATH, help=f"The controller's file. [default: {CONTROLLER}, if there]"
    )
    return config(runner(command))


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@planes_option
def backup(file: Path, controller: Path | None, runner: Path | None) -> None:
    """Write FILE, a new one, with all of this host that cannot be fetched again. Also while everything runs.

    FILE is as secret as the runner's memory is: it holds the key of its seals. States, git mirrors and logs of jobs are not in it.
    """
    archive.check_new(file)
    controller, runner = which_planes(controller, runner)
    pieces: list[archive.Piece] = []
    about: dict[str, dict[str, str]] = {}
    made_at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as scratch:
        if controller is not None:
            _collect_controller(controller, Path(scratch), pieces, about)
        if runner is not None:
            _collect_runner(runner, pieces, about)
        digest = archive.write(file, pieces, about, made_at, __version__)
    for plane, said in about.items():
        line(plane, ", ".join(f"{name} {value}" for name, value in said.items() if value))
    line("sha256", digest, file)


def _collect_controller(
    path: Path, scratch: Path, pieces: list[archive.Piece], about: dict[str, dict[str, str]]
) -> None:
    from reconciler.store.backup import PLANE, collect

    config = load_controller(path)
    _check_in_a_file(config)
    if not config.store_path.exists():
        raise ConfigError(f"{config.store_path}: there is no store there; name the reconciler.yaml whose `store` it is")
    part = collect(config.store_path, scratch)
    pieces += _under(PLANE, part.pieces)
    about[PLANE] = {"installation": config.installation, **part.about}


def _collect_runner(path: Path, pieces: list[archive.Piece], about: dict[str, dict[str, str]]) -> None:
    from reconciler.runner.backup import PLANE, collect

    config = load_runner(path)
    _check_in_a_folder(config)
    part = collect(config.memory_path)
    pieces += _under(PLANE, part.pieces)
    about[PLANE] = {"installation": config.installation, **part.about}
    for warning in part.warnings:
        progress(f"Warning: {warning}")


def _check_in_a_file(config: ControllerConfig) -> None:
    """Raises ConfigError: AWS backs up a table better than we could, and a copy that is read item by item is of no one moment."""
    if config.store.dynamodb is not None:
        table = config.store.dynamodb.table
        raise ConfigError(
            f"{config.store_place}: a table is backed up and brought back by point-in-time recovery, not by this command: `aws dynamodb "
            f"update-continuous-backups --table-name {table} --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true`; "
            "docs/operations.md says how to restore. For the runner's part alone: --runner runner.yaml, without --config"
        )


def _check_in_a_folder(config: RunnerConfig) -> None:
    """Raises ConfigError: a bucket keeps older versions by itself."""
    if config.memory.s3 is not None:
        bucket = config.memory.s3.bucket
        raise ConfigError(
            f"runner.yaml: memory.s3: a memory in a bucket is kept by the bucket's versions, not by this command: `aws s3api "
            f"put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled`; docs/operations.md says how to bring "
            "one back. For the controller's part alone: --config reconciler.yaml, without --runner"
        )


def _under(plane: str, pieces: tuple[archive.Piece, ...]) -> list[archive.Piece]:
    return [archive.Piece(f"{plane}/{one.name}", one.data, one.path, one.size) for one in pieces]


def which_planes(controller: Path | None, runner: Path | None) -> tuple[Path | None, Path | None]:
    """Those that were named, else those of /etc/reconciler that are there. Raises click.UsageError where there is none."""
    if controller is None and runner is None:
        controller, runner = (path if path.exists() else None for path in (CONTROLLER, RUNNER))
    if controller is None and runner is None:
        raise click.UsageError("say of what: --config reconciler.yaml, --runner runner.yaml, or both")
    return controller, runner


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one plane's part goes, and what makes it fit to be there."""

    plane: str
    folder: Path
    installation: str
    there: Callable[[], list[str]]
    prepare: Callable[[Path], tuple[list[str], list[str]]]


@click.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@planes_option
@click.option("--replace", is_flag=True, help="Put what is there aside, in a folder beside it; nothing is removed.")
def restore(file: Path, controller: Path | None, runner: Path | None, replace: bool) -> None:
    """Bring back what `reconciler backup` wrote into FILE. Both planes have to be stopped.

    Everything in FILE is checked before anything is touched. After a crash at any point the old or the new is in force, or
    nothing starts until the same command has run again.
    """
    from reconciler.runner import backup as of_runner
    from reconciler.store import backup as of_store

    controller, runner = which_planes(controller, runner)
    found = archive.examine(file, {of_store.PLANE: of_store.NAMES, of_runner.PLANE: of_runner.NAMES})
    with ExitStack() as held:
        places: list[_Place] = []
        if controller is not None:
            places.append(_controller(controller, found, held))
        if runner is not None:
            places.append(_runner(runner, found, held))
        waiting = [place for place in places if not _finished(place, found)]
        for place in waiting:
            _check(place, found, replace)
        _bring_back(waiting, found)
        for place in places:
            _give(place.folder)
    progress(_NEXT)


def _controller(path: Path, found: archive.Archive, held: ExitStack) -> _Place:
    from reconciler.store import backup as part

    config = load_controller(path)
    _check_in_a_file(config)
    store = config.store_path
    held.enter_context(part.alone(store))

    def prepare(new: Path) -> tuple[list[str], list[str]]:
        return list(part.replaced(store)), part.prepare(new, store, found, SystemClock())

    return _Place(part.PLANE, store.parent, config.installation, lambda: part.there(store), prepare)


def _runner(path: Path, found: archive.Archive, held: ExitStack) -> _Place:
    from reconciler.runner import backup as part

    config = load_runner(path)
    _check_in_a_folder(config)
    folder = config.memory_path
    held.enter_context(part.alone(folder))
    return _Place(
        part.PLANE, folder, config.installation, lambda: part.there(folder),
        lambda new: part.prepare(new, folder, found, actor()),
    )  # fmt: skip


def _finished(place: _Place, found: archive.Archive) -> bool:
    """Finish what an interrupted restore has begun to put in place. Whether that was of this very file."""
    source = replacing.meant(place.folder)
    if source is None:
        return False
    aside = replacing.finish(place.folder)
    line(place.plane, f"an interrupted restore of {source} is finished now", aside or "")
    return source == found.sha256


def _check(place: _Place, found: archive.Archive, replace: bool) -> None:
    said = found.manifest.planes.get(place.plane)
    if said is None:
        raise ConfigError(f"{found.path} has nothing of the {place.plane}; it has: {', '.join(found.manifest.planes)}")
    if said.get("installation") != place.installation:
        what = f"it is of the installation {said.get('installation')!r}, and this one is {place.installation!r}"
        raise ConfigError(f"{found.path}: {what}: name the other configuration, or the other backup")
    there = place.there()
    if there and not replace:
        what = f"{place.folder} holds {', '.join(there)} already"
        raise ConfigError(f"{what}; with --replace that is put aside, in a folder of its own there")
    free = shutil.disk_usage(place.folder).free
    if free < 2 * found.size(place.plane):
        raise PassError(
            "DiskFull", f"{place.folder}: {free} bytes are free, and twice {found.size(place.plane)} are needed"
        )


def _bring_back(places: list[_Place], found: archive.Archive) -> None:
    """Unpack and prepare every plane's part before the first is put in place."""
    ready: list[tuple[_Place, list[str], list[str]]] = []
    try:
        for place in places:
            new = replacing.begin(place.folder)
            found.unpack(place.plane, new)
            ready.append((place, *place.prepare(new)))
    except BaseException:
        for place in places:
            replacing.abandon(place.folder)
        raise
    for place, names, _ in ready:
        replacing.mean(place.folder, names, found.sha256)
    for place, _, told in ready:
        aside = replacing.finish(place.folder)
        line(place.plane, f"as of {found.manifest.made_at:%Y-%m-%d %H:%M:%S UTC}, in {place.folder}")
        for one in [*told, *([f"What was there is in {aside}."] if aside else [])]:
            line("", one)


def _give(folder: Path) -> None:
    """What root has made in the folder of a plane's user is that user's. Follows no link, and leaves alone what has two names."""
    owner = folder.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for _, folders, files, here in os.fwalk(folder):
        for name in (*folders, *files):
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
            if found.st_uid == 0 and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)):
                os.chown(name, owner.st_uid, owner.st_gid, dir_fd=here, follow_symlinks=False)


_NEXT = (
    "Now start both. Every unit is looked at once more, and nothing of before is applied twice. Allowances that were written before "
    "this are void: change their lines to open them again. Pauses that were made since the backup have to be made again, where none "
    "was taken over. If the audit log is older than its anchor, the runner says so (AnchorDisagrees): see docs/operations.md."
)

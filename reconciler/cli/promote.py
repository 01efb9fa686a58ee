"""`reconciler promote UNIT|MODULE --to ENVIRONMENT`: the change that brings a version to the next environment, on a branch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import semver

from reconciler.cli.ask import output_option
from reconciler.cli.exits import FINE
from reconciler.cli.locked import LOCK, read_lock
from reconciler.cli.show import as_json_text, progress
from reconciler.cli.validate import read
from reconciler.cli.worktree import git
from reconciler.config import load_controller
from reconciler.config.controller import ControllerConfig
from reconciler.desired import strict
from reconciler.desired.document import Document
from reconciler.durable import write_atomic
from reconciler.errors import ConfigError, UnitError
from reconciler.forge.pages import opening_page
from reconciler.model import Desired, Lock, Unit, UnitId


@dataclass(frozen=True, slots=True)
class _Change:
    """One entry, as it is and as it would be."""

    unit: Unit
    version: str
    text: str


@click.command("promote")
@click.argument("what", metavar="UNIT|MODULE")
@click.option(
    "--to", "environment", required=True, metavar="ENVIRONMENT", help="The environment that the version goes to."
)
@click.option(
    "--from",
    "source",
    metavar="ENVIRONMENT",
    help="Of a MODULE: whose version it is.  [default: promotion.after of --to]",
)
@click.option("--branch", help="What the new branch is called.  [default: promote-MODULE-VERSION-to-ENVIRONMENT]")
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A reconciler.yaml: says which branch is protected, and where the forge is.",
)
@LOCK
@output_option
def command(
    what: str, environment: str, source: str | None, branch: str | None, config: Path | None, lock_path: Path, as_json: bool
) -> int:  # fmt: skip
    """Write the change that brings a module's version to the next environment, on a new branch of this work tree.

    UNIT (stage/web) promotes its version to the unit of the same name there; MODULE (acme/service) the version that the
    environment before uses, to every entry there that uses the module. Nothing but `version:` changes; nothing is committed and
    nothing is pushed: the commands that do are printed, and where the pull request is opened.
    """
    top = lock_path.resolve().parent
    lock, _ = read_lock(lock_path)
    desired = read(top)
    module, version, targets = _meant(desired, what, environment, source)
    changes = list(_changes(top, lock, version, [unit for unit in targets if unit.pin.version != version]))
    if not changes:
        progress(f"Nothing to do: {', '.join(unit.id for unit in targets)} uses {module} {version} already.")
        return FINE
    host = load_controller(config) if config else None
    protected = host.environments_repo.branch if host else "main"
    name = branch or f"promote-{module.replace('/', '-')}-{version}-to-{environment}"
    paths = [change.unit.entry.place.path for change in changes]
    _switch(top, name, protected, paths)
    for change in changes:
        write_atomic(top / change.unit.entry.place.path, change.text.encode(), 0o644)
    _say(top, _Said(module, version, environment, name, protected, host), changes, as_json=as_json)
    return FINE


# --- what is meant


def _meant(desired: Desired, what: str, environment: str, source: str | None) -> tuple[str, str, list[Unit]]:
    """The module, the version, and the units that it goes to. Raises UnitError."""
    if environment not in desired.environments:
        raise UnitError(
            "EnvironmentMissing",
            f"there is no environment {environment} here; write one of {', '.join(sorted(desired.environments))}",
        )
    unit = desired.units.get(UnitId(what))
    if unit is not None:
        target = _unit(desired, UnitId(f"{environment}/{what.partition('/')[2]}"))
        if target.pin.module != unit.pin.module:
            raise UnitError(
                "ModuleDiffers",
                f"{target.id} uses {target.pin.module}, and {what} {unit.pin.module}: promote between units of one module",
            )
        return unit.pin.module, _version(unit), [target]
    targets = _users(desired, what, environment)
    if not targets:
        raise UnitError(
            "NothingUsesIt", f"{what} is neither a unit here nor a module that an entry of {environment} uses"
        )
    return what, _agreed(desired, what, environment, source), targets


def _agreed(desired: Desired, module: str, environment: str, source: str | None) -> str:
    """The one version that the environment before uses. Raises UnitError."""
    rules = desired.environments[environment].promotion
    before = source or (rules[0].after if rules else None)
    if before is None:
        raise UnitError("SourceMissing", f"{environment} says no promotion.after; say --from, or name a unit")
    versions = sorted({_version(unit) for unit in _users(desired, module, before)})
    if len(versions) != 1:
        used = f"uses {' and '.join(versions)} of it" if versions else "does not use it"
        raise UnitError("VersionUnclear", f"{module}: {before} {used}; name the unit that is to be promoted")
    return versions[0]


def _users(desired: Desired, module: str, environment: str) -> list[Unit]:
    return [
        unit
        for _, unit in sorted(desired.units.items())
        if (unit.pin.module, unit.environment.name) == (module, environment)
    ]


def _unit(desired: Desired, name: UnitId) -> Unit:
    if name in desired.broken:
        raise UnitError("EntryBroken", str(desired.broken[name]))
    if name not in desired.units:
        raise UnitError("EntryMissing", f"there is no unit {name}: write its entry (`reconciler new {name}`)")
    return desired.units[name]


def _version(unit: Unit) -> str:
    if unit.entry.version is None:
        raise UnitError(
            "NoVersion", f"{unit.id} runs the branch {unit.entry.ref}; only versions of the lock are promoted"
        )
    return unit.entry.version


# --- the change


def _changes(top: Path, lock: Lock, version: str, units: Sequence[Unit]) -> Iterator[_Change]:
    """The entries with the version in them; every other byte stays. Raises UnitError."""
    for unit in units:
        pin = lock.modules.get(unit.pin.module, {}).get(version)
        if pin is None or pin.yanked is not None:
            why = f"was yanked: {pin.yanked}" if pin else "is not in the lock"
            raise UnitError("VersionUnusable", f"{unit.pin.module} {version} {why}")
        old = _version(unit)
        if semver.Version.parse(version) < semver.Version.parse(old):
            raise UnitError(
                "Downgrade",
                f"{unit.id} uses {old}, which is newer than {version}; a downgrade is written by hand, with allow_downgrade",
            )
        yield _Change(
            unit,
            old,
            _with_version(unit.entry.place.path, (top / unit.entry.place.path).read_bytes().decode(), version),
        )


def _with_version(path: str, text: str, version: str) -> str:
    """Raises UnitError: the file has been changed a moment ago."""
    found = strict.parse(path, text.encode())
    if not isinstance(found, Document):
        raise UnitError("EntryBroken", "\n".join(map(str, found)))
    node = found.find(("version",))
    start, end = node.start.index, node.end.index
    changed = f'{text[:start]}"{version}"{text[end:]}'
    again = strict.parse(path, changed.encode())
    if not isinstance(again, Document) or again.root.plain() != {**found.root.plain(), "version": version}:
        raise UnitError(
            "EntryUnclear",
            f"{found.place(node.start)}: write the version as one quoted string on its line, and ask again",
        )
    return changed


def _switch(top: Path, branch: str, protected: str, paths: Sequence[str]) -> None:
    """Begin the branch where the work tree stands. Raises ConfigError: it cannot be, and nothing was changed."""
    if branch == protected:
        raise ConfigError(f"{branch} is the protected branch, which changes by merges alone: name another by --branch")
    if dirty := git(top, "status", "--porcelain", "--", *paths):
        raise ConfigError(f"these files hold changes of yours; commit or undo them first:\n{dirty}")
    git(top, "switch", "--quiet", "--create", branch)


# --- what is said


@dataclass(frozen=True, slots=True)
class _Said:
    module: str
    version: str
    environment: str
    branch: str
    protected: str
    host: ControllerConfig | None

    @property
    def title(self) -> str:
        return f"Promote {self.module} {self.version} to {self.environment}"

    @property
    def page(self) -> str | None:
        """Where the pull request is opened; None where no forge is known."""
        forge = self.host.environments_repo.forge if self.host else None
        return opening_page(forge, self.branch, self.protected) if forge else None


def _say(top: Path, said: _Said, changes: Sequence[_Change], *, as_json: bool) -> None:
    paths = [change.unit.entry.place.path for change in changes]
    at = ["-C", str(top)] if top != Path.cwd() else []
    commands = [
        shlex.join(["git", *at, "add", "--", *paths]),
        shlex.join(["git", *at, "commit", "-S", "-m", said.title]),
        shlex.join(["git", *at, "push", "--set-upstream", "origin", f"{said.branch}:{said.branch}"]),
    ]
    if as_json:
        units = [
            {"unit": one.unit.id, "from": one.version, "to": said.version, "path": one.unit.entry.place.path}
            for one in changes
        ]
        as_json_text(
            {
                "module": said.module,
                "version": said.version,
                "branch": said.branch,
                "units": units,
                "commands": commands,
                "page": said.page,
            }
        )
        return
    for one in changes:
        progress(f"{one.unit.entry.place.path}: {one.version} -> {said.version}")
    progress(f"On the new branch {said.branch}; look at it (git diff), then:")
    for line in commands:
        print(line)
    progress(
        f"Then open the pull request: {said.page}"
        if said.page
        else f"Then open a pull request of it to {said.protected}."
    )
    for rule in changes[0].unit.environment.promotion:
        progress(
            f"After its merge {said.environment} waits (PromotionPending) until {rule.after} has been in order with it for long enough."
        )

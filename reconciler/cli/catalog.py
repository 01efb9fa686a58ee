"""`reconciler catalog`: write versions of modules into the lock, and check what stands there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.ask import output_option
from reconciler.cli.exits import ERROR, FINE
from reconciler.cli.locked import LOCK, catalogs_option, chosen_pins, read_lock, split_wanted, users_of
from reconciler.cli.outdated import command as outdated
from reconciler.cli.problems import FORMATS
from reconciler.cli.shelf import Shelf, open_shelf
from reconciler.cli.show import as_json_text, line, progress, short, table
from reconciler.cli.vetted import refused
from reconciler.desired.lock import newest, ordered
from reconciler.durable import write_atomic
from reconciler.errors import UnitError
from reconciler.lockfile import Lines, with_pin
from reconciler.model import Lock, Pin, ProviderPin

if TYPE_CHECKING:
    from reconciler.runner.terraform.module import ModuleInterface


@click.group("catalog")
def command() -> None:
    """Pin versions of vetted modules in catalog-lock.yaml, and check the pins.

    A version names a tag of the catalog repository; the pin holds its commit, a digest of every file, and the hashes of its
    providers. Review the lock like any other change.
    """


command.add_command(outdated)


@command.command()
@click.argument("wanted", metavar="MODULE@VERSION")
@LOCK
@catalogs_option
@click.option("--path", help="The module's folder in the catalog.  [default: modules/NAME]")
@click.option("--ref", help="The release's tag.  [default: vVERSION or NAME/vVERSION]")
@click.option("--replace", "replaces", is_flag=True, help="Let a locked version become something else.")
@click.option(
    "--provider-mirror",
    "mirror",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Find providers there only.",
)
@click.option("--engine", help="The tofu or terraform that finds the providers; from PATH if not named.")
@output_option
def add(
    wanted: str, lock_path: Path, named: Mapping[str, str], config: Path | None, branch: str, path: str | None,
    ref: str | None, replaces: bool, mirror: Path | None, engine: str | None, as_json: bool,
) -> int:  # fmt: skip
    """Write MODULE@VERSION (acme/vpc@1.4.2) into the lock.

    The tag must lie on the catalog's protected branch. An engine's `init` finds the providers: from a mirror come the hashes of
    every platform that it holds. A version that is locked already is left alone, but for new hashes of the same providers.
    """
    module, version = split_wanted(wanted)
    if version is None:
        raise click.UsageError("say which version: MODULE@VERSION, as in acme/vpc@1.4.2")
    text = lock_path.read_text(encoding="utf-8") if lock_path.exists() else ""
    folder = (path or f"modules/{module.partition('/')[2]}").strip("/")
    with open_shelf(named, config, branch) as shelf:
        progress(f"Fetching the catalog of {module} ...")
        release = shelf.release(module, version, folder, ref)
        pin = Pin(module, version, folder, release.ref, release.commit, release.digest)
        if refused(shelf, pin, as_json=as_json):
            return ERROR
        progress(f"{release.ref} is {release.commit[:12]}; finding its providers ...")
        pin = replace(pin, providers=_providers(shelf, pin, mirror, engine))
    written = with_pin(str(lock_path), text, pin, replaces=replaces)
    if written != text:
        write_atomic(lock_path, written.encode(), 0o644)
    _added(lock_path, pin, written != text, as_json)
    return FINE


@command.command()
@click.argument("wanted", metavar="[MODULE[@VERSION]]...", nargs=-1)
@LOCK
@catalogs_option
@click.option("-o", "--output", type=click.Choice(list(FORMATS)), default="text", help="How to tell the problems.")
def verify(
    wanted: tuple[str, ...], lock_path: Path, named: Mapping[str, str], config: Path | None, branch: str, output: str
) -> int:
    """Compare every pin, or those named, with the catalogs: tag, commit, protected branch, folder and digest.

    Exits with 1 if one of them is wrong.
    """
    lock, text = read_lock(lock_path)
    chosen = [pin for name in wanted for pin in chosen_pins(lock, name)] if wanted else list(lock.pins())
    lines = Lines(str(lock_path), text)
    with open_shelf(named, config, branch) as shelf:
        problems = list(dict.fromkeys(problem for pin in chosen for problem in shelf.check(lines, pin)))
    if shown := FORMATS[output](problems):
        click.echo(shown)
    progress(f"{len(chosen)} versions checked, {len(problems)} problems")
    return ERROR if problems else FINE


@command.command("ls")
@LOCK
@output_option
def listed(lock_path: Path, as_json: bool) -> int:
    """Every module and version of the lock, and which entries use it."""
    lock, _ = read_lock(lock_path)
    rows = list(_rows(lock, users_of(lock_path.parent)))
    if as_json:
        as_json_text(rows)
    else:
        cells = (
            (row["module"], row["version"], short(row["commit"]), row["yanked"] or "", ", ".join(row["used_by"]))
            for row in rows
        )
        table(("MODULE", "VERSION", "COMMIT", "YANKED", "USED BY"), cells)
    return FINE


@command.command()
@click.argument("wanted", metavar="MODULE[@VERSION]")
@LOCK
@catalogs_option
@output_option
def show(
    wanted: str, lock_path: Path, named: Mapping[str, str], config: Path | None, branch: str, as_json: bool
) -> int:
    """What a locked version asks for and gives: inputs, outputs, providers. The newest version if none is named.

    Where x.tofu stands beside x.tf, it is the first that is read, as OpenTofu does.
    """
    from reconciler.runner.terraform.module import read_module
    from reconciler.vetting.names import TOFU

    lock, _ = read_lock(lock_path)
    pins = chosen_pins(lock, wanted)
    pin = newest({pin.version: pin for pin in pins}) or pins[-1]
    with open_shelf(named, config, branch) as shelf:
        interface = read_module(shelf.tree(pin) / pin.path, TOFU)
    users = users_of(lock_path.parent).get((pin.module, pin.version), [])
    if as_json:
        as_json_text(_facts(pin, interface, users))
    else:
        _show(pin, interface, users)
    return FINE


# --- what the commands share


def _rows(lock: Lock, users: Mapping[tuple[str, str], list[str]]) -> Iterator[dict[str, Any]]:
    for module, pins in sorted(lock.modules.items()):
        for pin in (pins[version] for version in ordered(pins)):
            used = users.get((module, pin.version), [])
            yield {
                "module": module, "version": pin.version, "ref": pin.ref, "commit": pin.commit, "yanked": pin.yanked,
                "used_by": used,
            }  # fmt: skip


def _providers(shelf: Shelf, pin: Pin, mirror: Path | None, engine: str | None) -> tuple[ProviderPin, ...]:
    from reconciler.runner.terraform.binary import find_engine
    from reconciler.runner.terraform.lockproviders import Lookup, find_providers

    with tempfile.TemporaryDirectory(prefix="reconciler-init-") as folder:
        scratch, launcher = Path(folder, "root"), Path(folder, "engine")
        scratch.mkdir()
        binary = str(Path(engine).resolve()) if engine and "/" in engine else engine
        lookup = Lookup(find_engine(binary, None, None, launcher), mirror)
        found = find_providers(lookup, shelf.tree(pin), pin.path, scratch)
    allowed = shelf.allowed(pin.module)
    if strangers := [p.source for p in found if allowed and p.source not in allowed]:
        raise UnitError(
            "ProviderNotAllowed",
            f"{pin.module} {pin.version} uses {', '.join(strangers)}; allow_providers of its catalog has "
            f"{', '.join(sorted(allowed))}. Take it out of the module, or add it there",
        )
    return found


def _added(lock_path: Path, pin: Pin, changed: bool, as_json: bool) -> None:
    if as_json:
        as_json_text({"changed": changed, "lock": str(lock_path), **_pin(pin)})
        return
    providers = ", ".join(f"{p.source} {p.version}" for p in pin.providers) or "none"
    done = f"written to {lock_path}" if changed else f"already in {lock_path}"
    print(f"{pin.module} {pin.version} ({pin.ref}, {pin.commit[:12]}), providers: {providers}: {done}")


def _pin(pin: Pin) -> dict[str, Any]:
    providers = [{"source": p.source, "version": p.version, "hashes": dict(p.hashes)} for p in pin.providers]
    return {
        "module": pin.module, "version": pin.version, "path": pin.path, "ref": pin.ref, "commit": pin.commit,
        "digest": pin.digest, "yanked": pin.yanked, "providers": providers,
    }  # fmt: skip


def _facts(pin: Pin, interface: ModuleInterface, users: list[str]) -> dict[str, Any]:
    inputs = [
        {"name": name, "type": found.type, "required": found.required, "sensitive": found.sensitive}
        for name, found in interface.variables.items()
    ]
    outputs = [{"name": name, "sensitive": sensitive} for name, sensitive in interface.outputs.items()]
    return {**_pin(pin), "used_by": users, "inputs": inputs, "outputs": outputs}


def _show(pin: Pin, interface: ModuleInterface, users: list[str]) -> None:
    line("Module", pin.module, pin.version, f"YANKED: {pin.yanked}" if pin.yanked else "")
    line("Release", pin.ref, pin.commit)
    line("Path", pin.path)
    line("Providers", ", ".join(f"{p.source} {p.version}" for p in pin.providers) or "none")
    line("Used by", ", ".join(users) or "nobody")
    print()
    table(("INPUT", "TYPE", "REQUIRED", "SENSITIVE"), _inputs(interface))
    print()
    table(("OUTPUT", "SENSITIVE"), ([name, _yes(sensitive)] for name, sensitive in interface.outputs.items()))


def _inputs(interface: ModuleInterface) -> Iterator[list[str]]:
    for name, found in interface.variables.items():
        yield [name, found.type or "any", _yes(found.required), _yes(found.sensitive)]


def _yes(word: bool) -> str:
    return "yes" if word else ""

"""`reconciler new ENTRY`: an entry, from what its module asks for."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.cli.ask import output_option
from reconciler.cli.exits import FINE
from reconciler.cli.locked import LOCK, catalogs_option, chosen_pins, read_lock
from reconciler.cli.placing import make_folders
from reconciler.cli.shelf import open_shelf
from reconciler.cli.show import as_json_text, plain, progress
from reconciler.desired.entries import parse_entry
from reconciler.desired.lock import newest
from reconciler.desired.paths import entry_path, environment_path, unit_of
from reconciler.durable import write_new
from reconciler.errors import UnitError
from reconciler.model import Entry, Lock, Pin, UnitId

if TYPE_CHECKING:
    from reconciler.runner.terraform.module import Documented, ModuleInterface

SCHEMA = Path("schemas/entry.schema.json")
LONGEST = 200  # characters of a description or a default
TO_FILL = ""  # what stands behind a required name: no value, which `validate` refuses with its line


@click.command("new")
@click.argument("entry")
@click.option(
    "--module",
    "wanted",
    required=True,
    metavar="MODULE[@VERSION]",
    help="Of the lock: acme/vpc@1.4.2. The newest version if none is named; the catalog may be left out.",
)
@LOCK
@catalogs_option
@output_option
def command(
    entry: str, wanted: str, lock_path: Path, named: Mapping[str, str], config: Path | None, branch: str, as_json: bool
) -> int:  # fmt: skip
    """Write ENTRY (prod/network, or the path of its file) for a module of the lock, from the module's variables.

    Required inputs stand there without a value, so that `validate` names each that is still to be filled in; optional ones as
    comments. Never overwrites.
    """
    from reconciler.runner.terraform.module import documented, read_module
    from reconciler.vetting.names import TOFU

    lock, _ = read_lock(lock_path)
    top = lock_path.parent.resolve()
    unit = _unit(top, entry)
    pin = _pin(lock, wanted)
    with open_shelf(named, config, branch) as shelf:
        folder = shelf.tree(pin) / pin.path
        interface, said = read_module(folder, TOFU), documented(folder, TOFU)
    target = top / entry_path(unit)
    text = _text(pin, interface, said, _schema(top, target))
    _check(unit, _text(pin, interface, said, "", filled="null"))
    make_folders(top, target.parent)
    if not write_new(target, text.encode(), 0o644, durable=False):
        raise UnitError(
            "EntryExists", f"{target} is there already, and nothing was written: edit it, or choose another name"
        )
    required = [name for name, one in interface.variables.items() if one.required]
    if as_json:
        as_json_text({"path": entry_path(unit), "module": pin.module, "version": pin.version, "required": required})
    else:
        print(entry_path(unit))
    progress(
        f"Fill in: {', '.join(required)}; then `reconciler validate`."
        if required
        else "Look at it, then `reconciler validate`."
    )
    return FINE


def _unit(top: Path, entry: str) -> UnitId:
    """Raises click.UsageError where the name is none, and UnitError where its environment is not there."""
    unit = unit_of(entry if unit_of(entry) is not None else entry_path(UnitId(entry)))
    if unit is None:
        raise click.UsageError(f"{entry} is no entry: write prod/network, or environments/prod/network.yaml")
    environment = environment_path(unit.partition("/")[0])
    if not (top / environment).is_file():
        raise UnitError(
            "EnvironmentMissing", f"{environment} is not there: write it first (`class: protected` is enough)"
        )
    return unit


def _pin(lock: Lock, wanted: str) -> Pin:
    """The version that is meant. Raises UnitError where the lock has none, or it is yanked."""
    name, at, version = wanted.partition("@")
    if "/" not in name:
        found = [module for module in lock.modules if module.partition("/")[2] == name]
        if len(found) != 1:
            known = " or ".join(sorted(found or lock.modules)) or "nothing"
            raise UnitError("CatalogPinMissing", f"{name} is no module of the lock: write {known}")
        wanted = f"{found[0]}{at}{version}"
    pins = chosen_pins(lock, wanted)
    pin = newest({pin.version: pin for pin in pins}) or pins[-1]
    if pin.yanked is not None:
        raise UnitError(
            "Yanked", f"{pin.module} {pin.version} is not put to new use ({plain(pin.yanked)}): name another version"
        )
    return pin


def _schema(top: Path, target: Path) -> str:
    """The line by which an editor finds the schema, where the repository has it."""
    if not (top / SCHEMA).is_file():
        return ""
    return f"# yaml-language-server: $schema={os.path.relpath(top / SCHEMA, target.parent)}\n"


def _text(
    pin: Pin, interface: ModuleInterface, said: Mapping[str, Documented], head: str, *, filled: str = TO_FILL
) -> str:
    lines = [f"module: {pin.module}", f"version: {json.dumps(pin.version)}"]
    required = any(one.required for one in interface.variables.values())
    if interface.variables:
        lines.append("inputs:" if required else "# inputs:")
        lines += _inputs(interface, said, filled)
    if aliases := [name for name in interface.providers if "." in name]:
        lines.append("providers:    # the module's names -> the environment's")
        lines += [f"  {name}: {filled}".rstrip() if filled == TO_FILL else f"  {name}: {name}" for name in aliases]
    return head + "\n".join(lines) + "\n"


def _inputs(interface: ModuleInterface, said: Mapping[str, Documented], filled: str) -> Iterator[str]:
    """Those that have to be written first."""
    for name, one in sorted(interface.variables.items(), key=lambda item: not item[1].required):
        about = said[name]
        kind = _line(one.type or "any") + (", sensitive: ${{ secret.NAME }}" if one.sensitive else "")
        description = _line(about.description)
        yield f"  # {kind}{': ' if description else ''}{description}"
        if one.required:
            yield f"  {name}: {filled}".rstrip()
        else:
            yield f"  # {name}: {_line(_value(about.default or 'null'))}"


def _value(written: str) -> str:
    """A default as YAML where it reads the same there; else with a word that it is not."""
    try:
        return json.dumps(json.loads(written), ensure_ascii=False)
    except ValueError:
        return f"    # by default {written}"


def _line(text: str) -> str:
    """What a module says, as part of a comment: one line, and nothing that the strict reading of YAML refuses."""
    one = unicodedata.normalize("NFC", " ".join(plain(text).split()))
    return one if len(one) <= LONGEST else f"{one[:LONGEST]} ..."


def _check(unit: UnitId, text: str) -> None:
    """Raises UnitError where the entry would be refused however it is filled in: the module has names that no entry can have."""
    found = parse_entry(entry_path(unit), text.encode())
    if not isinstance(found, Entry):
        raise UnitError("ModuleInvalid", f"no entry can be written for this module: {'; '.join(map(str, found))}")

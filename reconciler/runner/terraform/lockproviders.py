"""Which providers a module needs, as a real engine's `init` finds them: what `catalog add` writes into the lock.

The code of the module does not run here: `init` reads configurations and downloads providers, and starts neither. What
it must not do is fetch modules, whose bytes the lock's digest would not cover; those are refused before it starts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconciler.errors import UnitError
from reconciler.model import ProviderPin
from reconciler.runner.terraform.binary import REGISTRIES as REGISTRY_OF_ENGINE
from reconciler.runner.terraform.binary import Engine
from reconciler.runner.terraform.closure import needs
from reconciler.runner.terraform.module import read_module
from reconciler.runner.terraform.packages import archive_hash, measure
from reconciler.runner.terraform.workspace import CATALOG, LOCK_FILE, MODULE, ROOT_FILE

INIT_SECONDS = 600  # a provider of half a gigabyte over a slow line
PUBLIC = frozenset(REGISTRY_OF_ENGINE.values())
_LOCKED = re.compile(r'^provider "([^"]+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
_VERSION = re.compile(r'^\s*version\s*=\s*"([^"]+)"', re.MULTILINE)
_HASH = re.compile(r'"((?:h1|zh):[^"]+)"')


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where providers are looked for: a filesystem mirror, or (None) wherever the engine's own configuration says."""

    engine: Engine
    mirror: Path | None


def find_providers(lookup: Lookup, tree: Path, path: str, scratch: Path) -> tuple[ProviderPin, ...]:
    """Every provider that the module at `path` of the catalog's tree needs, nested modules included, with its hashes.

    `scratch` is an empty folder. From a mirror come the hashes of every platform and registry name that it has, from
    a registry those that the registry signs.

    Raises:
        UnitError: "ModuleInvalid", "CatalogModuleRemote" (a nested module lies outside the tree), "InitFailed".
    """
    needs(tree, path, lookup.engine.product)  # refuses modules from elsewhere
    _write_root(scratch, tree, path, lookup.engine.product)
    _init(lookup, scratch)
    found = tuple(_read_lock(scratch / LOCK_FILE))
    return tuple(_with_mirror(pin, lookup.mirror) for pin in found) if lookup.mirror else found


def _write_root(folder: Path, tree: Path, path: str, product: str) -> None:
    """A root that calls the module. What it asks of its caller are the aliases of its providers; inputs matter later."""
    aliases = {name: source for name, source in read_module(tree / path, product).providers.items() if "." in name}
    blocks: dict[str, list[dict[str, str]]] = {}
    for name in aliases:
        local, _, alias = name.partition(".")
        blocks.setdefault(local, []).append({"alias": alias})
    call: dict[str, Any] = {"source": f"./{CATALOG}/{path}".rstrip("/.")}
    root: dict[str, Any] = {"module": {MODULE: call}}
    if aliases:
        required = {name.partition(".")[0]: {"source": source} for name, source in aliases.items()}
        root |= {"terraform": {"required_providers": required}, "provider": blocks}
        call["providers"] = {name: name for name in aliases}
    (folder / ROOT_FILE).write_text(json.dumps(root, indent=1), encoding="utf-8")
    (folder / CATALOG).symlink_to(tree, target_is_directory=True)


def _init(lookup: Lookup, folder: Path) -> None:
    argv = (lookup.engine.binary, "init", "-backend=false", "-input=false", "-no-color")
    try:
        ended = subprocess.run(
            argv, cwd=folder, env=_environment(lookup, folder), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=INIT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnitError(
            "InitFailed",
            f"init did not end within {INIT_SECONDS} s: see why the registry is slow, or give --provider-mirror",
        ) from error
    if ended.returncode:
        where = f"the mirror {lookup.mirror}" if lookup.mirror else f"{lookup.engine.registry} or its mirrors"
        said = " ".join(re.sub(r"[╷│╵]", " ", ended.stderr or ended.stdout).split())[:1500]
        raise UnitError(
            "InitFailed", f"init with {lookup.engine.binary.name} and providers from {where} failed: {said}"
        )


def _environment(lookup: Lookup, folder: Path) -> dict[str, str]:
    """The caller's own, as `init` in a shell would have it, without what would change what it does."""
    kept = ("TF_CLI_CONFIG_FILE", "TF_TOKEN_")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TF_", "TOFU_")) or name.startswith(kept)
    }
    env |= {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
    if lookup.mirror:
        config = folder / "engine.tfrc"
        path = json.dumps(str(lookup.mirror.resolve()))
        config.write_text(f"provider_installation {{\n  filesystem_mirror {{\n    path = {path}\n  }}\n}}\n")
        env["TF_CLI_CONFIG_FILE"] = str(config)
    return env


def _read_lock(file: Path) -> Iterator[ProviderPin]:
    """What the engine locked; nothing where there are no providers but the builtin one."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    for address, body in _LOCKED.findall(text):
        version = _VERSION.search(body)
        assert version is not None  # noqa: S101 - the engine's own file
        host, _, short = address.partition("/")
        source = short if host in PUBLIC else address
        yield ProviderPin(source, version[1], {host: tuple(sorted(_HASH.findall(body)))})


# --- mirrors ------------------------------------------------------------------------------------------------------


def _with_mirror(pin: ProviderPin, mirror: Path) -> ProviderPin:
    """The pin with the hashes of every platform that the mirror has, under each name of the public registry."""
    (own,) = pin.hashes
    short = pin.source.removeprefix(f"{own}/")
    hashes = {own: set(pin.hashes[own])}
    for host in PUBLIC if own in PUBLIC else {own}:
        if found := set(_mirrored(mirror / host / short, pin.version)):
            hashes.setdefault(host, set()).update(found)
    return replace(pin, hashes={host: tuple(sorted(found)) for host, found in sorted(hashes.items())})


def _mirrored(package: Path, version: str) -> Iterator[str]:
    """The `h1:` of every platform of a version, unpacked or packed (the two layouts that engines understand)."""
    for folder in sorted((package / version).glob("*_*")):
        yield measure(folder).h1
    for packed in sorted(package.glob(f"terraform-provider-{package.name}_{version}_*.zip")):
        yield archive_hash(packed)

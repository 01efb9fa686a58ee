"""Everything that a module of the catalog reaches: the modules that it calls, and the providers that all of them use.

What is called must lie in the pinned tree, and what is used must stand in the lock; both are seen here, without an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from reconciler.durable import write_atomic
from reconciler.errors import UnitError
from reconciler.model import Digest
from reconciler.runner.terraform.files import module_files
from reconciler.vetting.blocks import Called, Required, Seen, look_at, normal
from reconciler.vetting.functions import BUILTIN, Used

CACHE_FORMAT = "closure 2"
BUILTIN_SOURCES = "terraform.io/builtin/"


def cached_needs(cache_folder: Path, digest: Digest, path: str, tree: Path, product: str) -> frozenset[str]:
    """`needs(tree, path, product)`, remembered by the digest of the tree and the module's path in it. Raises as that does."""
    key = f"{CACHE_FORMAT}\0{digest}\0{product}\0{path}"
    sidecar = cache_folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return frozenset(map(str, json.loads(sidecar.read_bytes())["providers"]))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: it is only a cache
        found = needs(tree, path, product)
    cache_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(sidecar, json.dumps({"providers": sorted(found)}).encode())
    return found


def needs(tree: Path, path: str, product: str) -> frozenset[str]:
    """The sources of all providers that the module and those that it calls name or use, as the lock writes them.

    `product` is the engine (`Engine.product`): where both are there, one reads x.tofu and the other x.tf.

    Raises:
        UnitError: "CatalogModuleRemote": a module outside of the tree is called. "ModuleInvalid".
    """
    root, waiting, met = tree.resolve(), [(tree / path).resolve()], set[Path]()
    found: set[str] = set()
    while waiting:
        folder = waiting.pop()
        if folder not in met:
            met.add(folder)
            seen = [*_seen(root, folder, product)]
            found |= _sources([one for _, one in seen])
            waiting += [_called(root, folder, place, one) for place, one in seen if isinstance(one, Called)]
    return frozenset(found)


def _seen(root: Path, folder: Path, product: str) -> Iterator[tuple[str, Seen]]:
    """(file, what is said in it). Raises UnitError."""
    home = folder.relative_to(root).as_posix()
    for place, file in module_files(folder, product, "" if home == "." else f"{home}/"):
        for seen in look_at(file):
            if isinstance(seen, tuple) and seen[0] == "module-source":
                raise UnitError("CatalogModuleRemote", f"{place} calls a module from elsewhere: {seen[2]}")
            yield place, seen
        yield from ((place, Used(block.labels[0], block.at)) for block in file.blocks if block.kind == "provider")


def _called(root: Path, folder: Path, place: str, called: Called) -> Path:
    """The folder that is called. Raises UnitError."""
    target = (folder / called.source).resolve()
    if not target.is_relative_to(root) or not target.is_dir():
        raise UnitError(
            "CatalogModuleRemote",
            f"{place} calls the module {called.source!r}, which is not a folder of this repository: the lock pins this "
            "repository's tree and nothing else. Copy the module in and call it by ./ or ../",
        )
    return target


def _sources(seen: list[Seen]) -> set[str]:
    """The sources that one module names, and those that its blocks imply."""
    named = {one.name: one.source for one in seen if isinstance(one, Required)}
    used = {one.name for one in seen if isinstance(one, Used) and one.name != BUILTIN}
    implied = {name: named.get(name) or normal(name) or name for name in used}
    return {source for source in (implied | named).values() if not source.startswith(BUILTIN_SOURCES)}

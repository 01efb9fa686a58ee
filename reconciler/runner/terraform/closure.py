"""Everything that a module of the catalog reaches: the modules that it calls, and the providers that all of them use.

What is called must lie in the pinned tree, and what is used must stand in the lock; both are seen here, without an engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reconciler.durable import write_atomic
from reconciler.errors import UnitError
from reconciler.model import Digest
from reconciler.runner.terraform.module import plain_source

CACHE_FORMAT = "closure 1"
MODULE_FILES = ("*.tf", "*.tf.json", "*.tofu", "*.tofu.json")
BUILTIN = "terraform"  # the provider that is part of every engine
_TYPED = ("resource", "data", "ephemeral")


def cached_needs(cache_folder: Path, digest: Digest, path: str, tree: Path) -> frozenset[str]:
    """`needs(tree, path)`, remembered by the digest of the tree and the module's path in it. Raises as that does."""
    key = f"{CACHE_FORMAT}\0{digest}\0{path}"
    sidecar = cache_folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return frozenset(map(str, json.loads(sidecar.read_bytes())["providers"]))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: it is only a cache
        found = needs(tree, path)
    cache_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(sidecar, json.dumps({"providers": sorted(found)}).encode())
    return found


def needs(tree: Path, path: str) -> frozenset[str]:
    """The sources of all providers that the module and those that it calls name or use, as the lock writes them.

    Raises:
        UnitError: "CatalogModuleRemote": a module outside of the tree is called. "ModuleInvalid".
    """
    return frozenset(source for folder in reached(tree, tree / path) for source in _providers(tree.resolve(), folder))


def check_calls(tree: Path, module: Path) -> None:
    """Refuse modules that call others which are not in the tree. Raises as `needs` does."""
    for _ in reached(tree, module):
        pass


def reached(tree: Path, module: Path) -> Iterator[Path]:
    """The folders of a module and of all that it calls, each once. Raises as `needs` does."""
    root, waiting, seen = tree.resolve(), [module.resolve()], set[Path]()
    while waiting:
        folder = waiting.pop()
        if folder in seen:
            continue
        seen.add(folder)
        yield folder
        for place, source in _calls(root, folder):
            target = (folder / source).resolve()
            inside = source.startswith(("./", "../")) and target.is_relative_to(root)
            if not inside or not target.is_dir():
                raise UnitError(
                    "CatalogModuleRemote",
                    f"{place} calls the module {source!r}, which is not a folder of this repository: the lock pins this "
                    "repository's tree and nothing else. Copy the module in and call it by ./ or ../",
                )
            waiting.append(target)


def _calls(root: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """(file, source) of every module block in a folder."""
    for place, document in _documents(root, folder):
        for call in _listed(document.get("module")):
            for body in (body for bodies in call.values() for body in _listed(bodies)):
                yield place, str(body.get("source", "")).strip('"')


def _providers(root: Path, folder: Path) -> Iterator[str]:
    """The sources that one module names, and those that its blocks imply."""
    documents = [document for _, document in _documents(root, folder)]
    named = {name: source for document in documents for name, source in _required(document)}
    used = {name for document in documents for name in _used(document)}
    local = {name: named.get(name, f"hashicorp/{name}") for name in used} | named
    yield from (source for source in local.values() if not source.startswith("terraform.io/builtin/"))


def _required(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for settings in _listed(document.get("terraform")):
        for required in _listed(settings.get("required_providers")):
            for name, requirement in required.items():
                wanted = requirement if isinstance(requirement, Mapping) else {}  # the old form is a version alone
                yield name, plain_source(str(wanted.get("source") or f"hashicorp/{name}").strip('"'))


def _used(document: Mapping[str, Any]) -> Iterator[str]:
    """Local names: of a `provider` in a block, else the first word of its type."""
    for block in (block for kind in _TYPED for block in _listed(document.get(kind))):
        for kind, named in block.items():
            for body in (body for one in _listed(named) for bodies in one.values() for body in _listed(bodies)):
                chosen = str(body.get("provider") or kind.partition("_")[0]).strip('${}" ')
                if (name := chosen.partition(".")[0]) != BUILTIN:
                    yield name
    for block in _listed(document.get("provider")):
        yield from (name for name in block if name != BUILTIN)


def _documents(root: Path, folder: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for file in sorted(found for form in MODULE_FILES for found in folder.glob(form)):
        place = file.relative_to(root).as_posix()
        yield place, _parsed(file, place)


def _parsed(file: Path, place: str) -> Mapping[str, Any]:
    import hcl2  # a second of grammar, and only here

    options = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.name.endswith(".json") else hcl2.loads(text, serialization_options=options)
    except Exception as error:
        what = str(error).partition("\n")[0]
        raise UnitError("ModuleInvalid", f"{place} is not valid: {what}. Mend it and release a new version") from error
    return found if isinstance(found, Mapping) else {}


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, Mapping)]

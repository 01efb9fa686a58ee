"""What `init` leaves in a root, as data: taken up after a real one, and laid out in another folder instead of the next.

Three things are there (measured: Terraform 1.11.4, 1.15.5): where the modules are, a link for each provider, and the backend as it was
configured. The links are not kept, they are made from the packages that the job itself has proven. Whatever an `init` left
otherwise is not taken up, and whoever would have used it runs `init`.

The backend's configuration is the root's own, or the folder is not laid out. And the engine is made to compare the two itself: it does so
where the digest of the block beside them is not the block's (measured), so that is written as 0.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reconciler.durable import open_plain
from reconciler.model import Json, Pin
from reconciler.runner.terraform.packages import unpacked, wanted

DATA = ".terraform"
MODULES, PROVIDERS, BACKEND = Path("modules", "modules.json"), Path("providers"), Path("terraform.tfstate")
LONGEST = 1 << 20  # bytes of a file that `init` leaves; a longer one is not taken up
ANY = "?"  # stands for what differs between the units of one shape
OWN = {"local": "path", "s3": "key"}  # the setting of each backend that is the unit's alone

Block = Mapping[str, Mapping[str, Json]]


class ForeignError(Exception):
    """What was kept is not for this root."""


@dataclass(frozen=True, slots=True)
class Initialized:
    """What an `init` left. `modules` and `backend` are the two documents, the latter without what is the unit's alone."""

    modules: Json
    backend: Json


def shape_of(block: Block) -> Json:
    """The backend block as all units of an environment have it. Raises KeyError: a backend that nobody knows here."""
    ((kind, settings),) = block.items()
    return {kind: {**settings, OWN[kind]: ANY}}


def links_of(pin: Pin, registry: str, mirror: Path) -> dict[Path, Path]:
    """Where `init` puts a link for each provider, below its folder; and what that leads to."""
    found = [wanted(one, registry) for one in pin.providers]
    return {unpacked(PROVIDERS, one): unpacked(mirror, one) for one in found}


def take_up(work: Path, block: Block, links: Mapping[Path, Path], tree: Path) -> Initialized | None:
    """What `init` has just left in `work`; None: something else than is known here, so it serves no other folder.

    The engine wrote there as another user, in a jail: nothing is believed that is not what it must be.
    """
    data = work / DATA
    try:
        if data.is_symlink() or {path.relative_to(data) for path in _found(data)} != {MODULES, BACKEND, *links}:
            return None
        if any((data / link).readlink() != target for link, target in links.items()):
            return None
        modules = _modules(data / MODULES, tree)
        document = _read(data / BACKEND)
        _check_backend(document, block)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Initialized(modules, _with_own(document, shape_of(block)))


def lay_out(left: Initialized, work: Path, block: Block, links: Mapping[Path, Path]) -> None:
    """Make `work` a folder in which `init` was run: with this backend block, and with links to these packages.

    Raises:
        ForeignError: the backend would be another one than the root says; nothing was written. OSError.
    """
    data = work / DATA
    try:
        document = _with_own(left.backend, block)
        _check_backend(document, block)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ForeignError(str(error)) from error
    clear(work)
    for file, text in ((MODULES, left.modules), (BACKEND, document)):
        place = data / file
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as written:
            json.dump(text, written)
    for link, target in links.items():
        (data / link).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (data / link).symlink_to(target, target_is_directory=True)


def clear(work: Path) -> None:
    """Remove what an `init` left."""
    if (work / DATA).is_symlink() or (work / DATA).exists():
        shutil.rmtree(work / DATA)


def _found(folder: Path) -> Iterator[Path]:
    """Every file and link below the folder, which is a folder itself; a link is not followed."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _found(Path(entry.path))
            else:
                yield Path(entry.path)


def _read(path: Path) -> Any:
    """Raises OSError, ValueError."""
    with open_plain(path) as file:
        raw = file.read(LONGEST + 1)
    if len(raw) > LONGEST:
        raise ValueError(f"{path.name} is longer than {LONGEST} bytes")
    return json.loads(raw)


def _modules(path: Path, tree: Path) -> Json:
    """Each module that is called, with its folder in the pinned tree, and nothing besides.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: something else.
    """
    document, roots = _read(path), (tree, tree.resolve())
    if document.keys() != {"Modules"}:
        raise ValueError("another format")
    for one in document["Modules"]:
        if one.keys() != {"Key", "Source", "Dir"} or not all(isinstance(word, str) for word in one.values()):
            raise ValueError("a module of another kind")
        place = Path(os.path.normpath(one["Dir"]))
        if one["Key"] and not any(root.is_absolute() and place.is_relative_to(root) for root in roots):
            raise ValueError(f"a module outside of the tree: {place}")
        if not one["Key"] and one["Dir"] != ".":
            raise ValueError("another root")
    return cast("Json", document)


def _with_own(document: Any, block: Block | Json) -> Json:
    """The document of a backend with this unit's own setting, and without the digest that would spare the engine a look."""
    ((kind, settings),) = cast("Block", block).items()
    backend = document["backend"]
    config = {**backend["config"], OWN[kind]: settings[OWN[kind]]}
    return {**document, "backend": {**backend, "config": config, "hash": 0}}


def _check_backend(document: Any, block: Block) -> None:
    """What the engine will read of its backend is what the root says of it.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is not.
    """
    ((kind, settings),) = block.items()
    known = {"version", "serial", "lineage", "terraform_version", "backend"}
    backend = document["backend"]
    if not document.keys() <= known or document["version"] != 3 or backend.keys() != {"type", "config", "hash"}:
        raise ValueError("it is of another format")
    if backend["type"] != kind or kind not in OWN:
        raise ValueError(f"it is a backend {backend['type']!r}, and the root has {kind!r}")
    for name in {*settings, *backend["config"]}:
        if not _same(backend["config"].get(name), settings.get(name)):
            raise ValueError(f"{name} is not what the root says")


def _same(kept: Any, said: Json) -> bool:
    """Whether a setting is what the root says; what it does not say is nothing."""
    if said is None:
        return kept is None or kept in ([], {}) or (isinstance(kept, Mapping) and not any(map(_given, kept.values())))
    if isinstance(said, Mapping) and isinstance(kept, Mapping):
        return all(_same(kept.get(name), said.get(name)) for name in {*said, *kept})
    if isinstance(said, Sequence) and not isinstance(said, str):
        return isinstance(kept, list) and kept == list(said)
    return type(kept) is type(said) and bool(kept == said)


def _given(value: object) -> bool:
    return not _same(value, None)

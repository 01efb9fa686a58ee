"""Where the worked example's files are, in a checkout and in an installed wheel, and what they make."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from reconciler.demo.forge import Files, Forge
from reconciler.git.catalog import digest_of, is_module_file
from reconciler.git.tree import FILE
from reconciler.lockfile import with_pin
from reconciler.model import Commit, Pin, ProviderPin
from reconciler.runner.terraform.lockproviders import PUBLIC
from reconciler.runner.terraform.packages import package_hash

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
CATALOG = HERE / "catalog"
PROVIDER = "reconciler/files"
PROVIDER_VERSION = "1.0.0"
LAUNCHER = f"terraform-provider-files_v{PROVIDER_VERSION}"
LOCK = "catalog-lock.yaml"

# Fixed, so that the releases have the same commit ids everywhere, and the committed lock is true for all.
RELEASER = "Service Catalog <catalog@example.com>"
FIRST_RELEASE = 1_767_225_600  # 2026-01-01; each release is a day after the one before

Releases = Mapping[str, Files]  # tag -> what its commit changes, oldest first


def _found(packaged: str, checkout: str) -> Path:
    """A wheel carries these files along; a checkout has them at its top."""
    inside = HERE / "example" / packaged
    return inside if inside.exists() else CHECKOUT / checkout


def releases() -> dict[str, dict[str, bytes]]:
    """The worked example's catalog."""
    return {folder.name: _tree(folder) for folder in sorted(CATALOG.glob("v*"))}


def entries() -> dict[str, bytes]:
    """The worked example's environments repository: `environments/` and the lock."""
    tree = _tree(_found("environments", "environments"))
    lock = _found(LOCK, LOCK).read_bytes()
    return {LOCK: lock, **{f"environments/{path}": content for path, content in tree.items()}}


def _tree(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def release(forge: Forge, catalog: Releases) -> None:
    """Commit and tag each release."""
    for number, (tag, files) in enumerate(catalog.items()):
        when = FIRST_RELEASE + 86_400 * number
        forge.commit(files, f"Release {tag}", author=RELEASER, when=when)
        forge.tag(tag)


def lock_of(forge: Forge, catalog: Releases, name: str) -> str:
    """A lock with every module of every release, made without an engine: all that modules here may use is the provider
    of files, and which of them do stands in their text.
    """
    text, tree = "", dict[str, bytes]()
    for tag, files in catalog.items():
        tree |= {
            path: content.encode() if isinstance(content, str) else content or b"" for path, content in files.items()
        }
        tree = {path: content for path, content in tree.items() if files.get(path, b"") is not None}
        for pin in _pins(tree, forge.at(f"refs/tags/{tag}"), tag, name):
            text = with_pin(LOCK, text, pin)
    return text


def _pins(tree: Mapping[str, bytes], commit: Commit, tag: str, name: str) -> Iterator[Pin]:
    digest = digest_of({path: (FILE, content) for path, content in tree.items()})
    uses_files = {path.rpartition("/")[0] for path, content in tree.items() if f'"{PROVIDER}"'.encode() in content}
    for module in sorted({m[1] for path in tree if (m := re.match(r"modules/([^/]+)/[^/]+$", path))}):
        folder = f"modules/{module}"
        if any(is_module_file(path, folder) for path in tree):
            needs = any(f"{used}/".startswith(f"{folder}/") for used in uses_files)
            providers = (provider_pin(),) if needs else ()
            yield Pin(f"{name}/{module}", tag.removeprefix("v"), folder, tag, commit, digest, providers)


def provider_pin() -> ProviderPin:
    """The provider of files as a lock pins it: the same bytes for every platform, under both registries' names."""
    found = (package_hash(_package()),)
    return ProviderPin(PROVIDER, PROVIDER_VERSION, dict.fromkeys(sorted(PUBLIC), found))


def build_mirror(folder: Path) -> None:
    """A filesystem mirror that holds the provider of files for this machine."""
    for host in PUBLIC:
        target = folder / host / PROVIDER / PROVIDER_VERSION / this_platform()
        shutil.copytree(_package(), target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        (target / LAUNCHER).chmod(0o755)  # a wheel does not keep it


def this_platform() -> str:
    """Go's name of this machine, as in `linux_amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}_{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def _package() -> Path:
    return _found("provider", "tests/provider/package")

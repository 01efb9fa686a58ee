"""Packages of providers: where one lies in a mirror, what it hashes to, and whether it is still what it was."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import stat
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from reconciler.model import ProviderPin
from reconciler.runner.terraform.sealed import Look, look_of, seal

OTHERS_WRITE = 0o022
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}  # Python's name -> Go's


@dataclass(frozen=True, slots=True)
class Wanted:
    """One version of a provider from one registry, and the hashes of which its package must have one."""

    host: str
    source: str  # namespace/type
    version: str
    hashes: frozenset[str]

    def __str__(self) -> str:
        return f"{self.host}/{self.source} {self.version}"


@dataclass(frozen=True, slots=True)
class Package:
    """What a package was when all of it was read. `zh`: of the archive, where it is one.

    `against` are the `zh:` hashes against which the engine checked the archive that it was unpacked from.
    """

    h1: str
    zh: str | None
    looks: Mapping[str, Look]
    against: frozenset[str] = frozenset()

    def fits(self, hashes: frozenset[str]) -> bool:
        """Whether it is what these hashes mean."""
        by_archive = bool(self.against) and self.against <= hashes
        return self.h1 in hashes or self.zh in hashes or by_archive


def address(source: str, registry: str) -> tuple[str, str]:
    """Host and `namespace/type` of a source as the lock writes it."""
    host, _, rest = source.partition("/")
    return (host, rest) if rest.count("/") == 1 else (registry, source)


def wanted(provider: ProviderPin, registry: str) -> Wanted:
    """What the pin means for an engine with this registry."""
    host, source = address(provider.source, registry)
    return Wanted(host, source, provider.version, frozenset(provider.hashes.get(host, ())))


def this_platform() -> str:
    """Go's name of this machine, as in `linux_amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}_{_MACHINES.get(machine, machine)}"


def unpacked(mirror: Path, one: Wanted) -> Path:
    """The folder of the package for this machine, in the layout that engines understand."""
    return mirror / one.host / one.source / one.version / this_platform()


def program_in(package: Path, one: Wanted) -> Path | None:
    """The program of an unpacked package, as engines find it; None where there is not exactly one."""
    name = f"terraform-provider-{one.source.rpartition('/')[2]}"
    found = [path for path in package.glob(f"{name}*") if path.is_file() and os.access(path, os.X_OK)]
    return found[0] if len(found) == 1 else None


def found_in(mirror: Path, one: Wanted) -> list[Path]:
    """The packages for this machine that an engine may take: a folder, an archive, or both."""
    kind = one.source.rpartition("/")[2]
    packed = mirror / one.host / one.source / f"terraform-provider-{kind}_{one.version}_{this_platform()}.zip"
    folder = unpacked(mirror, one)
    return [path for path in (folder, packed) if path.is_dir() or path.is_file()]


def measure(package: Path) -> Package:
    """Read all of it. Raises OSError, zipfile.BadZipFile."""
    if package.is_dir():
        sealed = {name: seal(path) for name, path in _files(package)}
        digests = {name: one.sha256 for name, one in sealed.items()}
        return Package(dirhash(digests), None, {name: one.look for name, one in sealed.items()})
    archive = seal(package)
    return Package(archive_hash(package), f"zh:{archive.sha256}", {package.name: archive.look})


def package_hash(folder: Path) -> str:
    """The `h1:` of what is about to become a package: without what Python leaves behind where it runs from."""
    return dirhash({name: seal(path).sha256 for name, path in _files(folder) if "__pycache__" not in path.parts})


def looks(package: Path) -> dict[str, Look]:
    """How its files look now. Raises OSError."""
    if package.is_dir():
        return {name: look_of(path.stat()) for name, path in _files(package)}
    return {package.name: look_of(package.stat())}


def only_ours(package: Path) -> bool:
    """Whether nobody but root and this process's user can change an unpacked package, or put another one in its place."""
    try:
        place = package.resolve(strict=True)
        within = [path.lstat() for path in (place, *place.rglob("*"))]
        above = [path.lstat() for path in place.parents]
    except OSError:
        return False
    shared = [one for one in above if one.st_mode & OTHERS_WRITE and not one.st_mode & stat.S_ISVTX]
    theirs = {one.st_uid for one in (*within, *above)} - {0, os.geteuid()}
    return not theirs and not shared and not any(one.st_mode & OTHERS_WRITE for one in within)


def archive_hash(package: Path) -> str:
    """The `h1:` of a packed provider: of what is in it."""
    with zipfile.ZipFile(package) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        return dirhash({name: _sha256(archive.open(name)) for name in names})


def dirhash(digests: Mapping[str, str]) -> str:
    """Go's dirhash.Hash1, which engines use for packages, of each file's SHA-256 (hex) by its name."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return "h1:" + base64.b64encode(hashlib.sha256(lines.encode()).digest()).decode()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file, as the engine hashes them: whatever there is."""
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            yield path.relative_to(folder).as_posix(), path


def _sha256(file: IO[bytes]) -> str:
    """Of what is read in pieces: a provider may be larger than the memory that is free."""
    found = hashlib.sha256()
    with file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()

"""A backup in one file: a tar of plain files, and a manifest as its last member that says what each of them is.

The manifest comes last, so that an archive that ends too early has none. What is read is taken for hostile until every name is
on the closed list of its plane, and every byte has the digest that the manifest says; a digest tells of damage, and not
of forgery: who can write the archive can write the manifest.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import tarfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

from reconciler import codec
from reconciler.durable import sync_folder
from reconciler.errors import ConfigError, PassError

FORMAT = 1
MANIFEST = "manifest.json"
MOST_FILES = 1_000_000
LARGEST_MANIFEST = 256 << 20  # bytes
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """A file of the backup: its bytes, or where they are and how many of them count."""

    name: str
    data: bytes | None = None
    path: Path | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """What the manifest says of one file. `sha256` is in hex."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`tool` is the version of the program that made it, `planes` what each plane says of itself."""

    format: int
    made_at: datetime
    tool: str
    planes: Mapping[str, Mapping[str, str]]
    files: Mapping[str, Entry]


def write(
    path: Path, pieces: Iterable[Piece], planes: Mapping[str, Mapping[str, str]], made_at: datetime, tool: str
) -> str:
    """Make the archive, its owner's alone; it is there whole and on disk, or not at all. Answers with its SHA-256 in hex.

    Raises:
        ConfigError: there is such a file, or no such folder.
    """
    check_new(path)
    half = path.with_name(f".{path.name}.{os.getpid()}.half")
    try:
        handle = os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w+b") as file:
            _fill(file, pieces, planes, made_at, tool)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.link(half, path)  # of two who make the same one, one succeeds
    except FileExistsError as error:
        raise _there(path) from error
    finally:
        half.unlink(missing_ok=True)
    sync_folder(path.parent)
    return digest


def check_new(path: Path) -> None:
    """Raises ConfigError: there is such a file already, or no folder for it."""
    if os.path.lexists(path):
        raise _there(path)
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder: make it, with rights for those alone who may read the backup")


def _there(path: Path) -> ConfigError:
    return ConfigError(f"{path} is there already, and no backup is overwritten: give another name")


def _fill(
    file: BinaryIO, pieces: Iterable[Piece], planes: Mapping[str, Mapping[str, str]], made_at: datetime, tool: str
) -> None:
    files: dict[str, Entry] = {}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for piece in pieces:
            with _opened(piece) as source:
                reader = _Digesting(source, piece.size if piece.data is None else len(piece.data))
                try:
                    tar.addfile(_member(piece.name, reader.left), cast("BinaryIO", reader))
                except OSError as error:
                    if not reader.ended:
                        raise
                    raise PassError("BackupTorn", f"{piece.path} is shorter than it was: try again") from error
            files[piece.name] = Entry(reader.size, reader.digest.hexdigest())
        data = codec.encode(Manifest(FORMAT, made_at, tool, planes, files))
        tar.addfile(_member(MANIFEST, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = size, 0o600, int(time.time())
    return member


@contextmanager
def _opened(piece: Piece) -> Iterator[BinaryIO]:
    if piece.data is not None:
        yield io.BytesIO(piece.data)
        return
    assert piece.path is not None  # noqa: S101 - a piece has one of them
    with piece.path.open("rb") as source:
        yield source


class _Digesting:
    """The first `left` bytes of a file, and their digest once they were read. `ended`: it had fewer."""

    def __init__(self, source: BinaryIO, left: int) -> None:
        self._source, self.left, self.size, self.digest, self.ended = source, left, 0, hashlib.sha256(), False

    def read(self, size: int) -> bytes:
        """As of a file."""
        wanted = min(size, self.left)
        data = self._source.read(wanted)
        self.ended = len(data) < wanted
        self.left, self.size = self.left - len(data), self.size + len(data)
        self.digest.update(data)
        return data


@dataclass(frozen=True, slots=True)
class Archive:
    """A backup that was looked through: it holds what its manifest says, and no name that is not on the list."""

    path: Path
    sha256: str
    manifest: Manifest

    def unpack(self, plane: str, folder: Path) -> None:
        """Write a plane's files below the folder, each with its digest proven once more, and on disk.

        Raises:
            PassError: "BackupInvalid": the file has changed since it was looked through.
        """
        for name, source in _members(self.path):
            if not name.startswith(f"{plane}/"):
                continue
            target = folder / name.removeprefix(f"{plane}/")
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                found = _digest(_chunks(self.path, source), file)
                file.flush()
                os.fsync(file.fileno())
            if found != self.manifest.files.get(name):
                raise invalid(self.path, f"{name} is not what it was a moment ago")

    def size(self, plane: str) -> int:
        """How many bytes the plane's files have."""
        return sum(entry.size for name, entry in self.manifest.files.items() if name.startswith(f"{plane}/"))


def examine(path: Path, allowed: Mapping[str, re.Pattern[str]]) -> Archive:
    """Look through the whole archive. `allowed`: by plane, the names that its files may have.

    Raises:
        PassError: "BackupInvalid", which names what does not fit; "BackupTooNew".
    """
    found: dict[str, Entry] = {}
    raw: bytes | None = None
    for name, source in _members(path):
        if raw is not None:
            raise invalid(path, f"{name[:200]!r} follows its manifest")
        if name == MANIFEST:
            raw = b"".join(_chunks(path, source, LARGEST_MANIFEST))
            continue
        _check_name(path, name, allowed)
        if name in found:
            raise invalid(path, f"it has {name} twice")
        if len(found) >= MOST_FILES:
            raise invalid(path, f"it has more than {MOST_FILES} files")
        found[name] = _digest(_chunks(path, source))
    if raw is None:
        raise invalid(path, "it has no manifest: it was cut short, or is no backup")
    manifest = _checked(path, raw, found)
    with path.open("rb") as file:
        return Archive(path, hashlib.file_digest(file, "sha256").hexdigest(), manifest)


def _check_name(path: Path, name: str, allowed: Mapping[str, re.Pattern[str]]) -> None:
    plane, _, rest = name.partition("/")
    if plane not in allowed or not allowed[plane].fullmatch(rest) or {"", ".", ".."} & set(rest.split("/")):
        raise invalid(path, f"{name[:200]!r} is no name that a backup has")


def _checked(path: Path, raw: bytes, found: Mapping[str, Entry]) -> Manifest:
    """The manifest, once it says of each file what was found, and of no other one."""
    try:
        manifest = codec.decode(Manifest, raw)
    except ValueError as error:
        raise invalid(path, f"its manifest cannot be read ({error})") from error
    if manifest.format > FORMAT:
        what = f"format {manifest.format}, made by version {manifest.tool}; this one knows {FORMAT}"
        raise PassError("BackupTooNew", f"{path}: made by a newer reconciler ({what}): install that version")
    for name in sorted(found.keys() | manifest.files.keys()):
        if name not in found:
            raise invalid(path, f"{name} is missing")
        if name not in manifest.files:
            raise invalid(path, f"its manifest does not know {name}")
        if found[name] != manifest.files[name]:
            raise invalid(path, f"{name} was damaged: its digest is not the manifest's")
    return manifest


def _members(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Every member, which must be a plain file, with its bytes. Raises PassError "BackupInvalid", ConfigError."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while (member := tar.next()) is not None:
                cast("Any", tar).members.clear()  # it would keep every one
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise invalid(path, f"{member.name[:200]!r} is no plain file")
                yield member.name, cast("BinaryIO", tar.extractfile(member))
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise ConfigError(f"{path}: {error.strerror}: name a backup that this user may read") from error
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise invalid(path, f"it cannot be read: {error}") from error


def _chunks(path: Path, source: BinaryIO, most: int = sys.maxsize) -> Iterator[bytes]:
    """The bytes of a member. Raises PassError "BackupInvalid": there are fewer, or more than `most`."""
    try:
        while data := source.read(_CHUNK):
            most -= len(data)
            if most < 0:
                raise invalid(path, "its manifest is too large")
            yield data
    except (tarfile.TarError, EOFError) as error:
        raise invalid(path, f"it cannot be read: {error}") from error


def _digest(chunks: Iterable[bytes], into: BinaryIO | None = None) -> Entry:
    size, digest = 0, hashlib.sha256()
    for data in chunks:
        size += len(data)
        digest.update(data)
        if into is not None:
            into.write(data)
    return Entry(size, digest.hexdigest())


def invalid(path: Path, what: str) -> PassError:
    """It is no backup, or not the one that was made."""
    return PassError("BackupInvalid", f"{path}: {what}. Nothing of it was used: take another backup.")

"""Files whose bytes were hashed once, and are hashed again only when the file system says that they may be others."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

# Device, inode, size, and the times of the last write and of the last change of anything: nobody sets the last one at will.
Look = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A file, the SHA-256 (hex) of its bytes, and how it looked when they were read."""

    path: Path
    sha256: str
    look: Look


def seal(path: Path) -> Sealed:
    """Hash the file. What changes while it is read does not match its look afterwards. Raises OSError."""
    with path.open("rb") as file:
        look = look_of(os.fstat(file.fileno()))
        return Sealed(path, hashlib.file_digest(file, "sha256").hexdigest(), look)


def intact(sealed: Sealed) -> bool:
    """Whether the path still holds these bytes. A file that looks the same is not read. Raises OSError."""
    return look_of(sealed.path.stat()) == sealed.look or seal(sealed.path).sha256 == sealed.sha256


def look_of(status: os.stat_result) -> Look:
    """What the file system says of a file."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

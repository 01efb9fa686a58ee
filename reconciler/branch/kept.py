"""What was parsed of the branch's entries, in a file from which the next start takes it (docs/decisions/0041-parsed-entries-are-kept.md)."""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import threading
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

from reconciler.desired.kept import read_kept, write_kept
from reconciler.durable import open_plain, write_atomic
from reconciler.model import Entry

_FEW = 64  # files that are parsed in no time, and are not worth to look into ours
_SHARE = 5  # as a power of two: of all entries, the part that has to be new before they are written again
_LARGEST = 512 << 20  # bytes: the largest tree, each of its bytes escaped
_PACKAGES = ("pydantic", "pydantic-core", "PyYAML", "orjson")


class KeptEntries:
    """The entries of the last commit that was worth it. Safe to use from any thread; a file that cannot be used is as good as none."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._guard = threading.Lock()
        self._held = 0  # entries that are in the file, as far as we know
        self._new = 0  # that were parsed since

    def find(self, wanted: Mapping[str, str]) -> Mapping[str, Entry]:
        """Those of the files, path -> id of content, that are known. Few are not looked for."""
        if len(wanted) < _FEW or (code := _code()) is None:
            with self._guard:
                self._new += len(wanted)
            return {}
        found: Mapping[str, Entry] = {}
        with suppress(OSError, ValueError, TypeError):
            found = read_kept(code, _read(self._file), wanted)
        with self._guard:
            self._held = max(self._held, len(found))
            self._new += len(wanted) - len(found)
        return found

    def beside(self) -> KeptEntries:
        """The same file, for another thread's reader, which parses by itself."""
        return KeptEntries(self._file)

    def due(self) -> bool:
        """Whether so much was parsed that it is worth to be written."""
        return self._new >= max(_FEW, self._held >> _SHARE)

    def keep(self, entries: Collection[Entry], blobs: Mapping[str, str]) -> None:
        """Write them, in the place of what is there. A disk that does not take it costs time at the next start, and nothing else."""
        code = _code()
        with self._guard:
            self._held, self._new = len(entries), 0
        if code is None:
            return
        data = write_kept(code, entries, blobs)
        if len(data) <= _LARGEST:
            with suppress(OSError):
                write_atomic(self._file, data, durable=False)


def _read(file: Path) -> bytes:
    """What the file holds.

    Raises:
        OSError: there is none, or none that only we can have written.
    """
    with open_plain(file) as opened:
        found = os.fstat(opened.fileno())
        if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022 or found.st_size > _LARGEST:
            raise PermissionError(f"{file}: somebody else may have written it")
        return opened.read()


@cache
def _code() -> str | None:
    """A digest of all that decides what a file means once it is parsed: our own sources, and whose work they use. None: they are not to be had."""
    package = Path(__file__).parents[1]
    sources = [*sorted((package / "desired").glob("*.py")), package / "model.py", package / "errors.py", Path(__file__)]
    digest = hashlib.sha256(platform.python_version().encode())
    try:
        for name in _PACKAGES:
            digest.update(f" {name} {version(name)}".encode())
        for source in sources:
            digest.update(b" %s " % source.name.encode() + hashlib.sha256(source.read_bytes()).digest())
    except (OSError, ImportError):
        return None
    return digest.hexdigest()

"""Folders in which `init` was run, kept to be laid out again: a small file each, which only the runner reads and writes.

A file is written aside and renamed, and names by a seal what it is for and what it holds. One that is damaged, or lies under
another's name, is as good as none: the next job of its shape runs `init`, and keeps what that leaves.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from reconciler.durable import sweep, write_atomic
from reconciler.model import Json
from reconciler.runner.terraform.initialized import Initialized

FORMAT = "initialized 1"
MOST = 2000  # files; a few KB each
UNUSED = 30 * 86400.0  # seconds after which one that nobody has used goes
NOTED = 86400.0  # seconds between two notes that one is in use
NAME = re.compile(r"[0-9a-f]{16,64}\.json")


class Templates:
    """One folder of them. Any number of processes share it. `seal` names a JSON value so that nobody else can."""

    def __init__(self, folder: Path, seal: Callable[[Json], str]) -> None:
        self._folder, self._seal = folder, seal

    def name(self, *shape: Json) -> str:
        """What a folder of this shape is kept under: all that an `init` in it depends on."""
        return self._seal([FORMAT, *shape])

    def find(self, name: str) -> Initialized | None:
        """What is kept under the name; None: nothing, or nothing that we wrote."""
        path = self._path(name)
        try:
            with path.open("rb") as file:
                said, used = json.load(file), os.fstat(file.fileno()).st_mtime
            kept = said["kept"]
            if said["seal"] != self._seal([name, kept]):
                return None
            found = Initialized(kept["modules"], kept["backend"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if time.time() - used > NOTED:
            with suppress(OSError):  # it may be gone by now
                os.utime(path)
        return found

    def keep(self, name: str, left: Initialized) -> None:
        """Keep it, and let go of what nobody uses. A disk that is full keeps nothing, and stops nobody."""
        kept = asdict(left)
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            said = {"seal": self._seal([name, kept]), "kept": kept}
            write_atomic(self._path(name), json.dumps(said).encode(), durable=False)
            self._prune()

    def drop(self, name: str) -> None:
        """Forget it: the engine did not go on with it."""
        with suppress(OSError):
            self._path(name).unlink()

    def _prune(self) -> None:
        sweep(self._folder)
        found = []
        with os.scandir(self._folder) as there:
            for entry in there:
                if NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        found.append((entry.stat(follow_symlinks=False).st_mtime, entry.path))
        oldest, newest = time.time() - UNUSED, sorted(found, reverse=True)
        for place, (used, path) in enumerate(newest):
            if place >= MOST or used < oldest:
                Path(path).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

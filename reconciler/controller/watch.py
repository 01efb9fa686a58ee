"""Files of this host that matter at once: the configuration, and repositories that lie here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer as Notifier
from watchdog.observers.api import BaseObserver

# All but that somebody looked: git does that to a repository a hundred times at each poll. What becomes of a folder's files is said of them.
CHANGES: list[type[FileSystemEvent]] = [
    FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileDeletedEvent, FileClosedEvent,
    DirCreatedEvent, DirMovedEvent, DirDeletedEvent,
]  # fmt: skip
LOCK = ".lock"  # what git writes beside a branch before it puts it in place: one push is one change


class Watch:
    """Calls back, from a thread of its own, when one of the watched files changes."""

    def __init__(self) -> None:
        self._notifier: BaseObserver = Notifier()

    def repository(self, folder: Path, changed: Callable[[], None]) -> None:
        """A bare repository, or one with a work tree: its branches."""
        git = folder / ".git" if (folder / ".git").is_dir() else folder
        wanted = (str(git / "refs"), str(git / "packed-refs"))
        if git.is_dir():
            self._look_at(git, wanted, changed)
        if (git / "refs" / "heads").is_dir():
            self._look_at(git / "refs" / "heads", (str(git / "refs"),), changed, recursive=True)

    def files(self, paths: Iterable[Path], changed: Callable[[], None]) -> None:
        """Single files; one that is replaced by a rename counts, as editors and configuration managers do it."""
        for path in paths:
            if not path.parent.is_dir():
                continue  # whoever needs the file says so; there is nothing to watch
            self._look_at(path.parent, (str(path),), changed)

    def _look_at(
        self, folder: Path, wanted: Iterable[str], changed: Callable[[], None], *, recursive: bool = False
    ) -> None:
        self._notifier.schedule(_Calls(wanted, changed), str(folder), recursive=recursive, event_filter=CHANGES)

    def start(self) -> None:
        """Begin."""
        self._notifier.start()

    def stop(self) -> None:
        """End, and wait for the thread."""
        self._notifier.stop()
        self._notifier.join()


class _Calls(FileSystemEventHandler):
    """Passes on what touches one of the paths, or anything below it."""

    def __init__(self, paths: Iterable[str], changed: Callable[[], None]) -> None:
        self._paths, self._changed = tuple(paths), changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        """See watchdog."""
        touched = (os.fsdecode(path) for path in (event.src_path, event.dest_path) if path)
        touched = (path for path in touched if not path.endswith(LOCK))
        if any(path == p or path.startswith(p + os.sep) for path in touched for p in self._paths):
            self._changed()

"""What to do when SQLite refuses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from reconciler.errors import PassError

RESTORE = "Stop the daemon, put the file aside and restore the last backup."
_REMEDIES = {
    "SQLITE_FULL": ("StoreFull", "Free space on its disk; nothing was recorded, and work goes on by itself then."),
    "SQLITE_BUSY": ("StoreLocked", "Another program holds the file locked: end it; work goes on by itself then."),
    "SQLITE_LOCKED": ("StoreLocked", "Another program holds the file locked: end it; work goes on by itself then."),
    "SQLITE_CORRUPT": ("StoreCorrupt", RESTORE),
    "SQLITE_NOTADB": ("StoreCorrupt", RESTORE),
    "SQLITE_READONLY": ("StoreUnwritable", "The daemon's user must own the file and its folder."),
    "SQLITE_CANTOPEN": ("StoreUnwritable", "The daemon's user must own the file and its folder."),
    "SQLITE_PERM": ("StoreUnwritable", "The daemon's user must own the file and its folder."),
}


def remedy(path: Path, verb: str, error: sqlite3.Error) -> PassError:
    """What SQLite said, and what to do. `verb`: what could not be done."""
    name = getattr(error, "sqlite_errorname", "")
    primary = "_".join(name.split("_")[:2])  # SQLITE_READONLY_DBMOVED is a kind of SQLITE_READONLY
    reason, advice = _REMEDIES.get(primary, ("StoreFailed", "See the disk's health and the kernel's log."))
    return PassError(reason, f"{path}: cannot {verb}: {error}. {advice}")

"""A copy of a store as of one moment, also while a daemon writes it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from reconciler.durable import sync_folder


def copy_to(db: sqlite3.Connection, target: Path) -> None:
    """Replace `target` by a copy of what the connection sees: one file, its owner's alone, on disk when this returns."""
    half = target.with_name(f".{target.name}.half")
    half.unlink(missing_ok=True)
    try:
        os.close(os.open(half, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(half, isolation_level=None)) as copy:
            db.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # or a part of it would be in a second file
        with half.open("rb") as file:
            os.fsync(file.fileno())
        half.replace(target)
    finally:
        half.unlink(missing_ok=True)
    sync_folder(target.parent)

"""Stores and memories as earlier versions wrote them: made once by that version's own code, and never made anew."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

FORMATS = Path(__file__).parent / "formats"


def store_of(version: int, path: Path) -> None:
    """The controller's store of that version."""
    path.write_bytes(gzip.decompress(base64.b64decode((FORMATS / f"store-{version}.db.gz.b64").read_bytes())))


def memory_of(version: int, folder: Path) -> None:
    """The runner's memory of that version, every file of it."""
    for name, text in json.loads((FORMATS / f"memory-{version}.json").read_bytes()).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(base64.b64decode(text) if name == "key" else text.encode())

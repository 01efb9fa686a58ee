"""What an engine printed, as a file of a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Written:
    """A file that is read as it grows. Implements `transcript.Readable`."""

    path: Path
    at: int = 0

    def read(self, most: int) -> bytes:
        """See `Readable`."""
        with self.path.open("rb") as file:
            file.seek(self.at)
            chunk = file.read(most)
        self.at += len(chunk)
        return chunk

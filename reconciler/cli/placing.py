"""Where commands that write for a person put what they write."""

from __future__ import annotations

from pathlib import Path

from reconciler.errors import ConfigError


def make_folders(top: Path, folder: Path, mode: int = 0o777) -> None:
    """Make a folder below `top` (both absolute). Raises ConfigError where a link leads out of it: others would find the file elsewhere."""
    if not folder.resolve().is_relative_to(top):
        raise ConfigError(f"{folder} leads to {folder.resolve()}: remove that link, or name another place")
    folder.mkdir(parents=True, exist_ok=True, mode=mode)

"""The worked example as the commands of a catalog meet it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.demo import example
from reconciler.demo.forge import Forge


@pytest.fixture
def catalog(tmp_path: Path) -> Forge:
    """The worked example's catalog."""
    forge = Forge.create(tmp_path / "catalog.git")
    example.release(forge, example.releases())
    return forge


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The worked example's environments as a work tree; commands run in it."""
    for path, content in example.entries().items():
        file = tmp_path / "work" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"

"""A forge that answers over HTTP, with a repository and its people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.forge import ForgeSite, forge_site
from tests.kit.merges import Scene


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ForgeSite]:
    with forge_site(tmp_path / "forge") as site:
        yield site


@pytest.fixture
def scene(site: ForgeSite) -> Scene:
    return Scene.of(site)

"""Each parser over its corpus, and for two seconds beyond it; `make fuzz` goes on for as long as is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.fuzz import CORPUS, fuzz, have_atheris
from tests.hostile.harnesses import HARNESSES

SECONDS, SEED = 2, 7


@pytest.mark.parametrize("name", sorted(HARNESSES))
def test_the_corpus_is_read(name: str) -> None:
    inputs = sorted(file for file in (CORPUS / name).iterdir() if file.is_file())
    assert inputs
    for file in inputs:
        HARNESSES[name](file.read_bytes())


@pytest.mark.skipif(not have_atheris(), reason="atheris has no build for this machine: fuzzing is done where it has")
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HARNESSES))
def test_nothing_is_found_beyond_it(tmp_path: Path, name: str) -> None:
    assert fuzz(name, SECONDS, SEED, tmp_path / "found") == 0

"""Each parser over its corpus, and for a second beyond it; `make fuzz` goes on for as long as is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.fuzz import CORPUS, have_atheris, sample
from tests.hostile.harnesses import HARNESSES

SECONDS, SEED = 1, 7


@pytest.mark.parametrize("name", sorted(HARNESSES))
def test_the_corpus_is_read(name: str) -> None:
    inputs = sorted(file for file in (CORPUS / name).iterdir() if file.is_file())
    assert inputs
    for file in inputs:
        HARNESSES[name](file.read_bytes())


@pytest.mark.skipif(not have_atheris(), reason="atheris has no build for this machine: fuzzing is done where it has")
@pytest.mark.slow
def test_nothing_is_found_beyond_it(tmp_path: Path) -> None:
    assert sample(SECONDS, SEED, tmp_path) == ""
    assert {folder.name for folder in tmp_path.iterdir()} == set(HARNESSES)  # each had its turn

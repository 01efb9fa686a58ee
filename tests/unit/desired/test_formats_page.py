"""docs/formats.md is true: its examples are read, and its table of reasons is complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from reconciler.config import SCHEMAS, load_controller, load_runner
from reconciler.desired.entries import parse_entry, parse_environment
from reconciler.desired.lock import parse_lock

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/formats.md").read_text()
EXAMPLES = dict(re.findall(r"```yaml\n# ([a-z]+)\n(.*?)```", PAGE, re.DOTALL))


def test_every_file_has_an_example() -> None:
    assert set(EXAMPLES) == set(SCHEMAS)


def test_the_examples_of_the_environments_repository_are_read() -> None:
    entry: Any = parse_entry("environments/prod/app.yaml", EXAMPLES["entry"].encode())
    assert entry.inputs["literal"] == '${{ this }} and ${file("x")}'
    environment: Any = parse_environment("environments/prod/environment.yaml", EXAMPLES["environment"].encode())
    assert environment.name == "prod"
    lock: Any = parse_lock("catalog-lock.yaml", EXAMPLES["lock"].encode())
    assert list(lock.modules) == ["acme/vpc"]


@pytest.mark.parametrize(("name", "load"), [("controller", load_controller), ("runner", load_runner)])
def test_the_examples_of_the_hosts_files_are_read(name: str, load: Any, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(EXAMPLES[name])
    assert load(path).installation == "reconciler"


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_examples_show_every_field_that_is_supported(name: str) -> None:
    fields = {field.alias or key: field for key, field in SCHEMAS[name].model_fields.items()}
    shown = set(re.findall(r"^([a-z_]+):", EXAMPLES[name], re.MULTILINE))
    told = {key for key in fields if f"`{key}`" in PAGE or f"`{key}:" in PAGE}
    assert set(fields) - shown - told == set()


def test_every_reason_is_explained() -> None:
    code = "".join(
        path.read_text() for path in (ROOT / "reconciler/desired").glob("*.py") if path.stem != "fingerprint"
    )
    used = set(re.findall(r'"([A-Z][a-z]+(?:[A-Z][a-z]+)+)"', code)) - {"CSafeLoader"}
    table = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE.partition("## Reasons")[2].partition("## ")[0]))
    assert used == table

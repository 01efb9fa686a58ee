"""The reference that is made names all there is, and the docs' links lead somewhere."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from pathlib import Path

import click
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from docs import reference
from reconciler.cli import COMMANDS, cli
from reconciler.codec import ACTIONS
from reconciler.config import SCHEMAS
from reconciler.desired.shape import models_in
from reconciler.sinks.events import KINDS
from tests.kit.crowd import fill
from tests.kit.served import serve

ROOT = Path(__file__).parents[3]
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rows(page: str) -> dict[str, list[str]]:
    """The table rows of a page by what stands in backticks in their first cell."""
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in cells}


# --- what is made --------------------------------------------------------------------------------------------------


files = cache(reference.files)


def models(of: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if of not in seen:
        seen.add(of)
        for field in of.model_fields.values():
            for inner in models_in(field.annotation):
                models(inner, seen)
    return seen


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_every_field_of_every_file_is_there_with_what_it_is_for(name: str) -> None:
    _, _, section = files().partition(f"## {reference.FILES[name]}")
    told = {re.split(r"[.]|\[\]", path)[-1] for path in rows(section.partition("\n## ")[0])}
    fields = [pair for model in models(SCHEMAS[name], set()) for pair in model.model_fields.items()]
    known = {field.alias or key for key, field in fields}
    assert known - told == set()


def test_a_field_is_told_with_type_default_and_meaning() -> None:
    found = rows(files())
    assert found["store.lease"][1:3] == ["string (`30s`, `15m`)", "`15s`"]
    assert found["http.oidc.issuer"][2] == "required"
    assert found["executor.local.workers"][1] == "integer, 1 to 10,000"


def test_every_command_is_there_with_its_options() -> None:
    page = reference.commands()
    contexts = list(reference.walk(click.Context(cli, info_name="reconciler")))
    assert {context.command_path for context in contexts} >= {f"reconciler {name}" for name in COMMANDS}
    for context in contexts:
        _, _, section = page.partition(f"\n## {context.command_path}\n")
        section = section.partition("\n## ")[0]
        options = [one for one in context.command.params if isinstance(one, click.Option) and not one.hidden]
        assert section, context.command_path
        assert [one.name for one in options if max(one.opts, key=len) not in section] == []


def test_every_metric_is_there_with_its_labels(tmp_path: Path) -> None:
    told = rows(reference.metrics())
    one = serve(tmp_path)
    with one.stack:
        fill(one.installation, 10)
        scraped = list(text_string_to_metric_families(one.installation.metrics().decode()))
    names = {family.name + ("_total" if family.type == "counter" else "") for family in scraped}
    assert names - set(told) == set()
    for family in scraped:
        row = told[family.name + ("_total" if family.type == "counter" else "")]
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert {label for label in labels if f"`{label}`" not in row[2]} == set(), row
        assert row[3].strip(" |")


def test_every_event_is_there_with_its_own_meaning() -> None:
    told = rows(reference.events())
    assert set(told) == {f"reconciler.{kind}" for kind in KINDS} | set(ACTIONS)
    assert all(len(row[1].strip(" |")) >= 10 for row in told.values())
    assert told["reconciler.unit.released"][1].startswith("nothing holds it any more")


def test_every_reason_is_there_and_somebody_says_what_opens_it() -> None:
    told = rows(reference.reasons())
    found = reference.reasons_of(ROOT / "reconciler")
    assert set(found) - set(told) == set()
    assert len(found) > 120
    gates = (ROOT / "reconciler/deciding/gates.py").read_text() + (ROOT / "reconciler/deciding/judge.py").read_text()
    holds = set(re.findall(r'Hold\(\s*"(\w+)"', gates))
    assert holds - set(told) == set()
    assert [name for name in holds if len("".join(told[name][1:])) < 30] == []
    for page, section in reference.PAGES:
        assert len(reference.said_in(page, section)) >= 3, f"{page} has no table in {section}"


# --- links ---------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings, and `docs/site.py` too."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    heads = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head) for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    plain = [unicodedata.normalize("NFC", head).strip().lower() for head in heads]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_what_is_there(path: Path) -> None:
    for place, anchor in re.findall(r"\]\(([^)\s:#]*)(?:#([^)\s]*))?\)", path.read_text()):
        target = path.parent / place if place else path
        assert target.exists(), place
        assert not anchor or anchor in anchors(target), f"{place}#{anchor}"

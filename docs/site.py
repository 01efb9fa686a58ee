"""Hooks of mkdocs: pages that are made, links that lead out of docs/, and nothing that another host would have to serve."""

from __future__ import annotations

import re
import sys
import unicodedata
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from docs import reference  # noqa: E402 - mkdocs loads this file by its path

# Title -> pages, in order; those that are not there yet are left out, and those that nobody listed come last.
NAV: dict[str, list[str]] = {
    "Getting started": ["index.md", "demo.md", "adopt.md"],
    "Operate": ["operations.md", "runbooks.md", "renovate.md", "performance.md", "bench.md", "capacity.md"],
    "Understand": ["architecture.md", "security.md", "formats.md"],
    "Reference": list(reference.pages()),
}
DECISIONS = "decisions/"
_LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")
_FETCHED = re.compile(
    r"<(?:script|link|img|iframe|source|object)\b[^>]*?\b(?:src|href|data)=[\"']?(?:https?:)?//", re.IGNORECASE
)
_IMPORTED = re.compile(r"url\([\"']?(?:https?:)?//|@import[^;]*//", re.IGNORECASE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Anchors as a forge makes them: the same links hold in both."""
    config.mdx_configs["toc"] = {"slugify": slug, "permalink": False}
    return config


def slug(text: str, separator: str) -> str:
    """The anchor of a heading, as GitHub has it."""
    plain = unicodedata.normalize("NFC", text).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", separator)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made: the front page from README.md, and the reference."""
    made = {"index.md": front, **reference.pages()}
    for place, make in made.items():
        files.append(File.generated(config, place, content=make()))
    config.nav = navigation([file.src_uri for file in files.documentation_pages()])
    return files


def front() -> str:
    """README.md, with its links as they are from docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return _LINK.sub(lambda m: f"]({_from_docs(m[1])}{m[2] or ''})", text)


def _from_docs(place: str) -> str:
    return place.removeprefix("docs/") if place.startswith("docs/") else f"../{place}"


def navigation(there: list[str]) -> list[Any]:
    """The pages under their titles."""
    nav: list[Any] = [{title: [page for page in pages if page in there]} for title, pages in NAV.items()]
    decisions = sorted(page for page in there if page.startswith(DECISIONS) and not page.endswith("README.md"))
    nav.append({"Decisions": [f"{DECISIONS}README.md", {"One by one": decisions}]})
    listed = {page for pages in NAV.values() for page in pages} | {*decisions, f"{DECISIONS}README.md"}
    rest = sorted(set(there) - listed)
    return [*nav, {"More": rest}] if rest else nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository that are no pages become the file's name. One to what is not there is an error."""
    del config
    here = (ROOT / "docs" / page.file.src_uri).parent

    def said(found: re.Match[str]) -> str:
        whole, text, place = found[0], found[1], found[2]
        target = Path(*_normal(here / place))
        inside = target.is_relative_to(ROOT / "docs")
        if inside and (target.is_file() or files.get_file_from_path(target.relative_to(ROOT / "docs").as_posix())):
            return whole
        if inside and target.is_dir() and (target / "README.md").is_file():
            return f"[{text}]({place.rstrip('/')}/README.md)"
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: {place} is not there; mend the link")
        return f"{text} (`{target.relative_to(ROOT).as_posix()}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s:#]+)(?:#[^)\s]*)?\)", said, markdown)


def _normal(path: Path) -> list[str]:
    """The parts of the path without `..`."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return parts


def on_post_build(config: MkDocsConfig) -> None:
    """Nothing that a reader's browser loads may be another host's."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix not in (".html", ".css"):
            continue
        text = path.read_text(encoding="utf-8")
        found = (_FETCHED if path.suffix == ".html" else _IMPORTED).search(text)
        if found:
            raise PluginError(f"{path}: loads from another host: {text[found.start() : found.start() + 120]}")

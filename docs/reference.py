"""The reference of the docs site, made from the program: files' fields, commands, metrics, events, reasons."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from inspect import cleandoc, getdoc
from pathlib import Path
from typing import Any

import click

from reconciler import __version__
from reconciler.cli import cli
from reconciler.codec import ACTIONS
from reconciler.config import SCHEMAS
from reconciler.desired.schema import draft7
from reconciler.logs import open_log
from reconciler.model import Ledger
from reconciler.observe import Observer
from reconciler.sinks.events import KINDS
from reconciler.status import Outlook
from reconciler.web.series import Metrics

ROOT = Path(__file__).parents[1]
FILES = {
    "controller": "`reconciler.yaml`: the controller's host",
    "runner": "`runner.yaml`: the runner's host",
    "environment": "`environments/<environment>/environment.yaml`",
    "entry": "`environments/<environment>/**/<name>.yaml`: an entry",
    "lock": "`catalog-lock.yaml`",
}
MADE = "*Made from version {version} of the program by `docs/reference.py`.*\n"

Schema = Mapping[str, Any]


def pages() -> Mapping[str, Callable[[], str]]:
    """Every page of the reference, by its address in the site."""
    return {
        "reference/files.md": files,
        "reference/commands.md": commands,
        "reference/metrics.md": metrics,
        "reference/events.md": events,
        "reference/reasons.md": reasons,
    }


def _page(title: str, *parts: str) -> str:
    return "\n".join([f"# {title}\n", MADE.format(version=__version__), *parts])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- the fields of every file --------------------------------------------------------------------------------------


def files() -> str:
    """Each file's fields: path, type, default, meaning."""
    parts = ["[Formats](../formats.md) has examples, and what the fields mean together.\n"]
    for name, title in FILES.items():
        schema = draft7(SCHEMAS[name], name)
        rows = [(_code(one.path), one.kind, one.default, one.text) for one in fields(schema)]
        parts += [f"## {title}\n", _table(("field", "type", "default", "meaning"), rows)]
    return _page("Fields of files", *parts)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a file. `path`: `store.lease`; `[]` stands for an item of a list, `<name>` for any name."""

    path: str
    kind: str
    default: str
    text: str


def fields(schema: Schema) -> Iterator[Field]:
    """The fields of a file, each after the one that it is in."""
    yield from _fields(schema, schema, "", ())


def _fields(whole: Schema, at: Schema, path: str, above: tuple[str, ...]) -> Iterator[Field]:
    required = at.get("required", ())
    for name, one in at.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        default = "required" if name in required else _default(one)
        yield Field(here, _kind(whole, one), default, one.get("description") or _meaning(whole, one))
        yield from _below(whole, one, here, above)


def _below(whole: Schema, one: Schema, path: str, above: tuple[str, ...]) -> Iterator[Field]:
    """The fields of what stands there, whichever form it has. A form that holds itself is told once."""
    if "$ref" in one:
        if one["$ref"] not in above:
            yield from _below(whole, _found(whole, one["$ref"]), path, (*above, one["$ref"]))
        return
    yield from _fields(whole, one, path, above)
    for form in (*one.get("anyOf", ()), *one.get("oneOf", ()), *one.get("allOf", ())):
        yield from _below(whole, form, path, above)
    if isinstance(one.get("items"), dict):
        yield from _below(whole, one["items"], f"{path}[]", above)
    for named in (one.get("additionalProperties"), *one.get("patternProperties", {}).values()):
        if isinstance(named, dict):
            yield from _below(whole, named, f"{path}.<name>", above)


def _found(whole: Schema, reference: str) -> Schema:
    found: Any = whole
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return dict(found)


def _kind(whole: Schema, one: Schema) -> str:
    """What kind of value it is, in a few words."""
    if "$ref" in one:
        return _kind(whole, _found(whole, one["$ref"]))
    forms = [*one.get("anyOf", ()), *one.get("oneOf", ()), *one.get("allOf", ())]
    if forms:
        return " or ".join(dict.fromkeys(_kind(whole, form) for form in forms if form.get("type") != "null"))
    if "enum" in one or "const" in one:
        return ", ".join(_code(str(value)) for value in one.get("enum", [one.get("const")]))
    kind = one.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(whole, one['items'])}" if one.get("items") else "list"
    if kind == "object":
        return "mapping"
    if kind == "integer" and "minimum" in one and "maximum" in one:
        return f"integer, {one['minimum']} to {one['maximum']:,}"
    examples = ", ".join(_code(str(value)) for value in one.get("examples", ())[:2])
    kind = " or ".join(kind) if isinstance(kind, list) else str(kind)
    return f"{kind} ({examples})" if examples else kind


def _default(one: Schema) -> str:
    value = one.get("default")
    if value is None:
        return ""
    return _code({True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value))


def _meaning(whole: Schema, one: Schema) -> str:
    return str(_found(whole, one["$ref"]).get("description", "")) if "$ref" in one else ""


# --- every command -------------------------------------------------------------------------------------------------


def commands() -> str:
    """Each command: how it is written, what it does, its options."""
    parts = [f"{(getdoc_of(cli))}\n"]
    for context in walk(click.Context(cli, info_name="reconciler", **cli.context_settings)):
        command = context.command
        usage = command.get_usage(context).removeprefix("Usage: ")
        parts += [f"## {context.command_path}\n", f"```\n{' '.join(usage.split())}\n```\n", f"{getdoc_of(command)}\n"]
        rows = [record for parameter in command.params if (record := parameter.get_help_record(context))]
        if rows:
            parts.append(_table(("option", "meaning"), [(_code(name), text) for name, text in rows]))
    return _page("Commands", *parts)


def getdoc_of(command: click.Command) -> str:
    """What a command says of itself, as Markdown."""
    text = cleandoc((command.help or "").replace("\b\n", "").partition("\f")[0])
    return re.sub(r"<(?=[a-z])", "&lt;", text)


def walk(context: click.Context) -> Iterator[click.Context]:
    """Every command below, in the order of `--help`."""
    command = context.command
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None and not found.hidden:
            inner = click.Context(found, info_name=name, parent=context, **found.context_settings)
            yield inner
            yield from walk(inner)


# --- every metric --------------------------------------------------------------------------------------------------


def metrics() -> str:
    """Each metric: name, type, labels, meaning."""
    rows = []
    registry = registry_of()
    for family in sorted(registry.collect(), key=lambda one: one.name):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = _labels(family) or _labels(registry._names_to_collectors.get(name))  # noqa: SLF001 - nobody else knows
        rows.append((_code(name), family.type, ", ".join(map(_code, labels)), family.documentation))
    note = "Alerts, recording rules and dashboards are in `deploy/monitoring`; [runbooks](../runbooks.md) say what to do.\n"
    return _page("Metrics", note, _table(("metric", "type", "labels", "meaning"), rows))


def _labels(family: Any) -> list[str]:
    """The labels of a family of metrics, if it has any by itself."""
    return list(getattr(family, "_labelnames", ()))


def registry_of() -> Any:
    """The metrics of a daemon that has just begun."""
    from reconciler.web.view import Check

    observer = Observer(__version__, open_log(io.StringIO(), as_json=True), _now, ["environments"])
    outlook = Outlook(lambda: None, Ledger, lambda: None, _now)
    Metrics(observer, outlook.picture, __version__, lambda: {"store": Check(True)})
    observer.know(["prod"])
    return observer.registry


def _now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


# --- every event ---------------------------------------------------------------------------------------------------


def events() -> str:
    """What webhooks are told, and what the journal has."""
    told = said_in("formats.md", "## Events")
    rows = [(_code(f"reconciler.{kind}"), told[kind][0]) for kind in KINDS]
    journal = [(_code(action), getdoc(kind) or "") for action, kind in ACTIONS.items()]
    return _page(
        "Events",
        "## What webhooks are told\n",
        "[CloudEvents 1.0](../formats.md#events); `reconciler history -o json` has the same facts.\n",
        _table(("type", "when"), rows),
        "## What the journal has\n",
        "`reconciler history` and the page `/journal` show these; `audit` means the runner's own log, not this.\n",
        _table(("action", "what happened"), [(name, text.partition("\n\n")[0]) for name, text in journal]),
    )


# --- every reason --------------------------------------------------------------------------------------------------

# What gives a reason: facts, errors, and the few functions that make them for a family of causes.
FACTS = ("Hold", "HeldError", "UnitError", "PassError", "Problem", "Result", "Untold")
RAISED = frozenset([*FACTS, "result", "_kind", "_refused", "_wrong", "_held", "_of_environment", "__init__"])
_REASON = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")
_QUOTED = re.compile(rf'"{_REASON.pattern}"')
PAGES = (  # where the tables of reasons are
    ("operations.md", "## Secrets"),
    ("operations.md", "## Credentials"),
    ("operations.md", "## The jail"),
    ("operations.md", "## Providers, engines and catalogs"),
    ("formats.md", "## Reasons"),
    ("operations.md", "## When something is held"),
)


@dataclass(slots=True)
class Reason:
    """Why something is held or has failed: with which messages."""

    said: list[str] = field(default_factory=list)


def reasons() -> str:
    """Each reason: what is said where it holds, which says what opens it, and what the docs add."""
    told = {name: words for page, section in PAGES for name, words in said_in(page, section).items()}
    rows = []
    found = reasons_of(ROOT / "reconciler")
    known = {name for name in told if re.fullmatch(r"[A-Z][a-z]+(?:[A-Z][a-z]+)+", name)}
    for name in sorted({*found, *known}):
        reason = found.get(name, Reason())
        said = "<br>".join(f"“{_plain(text)}”" for text in dict.fromkeys(reason.said) if text)
        rows.append((_code(name), "<br>".join(told.get(name, ())), said))
    note = (
        "Where a unit is held or has failed, `reconciler explain UNIT` and its page show one of these, with a message that says "
        "what opens it. `…` stands for what the message names: a file, a unit, a commit. "
        "[Operations](../operations.md#when-something-is-held) has the longer answers.\n"
    )
    return _page("Reasons", note, _table(("reason", "what to do", "what is said"), rows))


@cache
def reasons_of(folder: Path) -> dict[str, Reason]:
    """Every reason that the code gives, with its messages; parts that a message takes in are `…`."""
    found: dict[str, Reason] = {}
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))]
    trees = [ast.parse(text) for text in texts if _QUOTED.search(text)]
    named = dict(pair for tree in trees for pair in _constants(tree))
    for tree in trees:
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or _called(node) not in RAISED:
                continue
            words = [named.get(one.id, "") if isinstance(one, ast.Name) else _text(one) for one in node.args]
            at = next((index for index, word in enumerate(words) if _REASON.fullmatch(word)), None)
            if at is not None:
                found.setdefault(words[at], Reason()).said += [
                    word for word in words[at + 1 : at + 2] if len(word) > 12
                ]
    return found


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The module's own names of reasons: `INTERNAL = "InternalError"`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and _REASON.fullmatch(_text(node.value)):
            yield from ((one.id, _text(node.value)) for one in node.targets if isinstance(one, ast.Name))


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _text(node: ast.expr) -> str:
    """A text as it is written."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("*", "\\*")


def said_in(page: str, section: str) -> dict[str, list[str]]:
    """What the tables of a section say of each name in backticks that begins a row: part by part, if there are as many."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8").partition(f"\n{section}\n")[2].partition("\n## ")[0]
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        names = re.findall(r"`([A-Za-z.-]+)`", cells[0]) if len(cells) > 1 else []
        parts = cells[1].split("; ") if section == "## Events" and names else []
        for index, name in enumerate(names):
            said = parts[index] if len(parts) == len(names) else cells[1]
            found.setdefault(name, []).append(_moved(said, page))
    return found


def _moved(text: str, page: str) -> str:
    """The text with its links as they are from the reference's folder."""
    return re.sub(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", lambda m: f"](../{m[1] or page}{m[2] or ''})", text)

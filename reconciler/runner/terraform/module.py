"""What a module of the catalog asks for and gives: its variables, outputs and providers, read without an engine."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reconciler.durable import write_atomic
from reconciler.errors import UnitError
from reconciler.model import Digest

CACHE_FORMAT = "1"
REGISTRIES = ("registry.terraform.io/", "registry.opentofu.org/")

Block = tuple[str, Mapping[str, Any]]  # its label and its body


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its type as the module writes it (None: any), and the line where it is declared."""

    type: str | None
    required: bool
    sensitive: bool
    place_line: int


@dataclass(frozen=True, slots=True)
class ModuleInterface:
    """What can be put into a module and got out of it.

    `outputs` tells whether the module marks each as sensitive; ephemeral ones are left out, no root can have them.
    `providers` maps a local name, or `name.alias` for a declared configuration alias, to its source.
    """

    variables: Mapping[str, Variable]
    outputs: Mapping[str, bool]
    providers: Mapping[str, str]


def cached_module(cache_folder: Path, digest: Digest, path: str, folder: Path) -> ModuleInterface:
    """`read_module(folder)`, remembered by the digest of the tree and the module's path in it.

    Raises:
        UnitError: "ModuleInvalid".
    """
    key = f"{CACHE_FORMAT}\0{digest}\0{path}"
    sidecar = cache_folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return _decode(json.loads(sidecar.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: it is only a cache
        interface = read_module(folder)
    cache_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(sidecar, json.dumps(asdict(interface)).encode())
    return interface


def _decode(raw: dict[str, Any]) -> ModuleInterface:
    variables = {name: Variable(**fields) for name, fields in raw["variables"].items()}
    return ModuleInterface(variables, dict(raw["outputs"]), dict(raw["providers"]))


def read_module(folder: Path) -> ModuleInterface:
    """Parse the `*.tf` and `*.tf.json` files of the module's own folder. Slow (a second at first): see `cached_module`.

    Raises:
        UnitError: "ModuleInvalid", with file and line.
    """
    variables: dict[str, Variable] = {}
    outputs: dict[str, bool] = {}
    providers: dict[str, str] = {}
    for file in sorted((*folder.glob("*.tf"), *folder.glob("*.tf.json"))):
        text, document = _parse(file)
        lines = _declaration_lines(text)
        variables |= {name: _variable(body, lines.get(name, 0)) for name, body in _blocks(document, "variable")}
        outputs |= {
            n: _true(body, "sensitive") for n, body in _blocks(document, "output") if not _true(body, "ephemeral")
        }
        providers |= _providers(document)
    return ModuleInterface(variables, outputs, providers)


def preload() -> None:
    """Build the grammar now, so that processes forked from this one need not."""
    import hcl2

    hcl2.loads('variable "x" {}\n')


def _parse(file: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(text) if file.name.endswith(".json") else _parse_hcl(text)
    # The parser's errors share no family (lark's, ValueError, RuntimeError, RecursionError).
    except Exception as error:
        line = getattr(error, "line", None) or getattr(error, "lineno", 0)
        place = f"{file.name}:{line}" if isinstance(line, int) and line > 0 else file.name
        what = str(error).partition("\n")[0]
        raise UnitError(
            "ModuleInvalid",
            f"{place} of the module is not valid: {what}. Mend the module and lock a new version of it.",
        ) from error
    if not isinstance(document, dict):
        raise UnitError("ModuleInvalid", f"{file.name} of the module is not an object. Mend the module.")
    return text, document


def _parse_hcl(text: str) -> dict[str, Any]:
    import hcl2

    options = hcl2.SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)
    return dict(hcl2.loads(text, serialization_options=options))


def _blocks(document: Mapping[str, Any], kind: str) -> Iterator[Block]:
    """Labelled blocks: `{label: body}`, or a list of such (in JSON bodies may be lists too)."""
    for labelled in _listed(document.get(kind)):
        for label, bodies in labelled.items():
            for body in _listed(bodies):
                yield label, body


def _listed(value: Any) -> list[Mapping[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [v for v in values if isinstance(v, Mapping)]


def _variable(body: Mapping[str, Any], line: int) -> Variable:
    kind = body.get("type")
    return Variable(None if kind is None else _plain(str(kind)), "default" not in body, _true(body, "sensitive"), line)


def _true(body: Mapping[str, Any], name: str) -> bool:
    return body.get(name) in (True, "true", "${true}")


def _plain(text: str) -> str:
    """The expression itself, where the parser wrapped it into a template."""
    return text[2:-1] if text.startswith("${") and text.endswith("}") else text


def _declaration_lines(text: str) -> dict[str, int]:
    """The first line that looks like each variable's declaration, in either syntax."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if declared := re.match(r'\s*(?:variable\s+"?([\w-]+)"?\s*\{|"([\w-]+)"\s*:\s*\{)', line):
            found.setdefault(declared[1] or declared[2], number)
    return found


def _providers(document: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for settings in _listed(document.get("terraform")):
        for required in _listed(settings.get("required_providers")):
            for name, requirement in required.items():
                wanted = requirement if isinstance(requirement, Mapping) else {}  # the old form is a version alone
                source = plain_source(wanted.get("source") or f"hashicorp/{name}")
                aliases = wanted.get("configuration_aliases") or []
                found |= dict.fromkeys((name, *(_plain(str(alias)) for alias in aliases)), source)
    return found


def plain_source(text: str) -> str:
    """As catalog-lock.yaml writes it: `namespace/type`, with a host only where it is not a public registry."""
    lowered = text.lower()
    for registry in REGISTRIES:
        lowered = lowered.removeprefix(registry)
    return lowered

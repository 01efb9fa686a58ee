"""What a module of the catalog asks for and gives: its variables, outputs and providers, read without an engine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reconciler.durable import write_atomic
from reconciler.model import Digest
from reconciler.runner.terraform.files import module_files
from reconciler.vetting.blocks import Required, look_at
from reconciler.vetting.bodies import Argument, Block, literal
from reconciler.vetting.tokens import CLOSES, Token

CACHE_FORMAT = "module 2"
_AROUND = frozenset(("nl", "oq", "cq", "${", "end", "(", ")"))  # what may stand around a word that stays the same


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable: its type as the module writes it (None: any)."""

    type: str | None
    required: bool
    sensitive: bool


@dataclass(frozen=True, slots=True)
class ModuleInterface:
    """What can be put into a module and got out of it.

    `outputs` tells whether the module marks each as sensitive; ephemeral ones are left out, no root can have them.
    `providers` maps a local name, or `name.alias` for a declared configuration alias, to its source.
    """

    variables: Mapping[str, Variable]
    outputs: Mapping[str, bool]
    providers: Mapping[str, str]


def cached_module(cache_folder: Path, digest: Digest, path: str, folder: Path, product: str) -> ModuleInterface:
    """`read_module(folder, product)`, remembered by the digest of the tree and the module's path in it.

    Raises:
        UnitError: "ModuleInvalid".
    """
    key = f"{CACHE_FORMAT}\0{digest}\0{product}\0{path}"
    sidecar = cache_folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    try:
        return _decode(json.loads(sidecar.read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):  # not there, or not ours: it is only a cache
        interface = read_module(folder, product)
    cache_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomic(sidecar, json.dumps(asdict(interface)).encode())
    return interface


def _decode(raw: dict[str, Any]) -> ModuleInterface:
    variables = {name: Variable(**fields) for name, fields in raw["variables"].items()}
    return ModuleInterface(variables, dict(raw["outputs"]), dict(raw["providers"]))


def read_module(folder: Path, product: str) -> ModuleInterface:
    """Read the files of the module's own folder, as this engine (`Engine.product`) would.

    Raises:
        UnitError: "ModuleInvalid", with file and line.
    """
    variables: dict[str, Variable] = {}
    outputs: dict[str, bool] = {}
    providers: dict[str, str] = {}
    for _, file in module_files(folder, product):
        variables |= {label: _variable(block) for label, block in _labelled(file, "variable")}
        outputs |= {label: _true(b, "sensitive") for label, b in _labelled(file, "output") if not _true(b, "ephemeral")}
        for seen in look_at(file):
            if isinstance(seen, Required):
                providers |= dict.fromkeys((seen.name, *seen.aliases), seen.source)
    return ModuleInterface(variables, outputs, providers)


@dataclass(frozen=True, slots=True)
class Documented:
    """What a module says of a variable to people: its description, and its default as it is written there."""

    description: str
    default: str | None


def documented(folder: Path, product: str) -> dict[str, Documented]:
    """What the module says of each of its variables.

    Raises:
        UnitError: "ModuleInvalid".
    """
    return {
        label: Documented(_said(block.argument("description")), _default(block.argument("default")))
        for _, file in module_files(folder, product)
        for label, block in _labelled(file, "variable")
    }


def _said(argument: Argument | None) -> str:
    """The text of a string or a heredoc; escapes stay as they are written."""
    return "".join(one.text for one in argument.tokens if one.kind in ("lit", "esc")) if argument else ""


def _default(argument: Argument | None) -> str | None:
    return None if argument is None else _one_line(argument.tokens)


def _labelled(file: Block, kind: str) -> Iterator[tuple[str, Block]]:
    return ((block.labels[0], block) for block in file.blocks if block.kind == kind and block.labels)


def _variable(block: Block) -> Variable:
    kind = block.argument("type")
    return Variable(_written(kind) if kind else None, block.argument("default") is None, _true(block, "sensitive"))


def _true(block: Block, name: str) -> bool:
    """Whether it is `true`, in quotes or not: engines convert."""
    argument = block.argument(name)
    return argument is not None and [one.text for one in argument.tokens if one.kind not in _AROUND] == ["true"]


def _written(argument: Argument) -> str:
    """A type on one line. In JSON it is the text of a string."""
    text = literal(argument.tokens)
    return _one_line(argument.tokens) if text is None else text


def _one_line(tokens: Sequence[Token]) -> str:
    line, last = "", ""
    for token in tokens:
        separated = last == "nl" and line[-1:] not in ("(", "[", "{", ",") and token.kind not in CLOSES
        last = token.kind
        if last == "nl":
            continue
        if separated:
            line += ","  # a line end stands between the members of an object
        if line.endswith(",") or (line[-1:].isalnum() and last in ("id", "num")):
            line += " "
        line += " = " if last == "=" else token.text
    return line

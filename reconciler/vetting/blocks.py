"""What the blocks of one file may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.vetting.bodies import Argument, Block, literal
from reconciler.vetting.facts import Said
from reconciler.vetting.functions import Used
from reconciler.vetting.tokens import CLOSES, OPENS, Token


@dataclass(frozen=True, slots=True)
class Called:
    """A module that this one calls: its source as written, a local one."""

    source: str
    at: int


@dataclass(frozen=True, slots=True)
class Required:
    """A provider's local name and its source; `aliases` are the configurations that the caller shall give it."""

    name: str
    source: str
    at: int
    aliases: tuple[str, ...] = ()


Seen = Said | Called | Required | Used

_LOCAL = re.compile(r"\.{1,2}(?:/|(?:/[A-Za-z0-9._@+=,~()-][A-Za-z0-9._@+=,~() -]*)+/?)")
_ADDRESS = re.compile(r"(?:(?:(?P<host>[a-z0-9.-]+(?::[0-9]{1,5})?)/)?(?P<space>[a-z0-9_-]+)/)?(?P<name>[a-z0-9_-]+)")
_REGISTRIES = ("registry.terraform.io", "registry.opentofu.org")
_PROVISIONERS = {"local-exec": "local-exec", "remote-exec": "remote-exec"}
_RUN = "a module changes the world through providers alone: use a resource of a provider"
_BY_NAME = {
    "external": ("external-data", "it runs a program on the runner's host"),
    "http": ("http-data", "it talks to any address: take the value as an input"),
    "local": ("host-files", "it reads and writes files of the runner's host: use path.module, or an object store"),
    "archive": ("host-files", "it reads and writes files of the runner's host: build archives in a release"),
}
_LIFECYCLE = frozenset(
    ("create_before_destroy", "prevent_destroy", "ignore_changes", "replace_triggered_by", "enabled")
)
_FORGET = "it lets objects go that nobody then owns: write `state: forgotten` into the entry, or `destroy = true` here"


def look_at(file: Block) -> Iterator[Seen]:
    """Everything about the blocks of a file."""
    for argument in file.arguments:
        yield "unknown-block", argument.at, f"{argument.name} is no block of a module: take it out"
    for block in file.blocks:
        rule = _RULES.get(block.kind)
        if rule is None:
            yield "unknown-block", block.at, f"{block.kind!r} is not a block that a vetted module may have: take it out"
        else:
            yield from rule(block)


def _anything(_: Block) -> Iterator[Seen]:
    return iter(())


def _resource(block: Block) -> Iterator[Seen]:
    kind = block.labels[0] if block.labels else ""
    prefix = kind.partition("_")[0]
    if kind == "terraform_remote_state":
        yield (
            "remote-state",
            block.at,
            "it reads a state past the runner: take the value as an input (${{ unit.output }})",
        )
    elif prefix in _BY_NAME:
        rule, why = _BY_NAME[prefix]
        yield rule, block.at, f"{block.kind} {kind!r}: {why}"
    yield Used(_configuration(block) or prefix, block.at)
    yield from _running(block)
    for lifecycle in (inner for inner in block.blocks if inner.kind == "lifecycle"):
        yield from _lifecycle(lifecycle)


def _configuration(block: Block) -> str:
    """The provider's local name in `provider = aws.west`, in either syntax."""
    argument = block.argument("provider")
    words = [token.text for token in argument.tokens if token.kind in ("id", "lit")] if argument else []
    return words[0].partition(".")[0] if words else ""


def _running(block: Block) -> Iterator[Said]:
    """Provisioners and connections right in the block."""
    for inner in block.blocks:
        kind = inner.labels[0] if inner.kind == "dynamic" and inner.labels else inner.kind
        if kind == "provisioner":
            name = inner.labels[0] if inner.labels else ""
            yield _PROVISIONERS.get(name, "provisioner"), inner.at, f"provisioner {name!r}: {_RUN}"
            yield from _running(inner)
        elif kind == "connection":
            yield "connection", inner.at, f"a connection to a host: {_RUN}"
    for argument in block.arguments:  # in JSON, or a mistake: the engine says which
        if argument.name in ("provisioner", "connection"):
            yield argument.name, argument.at, f"{argument.name}: {_RUN}"


def _lifecycle(block: Block) -> Iterator[Said]:
    for argument in block.arguments:
        if argument.name == "destroy":
            if not _true(argument):
                yield "removed-block", argument.at, _FORGET
        elif argument.name not in _LIFECYCLE:
            yield "unknown-block", argument.at, f"lifecycle has no {argument.name!r} that is known here: take it out"
    for inner in block.blocks:
        if inner.kind not in ("precondition", "postcondition"):
            yield "unknown-block", inner.at, f"lifecycle: {inner.kind!r} is not known here: take it out"


def _true(argument: Argument) -> bool:
    return [token.text for token in argument.tokens if token.kind != "nl"] == ["true"]


def _removed(block: Block) -> Iterator[Seen]:
    """Destroying is subject to the limits; letting go is not, and engines differ in what they do by default."""
    lifecycles = [inner for inner in block.blocks if inner.kind == "lifecycle"]
    destroys = [inner.argument("destroy") for inner in lifecycles]
    if len(destroys) != 1 or destroys[0] is None or not _true(destroys[0]):
        yield "removed-block", block.at, f"removed: {_FORGET}"
    yield from _running(block)


def _check(block: Block) -> Iterator[Seen]:
    for inner in block.blocks:
        if inner.kind == "data":
            yield from _resource(inner)
        elif inner.kind != "assert":
            yield "unknown-block", inner.at, f"check: {inner.kind!r} is not known here: take it out"


def _import(block: Block) -> Iterator[Seen]:
    yield "import-block", block.at, "it works in root modules only: take it out; an entry adopts objects"


def _provider(block: Block) -> Iterator[Seen]:
    what = "provider in a module: the environment configures it; name aliases in configuration_aliases"
    yield "provider-block", block.at, what


# --- modules ------------------------------------------------------------------------------------------------------


def _module(block: Block) -> Iterator[Seen]:
    argument = block.argument("source")
    source = literal(argument.tokens) if argument else None
    if argument is None:
        yield "module-source", block.at, "module without a source: write ./ or ../ and a folder of this repository"
    elif source is None:
        yield "module-source", argument.at, "a source must be a plain literal: write ./ or ../ and a folder"
    elif not _LOCAL.fullmatch(source):
        yield (
            "module-source",
            argument.at,
            (
                f"{source!r} is not a folder of this repository, and the lock pins nothing else: copy the module in and call it "
                "by ./ or ../"
            ),
        )
    else:
        yield Called(source, argument.at)
    if version := block.argument("version"):
        yield "module-source", version.at, "version is for registries, and modules of this repository need none"
    for inner in block.blocks:
        yield "unknown-block", inner.at, f"module: {inner.kind!r} is not known here: take it out"


# --- terraform { } ------------------------------------------------------------------------------------------------


def _settings(block: Block) -> Iterator[Seen]:
    for argument in block.arguments:
        if argument.name != "required_version":
            yield "engine-setting", argument.at, f"terraform: {argument.name!r} is the root's to say: take it out"
    for inner in block.blocks:
        if inner.kind == "required_providers":
            yield from _required(inner)
        elif inner.kind in ("backend", "cloud", "provider_meta"):
            rule = inner.kind.replace("_", "-")
            yield rule, inner.at, f"{inner.kind} in a module: the host says where states are; take it out"
        else:
            yield "engine-setting", inner.at, f"terraform: {inner.kind!r} is the root's to say: take it out"


def _required(block: Block) -> Iterator[Seen]:
    for argument in block.arguments:
        source = _source(argument)
        if source is None:
            yield (
                "provider-source",
                argument.at,
                (f"{argument.name}: write source and version as plain literals, the source as namespace/name"),
            )
        else:
            yield Required(argument.name, source, argument.at, _aliases(argument))
            if (name := source.rpartition("/")[2]) in _BY_NAME and source == f"hashicorp/{name}":
                rule, why = _BY_NAME[name]
                yield rule, argument.at, f"the provider {source}: {why}"


def _source(argument: Argument) -> str | None:
    """The normal address of a requirement: of the default namespace where there is only a version."""
    if literal(argument.tokens) is not None:
        return f"hashicorp/{argument.name.lower()}"
    members = _members([token for token in argument.tokens if token.kind != "nl"])
    if members is None:
        return None
    if "source" not in members:
        return f"hashicorp/{argument.name.lower()}"
    text = literal(members["source"])
    return None if text is None else normal(text)


def _aliases(argument: Argument) -> tuple[str, ...]:
    """`aws.west` of `configuration_aliases`, in either syntax."""
    members = _members([token for token in argument.tokens if token.kind != "nl"]) or {}
    listed = members.get("configuration_aliases", ())
    written = "".join(token.text for token in listed if token.kind in ("id", "lit", ".", ","))
    return tuple(alias for alias in written.split(",") if alias)


def normal(address: str) -> str | None:
    """`namespace/name`, with a host only where it is not a public registry; None: no address."""
    found = _ADDRESS.fullmatch(address.lower())
    if found is None:
        return None
    short = f"{found['space'] or 'hashicorp'}/{found['name']}"
    return short if found["host"] in (None, *_REGISTRIES) else f"{found['host']}/{short}"


def _members(tokens: Sequence[Token]) -> Mapping[str, Sequence[Token]] | None:
    """The members of an object with plain keys, each once; None for anything else."""
    if len(tokens) < 2 or tokens[0].kind != "{" or tokens[-1].kind != "}":
        return None
    found: dict[str, Sequence[Token]] = {}
    index = 1
    while index < len(tokens) - 1:
        if tokens[index].kind == ",":
            index += 1
            continue
        quoted = literal(tokens[index : index + 3])
        key = tokens[index].text if tokens[index].kind == "id" else quoted
        index += 1 if quoted is None else 3
        if not key or key in found or tokens[index].kind not in ("=", ":"):
            return None
        end = _value_end(tokens, index + 1)
        found[key] = tokens[index + 1 : end]
        index = end
    return found


def _value_end(tokens: Sequence[Token], index: int) -> int:
    """After one bracketed or quoted value: requirements hold no others."""
    depth = 0
    for at in range(index, len(tokens) - 1):
        depth += (tokens[at].kind in OPENS) - (tokens[at].kind in CLOSES)
        if not depth:
            return at + 1
    return len(tokens) - 1


_RULES: Mapping[str, Callable[[Block], Iterator[Seen]]] = {
    "variable": _anything,
    "output": _anything,
    "locals": _anything,
    "moved": _anything,
    "resource": _resource,
    "data": _resource,
    "ephemeral": _resource,
    "module": _module,
    "terraform": _settings,
    "provider": _provider,
    "removed": _removed,
    "import": _import,
    "check": _check,
}

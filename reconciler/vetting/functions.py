"""What an expression may call and name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reconciler.vetting.facts import Said
from reconciler.vetting.tokens import CLOSES, OPENS, Token

_PURE = """
    abs alltrue anytrue base64decode base64encode base64gunzip base64gzip base64sha256 base64sha512 basename can ceil chomp
    chunklist cidrcontains cidrhost cidrnetmask cidrsubnet cidrsubnets coalesce coalescelist compact concat contains
    csvdecode dirname distinct element endswith ephemeralasnull flatten floor format formatdate formatlist indent index
    issensitive join jsondecode jsonencode keys length log lookup lower matchkeys max md5 merge min nonsensitive one parseint
    pow range regex regexall replace reverse rsadecrypt sensitive setintersection setproduct setsubtract setunion sha1 sha256
    sha512 signum slice sort split startswith strcontains strrev substr sum textdecodebase64 textencodebase64 timeadd timecmp
    title tobool tolist tomap tonumber toset tostring transpose trim trimprefix trimspace trimsuffix try upper urldecode
    urlencode uuidv5 values yamldecode yamlencode zipmap
    any list map object optional set tuple
"""
_PATHS = """
    abspath file filebase64 filebase64sha256 filebase64sha512 fileexists filemd5 fileset filesha1 filesha256 filesha512
    pathexpand templatefile
"""
# Of Terraform 1.14 and OpenTofu 1.11: same result for the same arguments, nothing read. Types look like calls too.
PURE = frozenset(_PURE.split())
IMPURE = frozenset(("timestamp", "plantimestamp", "uuid", "bcrypt"))
PATHS = frozenset(_PATHS.split())
KEYWORDS = frozenset(("for", "in", "if"))  # a parenthesis after them begins a value
BUILTIN = "terraform"  # the provider that engines carry


@dataclass(frozen=True, slots=True)
class Followed:
    """A template that an expression reads, from the root of the tree, and where it is named."""

    path: str
    at: int


@dataclass(frozen=True, slots=True)
class Used:
    """A provider that something needs, by its local name."""

    name: str
    at: int


Seen = Said | Followed | Used


def look(tokens: Sequence[Token], folder: str | None) -> Iterator[Seen]:
    """Everything about the calls and names in an expression. `folder` is the module's; None: inside a template file."""
    expression = [token for token in tokens if token.kind != "nl"]
    for index, token in enumerate(expression):
        if token.kind == "id":
            if _kind(expression, index + 1) == "(" and token.text not in KEYWORDS:
                yield from _call(expression, index, folder)
            elif token.text == "path":
                yield from _path(expression, index)
            elif token.text == "for":
                yield from _binding(expression, index)


def _kind(tokens: Sequence[Token], index: int) -> str:
    return tokens[index].kind if 0 <= index < len(tokens) else ""


def _call(tokens: Sequence[Token], index: int, folder: str | None) -> Iterator[Seen]:
    token, spaces = tokens[index], _namespace(tokens, index)
    name = token.text
    if spaces and spaces[0] == "provider":
        yield Used(spaces[1] if len(spaces) > 1 else "", token.at)
    elif spaces not in ([], ["core"]):
        yield "unknown-function", token.at, f"{'::'.join([*spaces, name])} is of no known kind: take it out"
    elif name in PATHS:
        yield from _path_call(tokens, index, folder)
    elif name == "templatestring":
        yield "template", token.at, "templatestring runs text as code: write the template into a file, for templatefile"
    elif name in IMPURE:
        yield "impure-function", token.at, f"{name}() differs at every plan: take the value as a variable"
    elif name not in PURE:
        yield "unknown-function", token.at, f"{name}() is not known to be harmless: take it out"


def _namespace(tokens: Sequence[Token], index: int) -> list[str]:
    """`provider::x::f` -> provider, x."""
    found: list[str] = []
    while _kind(tokens, index - 1) == "::" and _kind(tokens, index - 2) == "id":
        index -= 2
        found.insert(0, tokens[index].text)
    return found


def _path(tokens: Sequence[Token], index: int) -> Iterator[Said]:
    """`path.root`, `path.cwd`, and forms that could be either; not `x.path` and not a key."""
    after = _kind(tokens, index + 1)
    if _kind(tokens, index - 1) == "." or after not in (".", "["):
        return
    name = tokens[index + 2].text if index + 2 < len(tokens) else ""
    if after == "[" or name in ("root", "cwd"):
        yield "host-path", tokens[index].at, "only path.module leads into the catalog: use that"


def _binding(tokens: Sequence[Token], index: int) -> Iterator[Said]:
    """`for path in ...` would make `path.module` anything."""
    names = [token for token in tokens[index + 1 : index + 4] if token.kind == "id"]
    if any(token.text == "path" for token in names[:2]):
        yield "file-path", tokens[index].at, "a `for` that calls its value `path` hides path.module: rename it"


# --- paths --------------------------------------------------------------------------------------------------------


def _path_call(tokens: Sequence[Token], index: int, folder: str | None) -> Iterator[Seen]:
    name, at = tokens[index].text, tokens[index].at
    if folder is None:
        yield "template", at, f"{name}() in a template: read the file in the module and pass its content in"
        return
    arguments = [*_arguments(tokens, index + 1)]
    first, second = arguments[0], arguments[1] if len(arguments) > 1 else []
    target = _target(first, folder)
    if target is None:
        yield (
            "file-path",
            at,
            (
                f'the path of {name}() must be written out, as in {name}("${{path.module}}/x"), and stay in this repository'
            ),
        )
    elif name == "templatefile":
        yield Followed(target, at)
    elif name == "fileset" and not _plain_pattern(second):
        yield "file-path", at, 'the pattern of fileset() must be literal, without "..", a backslash or a leading "/"'


def _arguments(tokens: Sequence[Token], index: int) -> Iterator[list[Token]]:
    """The arguments of the call whose parenthesis is at `index`, of which the first two matter."""
    found: list[Token] = []
    depth = 0
    for token in tokens[index + 1 :]:
        if not depth and token.kind in (",", ")"):
            yield found
            found = []
            if token.kind == ")":
                return
        else:
            depth += (token.kind in OPENS) - (token.kind in CLOSES)
            found.append(token)


def _target(tokens: Sequence[Token], folder: str) -> str | None:
    """Where in the tree `path.module` or `"${path.module}/literal"` leads; None for anything else."""
    kinds, texts = [token.kind for token in tokens], [token.text for token in tokens]
    bare = ["id", ".", "id"]
    quoted = ["oq", "${", *bare, "end"]
    if kinds == bare:
        return _within(folder, "") if texts == ["path", ".", "module"] else None
    if kinds not in ([*quoted, "cq"], [*quoted, "lit", "cq"]) or texts[1:6] != ["${", "path", ".", "module", "}"]:
        return None
    below = texts[6] if len(kinds) == 8 else ""
    return _within(folder, below) if not below or below.startswith("/") else None


def _within(folder: str, below: str) -> str | None:
    """The path, from the root of the tree; None where it leaves the tree."""
    found: list[str] = []
    for part in f"{folder}/{below}".split("/"):
        if part == "..":
            if not found:
                return None
            found.pop()
        elif part not in ("", "."):
            found.append(part)
    return "/".join(found)


def _plain_pattern(tokens: Sequence[Token]) -> bool:
    if [token.kind for token in tokens] != ["oq", "lit", "cq"]:
        return False
    text = tokens[1].text
    return ".." not in text and "\\" not in text and not text.startswith("/")

"""What files may be called and hold, whatever is in them as a language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from reconciler.vetting.facts import Files, Finding

CONFIGURATION = (".tf.json", ".tofu.json", ".tf", ".tofu")
TOFU = "tofu"
_REGULAR = {"100644", "100755"}
_PROGRAM = "100755"
_STEM = re.compile(r"(?:\.tf|\.tofu)(?:\.json)?$")
_OF_TOFU = re.compile(r"\.tofu(\.json)?$")
_VARIABLES = re.compile(r"terraform\.tfvars(?:\.json)?|.*\.auto\.tfvars(?:\.json)?")
_ENGINE = re.compile(
    r"\.terraform\.lock\.hcl|\.terraformrc|\.tofurc|terraform\.rc|tofu\.rc|\.terraform\.tfstate\.lock\.info"
    r"|.*\.tfstate(?:\..*)?|.*\.tfplan"
)
_ENGINE_FOLDERS = frozenset((".terraform", "terraform.d"))

# The first bytes of what can be run, loaded or unpacked. `#!` alone is text: templates of user data begin so.
_MAGIC: Mapping[bytes, str] = {
    b"\x7fELF": "a program (ELF)",
    b"\xfe\xed\xfa\xce": "a program (Mach-O)",
    b"\xfe\xed\xfa\xcf": "a program (Mach-O)",
    b"\xce\xfa\xed\xfe": "a program (Mach-O)",
    b"\xcf\xfa\xed\xfe": "a program (Mach-O)",
    b"\xca\xfe\xba\xbe": "a program (Mach-O or Java)",
    b"MZ": "a program (PE)",
    b"\0asm": "a program (WebAssembly)",
    b"!<arch>\n": "an archive (ar)",
    b"PK\x03\x04": "an archive (zip)",
    b"PK\x05\x06": "an archive (zip)",
    b"\x1f\x8b": "an archive (gzip)",
    b"BZh": "an archive (bzip2)",
    b"\xfd7zXZ\0": "an archive (xz)",
    b"\x28\xb5\x2f\xfd": "an archive (zstd)",
    b"7z\xbc\xaf\x27\x1c": "an archive (7z)",
    b"Rar!\x1a\x07": "an archive (rar)",
}
_MAGIC_BY_FIRST = {first: [m for m in _MAGIC if m[0] == first] for first in {magic[0] for magic in _MAGIC}}


def odd_modes(files: Files, paths: Iterable[str]) -> Iterator[Finding]:
    """Links, submodules and the like."""
    for path in paths:
        if (mode := files[path][0]) not in _REGULAR:
            yield Finding("link", path, 0, 0, f"mode {mode} is no file: put the file itself here")


def is_configuration(name: str) -> bool:
    """Whether any engine reads the file as a part of a module; those that start with a dot are taken along."""
    return name.endswith(CONFIGURATION)


def read_by(product: str, names: Iterable[str]) -> list[str]:
    """Those of a folder's files that one engine (`tofu` or `terraform`) reads, in order.

    OpenTofu leaves x.tf alone where x.tofu is, and x.tf.json where x.tofu.json is; Terraform knows no .tofu.
    """
    there = {name for name in names if is_configuration(name) and not name.startswith(".")}
    theirs = {name for name in there if _OF_TOFU.search(name)}
    if product != TOFU:
        return sorted(there - theirs)
    return sorted(there - {_OF_TOFU.sub(r".tf\1", name) for name in theirs})


def beside(path: str, name: str) -> Iterator[Finding]:
    """What the name of a file right in a module's folder says."""
    if is_configuration(name):
        stem = _STEM.sub("", name)
        if stem == "override" or stem.endswith("_override"):
            yield Finding("override-file", path, 0, 0, "it changes what other files say: write it there")
    elif _VARIABLES.fullmatch(name):
        yield Finding("variables-file", path, 0, 0, "values come from entries: take it out, or make it defaults")
    elif _ENGINE.fullmatch(name):
        yield Finding("engine-file", path, 0, 0, "it is an engine's own, and no part of a module: take it out")


def below(files: Files, path: str, inner: str) -> Iterator[Finding]:
    """What a file anywhere below a module's folder is; `inner` is its path from there."""
    if inner.partition("/")[0] in _ENGINE_FOLDERS and "/" in inner:
        yield Finding("engine-file", path, 0, 0, "the folder is an engine's own: take it out")
    mode, content = files[path]
    if mode == _PROGRAM:
        yield Finding("executable", path, 0, 0, "nothing in a module is run: take the executable bit away (chmod -x)")
    if what := _program(content):
        yield Finding("binary", path, 0, 0, f"{what}: nobody can review it; keep it in an object store")


def _program(content: bytes) -> str:
    if not content:
        return ""
    for magic in _MAGIC_BY_FIRST.get(content[0], ()):
        if content.startswith(magic):
            return _MAGIC[magic] if magic != b"MZ" or b"\0" in content[:128] else ""
    return "an archive (tar)" if content[257:262] == b"ustar" else ""

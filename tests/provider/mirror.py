"""Builds a filesystem mirror that holds `reconciler/files`; also a command: `mirror.py FOLDER`, `mirror.py --hash`.

The package is the same bytes everywhere (see its launcher), so its hash can stand in the committed catalog-lock.yaml,
the same for every platform and for both registries' names. What differs between machines, the interpreter and where
the objects live, comes by the variables FILES_PYTHON and FILES_ROOT, which the runner hands to providers when its
host lists them. An interpreter in the shebang would change the hash, `/usr/bin/env` needs a PATH that the runner does
not give, and a path relative to the mirror breaks when Terraform copies the package instead of linking it.
"""

from __future__ import annotations

import base64
import hashlib
import platform
import shutil
import sys
from pathlib import Path

HOSTS = ("registry.terraform.io", "registry.opentofu.org")
SOURCE = "reconciler/files"
VERSION = "1.0.0"
PACKAGE = Path(__file__).resolve().parent / "package"
LAUNCHER = f"terraform-provider-files_v{VERSION}"


def this_platform() -> str:
    """Go's name of this machine, as in `linux_amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}_{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def package_files(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def h1(package: Path) -> str:
    """Terraform's hash of an unpacked provider (Go's dirhash.Hash1), as it stands in a lock file."""
    names = sorted((path.relative_to(package).as_posix(), path) for path in package_files(package))
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in names)
    return "h1:" + base64.b64encode(hashlib.sha256("".join(lines).encode()).digest()).decode()


def build(folder: Path) -> str:
    """Write the mirror below `folder` and return the package's hash."""
    for host in HOSTS:
        target = folder / host / SOURCE / VERSION / this_platform()
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(PACKAGE, target, ignore=shutil.ignore_patterns("__pycache__"))
        (target / LAUNCHER).chmod(0o755)
    return h1(PACKAGE)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: mirror.py FOLDER | --hash")
    print(h1(PACKAGE) if sys.argv[1] == "--hash" else build(Path(sys.argv[1])))

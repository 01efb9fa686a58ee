"""A root that is nothing but one locked provider: what an engine's `init` installs from it goes into the runner's mirror."""

from __future__ import annotations

import json
from pathlib import Path

from reconciler.errors import UnitError
from reconciler.runner.terraform.packages import Wanted, unpacked
from reconciler.runner.terraform.workspace import LOCK_FILE, ROOT_FILE

FILL_SECONDS = 900.0  # a provider of half a gigabyte over a slow line


def install_root(folder: Path, one: Wanted) -> None:
    """Write the root, and a lock file with the hashes of which the package must have one."""
    required = {"it": {"source": f"{one.host}/{one.source}", "version": one.version}}
    (folder / ROOT_FILE).write_text(json.dumps({"terraform": {"required_providers": required}}), encoding="utf-8")
    hashes = "".join(f"    {json.dumps(found)},\n" for found in sorted(one.hashes))
    block = (
        f'provider "{one.host}/{one.source}" {{\n  version = {json.dumps(one.version)}\n  hashes = [\n{hashes}  ]\n}}\n'
    )
    (folder / LOCK_FILE).write_text(block, encoding="utf-8")


def installed(folder: Path, one: Wanted) -> Path:
    """Where `init` has put the package.

    Raises:
        UnitError: it is not there.
    """
    found = unpacked(folder / ".terraform" / "providers", one)
    if not found.is_dir() or found.is_symlink():
        raise UnitError("ProviderFetchFailed", f"the engine installed no {one} for this machine; see the job's log.")
    return found

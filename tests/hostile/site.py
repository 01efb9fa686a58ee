"""The smallest site that means something, and what one commit of it means with some of its files replaced."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.desired.load import Loader
from reconciler.model import Commit, Desired

LOCK_PATH = "catalog-lock.yaml"
ENVIRONMENT_PATH = "environments/prod/environment.yaml"
ENTRY_PATH = "environments/prod/network.yaml"

LOCK = f"""\
lock_version: 1
modules:
  acme/vpc:
    path: modules/vpc
    versions:
      "1.0.0": {{ref: v1.0.0, commit: {"a" * 40}, digest: "sha256:{"1" * 64}"}}
"""
ENVIRONMENT = "class: protected\n"
ENTRY = 'module: acme/vpc\nversion: "1.0.0"\n'
FILES: Mapping[str, bytes] = {
    LOCK_PATH: LOCK.encode(),
    ENVIRONMENT_PATH: ENVIRONMENT.encode(),
    ENTRY_PATH: ENTRY.encode(),
}


def load(files: Mapping[str, bytes]) -> Desired:
    """What a commit with these files besides, or instead of, those of the site means."""
    whole = {**FILES, **files}
    return Loader().load(Commit("c" * 40), {path: path for path in whole}, lambda ids: {one: whole[one] for one in ids})

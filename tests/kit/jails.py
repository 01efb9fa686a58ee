"""Jails of each tier that this machine offers, and a Python in them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.runner.jail.egress import Egress
from reconciler.runner.jail.keeper import Jailer
from reconciler.runner.jail.landlock import SCOPES_SINCE, newest
from reconciler.runner.jail.space import Limits
from reconciler.runner.jail.tier import FALLBACK, STRICT, Sandbox, make_sandbox
from reconciler.runner.jail.trial import interpreter, own_python, program, python_for_all


@dataclass(frozen=True, slots=True)
class Yard:
    """A folder in which a tier's jails can be made."""

    tier: str
    folder: Path
    sandbox: Sandbox
    python: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def readable(self) -> Path:
        return self.folder / "readable"

    @property
    def refused(self) -> Path:
        return self.folder / "refused"

    def probes(self) -> tuple[str, ...]:
        """The command that tries to get out."""
        return program(self.python, self.readable)

    def jailer(self, *readable: Path, limits: Limits | None = None) -> Jailer:
        """A jail with the Python in it, and these."""
        shown: Sequence[Path] = (*interpreter(self.python), *readable)
        found = self.sandbox.jailer(self.work, shown, Egress(), self.refused)
        return found if limits is None else Jailer(replace(found.cell, limits=limits))


@contextmanager
def yard(tier: str) -> Iterator[Yard]:
    """A yard that every user can reach. Skips, and says why, where the machine cannot offer the tier at all; a strict one
    it must be able to offer.
    """
    if tier == FALLBACK and os.geteuid():
        pytest.skip("the tier fallback cannot run: it takes root, to become the users that jobs run as")
    if tier != STRICT and not _has_landlock():
        pytest.skip(f"the tier {tier} cannot run: the kernel has not all of Landlock")
    folder = Path(tempfile.mkdtemp(prefix="jail-")).resolve()
    try:
        folder.chmod(0o711)
        (folder / "readable").mkdir(mode=0o755)
        python = python_for_all() if tier == FALLBACK else own_python()
        yield Yard(tier, folder, make_sandbox(tier, folder), python)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_landlock() -> bool:
    """Whether the kernel has all of it that the tiers are made of: a runner there finds out by its probes."""
    try:
        return newest() >= SCOPES_SINCE
    except OSError:
        return False

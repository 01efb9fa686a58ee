"""What a worker is started with, and so all that it can know."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reconciler import codec
from reconciler.runner.jail.egress import Egress


@dataclass(frozen=True, slots=True)
class Spec:
    """Jobs with equal specs may have the same worker, one after another; no others.

    `owned` are providers that it starts for itself and keeps, address -> program. `environment` is one for one operation, as its host has it, and the code's own trust: all that must not be mixed. `providers` are
    those of the lock, each with the hash that was proven in `mirror`. `env` are the variables: the library reads them once. `fetches`: keys are fetched from each
    job in its turn, at a place that stays the same.
    """

    environment: tuple[str, ...]
    providers: tuple[str, ...]
    mirror: Path
    trees: Path
    env: Mapping[str, str] = field(repr=False)
    egress: Egress = field(default_factory=Egress)
    owned: Mapping[str, str] = field(default_factory=dict)
    fetches: bool = False

    @property
    def key(self) -> str:
        """Equal for equal specs alone."""
        return hashlib.sha256(codec.encode(self)).hexdigest()

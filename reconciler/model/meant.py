"""What one commit means."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from reconciler.model.words import Commit, Digest, Presence, UnitId
from reconciler.model.written import Entry, Environment, Pin, Problem, Reference


@dataclass(frozen=True, slots=True)
class Unit:
    """An entry resolved: a pinned module, its inputs and references. It has exactly one Terraform state.

    `intent` digests everything that one commit says about the unit: equal intents, equal review.
    """

    id: UnitId
    entry: Entry
    environment: Environment
    pin: Pin
    references: frozenset[Reference]
    secrets: frozenset[str]
    upstream: AbstractSet[UnitId]  # units that must be in order first: references, depends_on, environments
    module_part: Digest
    inputs_part: Digest
    settings_part: Digest
    intent: Digest

    @property
    def presence(self) -> Presence:
        """Whether the unit shall exist."""
        return self.entry.presence

    @property
    def reads(self) -> frozenset[UnitId]:
        """The units whose outputs this unit reads."""
        return frozenset(r.unit for r in self.references)


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that one commit of the environments repository means. A broken entry is in `broken` only.

    `locked` is every (module, version) of the lock that could be read.
    """

    commit: Commit
    units: Mapping[UnitId, Unit] = field(default_factory=dict)
    broken: Mapping[UnitId, Problem] = field(default_factory=dict)
    environments: Mapping[str, Environment] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    order: tuple[UnitId, ...] = ()  # every unit of `units`, upstream first
    locked: frozenset[tuple[str, str]] = frozenset()

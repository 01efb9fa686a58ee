"""What users write, as it is after parsing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from reconciler.errors import Place
from reconciler.model.words import Commit, Digest, DriftMode, EnvironmentClass, Json, Presence, ReviewMode, UnitId


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a file: where, what, and what to write instead."""

    place: Place
    reason: str
    message: str
    unit: UnitId | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Reference:
    """`${{ unit.output.path }}`: a value inside an output of another unit."""

    unit: UnitId
    output: str
    path: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretReference:
    """`${{ secret.name }}`: a value that only the runner can read."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string with values inside it; each part is literal text or something that becomes text."""

    parts: tuple[str | Reference | SecretReference, ...]


# An input: JSON in which `Reference`, `SecretReference` and `Text` may stand for values.
Expression = object


@dataclass(frozen=True, slots=True)
class Limits:
    """What one apply may do without an allowance. Counts are objects."""

    destroy: int = 0
    recreate: int = 3
    free_replace: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one plan and one apply may take."""

    plan: timedelta = timedelta(minutes=15)
    apply: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which nothing is applied: it opens whenever `cron` says so in `timezone`, and lasts `duration` of real time."""

    cron: str
    duration: timedelta
    timezone: str
    reason: str


@dataclass(frozen=True, slots=True)
class Promotion:
    """Code enters an environment only once everything in `after` that uses it was in order for `soak`, without a break."""

    after: str
    soak: timedelta


class Over(StrEnum):
    """What a rule is asked of: the whole plan, or each resource that it changes."""

    PLAN = "plan"
    RESOURCE = "resource"


@dataclass(frozen=True, slots=True)
class Rule:
    """A CEL expression that must be true of a plan before it is applied, and what is said where it is not."""

    name: str
    over: Over
    expression: str
    message: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What an environment.yaml lets through; all else in it says what is wanted."""

    klass: EnvironmentClass
    drift: DriftMode = DriftMode.CORRECT
    review: ReviewMode = ReviewMode.WHEN_AVAILABLE
    limits: Limits = field(default_factory=Limits)
    freeze: tuple[Window, ...] = ()
    promotion: tuple[Promotion, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Environment:
    """`environments/<name>/environment.yaml`, as jobs are judged by it.

    Where the merge that changed it made it looser, `drift`, `review`, `limits`, `freeze`, `promotion` and `rules` are the stricter of before
    and now, `strict_class` is the class of before, and `says` is what the file says: it counts from the next merge on.
    """

    name: str
    place: Place
    klass: EnvironmentClass
    providers: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    drift: DriftMode = DriftMode.CORRECT
    drift_interval: timedelta = timedelta(hours=1)
    depends_on: tuple[str, ...] = ()
    review: ReviewMode = ReviewMode.WHEN_AVAILABLE
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    freeze: tuple[Window, ...] = ()
    promotion: tuple[Promotion, ...] = ()
    rules: tuple[Rule, ...] = ()
    strict_class: EnvironmentClass | None = None
    says: Policy | None = None


@dataclass(frozen=True, slots=True)
class Allowances:
    """The lines of an entry that let one apply do more than the limits say; each has a life of its own."""

    destroy: int = 0
    downgrade: bool = False
    replace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry file, parsed and checked for itself alone. `places` gives the position of each field and input.

    `imports`: addresses inside the module, and the id of the existing object that each takes over. `adopt`: the state that
    others made and that becomes the unit's, `s3://<bucket>/<key>` or a path on the runner's host.
    """

    unit: UnitId
    place: Place
    module: str
    version: str | None
    ref: str | None = None
    inputs: Mapping[str, Expression] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[UnitId, ...] = ()
    presence: Presence = Presence.PRESENT
    allowances: Allowances = field(default_factory=Allowances)
    moved_from: UnitId | None = None
    promotion_skip: str | None = None
    imports: Mapping[str, str] = field(default_factory=dict)
    adopt: str | None = None
    places: Mapping[str, Place] = field(default_factory=dict)

    def at(self, name: str) -> Place:
        """Where the field `name`, or the input `inputs.<name>`, stands; the file where it does not."""
        return self.places.get(name, self.place)


@dataclass(frozen=True, slots=True)
class ProviderPin:
    """One provider of a locked version. `hashes` maps a registry's host to its `h1:`/`zh:` hashes."""

    source: str
    version: str
    hashes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pin:
    """A module and version of `catalog-lock.yaml`: everything needed to get exactly that code."""

    module: str
    version: str
    path: str
    ref: str
    commit: Commit
    digest: Digest
    providers: tuple[ProviderPin, ...] = ()
    yanked: str | None = None
    floating: bool = False  # a branch that a sandbox names, not a version of the lock

    @property
    def repository(self) -> str:
        """The name of the catalog repository, as the host's configuration knows it."""
        return self.module.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Lock:
    """`catalog-lock.yaml`: module -> version -> pin."""

    modules: Mapping[str, Mapping[str, Pin]] = field(default_factory=dict)

    def pins(self) -> Iterator[Pin]:
        """Every pin there is."""
        for versions in self.modules.values():
            yield from versions.values()

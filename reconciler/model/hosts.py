"""What a runner says of its host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from reconciler.model.words import EnvironmentClass


@dataclass(frozen=True, slots=True)
class HostPart:
    """What an environment's host says of itself, opaque: `digest` of its settings, an HMAC for each secret and each account."""

    klass: EnvironmentClass
    digest: str
    secrets: Mapping[str, str]
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AuditFacts:
    """How far the runner's audit log, and its anchor, are. `anchored` is None where there is no anchor.

    `waiting_since`: when the first record that is not anchored was first seen so; `failure`: why the anchor was not reached.
    """

    records: int
    anchored: int | None = None
    waiting_since: datetime | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """How the runner stands to the protected branch: why it applies nothing at all, and why it waits with a commit, if so."""

    frozen: str = ""
    frozen_at: datetime | None = None
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """What a runner publishes (`runner describe`): the other half of every fingerprint.

    `fence` is the highest that any job had, and no part of what the runner is: facts that differ in it alone are equal.
    `sandbox` is the tier of the jail that its jobs run in. `memory` is what its host has, in MiB; 0: nobody knows.
    """

    engine: str
    engine_version: str
    environments: Mapping[str, HostPart]
    fence: int = field(default=0, compare=False)
    audit: AuditFacts | None = field(default=None, compare=False)
    sandbox: str = field(default="none", compare=False)
    trust: TrustFacts | None = field(default=None, compare=False)
    memory: int = 0

"""Ids and words that all else is said with."""

from __future__ import annotations

from enum import StrEnum
from typing import NewType

Commit = NewType("Commit", str)  # 40 lower-case hex digits
Digest = NewType("Digest", str)  # "sha256:" and 64 hex digits
UnitId = NewType("UnitId", str)  # "prod/network": the entry's path under environments/ without its suffix
JobId = NewType("JobId", str)
# What JSON can say: the values of inputs, outputs and provider configuration.
Json = object


class EnvironmentClass(StrEnum):
    """Whether people may write to an environment directly."""

    PROTECTED = "protected"
    SANDBOX = "sandbox"


class DriftMode(StrEnum):
    """What happens when the real world differs although nothing was merged."""

    CORRECT = "correct"
    REPORT = "report"


class ReviewMode(StrEnum):
    """Whether an apply is bound to the plan that the review showed."""

    REQUIRED = "required"
    WHEN_AVAILABLE = "when_available"
    OFF = "off"


class Presence(StrEnum):
    """What an entry says of its own existence."""

    PRESENT = "present"
    ABSENT = "absent"
    FORGOTTEN = "forgotten"


class Operation(StrEnum):
    """The only two things that a runner can be asked to do."""

    PLAN = "plan"
    APPLY = "apply"


class Outcome(StrEnum):
    """How a job ended. `UNCERTAIN`: it died while it may have been applying."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    HELD = "Held"
    SUPERSEDED = "Superseded"
    UNCERTAIN = "Uncertain"


class Phase(StrEnum):
    """Where a running job is."""

    QUEUED = "Queued"
    VERIFYING = "Verifying"
    PLANNING = "Planning"
    APPLYING = "Applying"


class Cause(StrEnum):
    """Why a unit is planned or changed: the first part of its fingerprint that differs, drift, or that somebody else wrote."""

    DESIRED = "desired"
    CATALOG = "catalog"
    SETTINGS = "settings"
    UPSTREAM = "upstream"
    DRIFT = "drift"
    OUT_OF_BAND = "out-of-band"

    @property
    def is_look(self) -> bool:
        """Whether nothing was merged: the unit is looked at."""
        return self in (Cause.DRIFT, Cause.OUT_OF_BAND)


class Sync(StrEnum):
    """Whether the unit's applied fingerprint is its desired one and its last plan was empty."""

    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


class Health(StrEnum):
    """How the unit fares."""

    HEALTHY = "Healthy"
    PROGRESSING = "Progressing"
    DEGRADED = "Degraded"
    SUSPENDED = "Suspended"
    MISSING = "Missing"
    UNKNOWN = "Unknown"

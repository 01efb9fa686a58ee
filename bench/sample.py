"""Units in memory: what a commit with so many entries means, and a ledger in which all of them are in order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from reconciler.demo import example
from reconciler.demo.forge import Forge
from reconciler.desired.load import Loader
from reconciler.git.head import Head
from reconciler.model import Commit, Desired, EnvironmentClass, HostPart, Job, JobId, Result, RunnerFacts
from reconciler.ports import Lost, Running
from tests.kit.graph import CATALOG, ENVIRONMENT, LOCK, Graph

FACTS = RunnerFacts(
    "terraform", "1.11.4", {ENVIRONMENT: HostPart(EnvironmentClass.PROTECTED, "digest", {"db_password": "hmac:1"})}
)


def graph(units: int) -> Graph:
    """Half of the units in chains of five, the others a fan."""
    return Graph(chains=units // 10, length=5, leaves=units - units // 10 * 5)


def files(folder: Path, units: int) -> dict[str, str]:
    """The environments repository: so many entries, and the lock of a catalog that is made in the folder."""
    return {LOCK: catalog_lock(folder), **graph(units).files()}


def catalog_lock(folder: Path) -> str:
    """The lock of a catalog that is made in the folder."""
    forge = Forge.create(folder / "catalog.git")
    example.release(forge, CATALOG)
    return example.lock_of(forge, CATALOG, "acme")


def desired(tree: Mapping[str, str]) -> Desired:
    """What these files mean."""
    blobs = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in tree.items()}
    texts = {blobs[path]: text.encode() for path, text in tree.items()}
    found = Loader().load(Commit("a" * 40), blobs, lambda ids: {id_: texts[id_] for id_ in ids})
    assert not found.problems, found.problems[0]
    return found


class WallClock:
    """The host's clock."""

    def now(self) -> datetime:
        """See `ports.Clock`."""
        return datetime.now(UTC)


@dataclass
class Still:
    """A source that always means the same. Implements `ports.Source`."""

    meaning: Desired

    def latest(self) -> Desired | None:
        """See `Source`."""
        return self.meaning


@dataclass
class Instant:
    """Jobs that have ended as soon as they are asked for. Implements `ports.Executor`."""

    facts: RunnerFacts = FACTS
    results: dict[JobId, Result] = field(default_factory=dict)
    started: list[Job] = field(default_factory=list)

    def start(self, job: Job) -> None:
        """See `Executor`."""
        self.started.append(job)

    def poll(self, job_id: JobId) -> Running | Result | Lost:
        """See `Executor`."""
        return self.results[job_id]

    def cancel(self, job_id: JobId) -> None:
        """See `Executor`."""

    def lead(self, fence: int) -> None:
        """See `Executor`."""

    def describe(self) -> RunnerFacts:
        """See `Executor`."""
        return self.facts

    def log(self, job_id: JobId, offset: int) -> bytes:  # noqa: ARG002 - the interface has them
        """See `Executor`."""
        return b""


class AcceptedInMemory:
    """The accepted head, in memory. Implements `git.source.AcceptedHead`."""

    def __init__(self) -> None:
        self.commit: Commit | None = None

    def load(self) -> Commit | None:
        """See `AcceptedHead`."""
        return self.commit

    def base(self) -> Commit | None:
        """See `AcceptedHead`."""
        return self.commit

    def was_accepted(self, commit: Commit) -> bool:
        """See `AcceptedHead`."""
        return commit == self.commit

    def save(self, head: Head) -> None:
        """See `AcceptedHead`."""
        self.commit = head.commit

"""A repository read from nothing: beside what is usual, and beside a start that finds what an earlier one has parsed."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from bench.row import Row, compared
from bench.sample import AcceptedInMemory, catalog_lock
from git import Repo
from reconciler.branch.kept import KeptEntries
from reconciler.branch.protected import Catalogs, ProtectedBranch, uncollected
from reconciler.demo.forge import Forge
from reconciler.desired.load import Loader
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Desired
from tests.kit.graph import LOCK, MODULE, VERSION

UNITS = 10_000
ROUNDS = 3  # at most: the usual way takes its time


def rows(folder: Path, rounds: int) -> Iterator[Row]:
    """CPU of this process and of its git."""
    site = Site(folder / "load", UNITS)
    cold, meant, kept, again = [], [], [], []
    for _ in range(min(rounds, ROUNDS)):
        theirs = _cpu(site.usual)
        cold.append((_cpu(lambda: site.read(None)), theirs))
        meant.append((_cpu(site.cold), theirs))
    for _ in range(2 * rounds):
        kept.append((_cpu(lambda: site.read(KeptEntries(site.file))), _cpu(lambda: site.read(None))))
        again.append((_cpu(site.warm), _cpu(site.cold)))
    yield compared(
        f"{UNITS:,} entries read, parsed, checked / GitPython, SafeLoader, pydantic", "<= 0.20", cold, "ms", most=0.2
    )
    yield compared("  the same, to what they mean", "", meant, "ms")
    yield compared(
        f"{UNITS:,} entries at a start that finds them parsed / one that does not", "<= 0.25", kept, "ms", most=0.25
    )
    yield compared("  the same, to what they mean", "", again, "ms")


GROUP = 100  # units: a network, a cluster, and services that read both
SERVICE = """\
# yaml-language-server: $schema=../../schemas/entry.schema.json
module: {module}
version: "{version}"
inputs:
  name: service-{number}-${{{{ network-{group}.value.zones[0].name }}}}
  network_id: ${{{{ network-{group}.value.id }}}}
  cluster_id: ${{{{ cluster-{group}.value.id }}}}
  zone: ${{{{ network-{group}.value.zones[0].name }}}}
  node: ${{{{ cluster-{group}.value.nodes[0].name }}}}
  image: registry.example.com/service-{number}:2.3.1
  replicas: 2
  join_token: ${{{{ cluster-{group}.value.join_token }}}}
  password: ${{{{ secret.db_password }}}}
  tags: {{team: payments, cost-center: "4711", tier: backend}}
"""
NETWORK = """\
module: {module}
version: "{version}"
inputs:
  name: main
  cidr: 10.30.0.0/16
  zones: [a, b]
"""
CLUSTER = """\
module: {module}
version: "{version}"
inputs:
  name: prod
  network_id: ${{{{ network-{group}.value.id }}}}
  subnet_ids: ${{{{ network-{group}.value.subnet_ids }}}}
  node_count: 3
"""


def entries_like_the_example(folder: Path, units: int) -> dict[str, str]:
    """Entries as those of the worked example."""
    found = {LOCK: catalog_lock(folder), "environments/prod/environment.yaml": "class: protected\n"}
    for number in range(units):
        group, place = divmod(number, GROUP)
        name = (f"network-{group}", f"cluster-{group}")[place] if place < 2 else f"service-{number}"
        text = (NETWORK, CLUSTER)[place] if place < 2 else SERVICE
        found[f"environments/prod/{name}.yaml"] = text.format(
            module=MODULE, version=VERSION, group=group, number=number
        )
    return found


class Site:
    """A repository with so many entries, its mirror, and a file with them parsed."""

    def __init__(self, folder: Path, units: int) -> None:
        folder.mkdir()
        self.file = folder / "entries"
        self._folder, self._units = folder, units
        self._forge = Forge.create(folder / "environments.git")
        self._forge.commit(entries_like_the_example(folder, units), "All")
        self._source = EnvironmentsSource(
            Remote(self._forge.url), "main", folder / "mirror", AcceptedInMemory(),
            genesis=None, genesis_required=False, allow_file=True,
        )  # fmt: skip
        self._source.accept(self._source.poll())
        branch = self._branch(KeptEntries(self.file))
        branch.load(self._forge.head)
        branch.keep()

    def usual(self) -> None:
        """As it is read by most: with the libraries' own ways, and without a look at what is doubled."""
        repo = Repo(self._folder / "mirror" / "current")
        tree: Any = repo.commit(self._forge.head).tree
        blobs = [one for one in tree["environments"].traverse() if one.type == "blob"]
        found = [
            UsualEntry.model_validate(yaml.load(blob.data_stream.read(), yaml.SafeLoader))
            for blob in blobs
            if blob.name != "environment.yaml"
        ]
        assert len(found) == self._units

    def cold(self) -> Desired:
        """All of it, as on a host that has nothing."""
        return self._whole(None)

    def warm(self) -> Desired:
        """The same with what was parsed before."""
        return self._whole(KeptEntries(self.file))

    def read(self, kept: KeptEntries | None) -> None:
        """Up to the entries: what is done with them is the same either way."""
        loader, branch = Loader(kept.find) if kept else Loader(), self._branch(None)
        files = branch._list(self._forge.head)  # noqa: SLF001 - half of a load
        with uncollected():
            loader._read(files.blobs, branch._read)  # noqa: SLF001
        assert len(loader.entries[0]) == self._units

    def _whole(self, kept: KeptEntries | None) -> Desired:
        found = self._branch(kept).load(self._forge.head)
        assert len(found.units) == self._units, found.problems[:1]
        return found

    def _branch(self, kept: KeptEntries | None) -> ProtectedBranch:
        return ProtectedBranch(self._source, Catalogs({}, self._folder / "trees"), kept=kept)


class UsualEntry(BaseModel):
    """An entry, as a program without care for places and mistakes would read it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    module: str
    version: str
    inputs: dict[str, Any] = {}
    providers: dict[str, str] = {}
    depends_on: list[str] = []
    state: str = "present"


def _cpu(work: Callable[[], object]) -> float:
    """Milliseconds of CPU, git's with it."""
    gc.collect()
    before = _used()
    work()
    return 1000 * (_used() - before)


def _used() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in both)

"""What a merge costs the controller, from the fetched commit to decisions: beside all of it, and beside one in a smaller repository."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench.row import Row, compared, cpu
from bench.sample import FACTS, AcceptedInMemory, desired, files
from reconciler.branch.protected import Catalogs, ProtectedBranch
from reconciler.deciding.budgets import Capacity
from reconciler.deciding.passes import Passes
from reconciler.demo.forge import Forge
from reconciler.git.catalog import CatalogRepo
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.model import Desired
from tests.kit.graph import ENVIRONMENT
from tests.kit.synced import record_synced
from tests.kit.world import MemoryStore

CAPACITY = Capacity(workers=2, per_environment=2)
AIMED_AT, LARGE = 10_000, 100_000


def rows(folder: Path, sizes: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """Of one merge and of a hundred entries in each size, and of the largest beside the one before it."""
    sites = []
    for units in sizes:
        site = Site(folder / f"merge-{units}", units)
        few = min(rounds, 5) if units >= LARGE else rounds
        one, hundred = [], []
        for _ in range(few):
            whole = 1000 * site.whole()
            one.append((1000 * site.merge(1), whole))
            hundred.append((1000 * site.merge(100), whole))
        for count, pairs, most in (("1 entry", one, 1), ("100 entries", hundred, 3)):
            name, aim = f"a merge of {count} in {units:,}, to decisions", units >= AIMED_AT
            goal = f"<= {most} % of a full load" if aim else ""
            yield compared(name, goal, pairs, "ms", most=most / 100 if aim else None)
        sites.append(site)
    if len(sites) > 1:
        small, large = sites[-2:]
        pairs = [(1000 * large.merge(1), 1000 * small.merge(1)) for _ in range(4 * rounds)]
        name = f"a merge of 1 entry in {large.units:,}, beside one in {small.units:,}"
        goal = "<= 1.5" if large.units == LARGE else ""
        yield compared(name, goal, pairs, "ms", most=1.5 if goal else None)


class Site:
    """A repository with so many entries, the controller's mirror of it, and a ledger in which all of them are in order."""

    def __init__(self, folder: Path, units: int) -> None:
        folder.mkdir()
        self.units, self._folder, self._number = units, folder, 0
        self._tree = files(folder, units)
        self._leaves = [path for path in self._tree if path.startswith(f"environments/{ENVIRONMENT}/leaf-")]
        self._forge = Forge.create(folder / "environments.git")
        self._forge.commit(self._tree, "All")
        self._source = EnvironmentsSource(
            Remote(self._forge.url), "main", folder / "mirror", AcceptedInMemory(),
            genesis=None, genesis_required=False, allow_file=True,
        )  # fmt: skip
        self._store, self._now = MemoryStore(), datetime.now(UTC)
        record_synced(self._store, desired(self._tree), FACTS, self._now)
        self._source.poll()
        self._branch, self._passes = self._opened(), Passes()
        self._decide()

    def whole(self) -> float:
        """Seconds of CPU for everything, as after a start: git's own are not counted."""
        self._branch, self._passes = self._opened(), Passes()
        return cpu(self._decide)

    def merge(self, entries: int) -> float:
        """Seconds of CPU for a commit that changes so many entries."""
        self.commit(entries)
        return cpu(self._decide)

    def commit(self, entries: int) -> None:
        """Change so many entries, and fetch that."""
        self._number += 1
        changed = {path: f"{self._tree[path]}  note: change {self._number}\n" for path in self._leaves[7 : 7 + entries]}
        self._forge.commit(changed, "Some")
        self._source.poll()

    def meaning(self) -> Desired:
        """What the newest commit means."""
        return self._branch.proven(self._branch.load(self._forge.head))

    def _opened(self) -> ProtectedBranch:
        catalog = CatalogRepo(
            Remote(f"file://{self._folder / 'catalog.git'}"), "main", self._folder / "catalog-mirror", allow_file=True
        )
        return ProtectedBranch(self._source, Catalogs({"acme": catalog}, self._folder / "trees"))

    def _decide(self) -> None:
        meaning = self.meaning()
        assert len(meaning.units) == self.units, meaning.problems[:1] or [*meaning.broken.values()][:1]
        ledger = self._store.ledger()
        self._passes.turn(meaning, ledger, FACTS, self._now, CAPACITY)

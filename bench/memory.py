"""What the controller's process takes with many units: each size in a process of its own, started as after a restart."""

from __future__ import annotations

import ctypes
import gc
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from bench.load import entries_like_the_example
from bench.row import Row, known, limited
from bench.sample import FACTS, AcceptedInMemory, Instant, Still, WallClock
from reconciler import __version__
from reconciler.branch.kept import KeptEntries
from reconciler.branch.protected import Catalogs, ProtectedBranch
from reconciler.controller.tick import Runtime, tick
from reconciler.deciding.budgets import Capacity
from reconciler.demo.forge import Forge
from reconciler.git.remote import Remote
from reconciler.git.source import EnvironmentsSource
from reconciler.logs import open_log
from reconciler.model import Commit
from reconciler.observe import Observer
from reconciler.status import Outlook
from reconciler.store.sqlite import SqliteStore
from reconciler.web.series import Metrics
from tests.kit.synced import record_synced

CAPACITY = Capacity(workers=2, per_environment=2)
LARGE = 100_000


def rows(folder: Path, sizes: tuple[int, ...]) -> Iterator[Row]:
    """Kilobytes for a unit, and for the largest all of it."""
    for units in sizes:
        here = folder / f"memory-{units}"
        here.mkdir()
        _child("prepare", here, units)
        found = _child("measure", here, units)
        each = (found["with"] - found["base"]) / units / 1000
        name, goal = f"memory for one of {units:,} units", "<= 2 kB above the base at 10,000"
        yield (
            limited(name, goal, [each], "kB", 2) if units >= 10_000 else known(name, [each], "kB")
        )  # fewer: it is noise
        whole, most = found["with"] / 1e6, found["most"] / 1e6
        name = f"  the whole process, {units:,} units"
        yield limited(name, "< 500 MB at 100,000", [whole], "MB", 500) if units >= LARGE else known(name, [whole], "MB")
        yield known("  at its most, while it starts", [most], "MB")


def _child(what: str, folder: Path, units: int) -> dict[str, int]:
    argv = [sys.executable, "-m", "bench.memory", what, str(folder), str(units)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout or "{}")
    return found


def prepare(folder: Path, units: int) -> None:
    """A repository, the mirror of it, the parsed entries, and a store in which all are in order."""
    forge = Forge.create(folder / "environments.git")
    forge.commit(entries_like_the_example(folder, units), "All")
    branch = _branch(folder)
    head = branch.source.poll().commit
    meaning = branch.load(head)
    branch.keep()
    (folder / "head").write_text(head, encoding="ascii")
    clock = WallClock()
    with closing(SqliteStore(folder / "store.db", clock)) as store:
        record_synced(store, meaning, FACTS, clock.now())


def measure(folder: Path, units: int) -> dict[str, int]:
    """Bytes: of a process that has begun and knows nothing, of one that has passed over everything and shown it, and the most in between."""
    branch, clock = _branch(folder), WallClock()
    quiet = Observer(__version__, open_log(io.StringIO(), as_json=True, level="error"), clock.now)
    base = _resident("VmRSS")
    meaning = branch.load(Commit((folder / "head").read_text(encoding="ascii")), offline=True)
    assert len(meaning.units) == units, meaning.problems[:1]
    with closing(SqliteStore(folder / "store.db", clock)) as store:
        rt = Runtime(Still(meaning), store, Instant(), clock, quiet, CAPACITY, 1)
        tick(rt)
        outlook = Outlook(lambda: meaning, store.ledger, lambda: FACTS, clock.now, rt.known)
        metrics = Metrics(quiet, outlook.picture, __version__)
        metrics()
        gc.collect()
        _give_back()
        return {"base": base, "with": _resident("VmRSS"), "most": _resident("VmHWM")}


def _branch(folder: Path) -> ProtectedBranch:
    source = EnvironmentsSource(
        Remote(f"file://{folder / 'environments.git'}"), "main", folder / "mirror", AcceptedInMemory(),
        genesis=None, genesis_required=False, allow_file=True,
    )  # fmt: skip
    return ProtectedBranch(source, Catalogs({}, folder / "trees"), kept=KeptEntries(folder / "entries"))


def _give_back() -> None:
    """What was freed and is still held by the allocator is not what the units take."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {name}")


if __name__ == "__main__":
    work, place, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if work == "prepare":
        prepare(place, count)
    else:
        sys.stdout.write(json.dumps(measure(place, count)))

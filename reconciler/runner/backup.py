"""The runner's part of a backup: its memory. Jobs, mirrors and what is looked up anew are left out.

What is restored is a memory of then, in a world of now. Before it is put in place everything in it that would let more happen than
the memory that is lost would have is taken out, and what only stops something is taken over from the memory that it replaces, where
that can be read. `caution.py` does the rest, job by job.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler import codec, snapshot
from reconciler.archive import Archive, Piece, invalid
from reconciler.desired.template import SEGMENT
from reconciler.durable import FileLock, is_locked, write_atomic
from reconciler.errors import ConfigError, PassError, ReconcilerError
from reconciler.git.proofs import Proofs
from reconciler.model import Phase
from reconciler.runner import upgrade
from reconciler.runner.allowances import Allowed
from reconciler.runner.audit.log import AuditLog, Mark, segments
from reconciler.runner.audit.verify import segments_of, verify
from reconciler.runner.memory import KEY_BYTES, Applying, Memory
from reconciler.runner.record import Recorder
from reconciler.runner.restored import Restored
from reconciler.runner.spool import Spool
from reconciler.trust import is_final

PLANE = "runner"
AUDIT = "audit"
KEPT = (
    "version", "key", "trust.json", "fence.json", "pause", "restored.json",
    "units", "secrets", "reviews", "proofs", "catalogs",
)  # fmt: skip
STALE = ("seen.json", "fetched", "fetch-failed", "claims")  # what was looked up, and is looked up again
_UNIT = rf"{SEGMENT}(?:/{SEGMENT})+\.json"
NAMES = re.compile(
    r"version|key|pause|(?:trust|fence|restored)\.json"
    rf"|units/{_UNIT}|reviews/{_UNIT}|reviews/\.pulls/[0-9]{{1,18}}\.json"
    rf"|secrets/{SEGMENT}/[A-Za-z_][A-Za-z0-9_]{{0,250}}\.json"
    r"|audit/[0-9]{12,18}\.jsonl|audit/(?:head|anchored)\.json|audit/last/[a-z0-9=%_-]{1,250}"
    r"|proofs/(?:[0-9a-f]{2}|keys)\.jsonl|proofs/version|catalogs/[A-Za-z0-9_-]{1,100}\.json"
)


@dataclass(frozen=True, slots=True)
class Part:
    """The plane's files, what the manifest says of it, and what a person should know."""

    pieces: tuple[Piece, ...]
    about: dict[str, str]
    warnings: tuple[str, ...] = ()


def collect(folder: Path) -> Part:
    """Everything of the memory as it is at one moment, also while jobs run. Nobody waits for it.

    Raises:
        PassError: "AuditBroken", "BackupBusy". HeldError: "MemoryTooNew". ConfigError: there is no memory.
    """
    if not (folder / "key").exists():
        raise ConfigError(f"{folder} holds no runner's memory: name the runner.yaml whose `memory` it is")
    memory = Memory(folder)
    sealed = segments(folder / AUDIT)[:-1]  # they are never written again
    taken = snapshot.take(folder, (*KEPT, AUDIT), lambda name: _counts(name, sealed))
    pieces = [_in_words(memory, one) for one in taken] + [_sealed(folder / AUDIT / name) for name in sealed]
    log = sorted((one for one in pieces if one.name.endswith(".jsonl") and one.name.startswith(AUDIT)), key=_name)
    verdict = verify((one.name, _bytes(one)) for one in log)
    if verdict.wrong is not None:
        raise PassError("AuditBroken", f"{folder / AUDIT}: {verdict.wrong}. Run `reconciler audit verify` first.")
    about = {"head": memory.trust().commit or "", "fence": str(memory.fence()), "records": str(verdict.head.count)}
    return Part(tuple(pieces), about, tuple(_unended(memory)))


def _counts(name: str, sealed: list[str]) -> bool:
    return NAMES.fullmatch(name) is not None and name.removeprefix(f"{AUDIT}/") not in sealed


def _name(piece: Piece) -> str:
    return piece.name


def _bytes(piece: Piece) -> bytes:
    return piece.data if piece.data is not None else Path(str(piece.path)).read_bytes()


def _sealed(path: Path) -> Piece:
    return Piece(f"{AUDIT}/{path.name}", path=path, size=path.stat().st_size)


def _in_words(memory: Memory, piece: Piece) -> Piece:
    """What a disk without room took as a mode bit, which no archive has, is said in words."""
    trust = memory.trust() if piece.name == "trust.json" else None
    said = trust is not None and trust.frozen is not None and is_final(trust.frozen.reason)
    return Piece(piece.name, codec.encode(trust)) if said else piece


def _unended(memory: Memory) -> Iterator[str]:
    spool = Spool(memory.folder / "spool")
    for one in memory.units():
        if one.applying is not None and not spool.job(one.applying.job).alive():
            where = spool.job(one.applying.job).work
            yield (
                f"{one.unit} has an apply whose end nobody knows, and the only copy of its state may be in {where}, which is in no "
                "backup: let the runner look at it, and make another one."
            )


# --- back


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No runner and no job works with the memory, and none begins to.

    Raises:
        PassError: "RunnerRunning".
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as held:
        for name in ("service.lock", "fetch.lock", "trust.lock", "fence.lock"):
            lock = FileLock(folder / name)
            if not lock.take():
                raise PassError("RunnerRunning", f"{folder}: something works with this memory; stop the runner first")
            held.callback(lock.release)
        for busy in (*(folder / "spool").glob("*/lock"), *(folder / "locks").glob("*")):
            if is_locked(busy):
                what = f"{folder}: a job still runs ({busy.parent.name}/{busy.name})"
                raise PassError("RunnerRunning", f"{what}; wait for its end: an engine outlives its runner")
        yield


def there(folder: Path) -> list[str]:
    """What a restore would replace."""
    return [name for name in (*KEPT, AUDIT) if (folder / name).exists()]


def prepare(new: Path, folder: Path, archive: Archive, actor: str) -> tuple[list[str], list[str]]:
    """Make what was unpacked into the memory that shall be: the names that it replaces, and what there is to tell.

    Raises:
        PassError: the backup's memory cannot be used. HeldError: "MemoryTooNew".
    """
    if not (new / "key").exists() or (new / "key").stat().st_size != KEY_BYTES:
        raise invalid(archive.path, "it has no key of a runner's memory")
    upgrade.bring_up_to_date(new)
    memory, at, names, told = Memory(new), datetime.now(UTC), [*KEPT, AUDIT, *STALE], list[str]()
    for one in [known for known in memory.units() if known.tainted]:
        memory.save(replace(one, tainted=frozenset()))  # what it may replace without asking was of then
    told += _take_over_jobs(memory, folder)
    told += _take_over_stops(memory, folder)
    _close(memory)
    taken_at, head = archive.manifest.made_at, memory.trust().commit
    memory.save_restored(Restored(at, archive.sha256, taken_at, head))
    audit = folder / AUDIT
    if _goes_on(audit, new / AUDIT):
        names.remove(AUDIT)
        told.append("The audit log that is there goes on from that of the backup, and stays.")
    else:
        audit = new / AUDIT
    Recorder(audit).event("memory-restored", backup=archive.sha256, taken_at=taken_at.isoformat(), actor=actor)
    return names, told


def _close(memory: Memory) -> None:
    """Nobody knows which allowances were spent since: none is open, and what was merged meanwhile opens none."""
    with memory.trusting():
        trust = memory.trust()
        closed = {unit: Allowed(one.seen) for unit, one in trust.allowances.items()}
        memory.save_trust(replace(trust, allowances=closed, closed=True, closed_until=None))


def _take_over_jobs(memory: Memory, folder: Path) -> Iterator[str]:
    """What a dead job left in its workspace, or may have left in the world, is looked at first, whatever the backup knows of it."""
    try:
        before = {one.unit: one for one in Memory(folder).units()} if (folder / "key").exists() else {}
    except (ReconcilerError, OSError, ValueError) as error:
        yield f"What the memory that is replaced says of units cannot be read ({error}): look whether an apply had died."
        before = {}
    for one in before.values():
        if one.suspicion is not None:
            memory.save(replace(memory.unit(one.unit), suspicion=one.suspicion))
    if not (folder / "spool").exists():
        return
    for left in Spool(folder / "spool").jobs():
        job = left.job()
        if job is None or not left.work.exists() or left.phase() is not Phase.APPLYING:
            continue
        known, old = memory.unit(job.unit), before.get(job.unit)
        applying = old.applying if old and old.applying and old.applying.job == job.id else None
        if known.applying is None or known.applying.job != job.id:
            memory.save(replace(known, applying=applying or Applying(job.id, datetime.now(UTC), "")))
        yield f"{job.unit}: {left.work} holds what an apply without an end left; its next job looks there first."


def _take_over_stops(memory: Memory, folder: Path) -> Iterator[str]:
    """From the memory that is replaced: what stops more than the backup does."""
    if not (folder / "key").exists():
        return
    try:
        before = Memory(folder)
        trust, fence, why, version = (
            before.trust(),
            before.fence(),
            before.paused(),
            Proofs(folder / "proofs").version(),
        )
    except (ReconcilerError, OSError, ValueError) as error:
        yield f"The memory that is replaced cannot be read ({error}): look whether it was paused or frozen."
        return
    if fence > memory.fence():
        write_atomic(memory.folder / "fence.json", str(fence).encode())
    Proofs(memory.folder / "proofs").raise_version(version)
    if why is not None:
        memory.pause(why)
        yield f"The runner stays paused: {why}"
    if trust.frozen is not None and is_final(trust.frozen.reason):
        memory.save_trust(replace(memory.trust(), frozen=trust.frozen, frozen_at=trust.frozen_at))
        yield f"It stays frozen ({trust.frozen.reason}); `reconciler runner describe` says what ends that."


def _goes_on(there: Path, backup: Path) -> bool:
    """Whether the log that is there is whole, and the backup's is a part of it."""
    try:
        mark, log = AuditLog(backup).mark(), AuditLog(there)
        if not segments(there) or verify(segments_of(there), (), log.mark().count).wrong is not None:
            return False
        record = log.find(mark.count)
    except (ReconcilerError, OSError, ValueError):
        return False
    return mark == Mark() or (record is not None and record.hash == mark.hash)

"""What the runner remembers by itself: the accepted head, open allowances, and what was applied to each unit.

The controller can neither read nor write it. Every file is replaced atomically and is on disk before anything
depends on it; what is read back after a crash is either the old fact or the new one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from reconciler import codec
from reconciler.durable import FileLock, sync_folder, write_atomic
from reconciler.errors import PassError, UnitError
from reconciler.model import Applied, Commit, Hold, Job, JobId, Json, Presence, StateMark, UnitId
from reconciler.replacing import check_whole
from reconciler.runner.allowances import Allowed
from reconciler.runner.restored import Restored
from reconciler.runner.terraform.creation import Creation
from reconciler.runner.upgrade import bring_up_to_date, too_new
from reconciler.trust import REWRITTEN, is_final, remedy

T = TypeVar("T")

KEY_BYTES = 32
_TAKEN_OVER = (
    "Another controller works with this runner: stop it. If there is none, restart this one: it takes a higher."
)


@dataclass(frozen=True, slots=True)
class Anew:
    """An admin of the runner's host accepted `new` in place of `old`."""

    old: Commit
    new: Commit
    reason: str
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Trust:
    """The accepted head of the protected branch, and the allowances as of that commit.

    `base` is where trust starts; `recent` are the newest accepted commits, oldest first; `frozen` is why nothing is applied
    at all, if so, and `frozen_at` since when; `anew` is the last time that an admin accepted another history. `closed`: states were
    taken over, or the memory was put back to an older one: what the branch has when it is looked at for the first time, up to
    `closed_until`, opens nothing, for it may have been spent.
    """

    commit: Commit | None = None
    allowances: Mapping[UnitId, Allowed] = field(default_factory=dict)
    base: Commit | None = None
    recent: tuple[Commit, ...] = ()
    frozen: Hold | None = None
    frozen_at: datetime | None = None
    anew: Anew | None = None
    closed: bool = False
    closed_until: Commit | None = None


@dataclass(frozen=True, slots=True)
class Applying:
    """An apply that was begun. While it stands without an end, its outcome is uncertain.

    `creates` is what its plan makes, until somebody has looked what became of it; `boot` names the host's start that it ran in.
    """

    job: JobId
    at: datetime
    plan: str
    opened: Mapping[str, datetime] = field(default_factory=dict)  # the allowances that it was judged with
    record: int = 0  # the number of its intent in the audit log
    creates: tuple[Creation, ...] = ()
    boot: str = ""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """What applies whose end nobody saw may have made although no state has it.

    `unit` is the name in the tags of such objects; `since` when the first of those applies began; it is looked for by every job of
    the unit until `until`, as what lists them may be late.
    """

    unit: UnitId
    since: datetime
    until: datetime
    suspects: tuple[Creation, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """A version of the module in a folder of a catalog, whatever the lock calls it."""

    catalog: str
    path: str
    module: str
    version: str


@dataclass(frozen=True, slots=True)
class EngineMark:
    """Which engine: `terraform` or `tofu`, its version, and the SHA-256 (hex) of its bytes."""

    product: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Adopted:
    """A state that others made and that was written, or is about to be, as a unit's own.

    `source` is its address, `found` what it was then; `state` and `digest` (SHA-256 of the bytes) are of what is written.
    """

    source: str
    found: StateMark
    state: StateMark
    digest: str


@dataclass(frozen=True, slots=True)
class UnitMemory:
    """What is remembered of one unit.

    `mark` is the state as last seen; `corrected` the change set of the last correction that no empty plan followed;
    `tainted` the objects that the last, failed, apply left tainted; `unfinished` what applies that did not do all may have
    built on, until the unit is in order; `moved_to` where the state went; `engine` what began the last apply; `release` the
    last version of a module that the unit was in order with: a sandbox's branch is none, and leaves it as it is; `suspicion` what
    applies that died may have left; `adopted` where its state came from, if others made it.
    """

    unit: UnitId
    applied: Applied | None = None
    mark: StateMark | None = None
    applying: Applying | None = None
    corrected: str | None = None
    tainted: frozenset[str] = frozenset()
    unfinished: frozenset[UnitId] | None = None
    sensitive_outputs: frozenset[str] = frozenset()
    moved_to: UnitId | None = None
    engine: EngineMark | None = None
    release: Release | None = None
    suspicion: Suspicion | None = None
    adopted: Adopted | None = None


@dataclass(frozen=True, slots=True)
class SecretMark:
    """Which value a job last found where a secret is kept; both sealed."""

    source: str
    value: str


class Memory:
    """The runner's memory in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Raises HeldError "MemoryTooNew": a newer version of reconciler wrote it. PassError "RestoreUnfinished"."""
        self.folder = folder
        check_whole(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        bring_up_to_date(folder)
        self._key = self._load_key()
        self._trust = folder / "trust.json"

    def _load_key(self) -> bytes:
        path = self.folder / "key"
        with FileLock(self.folder / "key.lock"):
            if not path.exists():
                write_atomic(path, secrets.token_bytes(KEY_BYTES))
            return path.read_bytes()

    @property
    def key(self) -> bytes:
        """The key of every HMAC that leaves the runner: equal values are recognised, none can be guessed."""
        return self._key

    def seal(self, value: Json) -> str:
        """An opaque name for a JSON value: equal for equal values, and nothing else can be learned from it."""
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]

    def seal_secret(self, environment: str, name: str, source: Json, found: str) -> None:
        """Remember the seal of what a job found at `source`, a place that the service itself never asks."""
        mark = SecretMark(self.seal(source), found)
        path = self._secret_path(environment, name)
        if self._secret_mark(path) != mark:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(path, codec.encode(mark))

    def sealed_secret(self, environment: str, name: str, source: Json) -> str:
        """The seal of the value that was last found there; of the place alone, until a job has looked."""
        mark, place = self._secret_mark(self._secret_path(environment, name)), self.seal(source)
        return mark.value if mark is not None and mark.source == place else self.seal(["not read yet", place])

    def _secret_mark(self, path: Path) -> SecretMark | None:
        try:
            return codec.decode(SecretMark, path.read_bytes())
        except (FileNotFoundError, ValueError):  # a damaged one is found anew by the next job
            return None

    def _secret_path(self, environment: str, name: str) -> Path:
        return self.folder / "secrets" / environment / f"{name}.json"

    @property
    def name(self) -> str:
        """The memory's name: it is lost with the key, comes back with a backup, and tells nothing of either."""
        return self.seal("whose states these are")

    # --- trust

    def trust(self) -> Trust:
        """The accepted head and the open allowances."""
        path = self._trust
        trust = _kept(Trust, path) if path.exists() else Trust()
        if trust.commit is None or (trust.frozen and is_final(trust.frozen.reason)):
            return trust
        found = path.stat()
        if not found.st_mode & stat.S_IXUSR:
            return trust
        what = f"The branch was found rewritten while {path} could not be written: make room on its disk, find out who did it"
        hold = Hold(REWRITTEN, f"{what}, and then: {remedy(trust.commit, Commit('NEW'))}", plans=True)
        return replace(trust, frozen=hold, frozen_at=datetime.fromtimestamp(found.st_ctime, UTC))

    def mark_rewritten(self) -> None:
        """Remember, on a disk that has no room, that the branch was rewritten: until `save_trust` says it in words.

        A mode bit takes no room, and a file that is written anew does not have it.
        """
        self._trust.chmod(0o700)
        sync_folder(self.folder)

    @contextmanager
    def trusting(self) -> Iterator[None]:
        """Hold the right to change `trust`. One process at a time."""
        with FileLock(self.folder / "trust.lock"):
            yield

    def save_trust(self, trust: Trust) -> None:
        """Replace `trust`; only inside `trusting`."""
        write_atomic(self._trust, codec.encode(trust))

    # --- a restore

    def restored(self) -> Restored | None:
        """When this memory was last put back to a backup, and to which; None: never."""
        path = self.folder / "restored.json"
        return _kept(Restored, path) if path.exists() else None

    def save_restored(self, restored: Restored) -> None:
        """Replace it; only with `restoring` held, once the runner works with this memory."""
        write_atomic(self.folder / "restored.json", codec.encode(restored))

    def restoring(self) -> FileLock:
        """The right to change `restored`."""
        return FileLock(self.folder / "restored.lock")

    # --- units

    def unit(self, unit: UnitId) -> UnitMemory:
        """What is remembered of the unit; nothing, where nothing is."""
        path = self._unit_path(unit)
        return _kept(UnitMemory, path) if path.exists() else UnitMemory(unit)

    def save(self, memory: UnitMemory) -> None:
        """Replace what is remembered of a unit; only by the job that holds the unit's lock."""
        path = self._unit_path(memory.unit)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomic(path, codec.encode(memory))

    def units(self) -> Iterator[UnitMemory]:
        """Everything that is remembered of any unit."""
        for path in sorted((self.folder / "units").rglob("*.json")):
            yield _kept(UnitMemory, path)

    def unit_lock(self, unit: UnitId) -> FileLock:
        """The right to change a unit's state and what is remembered of it. An engine that inherits it keeps it.

        Raises:
            UnitError: "UnitBusy": another job has it.
        """
        path = self.folder / "locks" / unit.replace("/", "%")
        path.parent.mkdir(exist_ok=True, mode=0o700)
        lock = FileLock(path)
        if not lock.take():
            raise UnitError("UnitBusy", f"another job of {unit} is still running on this runner.", transient=True)
        return lock

    def _unit_path(self, unit: UnitId) -> Path:
        return self.folder / "units" / f"{unit}.json"

    # --- fence and pause

    def check_fence(self, job: Job) -> None:
        """Refuse a job of a controller that another one has replaced.

        Raises:
            PassError: a job with a higher fence was seen before.
        """
        path = self.folder / "fence.json"
        with FileLock(self.folder / "fence.lock"):
            highest = self.fence()
            if job.fence < highest:
                raise PassError(
                    "FenceStale", f"job {job.id} has fence {job.fence}; {highest} was seen already. {_TAKEN_OVER}"
                )
            if job.fence > highest:
                write_atomic(path, str(job.fence).encode())

    def lead(self, fence: int) -> None:
        """A controller leads with this fence: a job of a lower one begins nothing from now on. Never waits.

        Raises:
            PassError: "FenceStale": a higher one leads. "FenceBusy": a job is just looking; ask again.
        """
        lock = FileLock(self.folder / "fence.lock")
        if not lock.take():
            raise PassError("FenceBusy", "A job is looking at the fence right now; it is asked again by itself.")
        try:
            highest = self.fence()
            if fence < highest:
                raise PassError("FenceStale", f"{highest} leads already, and not {fence}. {_TAKEN_OVER}")
            if fence > highest:
                write_atomic(self.folder / "fence.json", str(fence).encode())
        finally:
            lock.release()

    def fence(self) -> int:
        """The highest fence that a controller led with; 0 before the first."""
        path = self.folder / "fence.json"
        return int(path.read_bytes()) if path.exists() else 0

    def paused(self) -> str | None:
        """Why the runner's own pause is on, if it is: a file on its host that works with the daemon dead."""
        path = self.folder / "pause"
        return path.read_text() if path.exists() else None

    def pause(self, reason: str) -> None:
        """Stop every apply until `resume`."""
        write_atomic(self.folder / "pause", reason.encode())

    def resume(self) -> None:
        """End the pause."""
        (self.folder / "pause").unlink(missing_ok=True)


def _kept(kind: type[T], path: Path) -> T:
    """What the file holds. Raises HeldError "MemoryTooNew": with a field that is only known to a newer version."""
    try:
        return codec.decode_kept(kind, path.read_bytes())
    except codec.Newer as error:
        raise too_new(path, str(error)) from error


def built_on(memory: UnitMemory) -> frozenset[UnitId]:
    """The units that this one may be built on: as it was applied, and as an apply left it half done."""
    applied = memory.applied
    reads = applied.reads if applied is not None and applied.presence is Presence.PRESENT else frozenset()
    return reads | (memory.unfinished or frozenset())


def finished(memory: UnitMemory, applied: Applied, corrected: str | None) -> UnitMemory:
    """The memory after the unit was found, or made, to be as it shall be."""
    return replace(
        memory,
        applied=applied,
        mark=applied.state or memory.mark,
        applying=None,
        corrected=corrected,
        tainted=frozenset(),
        unfinished=None,
    )

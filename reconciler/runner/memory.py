"""What the runner remembers by itself: the accepted head, open allowances, and what was applied to each unit.

The controller can neither read nor write it. It is in a folder of the host or in a bucket, see `cabinet.Cabinet`: every document
is replaced as a whole before anything depends on it, and what is read back after a crash is either the old fact or the new one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from reconciler import codec
from reconciler.cabinet import Cabinet, FolderCabinet, again
from reconciler.durable import PATIENCE, FileLock, sync_folder
from reconciler.errors import PassError, UnitError
from reconciler.model import Applied, Commit, Hold, Job, JobId, Json, Presence, StateMark, UnitId
from reconciler.replacing import check_whole
from reconciler.runner.allowances import Allowed
from reconciler.runner.restored import Restored
from reconciler.runner.terraform.creation import Creation
from reconciler.runner.unitlock import Here, SharedLocks
from reconciler.runner.upgrade import bring_up_to_date, too_new
from reconciler.trust import REWRITTEN, is_final, remedy

T = TypeVar("T")

KEY_BYTES = 32
KEY, TRUST, FENCE, PAUSE, RESTORED = "key", "trust.json", "fence.json", "pause", "restored.json"
UNITS, ADOPTING = "units", "=adopting"
WAITS, LOOK_EVERY = 60.0, 1.0  # seconds: for another adoption to end, and between looks
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
    """The runner's memory, and the folder on its host in which it is, or which has what may be lost with the host."""

    def __init__(self, folder: Path, cabinet: Cabinet | None = None, here: Here | None = None) -> None:
        """`cabinet`: where it is, if not in the folder. `here`: where this process is, as others that share the memory may ask.

        Raises:
            HeldError: "MemoryTooNew": a newer version of reconciler wrote it. PassError: "RestoreUnfinished".
        """
        self.folder, self.cabinet = folder, cabinet or FolderCabinet(folder)
        check_whole(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        bring_up_to_date(self.cabinet)
        self._key = again(self._load_key)
        self._trust = folder / TRUST if cabinet is None else None
        self.shared = SharedLocks(cabinet, folder / "locks", here or Here()) if cabinet is not None else None

    def _load_key(self) -> bytes:
        with self.cabinet.exclusive("key.lock", KEY):
            key = self.cabinet.read(KEY)
            if key is None:
                key = secrets.token_bytes(KEY_BYTES)
                self.cabinet.write(KEY, key)
            return key

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
        mark, where = SecretMark(self.seal(source), found), _secret(environment, name)

        def remember() -> None:
            if self._secret_mark(where) != mark:
                self.cabinet.write(where, codec.encode(mark))

        again(remember)

    def sealed_secret(self, environment: str, name: str, source: Json) -> str:
        """The seal of the value that was last found there; of the place alone, until a job has looked."""
        mark, place = self._secret_mark(_secret(environment, name)), self.seal(source)
        return mark.value if mark is not None and mark.source == place else self.seal(["not read yet", place])

    def _secret_mark(self, where: str) -> SecretMark | None:
        raw = self.cabinet.read(where)
        try:
            return codec.decode(SecretMark, raw) if raw is not None else None
        except ValueError:  # a damaged one is found anew by the next job
            return None

    @property
    def name(self) -> str:
        """The memory's name: it is lost with the key, comes back with a backup, and tells nothing of either."""
        return self.seal("whose states these are")

    # --- trust

    def trust(self) -> Trust:
        """The accepted head and the open allowances."""
        trust, path = self._kept(Trust, TRUST) or Trust(), self._trust
        if path is None or trust.commit is None or (trust.frozen and is_final(trust.frozen.reason)):
            return trust
        found = path.stat()
        if not found.st_mode & stat.S_IXUSR:
            return trust
        what = f"The branch was found rewritten while {path} could not be written: make room on its disk, find out who did it"
        hold = Hold(REWRITTEN, f"{what}, and then: {remedy(trust.commit, Commit('NEW'))}", plans=True)
        return replace(trust, frozen=hold, frozen_at=datetime.fromtimestamp(found.st_ctime, UTC))

    def mark_rewritten(self) -> None:
        """Remember, on a disk that has no room, that the branch was rewritten: until `save_trust` says it in words.

        A mode bit takes no room, and a file that is written anew does not have it. A bucket always has room; one that does not
        answer lets nothing be applied.
        """
        if self._trust is not None:
            self._trust.chmod(0o700)
            sync_folder(self.folder)

    @contextmanager
    def trusting(self) -> Iterator[None]:
        """Hold the right to change `trust`, see `Cabinet.exclusive`; inside `again`."""
        with self.cabinet.exclusive("trust.lock", TRUST):
            yield

    def save_trust(self, trust: Trust) -> None:
        """Replace `trust`; only inside `trusting`. Raises ConflictError: somebody else did."""
        self.cabinet.write(TRUST, codec.encode(trust))

    # --- a restore

    def restored(self) -> Restored | None:
        """When this memory was last put back to a backup, and to which; None: never."""
        return self._kept(Restored, RESTORED)

    def save_restored(self, restored: Restored) -> None:
        """Replace it; only with `restoring` held, once the runner works with this memory."""
        self.cabinet.write(RESTORED, codec.encode(restored))

    def restoring(self) -> AbstractContextManager[None]:
        """The right to change `restored`."""
        return self.cabinet.exclusive("restored.lock", RESTORED)

    # --- units

    def unit(self, unit: UnitId) -> UnitMemory:
        """What is remembered of the unit; nothing, where nothing is."""
        return self._kept(UnitMemory, _unit(unit)) or UnitMemory(unit)

    def save(self, memory: UnitMemory) -> None:
        """Replace what is remembered of a unit; only by the job that holds the unit's lock."""
        self.cabinet.write(_unit(memory.unit), codec.encode(memory))

    def units(self) -> Iterator[UnitMemory]:
        """Everything that is remembered of any unit."""
        for name in self.cabinet.names(UNITS):
            if name.endswith(".json") and (memory := self._kept(UnitMemory, name)) is not None:
                yield memory

    def unit_lock(self, unit: UnitId) -> FileLock:
        """The right to change a unit's state and what is remembered of it. An engine that inherits it keeps it.

        Raises:
            UnitError: "UnitBusy": another job has it. PassError: "MemoryUnavailable".
        """
        path = self.folder / "locks" / unit.replace("/", "%")
        path.parent.mkdir(exist_ok=True, mode=0o700)
        lock = self.shared.lock(path, path.name, _unit(unit)) if self.shared else FileLock(path)
        if not lock.take():
            raise UnitError("UnitBusy", f"another job of {unit} is still running on this runner.", transient=True)
        return lock

    @contextmanager
    def adopting(self) -> Iterator[None]:
        """The right to adopt a state: of two units, one finds what the other has noted. One job at a time.

        Raises:
            PassError: "LockBusy". UnitError: "UnitBusy".
        """
        if self.shared is None:
            with self.cabinet.exclusive("adopting.lock", ""):
                yield
            return
        with FileLock(self.folder / "adopting.lock"):
            lock, ends = self.shared.lock(self.folder / "locks" / ADOPTING, ADOPTING, f"locks/{ADOPTING}"), _soon()
            while not _taken(lock, last=time.monotonic() > ends):
                time.sleep(LOOK_EVERY)
            with lock:
                yield

    # --- fence and pause

    def check_fence(self, job: Job) -> None:
        """Refuse a job of a controller that another one has replaced.

        Raises:
            PassError: a job with a higher fence was seen before.
        """
        again(
            lambda: self._raise_fence(job.fence, f"job {job.id} has fence {job.fence}; {{}} was seen already", PATIENCE)
        )

    def lead(self, fence: int) -> None:
        """A controller leads with this fence: a job of a lower one begins nothing from now on. Never waits.

        Raises:
            PassError: "FenceStale": a higher one leads. "FenceBusy": a job is just looking; ask again.
        """
        try:
            again(lambda: self._raise_fence(fence, f"{{}} leads already, and not {fence}", 0))
        except PassError as error:
            if error.reason != "LockBusy":
                raise
            busy = "A job is looking at the fence right now; it is asked again by itself."
            raise PassError("FenceBusy", busy) from error

    def _raise_fence(self, fence: int, lower: str, patience: float) -> None:
        """`lower`: what is said where it is, with a place for the highest. Raises PassError "FenceStale", "LockBusy"."""
        with self.cabinet.exclusive("fence.lock", FENCE, patience):
            highest = self.fence()
            if fence < highest:
                raise PassError("FenceStale", f"{lower.format(highest)}. {_TAKEN_OVER}")
            if fence > highest:
                self.cabinet.write(FENCE, str(fence).encode())

    def fence(self) -> int:
        """The highest fence that a controller led with; 0 before the first."""
        return int(self.cabinet.read(FENCE) or b"0")

    def paused(self) -> str | None:
        """Why the runner's own pause is on, if it is: it works with the daemon dead."""
        raw = self.cabinet.read(PAUSE)
        return raw.decode() if raw is not None else None

    def pause(self, reason: str) -> None:
        """Stop every apply until `resume`."""

        def stop() -> None:
            self.cabinet.read(PAUSE)  # whatever it says is written over
            self.cabinet.write(PAUSE, reason.encode())

        again(stop)

    def resume(self) -> None:
        """End the pause."""
        self.cabinet.delete(PAUSE)

    def _kept(self, kind: type[T], name: str) -> T | None:
        """What the document holds. Raises HeldError "MemoryTooNew": with a field that is only known to a newer version."""
        raw = self.cabinet.read(name)
        try:
            return codec.decode_kept(kind, raw) if raw is not None else None
        except codec.Newer as error:
            raise too_new(f"{self.cabinet.place}/{name}", str(error)) from error


def _soon() -> float:
    return time.monotonic() + WAITS


def _taken(lock: FileLock, *, last: bool) -> bool:
    """Whether the lock is this process's now. Raises UnitError "UnitBusy": it is not, and this was the `last` look."""
    try:
        return lock.take()
    except UnitError:
        if last:
            raise
        return False


def _unit(unit: UnitId) -> str:
    return f"{UNITS}/{unit}.json"


def _secret(environment: str, name: str) -> str:
    return f"secrets/{environment}/{name}.json"


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

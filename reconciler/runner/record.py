"""What the runner writes into its audit log: one record for every change of a state's serial, and who let it happen.

An apply has two: its intent, before it begins, and what became of the state. A crash in between leaves the first; the next
job of the unit finds out what became of the state, and its record names the intent. What is asked twice is recorded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from reconciler import codec
from reconciler.cabinet import Cabinet, FolderCabinet, cabinet_of, repeated
from reconciler.errors import HeldError
from reconciler.git.proofs import Proof
from reconciler.model import AuditFacts, Cause, Commit, JobId, StateMark, Unexplained, UnitId
from reconciler.runner.audit.chain import Head, Record
from reconciler.runner.audit.log import AuditLog
from reconciler.runner.audit.objects import ObjectLog
from reconciler.runner.memory import EngineMark

LONGEST_NAME = 200  # characters of what comes from a state, a forge or a key
MOST_APPROVERS = 20
MOST_COMMITS = 50  # of a chain that are told one by one


class Change(StrEnum):
    """How a state came to have its serial, or its name."""

    APPLIED = "applied"
    FAILED = "failed"  # an apply that ended half way
    RECOVERED = "recovered"  # an apply whose end nobody saw: what was found of it
    MOVED = "moved"
    ADOPTED = "adopted"  # a state that others made, written as the unit's own
    FORGOTTEN = "forgotten"
    KNOWN = "known"  # from before there was a log
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Vouched:
    """A commit, and who vouches for it: the signer, the pull request, and who approved it. None: nobody was asked."""

    commit: Commit
    signer: str | None = None
    key: str | None = None
    pull: int | None = None
    author: str | None = None
    approvers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """What led to a change of a state.

    `commit` is the accepted head that the job worked at; `change` the newest commit up to there that changed the unit's own
    file, or its environment's where that is the cause. `lock` digests catalog-lock.yaml, `tree` the module's files, `policy`
    the bounds that the plan was judged by, `plan` the change set.
    """

    job: JobId
    fence: int
    commit: Vouched
    change: Vouched | None = None
    cause: Cause | None = None
    lock: str | None = None
    module: str = ""
    version: str = ""
    tree: str = ""
    plan: str | None = None
    policy: str | None = None
    engine: EngineMark | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """An apply is about to begin, on the state as it is."""

    unit: UnitId
    state: StateMark | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class StateChange:
    """A state was changed from one serial to another, or moved, adopted or let go. `intent`: the number of that record."""

    unit: UnitId
    change: Change
    before: StateMark | None
    after: StateMark | None
    job: JobId | None
    intent: int | None = None
    moved_from: UnitId | None = None
    origin: Origin | None = None
    adopted_from: str | None = None


@dataclass(frozen=True, slots=True)
class HeadAccepted:
    """A head of the protected branch was accepted. `chain` is oldest first; `more` commits before it are left out."""

    commit: Commit
    since: Commit | None
    chain: tuple[Vouched, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Last:
    """The newest record of a unit's state.

    `intent` is that of the last apply that has an end; `gone`: the state has another name now, or none.
    """

    seq: int
    before: StateMark | None
    state: StateMark | None
    change: Change
    intent: int | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Anchored:
    """What is known of the anchor: the newest head that it has; `failure`: why it has no newer one."""

    head: Head = field(default_factory=Head)
    failure: str = ""


LAST_HEAD, LAST_ENGINE, ANCHORED = "last/=head", "last/=engine", "anchored.json"
INTENT, STATE, HEAD, ENGINE = "intent", "state", "head", "engine"


class Recorder:
    """The audit log of one runner, in its memory. Whoever records a unit's state holds the unit's lock."""

    def __init__(self, place: Path | Cabinet, grace: timedelta | None = None) -> None:
        """`grace`: how long records may wait for the anchor before applies are held; None: for ever."""
        self.cabinet, self._grace = cabinet_of(place), grace
        self._said: tuple[int, Intent] | None = None  # the last intent of this process, and its number
        self.log: AuditLog | ObjectLog
        if isinstance(self.cabinet, FolderCabinet):
            self.log = AuditLog(
                self.cabinet.folder, lambda record: self._consequence(record, self.cabinet.write), idle=(INTENT,)
            )
            (self.cabinet.folder / "last").mkdir(exist_ok=True, mode=0o700)
        else:
            self.log = ObjectLog(self.cabinet, self._consequence)

    # --- states

    @repeated
    def intent(self, unit: UnitId, state: StateMark | None, origin: Origin) -> int:
        """An apply is about to begin; the record's number, for `ended`. The engine too, if it is another than before.

        Raises:
            PassError: "AuditBroken": what cannot be recorded is not done. HeldError: "AuditNotAnchored".
        """
        self._in_time()
        with self.log.writing() as log:
            if origin.engine is not None and self._engine() != origin.engine:
                log.append(ENGINE, origin.engine)
            said = Intent(unit, _bounded(state), origin)
            number = log.append(INTENT, said)
        self._said = number, said
        return number

    @repeated
    def ended(self, unit: UnitId, intent: int, job: JobId, state: StateMark | None, change: Change) -> None:
        """What became of the state in the apply with that intent; once. `intent` is 0 for one from before the log."""
        with self.log.writing() as log:
            last, state = self._of(unit), _bounded(state)
            if last is not None and intent and last.intent == intent:
                return
            if not intent and last is not None and last.state == state:
                return
            begun = self._begun(intent)
            before = last.state if last and not last.gone else begun.state if begun else None
            origin = begun.origin if begun else None
            log.append(STATE, StateChange(unit, change, before, state, job, intent or None, None, origin))

    @repeated
    def moved(self, old: UnitId, new: UnitId, state: StateMark | None, job: JobId | None) -> None:
        """The state has another name now; once."""
        with self.log.writing() as log:
            here, there = self._of(old), self._of(new)
            if (here is None or here.gone) and there is not None and not there.gone:
                return
            mark = here.state if here and not here.gone else _bounded(state)
            log.append(STATE, StateChange(new, Change.MOVED, mark, mark, job, moved_from=old))

    def moved_back(self, old: UnitId, new: UnitId, job: JobId | None) -> None:
        """As `moved`, of a move that may never have come so far that it was recorded."""
        with self.log.writing():  # a record that a crash overtook counts by now
            here = self._of(old)
        if here is not None and not here.gone:
            self.moved(old, new, here.state, job)

    @repeated
    def adopted(self, unit: UnitId, state: StateMark, source: str, origin: Origin) -> None:
        """A state that others made was written as the unit's own; once."""
        mark = StateMark(_short(state.lineage), state.serial)
        with self.log.writing() as log:
            last = self._of(unit)
            if last is not None and not last.gone and (last.change, last.state) == (Change.ADOPTED, mark):
                return
            said = StateChange(unit, Change.ADOPTED, None, mark, origin.job, origin=origin, adopted_from=_short(source))
            log.append(STATE, said)

    @repeated
    def forgotten(self, unit: UnitId, state: StateMark | None, origin: Origin) -> None:
        """The state was set aside; once."""
        with self.log.writing() as log:
            last = self._of(unit)
            if last is not None and last.gone:
                return
            mark = last.state if last else _bounded(state)
            log.append(STATE, StateChange(unit, Change.FORGOTTEN, mark, None, origin.job, origin=origin))

    def seen(
        self, unit: UnitId, state: StateMark | None, remembered: StateMark | None, job: JobId
    ) -> Unexplained | None:
        """Compare a state that was read with the last recorded one; an alarm for as long as nothing of ours made it.

        `remembered` is the state that the memory knows, for a unit that the log does not know yet.
        """
        state, last = _bounded(state), self._of(unit)
        if state is None:
            return None
        if last is None or last.gone or last.state != state:
            last = self._took_up(unit, state, _bounded(remembered), job)
        return Unexplained(state, last.before) if last.change is Change.UNEXPLAINED else None

    @repeated
    def _took_up(self, unit: UnitId, state: StateMark, remembered: StateMark | None, job: JobId) -> Last:
        with self.log.writing() as log:
            last = self._of(unit)  # a record that a crash overtook counts by now
            known = last.state if last and not last.gone else remembered
            if last is None or last.gone or known != state:
                change = Change.KNOWN if known == state else Change.UNEXPLAINED
                before = None if known == state else known
                seq = log.append(STATE, StateChange(unit, change, before, state, job))
                last = Last(seq, before, state, change)
        return last

    # --- everything else

    @repeated
    def head(self, commit: Commit, since: Commit | None, chain: Sequence[Vouched]) -> None:
        """A head is about to be accepted; once."""
        told = tuple(chain[-MOST_COMMITS:])
        with self.log.writing() as log:
            if self.cabinet.read(LAST_HEAD) != codec.encode(commit):
                log.append(HEAD, HeadAccepted(commit, since, told, len(chain) - len(told)))

    @repeated
    def event(self, kind: str, **said: str | int | None) -> None:
        """Something that an admin did on this host."""
        with self.log.writing() as log:
            log.append(kind, {name: _short(value) if isinstance(value, str) else value for name, value in said.items()})

    # --- the anchor

    def anchored(self) -> Anchored:
        """The newest head that the anchor has, as far as this runner knows."""
        raw = self.cabinet.read(ANCHORED)
        return codec.decode(Anchored, raw) if raw is not None else Anchored()

    @repeated
    def note_anchored(self, anchored: Anchored) -> None:
        """Remember it; by the one process that keeps the anchor."""
        self.cabinet.write(ANCHORED, codec.encode(anchored))

    def facts(self, *, has_anchor: bool) -> AuditFacts:
        """How far log and anchor are. Raises PassError "AuditBroken"."""
        count, anchored = self.log.mark().count, self.anchored()
        if not has_anchor:
            return AuditFacts(count)
        return AuditFacts(count, anchored.head.count, self._waiting_since(), anchored.failure)

    def _waiting_since(self) -> datetime | None:
        """When the oldest record was written that the anchor does not vouch for."""
        first = self.anchored().head.count + 1
        record = self.log.find(first) if first <= self.log.mark().count else None
        return datetime.fromisoformat(record.at) if record else None

    def _in_time(self) -> None:
        since = self._waiting_since() if self._grace is not None else None
        if self._grace is None or since is None or datetime.now(UTC) - since <= self._grace:
            return
        why = self.anchored().failure or "the process that keeps it does not run: restart the runner"
        raise HeldError(
            "AuditNotAnchored", f"Records have waited since {since:%F %T} UTC for the audit log's anchor: {why}"
        )

    # --- what is looked up

    def _of(self, unit: UnitId) -> Last | None:
        """The newest record of the unit's state."""
        raw = self.cabinet.read(_last(unit))
        return codec.decode(Last, raw) if raw is not None else None

    def _engine(self) -> EngineMark | None:
        raw = self.cabinet.read(LAST_ENGINE)
        return codec.decode(EngineMark, raw) if raw is not None else None

    def _begun(self, intent: int) -> Intent | None:
        if self._said is not None and self._said[0] == intent:
            return self._said[1]
        record = self.log.find(intent)
        if record is None or record.kind != INTENT:
            return None
        return codec.decode(Intent, codec.encode(record.body))

    def _consequence(self, record: Record, write: Callable[[str, bytes], None]) -> None:
        """What is looked up later: kept beside the log, and made again from it after a crash."""
        if record.kind == ENGINE:
            write(LAST_ENGINE, codec.encode(record.body))
        elif record.kind == HEAD:
            write(LAST_HEAD, codec.encode(record.body["commit"]))
        elif record.kind == STATE:
            self._note(record.seq, codec.decode(StateChange, codec.encode(record.body)), write)

    def _note(self, seq: int, said: StateChange, write: Callable[[str, bytes], None]) -> None:
        gone = said.change is Change.FORGOTTEN
        before = self._of(said.moved_from or said.unit)
        intent = said.intent or (before.intent if before else None)
        last = Last(seq, said.before, said.before if gone else said.after, said.change, intent, gone)
        write(_last(said.unit), codec.encode(last))
        if said.moved_from is not None:
            write(_last(said.moved_from), codec.encode(replace(last, gone=True)))


def _last(unit: UnitId) -> str:
    return f"last/{unit.replace('/', '%')}"


def vouched_by(proof: Proof) -> Vouched:
    """What is told of a proof; bounded, for a forge may name anything."""
    who = [_short(name) or None for name in (proof.signer, proof.key, proof.author)]
    return Vouched(
        proof.commit, who[0], who[1], proof.pull, who[2], tuple(map(_short, proof.approvers[:MOST_APPROVERS]))
    )


def _bounded(state: StateMark | None) -> StateMark | None:
    """A lineage is whatever a file says it is."""
    return StateMark(_short(state.lineage), state.serial) if state else None


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[:LONGEST_NAME] + "…"

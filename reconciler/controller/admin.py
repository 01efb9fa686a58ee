"""The admin socket: pause, resume, break-glass, reconcile need nothing but the store, so they work with all else away; accept-history.

One JSON line asks, one answers: {"action": "pause", "scope": ..., "reason": ..., "until": ...}.
"""

from __future__ import annotations

import os
import pwd
import re
import socket
import threading
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import Protocol

from reconciler.actual import breakglass
from reconciler.actual.ledger import (
    BreakGlassClosed,
    BreakGlassOpened,
    Event,
    HistoryAccepted,
    LossAccepted,
    Paused,
    ReconcileRequested,
    Resumed,
)
from reconciler.errors import ConfigError, PassError
from reconciler.model import BreakGlass, Commit, Operation, Pause, UnitId, UnitRecord
from reconciler.ports import Clock, Store
from reconciler.wire import Message, peer_uid, receive, send

LONGEST_PAUSE = timedelta(days=30)
LONGEST_SESSION = timedelta(hours=1)
LONGEST_REASON = 500  # characters
PATIENCE = 10.0  # seconds that a peer may take over its line
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PAUSE_ENDS = "a pause ends within 30 days, by {latest}; what stays longer belongs into the repository"
_SESSION_ENDS = (
    "a break-glass session ends by {latest} (admin.break_glass of reconciler.yaml); a further one may be opened then"
)
_GRANTS_NOTHING = "This is a pause with an audit: it grants nothing, and who may write by hand is up to the accounts"
ACTIONS = "pause, resume, break-glass-open, break-glass-close, reconcile and accept-history"
_NO_REASON = "reason: say why, in one line of at most 500 characters: --reason"


class Acted(Protocol):
    """Told of every request, for log and metrics."""

    def admin_acted(self, action: str, ok: bool, owner: str, scope: str, message: str) -> None:
        """An admin asked for something."""


class Histories(Protocol):
    """Whoever keeps an eye on the protected branch."""

    def accept_history(self, old: Commit, new: Commit, reason: str, actor: str) -> HistoryAccepted:
        """Prove another history, put it in place of the accepted one, and journal that. Raises PassError otherwise."""


class AdminServer:
    """Answers on a unix socket that only its owner can open, and only the listed users."""

    def __init__(
        self,
        socket_path: Path,
        users: Collection[str],
        store: Store,
        scopes: Callable[[], Collection[str]],
        wake: Callable[[], None],
        clock: Clock,
        histories: Histories,
        observer: Acted | None = None,
        longest_session: timedelta = LONGEST_SESSION,
    ) -> None:
        """`scopes`: every environment and unit there is; empty while that is unknown. `wake`: run the loop soon.

        `longest_session`: how long people may work by hand before they have to say so again.
        """
        self._path, self._users, self._observer = socket_path, frozenset(users), observer
        self._desk = Desk(store, scopes, wake, clock, histories, longest_session)
        self._listener: socket.socket | None = None
        self._thread = threading.Thread(target=self._accept, name="admin", daemon=True)

    def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the folder or the socket cannot be made, or another daemon listens there.
        """
        try:
            self._listener = _listen(self._path)
        except OSError as error:
            raise ConfigError(
                f"admin.socket {self._path}: {error}; its folder must belong to the daemon's user"
            ) from error
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and remove the socket. Returns when the thread has ended."""
        if self._listener is None:
            return
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._thread.join(PATIENCE)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        self._listener = None

    def __enter__(self) -> None:
        self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accept(self) -> None:
        listener = self._listener
        while listener is not None:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), name="admin-peer", daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):  # a peer that went away does not want its answer
            peer.settimeout(PATIENCE)
            owner = _user(peer_uid(peer))
            try:
                request = receive(peer)
            except ValueError as error:
                send(peer, {"error": f"{error}: send one line of JSON", "reason": "RequestInvalid"})
                return
            send(peer, self._answer(owner, request))

    def _answer(self, owner: str, request: Message) -> Message:
        action, scope = str(request.get("action", "")), str(request.get("scope", ""))
        try:
            self._admit(owner)
            answer = self._desk.do(action, scope, request, owner)
        except PassError as error:
            answer = {"error": str(error), "reason": error.reason}
        if self._observer is not None:
            said = str(answer.get("error", answer.get("message", "")))
            self._observer.admin_acted(action, "error" not in answer, owner, scope, said)
        return answer

    def _admit(self, owner: str) -> None:
        if owner not in self._users:
            allowed = ", ".join(sorted(self._users))
            raise PassError("NotAdmin", f"user {owner} is not in admin.users of reconciler.yaml; it has {allowed}")


def _listen(path: Path) -> socket.socket:
    """The socket, 0600 from its first moment on, in a folder made 0700; one that a dead daemon left is replaced."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _answers(path):
        raise FileExistsError("another daemon listens there: stop it first")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # the socket's file takes the mode of the descriptor
        listener.bind(str(path))
        path.chmod(0o600)  # and where the system does not do so, the folder kept others out until now
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


class Desk:
    """What the admins' requests do: each is journaled before it is answered."""

    def __init__(
        self,
        store: Store,
        scopes: Callable[[], Collection[str]],
        wake: Callable[[], None],
        clock: Clock,
        histories: Histories,
        longest_session: timedelta = LONGEST_SESSION,
    ) -> None:
        self._store, self._scopes, self._wake, self._clock, self._histories = store, scopes, wake, clock, histories
        self._longest = longest_session

    def do(self, action: str, scope: str, request: Message, owner: str) -> Message:
        """Carry the request out and say so.

        Raises:
            PassError: it is refused or could not be recorded; nothing was changed.
        """
        match action:
            case "pause":
                return self._pause(scope, request, owner)
            case "resume":
                return self._resume(scope, owner)
            case "break-glass-open":
                return self._open(scope, request, owner)
            case "break-glass-close":
                return self._close(scope, request, owner)
            case "reconcile":
                return self._reconcile(scope, owner)
            case "accept-history":
                return self._accept_history(request, owner)
        raise _invalid(f"action: {action[:64]!a} is unknown: there is {ACTIONS}")

    def _record(self, owner: str, *events: Event) -> None:
        self._store.append(*events, actor=owner)
        self._wake()

    def _pause(self, scope: str, request: Message, owner: str) -> Message:
        warning = self._check(scope)
        now = self._clock.now()
        pause = Pause(
            scope,
            owner,
            _reason(request.get("reason")),
            now,
            _until(request.get("until"), now, LONGEST_PAUSE, _PAUSE_ENDS),
        )
        self._record(owner, Paused(pause))
        until = pause.until.strftime("%Y-%m-%d %H:%M UTC")
        return {"message": f"{scope} is paused until {until}; applies that run now end", "warning": warning}

    def _resume(self, scope: str, owner: str) -> Message:
        paused = [pause.scope for pause in self._store.ledger().pauses]
        if scope not in paused:
            has = ", ".join(paused) or "nothing"
            raise _invalid(f"scope: {scope[:64]!a} is not paused; paused is: {has}")
        self._record(owner, Resumed(scope, owner))
        return {"message": f"{scope} is resumed", "warning": None}

    def _open(self, scope: str, request: Message, owner: str) -> Message:
        warning = self._check(scope)
        now, ledger = self._clock.now(), self._store.ledger()
        until = _until(request.get("until"), now, self._longest, _SESSION_ENDS)
        session = BreakGlass(scope, owner, _reason(request.get("reason")), now, until)
        before = next((one for one in ledger.sessions if one.scope == scope), None)
        if before is not None and not breakglass.is_over(before, now):
            what = f"{scope} is open until {before.until:%Y-%m-%d %H:%M UTC} by {before.owner}"
            raise _invalid(f"scope: {what}; close it first, and what was done so far is looked at")
        ended = [BreakGlassClosed(before, now, "clock")] if before is not None else []
        self._record(owner, *ended, BreakGlassOpened(session))
        message = f"{scope} is open until {until:%Y-%m-%d %H:%M UTC}: no apply begins there, and the clock closes it. {_GRANTS_NOTHING}"
        return {"message": message, "warning": _joined(warning, _applying(ledger.units.values(), scope))}

    def _close(self, scope: str, request: Message, owner: str) -> Message:
        now, ledger = self._clock.now(), self._store.ledger()
        session = next((one for one in ledger.sessions if one.scope == scope), None)
        gives_up = request.get("accept_loss") == "yes"
        if session is None and not gives_up:
            has = ", ".join(one.scope for one in ledger.sessions) or "nothing"
            raise _invalid(f"scope: {scope[:64]!a} is not open; open is: {has}")
        closed = [BreakGlassClosed(session, now, owner)] if session is not None else []
        units = self._left(scope, session)
        if not gives_up:
            self._record(owner, *closed)
            what = f"{len(units)} units are planned first. One that is in sync goes on; merge what was done by hand in another"
            return {"message": f"{scope} is closed; {what}, or put it back", "warning": None}
        accepted = LossAccepted(scope, _reason(request.get("reason")), owner, self._given_up(scope, session, units))
        self._record(owner, *closed, accepted)
        what = f"the next applies may put back what was done by hand in {len(units)} units; each is planned first"
        return {"message": f"{scope}: {what}", "warning": None}

    def _left(self, scope: str, session: BreakGlass | None) -> tuple[UnitId, ...]:
        """The units of the scope that a session leaves to be looked at: an earlier one, or this one once it is closed."""
        records = sorted(self._store.ledger().units.items())
        inside = ((unit, record) for unit, record in records if breakglass.covers(scope, unit))
        return tuple(
            u for u, r in inside if r.aftermath is not None or (session is not None and breakglass.may_differ(r))
        )

    def _given_up(self, scope: str, session: BreakGlass | None, units: tuple[UnitId, ...]) -> tuple[UnitId, ...]:
        """Those units, once nobody works on them any more. Raises PassError: somebody does, or there are none."""
        others = [one for one in self._store.ledger().sessions if one != session]
        for unit in units:
            if (still := breakglass.session_over(others, (unit,))) is not None:
                raise _invalid(f"scope: {still.owner} still works by hand in {still.scope}; close that session first")
        if not units:
            raise _invalid(
                f"scope: nothing in {scope[:64]!a} waits after a break-glass session; see `reconciler status`"
            )
        return units

    def _reconcile(self, scope: str, owner: str) -> Message:
        warning = self._check(scope)
        now = self._clock.now()
        units = tuple(UnitId(name) for name in sorted(self._scopes()) if "/" in name and breakglass.covers(scope, name))
        self._record(owner, ReconcileRequested(scope, owner, units, now))
        return {"message": f"{len(units)} units of {scope} are looked at now", "warning": warning}

    def _accept_history(self, request: Message, owner: str) -> Message:
        old, new = _commit(request, "old"), _commit(request, "new")
        done = self._histories.accept_history(old, new, _reason(request.get("reason")), owner)
        proven = f"{len(done.chain)} commits were proven for it, and {len(done.abandoned)} are abandoned"
        message = (
            f"{new} is accepted in place of {old}; {proven}. The runner decides for itself: see `reconciler runner`"
        )
        return {"message": message, "warning": None}

    def _check(self, scope: str) -> str | None:
        """Refuse a scope that does not exist; a warning where nobody knows.

        Stopping must work before the first commit is read, and with git away.
        """
        known = self._scopes()
        if scope == "all" or scope in known:
            return None
        if not scope or len(scope) > 500 or not scope.isprintable():
            raise _invalid("scope: write `all`, an environment or a unit")
        if not known:
            return f"it is not known yet whether {scope} exists: no commit has been read"
        near = get_close_matches(scope, known, 5, 0.4) or sorted(name for name in known if "/" not in name)
        raise _invalid(f"scope: no environment or unit is called {scope!r}; there is: all, {', '.join(near)}")


def _applying(records: Iterable[UnitRecord], scope: str) -> str | None:
    """Which units of the scope may be changing right now: by an apply that has begun, and that nobody stops."""
    busy = [
        r.unit for r in records if r.job and r.job.job.operation is Operation.APPLY and breakglass.covers(scope, r.unit)
    ]
    if not busy:
        return None
    more = f" and {len(busy) - 10} more" if len(busy) > 10 else ""
    return f"jobs of {', '.join(sorted(busy)[:10])}{more} may be applying: let them end before you touch what is theirs"


def _joined(*said: str | None) -> str | None:
    return "; ".join(filter(None, said)) or None


def _reason(said: object) -> str:
    if not isinstance(said, str) or not said.strip() or len(said) > LONGEST_REASON or not said.isprintable():
        raise _invalid(_NO_REASON)
    return said.strip()


def _commit(request: Message, which: str) -> Commit:
    said = request.get(which)
    if not isinstance(said, str) or not _COMMIT.fullmatch(said):
        raise _invalid(
            f"{which}: write a whole commit, 40 lower-case hex digits; `reconciler status` names OLD and NEW"
        )
    return Commit(said)


def _until(said: object, now: datetime, longest: timedelta, rule: str) -> datetime:
    """When it ends. `rule`: what is said of one that is too long; the latest time stands in it."""
    try:
        until = datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        until = None
    if until is None or until.tzinfo is None:
        raise _invalid("until: say until when, with a time zone: --until 2h, --until 2026-11-24T10:00Z")
    if until <= now:
        raise _invalid(f"until: {until.isoformat()} is over: it is {now.isoformat(timespec='seconds')}")
    if until > now + longest:
        raise _invalid("until: " + rule.format(latest=(now + longest).isoformat(timespec="minutes")))
    return until.astimezone(UTC)


def _invalid(message: str) -> PassError:
    return PassError("RequestInvalid", message)

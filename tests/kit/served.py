"""A served installation: a real store, outlook, observer, application and admin socket, without git and a runner."""

from __future__ import annotations

import getpass
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from reconciler.actual.ledger import HistoryAccepted
from reconciler.controller.admin import AdminServer
from reconciler.errors import PassError
from reconciler.git.proofs import Proof
from reconciler.logs import open_log
from reconciler.model import Commit, Desired, EnvironmentClass, HostPart, JobId, Phase, RunnerFacts, UnitId
from reconciler.observe import Observer, Place
from reconciler.ports import ALL, Chosen, HistoryEvent
from reconciler.reviewing import PullStatus
from reconciler.status import Outlook, Picture
from reconciler.store.sqlite import SqliteStore
from reconciler.trust import Seen, Standing
from reconciler.web.app import make_app
from reconciler.web.pulse import Pulse
from reconciler.web.series import Metrics
from reconciler.web.server import WebServer
from reconciler.web.view import Check
from tests.kit.sample import FixedClock

PROD = HostPart(EnvironmentClass.PROTECTED, "host", {})
FACTS = RunnerFacts("tofu", "1.12.3", {"prod": PROD, "stage": PROD})


@dataclass
class Installation:
    """A `web.view.View` whose parts a test sets. Logs are files in `logs`."""

    store: SqliteStore
    logs: Path
    clock: FixedClock = field(default_factory=FixedClock)
    desired: Desired | None = None
    facts: RunnerFacts | None = FACTS
    ready: dict[str, Check] = field(default_factory=lambda: {"git": Check(True), "store": Check(True)})
    said: io.StringIO = field(default_factory=io.StringIO)
    silent: bool = False
    seen: Seen | None = None
    open: Sequence[PullStatus] = ()
    ran: dict[JobId, list[tuple[Phase, datetime]]] = field(default_factory=dict)
    proofs: dict[Commit, Proof] = field(default_factory=dict)
    undo: dict[UnitId, str] = field(default_factory=dict)
    pulse: Pulse = field(default_factory=Pulse)
    forge: str = ""

    def __post_init__(self) -> None:
        self.observer = Observer("0.1.0", open_log(self.said, as_json=True), self.clock.now, ["environments"])
        self.outlook = Outlook(lambda: self.desired, self.store.ledger, lambda: self.facts, self.clock.now)
        self.exposed = Metrics(self.observer, self.outlook.picture, "0.1.0", self.checks)

    def picture(self) -> Picture:
        return self.outlook.picture()

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        return self.store.history(scope, limit, chosen)

    def accepted(self, commit: Commit) -> bool:
        return self.store.accepted(commit)

    def log(self, job: JobId, offset: int) -> bytes:
        if self.silent:
            raise PassError("RunnerUnavailable", "the runner does not answer; start it with `reconciler runner serve`")
        try:
            return (self.logs / job).read_bytes()[offset:]
        except FileNotFoundError:
            return b""

    def phase(self, job: JobId) -> Phase | None:
        return self.observer.phase(job)

    def phases(self, job: JobId) -> Sequence[tuple[Phase, datetime]]:
        if self.silent:
            raise PassError("RunnerUnavailable", "the runner does not answer; start it with `reconciler runner serve`")
        return self.ran.get(job, ())

    def proof(self, commit: Commit) -> Proof | None:
        return self.proofs.get(commit)

    def pull_page(self, number: int) -> str | None:
        return f"{self.forge}/pull/{number}" if self.forge else None

    def waiting(self) -> Mapping[UnitId, datetime]:
        return self.observer.waiting()

    def place(self, unit: UnitId) -> Place | None:
        return self.observer.place(unit)

    def heartbeat(self) -> datetime | None:
        return self.observer.heartbeat()

    def checks(self) -> Mapping[str, Check]:
        return self.ready

    def standing(self) -> Standing:
        ledger = self.store.ledger()
        return Standing(ledger.head, ledger.base, ledger.frozen, ledger.frozen_at, self.seen)

    def accept_history(self, old: Commit, new: Commit, reason: str, actor: str) -> HistoryAccepted:
        accepted = HistoryAccepted(old, new, (new,), (old,), reason)
        self.store.append(accepted, actor=actor)
        return accepted

    def undoing(self, unit: UnitId) -> str | None:
        if self.silent:
            raise PassError("MirrorLocked", "another git process works in the mirror")
        return self.undo.get(unit)

    def pulls(self) -> Sequence[PullStatus]:
        return self.open

    def metrics(self) -> bytes:
        return self.exposed()


@dataclass
class Served:
    """An installation that answers: `server` over HTTP, `socket` for admins."""

    installation: Installation
    stack: ExitStack
    server: str
    socket: Path


def serve(folder: Path) -> Served:
    """Serve an empty installation; closing `stack` ends it."""
    stack = ExitStack()
    store = SqliteStore(folder / "s.db", FixedClock())
    stack.callback(store.close)
    installation = Installation(store, folder)
    host, port = stack.enter_context(WebServer(make_app(installation, pulse=installation.pulse), "127.0.0.1", 0))
    socket = folder / "run" / "admin.sock"

    def scopes() -> list[str]:
        return [*installation.desired.environments, *installation.desired.units] if installation.desired else []

    users = [getpass.getuser()]
    observer = installation.observer
    stack.enter_context(
        AdminServer(socket, users, store, scopes, observer.beat, installation.clock, installation, observer)
    )
    return Served(installation, stack, f"http://{host}:{port}", socket)

"""The long-running process: everything is wired here, and everything only wakes one loop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from reconciler import __version__
from reconciler.actual.ledger import Started
from reconciler.actual.outofband import Rules
from reconciler.branch.protected import open_branch
from reconciler.branch.pulls import Proposal, forge_of, open_proposals
from reconciler.config import ControllerConfig
from reconciler.config.fields import given
from reconciler.controller.admin import AdminServer
from reconciler.controller.clockwork import Every, Jumps, background
from reconciler.controller.leading import Leading
from reconciler.controller.notify import Notifier, NotifierThread
from reconciler.controller.poller import REPOSITORY, AcceptedInStore, Poller
from reconciler.controller.protection import EVERY, Guards
from reconciler.controller.pullwatch import PullWatch
from reconciler.controller.reporting import Reporter, ReporterThread
from reconciler.controller.tick import Runtime, tick
from reconciler.controller.watch import Watch
from reconciler.deciding.budgets import Capacity
from reconciler.desired.paths import entry_path
from reconciler.errors import ConfigError, PassError
from reconciler.executor.opening import open_executor
from reconciler.forge import open_voice
from reconciler.forge.pages import pull_page
from reconciler.git.proofs import Proof
from reconciler.git.provenance import open_proofs
from reconciler.git.remote import Patience
from reconciler.model import Commit, EnvironmentClass, JobId, Ledger, Phase, UnitId
from reconciler.observe import Observer, Place
from reconciler.ports import ALL, Chosen, HistoryEvent, Term
from reconciler.reviewing import PullStatus
from reconciler.sinks import open_sender
from reconciler.status import Outlook, Picture
from reconciler.store.opening import open_store
from reconciler.systemd import Systemd
from reconciler.trail.consumer import Consumer, ConsumerThread
from reconciler.trail.sqs import Sqs
from reconciler.trigger.outcome import Passed
from reconciler.trigger.server import TriggerServer
from reconciler.trust import PROVING, Standing
from reconciler.web.door import Door
from reconciler.web.listener import Listener
from reconciler.web.pulse import Pulse
from reconciler.web.series import Metrics
from reconciler.web.view import Check

IDLE = 10.0  # seconds after which the loop shows that it lives, though nothing happened
AFTER_FAILURE = timedelta(seconds=5)  # until the next pass, though nothing else asks for one
BUSY = 2.0  # seconds between two looks at running jobs, should the runner's word of an end be lost
PULLS_SECONDS = 60.0  # between two looks at open pull requests; sooner where polls are
STALE_POLLS = 10  # poll intervals without a success before the daemon says that it is not ready


def capacity_of(config: ControllerConfig) -> Capacity:
    """What may run at once. A task has memory of its own: only jobs of one host share it."""
    local, fargate = config.executor.local, config.executor.fargate
    if local is None:
        tasks = given(fargate)
        return Capacity(tasks.workers, tasks.per_environment, per_account=tasks.per_account)
    return Capacity(
        local.workers, local.per_environment, local.memory, local.job_memory, local.per_account, of_host=True
    )


class SystemClock:
    """The host's clock."""

    def now(self) -> datetime:
        """See `ports.Clock`."""
        return datetime.now(UTC)


class Daemon:
    """One controller: made from its configuration, run until it is stopped."""

    def __init__(
        self, config: ControllerConfig, config_path: Path, observer: Observer, systemd: Systemd | None = None
    ) -> None:
        """Open the store, and make everything else ready to start.

        Raises:
            ConfigError: the configuration does not fit the host.
            PassError: the store cannot be opened.
        """
        self._config, self._config_path, self._observer = config, config_path, observer
        self._systemd = systemd or Systemd()
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._asked = threading.Event()  # for a poll
        self._asked_pulls = threading.Event()  # for a look at open pull requests
        self._clock = SystemClock()
        config.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.store = open_store(config, self._clock)
        patience = Patience(ending=self._stopping)
        branch = open_branch(config, AcceptedInStore(self.store), patience)
        self._poller = Poller(branch, self.store, observer, self.wake, self._clock)
        forge = forge_of(config, patience) if config.environments_repo.forge else None
        self._guards = Guards(forge, REPOSITORY, observer, self._clock) if forge else None
        self._executor = open_executor(config)
        self._runtime = Runtime(
            source=self._poller,
            store=self.store,
            executor=self._executor,
            clock=self._clock,
            watcher=observer,
            capacity=capacity_of(config),
            fence=0,
            still_leads=self.store.check,
        )
        self._pulls = PullWatch(
            forge_of(config, patience),
            open_proposals(config, patience),
            branch.beside(),
            self._poller,
            self._offered,
            observer,
            self._clock,
        )
        self._reports = self._reporting(patience)
        self._notifiers = self._notifying()
        self._trail = self._trailing()
        self._trigger = (
            TriggerServer(config.trigger, self, self.store, self, self._clock, observer) if config.trigger else None
        )
        self._leading = Leading(
            self.store, config.store_place, config.lease_seconds, observer, self._stopping, self.stop, self._waits
        )
        self._scheduler = background(observer.missed_run)
        self._jumps = Jumps(self._scheduler, self._clock.now)
        self._polled_at: datetime | None = None
        runtime = self._runtime
        self._outlook = Outlook(
            self._poller.latest, self._ledger, lambda: runtime.facts, self._clock.now, runtime.known
        )
        self._proofs = open_proofs(config.folder)
        self._pulse = Pulse()
        self._door = Door(config.http, self, self._pulse, observer, self._clock.now)
        self._shown: tuple[object, tuple[object, ...]] | None = None
        self._metrics = Metrics(observer, self._outlook.picture, __version__, self.checks)

    def _notifying(self) -> list[NotifierThread]:
        """How far each sink was told is kept beside the store, and so in its backup. Raises ConfigError: see `open_sender`."""
        self._observer.notifying(sink.name for sink in self._config.notify)
        folder = self._config.folder / "notify"
        return [
            NotifierThread(
                Notifier(
                    sink,
                    self.store,
                    self._observer,
                    self._config.installation,
                    folder / f"{sink.name}.json",
                    open_sender(sink),
                )
            )
            for sink in self._config.notify
        ]

    def _trailing(self) -> ConsumerThread | None:
        """Who reads what happens in the accounts."""
        config = self._config.out_of_band
        if config is None:
            return None
        rules = Rules(self._config.installation, config.accounts, config.allowed, config.break_glass)
        consumer = Consumer(
            Sqs(config), self.store, rules, self._observer, self._clock, time.monotonic, self.wake, self._sandboxes
        )
        return ConsumerThread(consumer)

    def _sandboxes(self) -> frozenset[str]:
        """The environments in which people may write directly."""
        desired = self._poller.latest()
        known = desired.environments.values() if desired is not None else ()
        return frozenset(one.name for one in known if one.klass is EnvironmentClass.SANDBOX)

    def _reporting(self, patience: Patience) -> ReporterThread | None:
        forge, reports = self._config.environments_repo.forge, self._config.reports
        if forge is None or reports is None:
            return None
        voice = open_voice(forge, reports.token_file, ending=patience.ending)
        memory = self._config.work_path / "reports.json"
        reporter = Reporter(
            voice, self, self._observer, self._config.installation, memory, time.monotonic, reports.page or "",
            comments=reports.comments, statuses=reports.statuses,
        )  # fmt: skip
        return ReporterThread(reporter)

    def wake(self) -> None:
        """Run the loop soon. Safe from any thread and from a signal handler."""
        self._awake.set()

    def stop(self) -> None:
        """Begin no new work, and end. Running jobs go on in the runner."""
        if not self._stopping.is_set():
            self._systemd.stopping()
        self._stopping.set()
        self._awake.set()
        self._asked.set()
        self._asked_pulls.set()

    def run(self, ready: Callable[[tuple[str, int]], None] = lambda _: None) -> None:
        """Stand by until this daemon leads, then work until `stop`. `ready` is told where the HTTP listener is.

        Raises:
            PassError: "LeaseLost": another daemon has taken over from this one. Start it again, and it stands by.
        """
        with ExitStack() as stack:
            stack.callback(self.store.close)
            self._listen(stack, ready)
            term = self._leading.wait()
            if term is not None:
                self._lead(stack, term)
                self._systemd.ready()
                self._loop()
        if self._leading.lost is not None:
            raise self._leading.lost

    def _waits(self) -> None:
        """A standby does what it is there for, and lives."""
        self._systemd.ready()
        self._systemd.alive()
        self._observer.beat()

    def _lead(self, stack: ExitStack, term: Term) -> None:
        """Everything that a standby does not do."""
        self._runtime.fence = term.fence
        self._observer.leads(term.holder, term.fence)
        self._run_beside(stack, self._leading.keep, "lease")
        self.store.append(Started(__version__, self._runtime.fence))
        self._poller.resume()
        self._start(stack)

    def _listen(self, stack: ExitStack, ready: Callable[[tuple[str, int]], None]) -> None:
        """What a standby has, too: it answers that it stands by, and who leads."""
        admin = AdminServer(
            self._config.admin_socket,
            self._config.admin.users,
            self.store,
            self._scopes,
            self.wake,
            self._clock,
            self._poller,
            self._observer,
            self._config.admin.break_glass,
        )
        stack.enter_context(admin)
        ready(stack.enter_context(self._door))

    def _start(self, stack: ExitStack) -> None:
        stack.callback(self._executor.close)
        if self._trigger is not None:
            self._observer.trigger_listening(*stack.enter_context(self._trigger))
        self._executor.listen(self.wake)
        self._start_polling(stack)
        stack.callback(self._scheduler.shutdown)
        self._scheduler.start()
        interval = self._config.environments_repo.poll_interval.total_seconds()
        self._scheduler.add_job(
            self._asked.set, Every(timedelta(seconds=interval)), id="poll", next_run_time=self._clock.now()
        )
        if self._config.environments_repo.forge is not None:
            self._start_looking_at_pulls(stack, interval)
        if self._reports is not None:
            self._reports.start()
            stack.callback(self._reports.close)
        for notifier in self._notifiers:
            notifier.start()
            stack.callback(notifier.close)
        if self._trail is not None:
            config = given(self._config.out_of_band)
            self._observer.trail_begins(sorted({name for names in config.accounts.values() for name in names}))
            self._trail.start()
            stack.callback(self._trail.close)
        if self._guards is not None:
            self._scheduler.add_job(
                self._guards.look,
                Every(EVERY),
                id="protection",
                next_run_time=self._clock.now(),
            )
        watch = self._watching()
        stack.callback(watch.stop)
        watch.start()

    def _watching(self) -> Watch:
        watch = Watch()
        repo = self._config.environments_repo
        if repo.url.startswith(("/", "file://")):
            watch.repository(Path(urlsplit(repo.url).path), self.poll_now)
        watch.files([self._config_path], self._config_changed)
        listeners: list[Listener] = [self._door, *([self._trigger] if self._trigger else [])]
        for listener in listeners:
            if listener.files:
                watch.files(listener.files, partial(self._certificate_changed, listener))
        if repo.signatures != "off":
            watch.files(repo.signatures.files, self.poll_now)
        return watch

    def _loop(self) -> None:
        """One thread decides. Everything else only sets `_awake`."""
        while not self._stopping.is_set():
            self._awake.clear()
            due = self._pass()
            self._beat()
            if self._reports is not None:
                self._reports.wake()
            for notifier in self._notifiers:
                notifier.wake()
            self._show()
            self._wait(due)

    def _show(self) -> None:
        """Tell whoever looks on, if anything that the pages show is another. By identity, as far as that is cheaper."""
        runtime, observer = self._runtime, self._observer
        few = (observer.running(), observer.limits(), self.checks(), self.standing(), runtime.facts)
        large = (self.store.ledger(), self._poller.latest(), runtime.reviewing.shown, observer.line.units)
        before, self._shown = self._shown, (few, large)
        if before is None or before[0] != few or any(one is not was for one, was in zip(large, before[1], strict=True)):
            self._pulse.tell()

    def _beat(self) -> None:
        """The loop lives. Only it says so: whoever watches shall notice when it hangs."""
        self._observer.beat()
        self._systemd.alive()

    def _pass(self) -> datetime | None:
        """One tick. A store that cannot be written ends the pass, not the daemon: nothing was acted on; soon again."""
        try:
            return tick(self._runtime)
        except PassError as error:
            self._leading.failed(error)
            return self._clock.now() + AFTER_FAILURE

    def _wait(self, due: datetime | None) -> None:
        """Sleep until something happens or falls due; show that the loop lives meanwhile."""
        busy = bool(self._runtime.jobs.of(self.store.ledger()))
        if due is not None:
            self._scheduler.add_job(self.wake, "date", run_date=due, id="due", replace_existing=True)
        while not self._jumps.follow() and not self._awake.wait(BUSY if busy else IDLE):
            self._beat()
            self._show()
            if busy:
                return

    def _start_polling(self, stack: ExitStack) -> None:
        """Polls have a thread of their own: the scheduler would drop what is asked for while one still runs."""
        self._run_beside(stack, self._polling, "poller")

    def _run_beside(self, stack: ExitStack, work: Callable[[], None], name: str) -> None:
        """A thread beside the loop, until `stop`."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        stack.callback(thread.join)
        stack.callback(self.stop)
        thread.start()

    def _start_looking_at_pulls(self, stack: ExitStack, interval: float) -> None:
        """Open pull requests have a thread of their own, too: neither a slow forge nor a hostile request delays a poll."""
        self._run_beside(stack, self._looking_at_pulls, "pulls")
        seconds = min(interval, PULLS_SECONDS)
        self._scheduler.add_job(
            self._asked_pulls.set, Every(timedelta(seconds=seconds)), id="pulls", next_run_time=self._clock.now()
        )

    def _looking_at_pulls(self) -> None:
        while True:
            self._asked_pulls.wait()
            self._asked_pulls.clear()
            if self._stopping.is_set():
                return
            try:
                self._pulls.look()
            except Exception:  # a bug, or a pull request that finds one: logged whole; what was merged goes on
                logging.getLogger(__name__).exception("A look at pull requests ended in a way that nobody foresaw")

    def _offered(self, proposals: Sequence[Proposal]) -> None:
        self._runtime.reviewing.offer(proposals)
        self.wake()

    def _polling(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._stopping.is_set():
                return
            try:
                self._poll()
            except Exception:  # a bug, or a commit that finds one: logged whole, and the next poll is a new chance
                logging.getLogger(__name__).exception("A poll ended in a way that nobody foresaw")

    def _poll(self) -> None:
        self._poller.poll()
        if self._poller.error is None:
            self._polled_at = self._clock.now()
        seen = self._poller.standing().seen
        if self._poller.error is None and seen and seen.unproven and seen.unproven.reason == PROVING:
            self.poll_now()

    def poll_now(self) -> None:
        """A repository on this host has changed, or who may sign: do not wait for the next poll."""
        self._asked.set()

    def _config_changed(self) -> None:
        self._observer.config_changed(self._config_path)

    @staticmethod
    def _certificate_changed(listener: Listener) -> None:
        try:
            listener.renew()
        except ConfigError as error:  # the old one stays; its pair may be on its way
            logging.getLogger(__name__).warning("%s; the certificate before it stays", error)

    def _scopes(self) -> Sequence[str]:
        desired = self._poller.latest()
        known = set(self.store.ledger().units)
        if desired is not None:
            known |= desired.units.keys() | desired.broken.keys()
        return sorted({*known, *(unit.partition("/")[0] for unit in known)})

    # --- the view that the pages are made of; see `web.view.View`

    def picture(self) -> Picture:
        """See `View`."""
        self.store.ledger()  # raises, where this daemon stands by: what it would show is not so
        return self._outlook.picture()

    def _ledger(self) -> Ledger:
        """What the metrics are made of: a standby has none of its own to tell of the units."""
        return self.store.ledger() if self._leading.term else Ledger()

    def history(self, scope: str, limit: int, chosen: Chosen = ALL) -> Sequence[HistoryEvent]:
        """See `View`."""
        return self.store.history(scope, limit, chosen)

    def accepted(self, commit: Commit) -> bool:
        """See `View`."""
        return self.store.accepted(commit)

    def log(self, job: JobId, offset: int) -> bytes:
        """See `View`."""
        return self._executor.log(job, offset)

    def phases(self, job: JobId) -> Sequence[tuple[Phase, datetime]]:
        """See `View`."""
        return self._executor.phases(job)

    def proof(self, commit: Commit) -> Proof | None:
        """See `View`."""
        return self._proofs.get(commit)

    def pull_page(self, number: int) -> str | None:
        """See `View`."""
        forge = self._config.environments_repo.forge
        return pull_page(forge, number) if forge is not None else None

    def waiting(self) -> Mapping[UnitId, datetime]:
        """See `View`."""
        return self._observer.waiting()

    def place(self, unit: UnitId) -> Place | None:
        """See `View`."""
        return self._observer.place(unit)

    def heartbeat(self) -> datetime | None:
        """See `View`."""
        return self._observer.heartbeat()

    def checks(self) -> Mapping[str, Check]:
        """See `View`."""
        leads = {"leader": self._leading.check()}
        if self._leading.term is None:
            return leads
        answers = self._runtime.facts is not None and not self._runtime.silent
        silent = Check(False, f"The runner does not answer {self._executor.place}")
        runner = Check(True, self._executor.trouble()) if answers else silent
        # The daemon is ready whatever guards the branch: what is missing there is said, and is the forge's to change.
        guarded = {"protection": Check(True, self._guards.said())} if self._guards else {}
        return {**leads, "git": self._git_check(), "store": Check(True), "runner": runner, **guarded}

    def standing(self) -> Standing:
        """See `View`."""
        return self._poller.standing()

    def undoing(self, unit: UnitId) -> str | None:
        """See `View`."""
        return self._poller.undoing(entry_path(unit))

    def pulls(self) -> Sequence[PullStatus]:
        """See `View`."""
        return self._runtime.reviewing.shown

    def metrics(self) -> bytes:
        """See `View`."""
        return self._metrics()

    def passed(self) -> Passed | None:
        """See `trigger.view.Sight`."""
        decided = self._runtime.decided
        return Passed(decided.world.desired, decided.world.ledger, decided.world.now) if decided else None

    def phase(self, job: JobId) -> Phase | None:
        """See `View`, and `trigger.view.Sight`."""
        return self._observer.phase(job)

    def _git_check(self) -> Check:
        """A poll that fails is told at once; the daemon is not ready only once the last success is long ago."""
        error, at = self._poller.error, self._polled_at
        limit = STALE_POLLS * self._config.environments_repo.poll_interval
        fresh = at is not None and abs(self._clock.now() - at) <= limit
        if fresh and error is None:
            return Check(True)
        said = (
            str(error) if error else "A poll goes on and has had no answer yet: check the git server and the network."
        )
        return Check(fresh, f"The last good poll was {at.isoformat(timespec='seconds') if at else 'never'}. {said}")


def install_signals(daemon: Daemon) -> None:
    """SIGTERM and SIGINT end the daemon; SIGHUP is ignored, since the configuration is read at start."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: daemon.stop())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

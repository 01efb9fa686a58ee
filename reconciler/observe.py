"""What happened, for people and programs: log lines and Prometheus metrics. Nothing depends on what is said here."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from structlog.typing import FilteringBoundLogger

from reconciler.actual.ledger import PullShown
from reconciler.actual.outofband import Verdict
from reconciler.deciding.budgets import PLENTY, Capacity, Cut, Limit, told
from reconciler.deciding.decide import Held
from reconciler.deciding.passes import Waiting
from reconciler.errors import PassError
from reconciler.layered import differing
from reconciler.model import (
    SERIAL_UNEXPLAINED,
    AuditFacts,
    BreakGlass,
    Change,
    Commit,
    Dispatched,
    JobId,
    Load,
    Operation,
    Outcome,
    OutsideChange,
    Phase,
    PlanSummary,
    Result,
    TrustFacts,
    Unexplained,
    UnitId,
)
from reconciler.trust import AWAY, FREEZING, Unproven

ACTIONS = ("create", "update", "delete", "replace", "forget")
UNLISTED = "unlisted"  # beside them: objects of a plan with too many to be told one by one
TOTAL = "Total"  # beside the phases: from a job's dispatch to its end
ADMIN_ACTIONS = ("pause", "resume", "break-glass-open", "break-glass-close", "reconcile", "accept-history")
# What became of requests to the trigger; see trigger/callers.py.
TRIGGER_RESULTS = (
    "accepted",
    "repeated",
    "read",
    "unauthenticated",
    "forbidden",
    "invalid",
    "unknown",
    "limited",
    "unavailable",
)
# What became of logins to the status page, and of tokens shown to it; see web/login.py.
LOGIN_RESULTS = ("in", "out", "refused", "forbidden", "unavailable", "limited")
REPORT_SINKS = ("comment", "status")
TRAIL_RESULTS = (*(verdict.value for verdict in Verdict), "repeated")  # what the messages of a trail are
OUTSIDERS = ("other", "break-glass")  # by whom an account was written to, if not by those that may
_REMEMBERED = 1000  # commits whose time of acceptance is kept for the time from merge to applied

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600)


@dataclass(frozen=True, slots=True)
class Place:
    """Since when a unit waits for its turn, and for what; in a sentence, too."""

    since: datetime
    limit: Limit
    message: str


class Observer:
    """Told what happens, it logs and counts. One per daemon: it has a registry of its own.

    It is a `controller.Watcher`. Every method is safe to call from any thread and never raises for what it is told.
    """

    def __init__(
        self, version: str, log: FilteringBoundLogger, now: Callable[[], datetime], repositories: Sequence[str] = ()
    ) -> None:
        """`repositories`: the names under which polls will be reported, so that their series start at zero."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
        self.log, self._version, self._now = log, version, now
        self.registry = CollectorRegistry(auto_describe=True)
        self._accepted: dict[Commit, datetime] = {}
        self._rejected: dict[tuple[str, str, str], None] = {}
        self._line = Waiting()
        self._since: dict[UnitId, datetime] = {}  # of those that are in it
        self._capacity = Capacity(0, 0)
        self._cuts: dict[str, Cut] = {}  # by environment
        self._loads: dict[JobId, tuple[str, Load]] = {}
        self._phases: dict[JobId, tuple[Phase, datetime]] = {}
        self._environments: set[str] = set()
        self._tried: set[str] = set()  # repositories that were polled
        self._heartbeat: datetime | None = None
        self._audit_failure = ""
        self._wanting: dict[str, str] = {}  # rules that do not guard the branch, and what was said of them
        self._make_metrics()
        self._start_at_zero(repositories)

    def _make_metrics(self) -> None:
        def named(kind: Callable[..., Any], name: str, text: str, *labels: str, **more: Any) -> Any:
            return kind(f"reconciler_{name}", text, labels, registry=self.registry, **more)

        self.beats: Gauge = named(Gauge, "loop_heartbeat_timestamp_seconds", "When the loop last finished a pass.")
        self.leader: Gauge = named(Gauge, "leader", "Whether this daemon leads; 0: it stands by, or is about to end.")
        self.missed_runs: Counter = named(Counter, "scheduler_missed_runs_total", "Wake-ups that came too late.")
        self.polls: Counter = named(Counter, "git_polls_total", "Polls of a repository.", "repository", "result")
        self.poll_seconds: Histogram = named(
            Histogram, "git_poll_duration_seconds", "Time that a poll took.", "repository", buckets=_SECONDS[:11]
        )
        self.poll_success: Gauge = named(
            Gauge,
            "git_last_success_timestamp_seconds",
            "When a repository was last reached; before the first time: since when it is not.",
            "repository",
        )
        self.rejections: Counter = named(
            Counter, "commits_rejected_total", "Commits that were not accepted.", "repository", "reason"
        )
        self.open_pulls: Gauge = named(Gauge, "open_pull_requests", "Open pull requests, drafts left out.")
        self.pulls_success: Gauge = named(
            Gauge, "pull_requests_last_success_timestamp_seconds", "When the forge last said what is open."
        )
        self.pull_plans: Counter = named(
            Counter, "pull_request_plans_total", "What plans of open pull requests came to.", "outcome"
        )
        self.unverified: Gauge = named(
            Gauge, "unverified_head", "Whether a commit of the branch waits, as it is not proven.", "repository"
        )
        self.protection: Gauge = named(
            Gauge, "branch_protection", "Whether a rule guards the branch, as its forge says.", "repository", "rule"
        )
        self.protection_looked: Gauge = named(
            Gauge,
            "branch_protection_last_check_timestamp_seconds",
            "When that was last seen; before the first time: since when it is asked for.",
            "repository",
        )
        self.jobs: Counter = named(Counter, "jobs_total", "Jobs that ended.", "environment", "operation", "outcome")
        self.job_seconds: Histogram = named(
            Histogram, "job_duration_seconds", "Time of jobs by phase.", "environment", "phase", buckets=_SECONDS
        )
        self.cpu: Counter = named(
            Counter, "job_cpu_seconds_total", "CPU that jobs took, their engines and providers included.", "environment"
        )
        self.throttled: Counter = named(
            Counter, "jobs_throttled_total", "Jobs that failed as their account was asked too often.", "environment"
        )
        self.merge_seconds: Histogram = named(
            Histogram,
            "merge_to_applied_seconds",
            "From a commit's acceptance to its apply.",
            "environment",
            buckets=_SECONDS,
        )
        self.changed: Counter = named(
            Counter, "resources_changed_total", "Objects that applies changed.", "environment", "action"
        )
        self.outside: Counter = named(
            Counter,
            "out_of_band_changes_total",
            "Writes in an environment's account by somebody who is none of those that may.",
            "environment",
            "by",
        )
        self.trail_messages: Counter = named(
            Counter, "out_of_band_messages_total", "Messages of the accounts' trail, and what they were.", "result"
        )
        self.trail_answered: Gauge = named(
            Gauge,
            "out_of_band_last_answer_timestamp_seconds",
            "When the queue of the accounts' trail last answered; before the first time: since when it is asked.",
            "queue",
        )
        self.unexplained: Counter = named(
            Counter, "unexplained_serials_total", "States that no job of ours made.", "environment"
        )
        self.refused: Counter = named(
            Counter, "egress_refused_total", "Connections that jails did not let engines make.", "environment"
        )
        text = "Records of the runner's audit log: all, and those that the anchor vouches for."
        self.audit_records: Gauge = named(Gauge, "audit_records", text, "in")
        self.audit_waiting: Gauge = named(
            Gauge, "audit_waiting_since_timestamp_seconds", "Since when records wait for the anchor; 0: none does."
        )
        self.audit_failing: Gauge = named(
            Gauge, "audit_failing", "Whether the audit log or its anchor is not as it shall be."
        )
        text = "Since when the runner applies nothing at all, for this reason; 0: it is not so."
        self.runner_frozen: Gauge = named(Gauge, "runner_frozen_since_timestamp_seconds", text, "reason")
        self.runner_unverified: Gauge = named(
            Gauge,
            "runner_unverified_head",
            "Whether a commit of the branch waits on the runner, as it is not proven there.",
        )
        self.admin: Counter = named(Counter, "admin_actions_total", "What admins asked for.", "action", "result")
        self.trigger: Counter = named(Counter, "trigger_requests_total", "Requests to the trigger.", "result")
        self.logins: Counter = named(Counter, "logins_total", "Logins to the status page.", "result")
        self.notifications: Counter = named(
            Counter, "notifications_total", "Events for sinks, and what became of them.", "sink", "result"
        )
        self.reports: Counter = named(
            Counter, "reports_total", "What was said at the forge, and whether it got through.", "sink", "result"
        )

    def _start_at_zero(self, repositories: Iterable[str]) -> None:
        for repository in repositories:
            for result in ("ok", "failed"):
                self.polls.labels(repository, result)
            self.poll_seconds.labels(repository)
            self.poll_success.labels(repository)
            self.unverified.labels(repository)
            for reason in FREEZING:
                self.rejections.labels(repository, reason)
        for place in ("log", "anchor"):
            self.audit_records.labels(place)
        self.trust_seen(TrustFacts())
        for outcome in Outcome:
            self.pull_plans.labels(outcome.value)
        for result in TRIGGER_RESULTS:
            self.trigger.labels(result)
        for result in LOGIN_RESULTS:
            self.logins.labels(result)
        for action, result in product(ADMIN_ACTIONS, ("ok", "refused")):
            self.admin.labels(action, result)
        for sink, result in product(REPORT_SINKS, ("ok", "failed")):
            self.reports.labels(sink, result)

    def know(self, environments: Iterable[str]) -> None:
        """Start the series of environments that are new at zero."""
        for name in set(environments) - self._environments:
            self._environment_at_zero(name)

    def _environment_at_zero(self, name: str) -> None:
        self._environments.add(name)
        for operation in Operation:
            for outcome in Outcome:
                self.jobs.labels(name, operation.value, outcome.value)
        for phase in (*Phase, TOTAL):
            self.job_seconds.labels(name, phase)
        for action in (*ACTIONS, UNLISTED):
            self.changed.labels(name, action)
        self.cpu.labels(name)
        self.throttled.labels(name)
        self.merge_seconds.labels(name)
        self.unexplained.labels(name)
        for by in OUTSIDERS:
            self.outside.labels(name, by)
        self.refused.labels(name)

    # --- verbs -----------------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """The loop finished a pass."""
        self._heartbeat = self._now()
        self.beats.set(self._heartbeat.timestamp())

    def heartbeat(self) -> datetime | None:
        """When the loop last finished a pass."""
        return self._heartbeat

    def missed_run(self, count: int = 1) -> None:
        """So many wake-ups did not come when they were due: a later one stood for them."""
        self.missed_runs.inc(count)
        self.log.warning("Wake-ups came too late", action="scheduler-missed-run", count=count)

    def polled(self, repository: str, ok: bool, seconds: float, message: str = "") -> None:
        """A repository was asked for its head. `message` is what went wrong."""
        self.polls.labels(repository, "ok" if ok else "failed").inc()
        self.poll_seconds.labels(repository).observe(seconds)
        if ok or repository not in self._tried:  # one that never answers is an alarm, too
            self.poll_success.labels(repository).set(self._now().timestamp())
        self._tried.add(repository)
        if not ok:
            self.log.warning(message or "A repository did not answer", action="poll-failed", repository=repository)

    def head_accepted(self, repository: str, commit: Commit) -> None:
        """A commit was proven and is now what the world shall become."""
        self._accepted[commit] = self._now()
        while len(self._accepted) > _REMEMBERED:
            self._accepted.pop(next(iter(self._accepted)))
        self.log.info("A new head was accepted", action="head-accepted", repository=repository, commit=commit)

    def commit_rejected(self, repository: str, error: PassError) -> None:
        """The branch's head was not accepted; the last good one stays in force. Said once, however often it is found."""
        self._reject(repository, error.reason, str(error), str(error))

    def unproven(self, repository: str, found: Unproven | None) -> None:
        """The first commit of the branch that is not proven; None: all are. Each is said once with each reason."""
        self.unverified.labels(repository).set(found is not None)
        if found is not None and found.reason not in AWAY:
            self._reject(repository, found.reason, found.message, found.commit)

    def _reject(self, repository: str, reason: str, message: str, what: str) -> None:
        if (repository, reason, what) in self._rejected:
            return
        self._rejected[repository, reason, what] = None
        while len(self._rejected) > _REMEMBERED:
            self._rejected.pop(next(iter(self._rejected)))
        self.rejections.labels(repository, reason).inc()
        self.log.error(message, action="commit-rejected", repository=repository, reason=reason)

    def protection_seen(self, repository: str, rules: Mapping[str, tuple[bool, str]], at: datetime) -> None:
        """What guards the branch, by rule: does it hold, and what to change. A rule that is not told has no series."""
        self.protection.clear()
        for rule, (holds, message) in rules.items():
            self.protection.labels(repository, rule).set(holds)
            if not holds and self._wanting.get(rule) != message:
                more = {"repository": repository, "rule": rule}
                self.log.warning(message, action="branch-unprotected", **more)
        self._wanting = {rule: message for rule, (holds, message) in rules.items() if not holds}
        self.protection_looked.labels(repository).set(at.timestamp())

    def protection_unknown(self, repository: str, error: PassError, since: datetime) -> None:
        """The forge did not say what guards the branch: it did last `since` then, or never since it was first asked."""
        self.protection_looked.labels(repository).set(since.timestamp())
        self.log.warning(str(error), action="branch-protection-unknown", repository=repository, reason=error.reason)

    def notifying(self, sinks: Iterable[str]) -> None:
        """Start the series of these webhooks at zero."""
        for sink in sinks:
            for result in ("delivered", "failed", "refused"):
                self.notifications.labels(sink, result)

    def notified(self, sink: str, result: str, message: str = "") -> None:
        """A webhook took an event, or did not; `message` says why not."""
        self.notifications.labels(sink, result).inc()
        if message:
            self.log.warning(message, action=f"notification-{result}", sink=sink)

    def reported(self, sink: str, error: PassError | None) -> None:
        """Something was said at the forge, or did not get through."""
        self.reports.labels(sink, "failed" if error else "ok").inc()
        if error is not None:
            self.log.warning(str(error), action="report-failed", sink=sink, reason=error.reason)

    def job_started(self, dispatched: Dispatched) -> None:
        """A job was handed to the runner."""
        job = dispatched.job
        self._phases[job.id] = (Phase.QUEUED, dispatched.at)
        more = {"unit": job.unit, "job": job.id, "operation": job.operation.value, "cause": dispatched.cause.value}
        self.log.info("A job was started", action="job-dispatched", commit=job.commit, **more)

    def job_phase(self, dispatched: Dispatched, phase: Phase, load: Load) -> None:
        """A running job was seen in the phase, and takes so much."""
        self._loads[dispatched.job.id] = (environment_of(dispatched.job.unit), load)
        last = self._phases.get(dispatched.job.id, (Phase.QUEUED, dispatched.at))
        if last[0] is not phase:
            self._close_phase(dispatched, self._now())
            self._phases[dispatched.job.id] = (phase, self._now())

    def running(self) -> dict[JobId, tuple[Phase, datetime]]:
        """Where each running job was last seen, and since when."""
        return dict(self._phases)

    def phase(self, job: JobId) -> Phase | None:
        """Where a running job was last seen."""
        known = self._phases.get(job)
        return known[0] if known else None

    def _close_phase(self, dispatched: Dispatched, at: datetime) -> None:
        phase, since = self._phases.pop(dispatched.job.id, (Phase.QUEUED, dispatched.at))
        self.job_seconds.labels(environment_of(dispatched.job.unit), phase.value).observe(_seconds(since, at))

    def job_ended(self, dispatched: Dispatched, result: Result) -> None:
        """A job has a result."""
        job, environment = dispatched.job, environment_of(dispatched.job.unit)
        waits = self._phases.get(job.id, (Phase.QUEUED, dispatched.at))[0] is Phase.QUEUED
        self._close_phase(dispatched, result.started_at if waits else result.ended_at)
        self._loads.pop(job.id, None)
        if result.used is not None:
            self.cpu.labels(environment).inc(result.used.cpu)
        self.job_seconds.labels(environment, TOTAL).observe(_seconds(dispatched.at, result.ended_at))
        self.jobs.labels(environment, job.operation.value, result.outcome.value).inc()
        if result.applied is not None and result.plan is not None and job.operation is Operation.APPLY:
            for action, count in actions_of(result.plan).items():
                self.changed.labels(environment, action).inc(count)
        self._merged(environment, dispatched, result)
        if result.refused:
            self.refused.labels(environment).inc(result.refused)
            self.log.warning(
                "The jail refused connections; the job's log names them",
                action="egress-refused",
                unit=job.unit,
                job=job.id,
                connections=result.refused,
            )
        say = self.log.info if result.outcome in (Outcome.SUCCEEDED, Outcome.SUPERSEDED) else self.log.warning
        more = {"unit": job.unit, "job": job.id, "outcome": result.outcome.value, "reason": result.reason}
        say(result.message or "A job ended", action="job-ended", operation=job.operation.value, **more)

    def _merged(self, environment: str, dispatched: Dispatched, result: Result) -> None:
        accepted = self._accepted.get(result.applied.commit) if result.applied else None
        if accepted is not None and not (result.cause or dispatched.cause).is_look:
            self.merge_seconds.labels(environment).observe(_seconds(accepted, result.ended_at))

    def unit_held(self, held: Held) -> None:
        """The reason why a unit is not being changed is another now."""
        if held.hold is None:
            self.log.info("Nothing holds the unit any more", action="hold-ended", unit=held.unit)
        elif held.fault is not None:
            self.log.error(held.hold.message, action="hold-changed", unit=held.unit, exc_info=held.fault)
        else:
            self.log.info(held.hold.message, action="hold-changed", unit=held.unit, reason=held.hold.reason)

    def queued(self, waiting: Waiting, capacity: Capacity) -> None:
        """The units that would start, and what they wait for. Costs what differs from the last time."""
        now = self._now()
        for unit in differing(self._line.units, waiting.units):
            if unit in waiting.units:
                self._since.setdefault(unit, now)
            else:
                self._since.pop(unit, None)
        self._line, self._capacity = waiting, capacity

    def waiting(self) -> dict[UnitId, datetime]:
        """The units that wait for their turn, and since when."""
        return dict(self._since)

    @property
    def line(self) -> Waiting:
        """As `queued` was told; the units in it are the same object for as long as they are the same."""
        return self._line

    def place(self, unit: UnitId) -> Place | None:
        """What a unit waits for; None: it does not."""
        since, environment = self._since.get(unit), environment_of(unit)
        limit = self._line.limits.get(environment)
        if since is None or limit is None:
            return None
        return Place(since, limit, told(limit, environment, self._capacity, self.cuts().get(environment, 0)))

    def limits(self) -> Mapping[str, Limit]:
        """For each environment in which units wait, what the first of them waits for."""
        return self._line.limits

    def eased(self, dispatched: Dispatched, cuts: Mapping[str, Cut]) -> None:
        """A job was throttled, so that fewer are let into these environments' accounts for a while."""
        environment = environment_of(dispatched.job.unit)
        self._cuts |= cuts
        self.throttled.labels(environment).inc()
        what = "Its account is asked too often: %d jobs at a time from now on, and one more after each quiet minute"
        most = self.cuts().get(environment, 0)
        self.log.warning(what, most, action="throttled", unit=dispatched.job.unit, job=dispatched.job.id)

    def cuts(self) -> dict[str, int]:
        """How many jobs may be in an environment's account, where that is fewer than it was since it throttled."""
        now = self._now()
        return {name: most for name, one in list(self._cuts.items()) if (most := one.limit(now)) < PLENTY}

    def idle(self) -> Tally[str]:
        """How many jobs of each environment run and wait instead of computing."""
        return Tally(environment for environment, load in list(self._loads.values()) if load.waits)

    def memory(self) -> tuple[int, int]:
        """MiB that jobs take, as far as that was seen, and may take; 0: nobody says."""
        return sum(load.memory for _, load in list(self._loads.values())), self._capacity.memory or 0

    def serial_unexplained(self, dispatched: Dispatched, found: Unexplained) -> None:
        """The unit's state is one that no job of ours made."""
        job = dispatched.job
        self.unexplained.labels(environment_of(job.unit)).inc()
        self.log.error(str(found), action="serial-unexplained", unit=job.unit, job=job.id, reason=SERIAL_UNEXPLAINED)

    def trail_begins(self, environments: Iterable[str]) -> None:
        """The queue of the accounts' trail is asked from now on, for these environments. Their series start at zero."""
        for name, by in product(environments, OUTSIDERS):
            self.outside.labels(name, by)
        for result in TRAIL_RESULTS:
            self.trail_messages.labels(result)
        self.trail_read({})

    def trail_read(self, results: Mapping[str, int]) -> None:
        """The queue of the accounts' trail answered; what its messages were."""
        self.trail_answered.labels("out_of_band").set(self._now().timestamp())
        for result, number in results.items():
            self.trail_messages.labels(result).inc(number)

    def trail_failed(self, error: PassError) -> None:
        """The queue did not answer, or what it said could not be journaled."""
        self.log.warning(str(error), action="trail-failed", reason=error.reason)

    def trail_invalid(self, message: str) -> None:
        """A message of the queue is no event."""
        self.log.warning("%s", message, action="trail-invalid")

    def written_outside(self, change: OutsideChange) -> None:
        """Somebody who is none of those that may has written in an environment's account."""
        by = OUTSIDERS[change.break_glass]
        self.outside.labels(change.environment, by).inc(change.count)
        more = {
            "environment": change.environment,
            "account": change.account,
            "event.id": change.event,
            "number": change.count,
        }
        what = "%s wrote in the account by %s"
        say = self.log.warning if change.break_glass else self.log.error
        say(
            what,
            change.principal,
            ", ".join(change.calls),
            action="out-of-band",
            **more,
            **{"user.name": change.principal},
        )

    def trust_seen(self, facts: TrustFacts) -> None:
        """How the runner stands to the protected branch, by its own look."""
        for reason in FREEZING:
            since = facts.frozen_at.timestamp() if facts.frozen_at else 1.0
            self.runner_frozen.labels(reason).set(since if facts.frozen == reason else 0.0)
        self.runner_unverified.set(bool(facts.unproven))

    def audit_seen(self, facts: AuditFacts) -> None:
        """How far the runner's audit log and its anchor are."""
        self.audit_records.labels("log").set(facts.records)
        self.audit_records.labels("anchor").set(facts.anchored or 0)
        self.audit_waiting.set(facts.waiting_since.timestamp() if facts.waiting_since else 0)
        self.audit_failing.set(bool(facts.failure))
        if facts.failure and facts.failure != self._audit_failure:
            self.log.error(facts.failure, action="audit-failing", reason="AuditFailing")
        self._audit_failure = facts.failure

    def pull_shown(self, shown: PullShown) -> None:
        """What a pull request would do to a unit was found out, or why it cannot be."""
        self.pull_plans.labels(shown.outcome.value).inc()
        more = {"unit": shown.unit, "job": shown.job, "outcome": shown.outcome.value, "reason": shown.reason}
        self.log.info(shown.message, action="pull-shown", pull=shown.pull, commit=shown.head, **more)

    def pulls_polled(self, open_now: int | None, message: str) -> None:
        """The forge was asked what is open; None: it did not say, or not all of it was understood."""
        if open_now is None:
            self.log.warning(message, action="pulls-failed")
            return
        self.open_pulls.set(open_now)
        self.pulls_success.set(self._now().timestamp())

    def runner_silent(self, error: PassError) -> None:
        """The runner did not answer."""
        self.log.warning(str(error), action="runner-silent", reason=error.reason)

    def listening(self, host: str, port: int) -> None:
        """The daemon is up."""
        self.log.info("Listening on http://%s:%d", host, port, action="started", version=self._version)

    def leads(self, holder: str, fence: int) -> None:
        """This daemon decides from now on."""
        self.leader.set(1)
        self.log.info("Leading as %s with fence %d", holder, fence, action="leads", holder=holder, fence=fence)

    def stands_by(self, why: PassError) -> None:
        """Another daemon leads, and this one waits."""
        self.leader.set(0)
        self.log.info(str(why), action="stands-by")

    def pass_failed(self, error: PassError) -> None:
        """A pass ended early; nothing was acted on, and the next one starts afresh."""
        self.log.error(str(error), action="pass-failed", reason=error.reason)

    def tags_moved(self, catalogs: tuple[str, ...]) -> None:
        """A tag of these catalogs stands for another commit than before. What is pinned does not care; a person may."""
        which = ", ".join(catalogs)
        how = "`reconciler catalog verify` says which, and pins are not affected"
        self.log.warning(
            "A tag was moved in the catalog %s: %s", which, how, action="tag-moved", catalogs=list(catalogs)
        )

    def config_changed(self, path: Path) -> None:
        """The configuration's file was written. It is read at start only."""
        self.log.warning("%s has changed; restart to put it into force", path, action="config-changed")

    def admin_acted(self, action: str, ok: bool, owner: str, scope: str, message: str) -> None:
        """An admin asked for something on the socket."""
        known = action if action in ADMIN_ACTIONS else "unknown"
        self.admin.labels(known, "ok" if ok else "refused").inc()
        say = self.log.warning if known.startswith("break-glass") else self.log.info
        say(message, action=f"admin-{known}", scope=scope, **{"user.name": owner})

    def session_ended(self, session: BreakGlass) -> None:
        """The time of a break-glass session was up."""
        more = {"scope": session.scope, "user.name": session.owner}
        self.log.warning("A break-glass session has ended by the clock", action="break-glass-closed", **more)

    def trigger_listening(self, host: str, port: int) -> None:
        """CI servers can call."""
        self.log.info("CI servers are answered on %s:%d", host, port, action="trigger-started")

    def trigger_answered(self, result: str, caller: str, peer: str, message: str, **more: str) -> None:
        """A CI server asked the trigger for something. `caller` is empty where nobody is proven; no token is in `message`."""
        self.trigger.labels(result).inc()
        say = self.log.info if result in ("accepted", "repeated", "read") else self.log.warning
        say(message, action=f"trigger-{result}", **{"user.name": caller, "client.address": peer}, **more)

    def login_answered(self, result: str, user: str, peer: str, message: str) -> None:
        """Somebody logged in to the status page or out of it, or could not. No code and no token is in `message`."""
        self.logins.labels(result).inc()
        say = self.log.info if result in ("in", "out") else self.log.warning
        say(message, action=f"login-{result}", **{"user.name": user, "client.address": peer})


def environment_of(unit: UnitId) -> str:
    """The environment that the unit is in."""
    return unit.partition("/")[0]


def _seconds(since: datetime, until: datetime) -> float:
    """Never negative: two hosts' clocks may disagree."""
    return max((until - since).total_seconds(), 0.0)


def _action(change: Change) -> str | None:
    """What a change does to its object in one word; None where it only reads."""
    if change.replaces:
        return "replace"
    return next((action for action in change.actions if action in ACTIONS), None)


def actions_of(plan: PlanSummary) -> Tally[str]:
    """How many objects the plan would create, update, delete, replace or forget; and do something to that is not told."""
    told = Tally(action for change in plan.changes if (action := _action(change)))
    return told + Tally({UNLISTED: plan.more})

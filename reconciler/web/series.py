"""The units' metrics: read from the picture at scrape time, so that nothing goes stale."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconciler.actual.ledger import QUARANTINED
from reconciler.deciding.budgets import Limit
from reconciler.model import UNCERTAIN, Health, Sync, UnitId
from reconciler.observe import Observer, environment_of
from reconciler.status import Overview, Picture, UnitStatus
from reconciler.trust import FREEZING
from reconciler.web.perunit import PerUnit, Written
from reconciler.web.view import Check

SERIES_FOR_ALL = 1000  # units; beyond, only those that are not in order have series of their own

# Reasons that have a count of their own: each wants a person to do something else. All others are counted as "Other".
OF_THEIR_OWN = (
    "AfterBreakGlass",
    "DestroyLimit",
    "InternalError",
    "MemoryLost",
    "Orphaned",
    "PerpetualDiff",
    "PlanExceedsReview",
    "Quarantined",
    "StateForeign",
    "StateLocked",
    "StateLost",
    "StateUnwritten",
    "Uncertain",
    "UncertainApply",
)
OTHER = "Other"


class Metrics:
    """`/metrics`: what the observer counted, and what the picture shows now."""

    def __init__(
        self,
        observer: Observer,
        picture: Callable[[], Picture],
        version: str,
        checks: Callable[[], Mapping[str, Check]] = dict,
    ) -> None:
        """`checks`: what `/readyz` says."""
        self._observer, self._picture = observer, picture
        observer.registry.register(UnitSeries(picture, version, observer))
        observer.registry.register(Readiness(checks))

    def __call__(self) -> bytes:
        """Everything, in Prometheus' text format."""
        desired = self._picture().desired
        self._observer.know(desired.environments if desired else ())
        families = [*self._observer.registry.collect()]
        written = [one for one in families if isinstance(one, Written)]
        others = [one for one in families if not isinstance(one, Written)]
        return b"".join([generate_latest(_These(others)), *(one.text for one in written)])


@dataclass(frozen=True, slots=True)
class _These(Collector):
    """Families that were collected already."""

    families: Sequence[Metric]

    def collect(self) -> Sequence[Metric]:
        """See `Collector`."""
        return self.families


class Readiness(Collector):
    """What has to hold before the daemon is ready, asked at scrape time."""

    def __init__(self, checks: Callable[[], Mapping[str, Check]]) -> None:
        self._checks = checks

    def describe(self) -> Iterable[Metric]:
        """Nothing: the checks are known at scrape time only."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """One family, for `CollectorRegistry`."""
        rows = [((name,), check.ok) for name, check in self._checks().items()]
        yield _family("ready", "Whether a part that the daemon needs answers; see /readyz.", ["check"], rows)


class UnitSeries(Collector):
    """What the picture shows, as Prometheus' families."""

    def __init__(self, picture: Callable[[], Picture], version: str, observer: Observer) -> None:
        self._picture, self._version, self._observer = picture, version, observer
        self._digest: _Digest | None = None
        self._units = PerUnit()

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is is known at scrape time only."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family, for `CollectorRegistry`."""
        picture = self._picture()
        digest = self._digest
        if digest is None or digest.overview is not picture.overview:
            digest = self._digest = _digested(picture)
        environments = sorted({*(picture.desired.environments if picture.desired else ()), *digest.environments})
        yield self._build(picture)
        yield _frozen(picture)
        yield _counts(digest, environments)
        yield _held(digest, environments)
        yield _due(digest, environments)
        yield from _unsure(digest, environments)
        yield from _pauses(picture, environments)
        yield from _break_glass(picture, digest, environments)
        yield from _queue(digest, environments, self._observer.waiting())
        yield from _budgets(environments, self._observer)
        yield from self._units(picture, digest.shown)

    def _build(self, picture: Picture) -> Metric:
        engine, version = (picture.facts.engine, picture.facts.engine_version) if picture.facts else ("", "")
        tier = picture.facts.sandbox if picture.facts else ""
        labels = {"version": self._version, "engine": engine, "engine_version": version, "sandbox_tier": tier}
        return _family("build_info", "What runs here.", list(labels), [(list(labels.values()), 1)])


Rows = Iterable[tuple[Sequence[str], float]]


def _family(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(f"reconciler_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


@dataclass(frozen=True, slots=True)
class _Digest:
    """What a look at every unit gives: kept for as long as the units fare as they did.

    `running` and `due` are by environment: how many jobs, and when the next look at a unit is due.
    """

    overview: Overview
    environments: frozenset[str]
    counts: Tally[tuple[str, Sync, Health]]
    held: Tally[tuple[str, str]]
    running: Tally[str]
    due: Mapping[str, float]
    uncertain: Tally[str]
    strays: Tally[str]
    quarantined: Tally[str]
    unsettled: Tally[str]
    shown: Sequence[UnitStatus]


def _digested(picture: Picture) -> _Digest:
    units, records = picture.overview.units, picture.ledger.units.values()
    strays: Tally[str] = Tally()
    for record in records:
        if record.strays:
            strays[environment_of(record.unit)] += len(record.strays)
    return _Digest(
        overview=picture.overview,
        environments=frozenset(unit.environment for unit in units),
        counts=picture.overview.count(),
        held=Tally((unit.environment, _told(unit.reason)) for unit in units if unit.held or _degraded(unit)),
        due=_next_checks(picture),
        running=Tally(environment_of(r.unit) for r in records if r.job is not None),
        uncertain=Tally(environment_of(r.unit) for r in records if r.failure and r.failure.reason == UNCERTAIN),
        strays=strays,
        quarantined=Tally(environment_of(r.unit) for r in records if r.failure and r.failure.reason == QUARANTINED),
        unsettled=Tally(environment_of(r.unit) for r in records if r.aftermath is not None),
        shown=units if len(units) <= SERIES_FOR_ALL else [unit for unit in units if not unit.in_order],
    )


def _degraded(unit: UnitStatus) -> bool:
    return unit.health is Health.DEGRADED


def _told(reason: str) -> str:
    return reason if reason in OF_THEIR_OWN else OTHER


def _next_checks(picture: Picture) -> dict[str, float]:
    """By environment, when the first is due of the units that count as in order: past that, nobody knows that they are.

    A look that has begun does not count as one: it may never end.
    """
    due: dict[str, float] = {}
    for unit in picture.overview.units:
        record = picture.ledger.units.get(unit.unit)
        if unit.in_order and record is not None and record.next_check is not None:
            at = record.next_check.timestamp()
            due[unit.environment] = min(due.get(unit.environment, at), at)
    return due


def _held(digest: _Digest, environments: Sequence[str]) -> Metric:
    rows = [((name, reason), digest.held[name, reason]) for name in environments for reason in (*OF_THEIR_OWN, OTHER)]
    text = "Units that are held or degraded, by the reason that they show."
    return _family("units_held", text, ["environment", "reason"], rows)


def _due(digest: _Digest, environments: Sequence[str]) -> Metric:
    rows = [((name,), digest.due.get(name, 0.0)) for name in environments]
    text = "When the first of the units that are in order is due to be looked at again; 0: none is."
    return _family("next_check_timestamp_seconds", text, ["environment"], rows)


def _frozen(picture: Picture) -> Metric:
    ledger = picture.ledger
    reason = ledger.frozen.reason if ledger.frozen else None
    rows = [((name,), _stamp(ledger.frozen_at) or 1.0 if name == reason else 0.0) for name in sorted(FREEZING)]
    text = "Since when nothing is applied at all, for this reason; 0: it is not so."
    return _family("frozen_since_timestamp_seconds", text, ["reason"], rows)


def _counts(digest: _Digest, environments: Sequence[str]) -> Metric:
    counts = digest.counts
    rows = [
        ((name, sync.value, health.value), counts[name, sync, health])
        for name in environments
        for sync in Sync
        for health in Health
    ]
    return _family("units", "Units by how they fare.", ["environment", "sync_status", "health_status"], rows)


def _unsure(digest: _Digest, environments: Sequence[str]) -> Iterator[Metric]:
    label = ["environment"]
    rows = [((name,), digest.uncertain[name]) for name in environments]
    yield _family(
        "uncertain_units", "Units that wait, as an apply that died may have made more than is known.", label, rows
    )
    rows = [((name,), digest.strays[name]) for name in environments]
    yield _family("orphaned_resources", "Objects that no state knows, found or suspected.", label, rows)
    rows = [((name,), digest.quarantined[name]) for name in environments]
    yield _family("quarantined_units", "Units that get no more jobs, as too many in a row died of them.", label, rows)


def _pauses(picture: Picture, environments: Sequence[str]) -> Iterator[Metric]:
    since = dict.fromkeys(("all", *environments), 0.0)
    since |= {pause.scope: pause.since.timestamp() for pause in picture.ledger.pauses if picture.now < pause.until}
    yield _family("paused", "Whether a scope is paused.", ["scope"], [((k,), bool(v)) for k, v in since.items()])
    text = "When a scope was paused; 0: it is not."
    yield _family("paused_since_timestamp_seconds", text, ["scope"], [((k,), v) for k, v in since.items()])


def _break_glass(picture: Picture, digest: _Digest, environments: Sequence[str]) -> Iterator[Metric]:
    """A session whose end was not journaled counts as open: that is what the alert is about."""
    until = dict.fromkeys(("all", *environments), 0.0)
    until |= {one.scope: one.until.timestamp() for one in picture.ledger.sessions}
    rows = [((scope,), float(bool(at))) for scope, at in until.items()]
    yield _family("break_glass_active", "Whether somebody works by hand in a scope.", ["scope"], rows)
    text = "When a scope's break-glass session ends; 0: none is open."
    yield _family("break_glass_expires_timestamp_seconds", text, ["scope"], [((k,), v) for k, v in until.items()])
    text = "Units that a break-glass session left, and that are not found in order since."
    yield _family(
        "break_glass_unsettled_units", text, ["environment"], [((n,), digest.unsettled[n]) for n in environments]
    )


def _queue(digest: _Digest, environments: Sequence[str], waiting: dict[UnitId, datetime]) -> Iterator[Metric]:
    running = digest.running
    depth = Tally(environment_of(unit) for unit in waiting)
    oldest: dict[str, float] = {}
    for unit, since in waiting.items():
        name = environment_of(unit)
        oldest[name] = min(oldest.get(name, since.timestamp()), since.timestamp())
    label = ["environment"]
    yield _family("jobs_in_progress", "Jobs that run.", label, [((n,), running[n]) for n in environments])
    yield _family("queue_depth", "Units that wait for a slot.", label, [((n,), depth[n]) for n in environments])
    text = "Since when the first of the queue waits; 0: nobody does."
    yield _family("queue_oldest_timestamp_seconds", text, label, [((n,), oldest.get(n, 0)) for n in environments])


def _budgets(environments: Sequence[str], observer: Observer) -> Iterator[Metric]:
    """What jobs take, and what keeps others from starting."""
    idle, cuts, limits, (taken, most) = observer.idle(), observer.cuts(), observer.limits(), observer.memory()
    label = ["environment"]
    text = "Jobs that run and wait for something else, a cloud for example, instead of computing."
    yield _family("jobs_idle", text, label, [((n,), idle[n]) for n in environments])
    rows = [((n, limit.value), float(limits.get(n) is limit)) for n in environments for limit in Limit]
    yield _family("queue_limit", "What the first of the queue waits for.", [*label, "limit"], rows)
    text = "How many jobs may be in an account that throttles; 0: as many as there is room for."
    yield _family("account_jobs_limit", text, label, [((n,), cuts.get(n, 0)) for n in environments])
    yield _family("jobs_memory_bytes", "Memory that jobs take.", [], [((), taken << 20)])
    yield _family("jobs_memory_limit_bytes", "Memory that jobs may take; 0: no bound.", [], [((), most << 20)])


def _stamp(at: datetime | None) -> float:
    return at.timestamp() if at else 0.0

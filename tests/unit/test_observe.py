from __future__ import annotations

import io
import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from reconciler.actual.ledger import BreakGlassClosed, BreakGlassOpened, Frozen, JobDispatched, JobEnded, Paused
from reconciler.deciding.budgets import Capacity, Cut, Limit
from reconciler.deciding.decide import Held
from reconciler.errors import PassError
from reconciler.logs import LibraryLog, open_log
from reconciler.model import (
    AuditFacts,
    BreakGlass,
    Cause,
    Hold,
    Load,
    Outcome,
    Phase,
    StateMark,
    TrustFacts,
    Unexplained,
    UnitId,
    Used,
)
from reconciler.observe import Observer
from reconciler.store.sqlite import SqliteStore
from reconciler.trust import Unproven
from reconciler.web.series import OF_THEIR_OWN, OTHER, SERIES_FOR_ALL
from reconciler.web.view import Check
from tests.kit.line import waiting
from tests.kit.sample import (
    FINGERPRINT,
    HEAD,
    NETWORK,
    NOW,
    FixedClock,
    desired,
    dispatched,
    outsider,
    pause,
    plan,
    result,
    unit,
)
from tests.kit.served import Installation

CHANGES = plan(("file.a", ("create",)), ("file.b", ("delete", "create")), ("file.c", ("read",)))


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    store = SqliteStore(tmp_path / "s.db", FixedClock())
    yield Installation(store, tmp_path)
    store.close()


def samples(installation: Installation) -> dict[str, float]:
    """Every series, as Prometheus would name it without its `reconciler_`."""
    text = installation.metrics().decode()
    return {
        f"{s.name.removeprefix('reconciler_')}{json.dumps(s.labels, sort_keys=True) if s.labels else ''}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def series(name: str, **labels: str) -> str:
    return f"{name}{json.dumps(labels, sort_keys=True) if labels else ''}"


def populate(installation: Installation) -> None:
    """Something of everything."""
    installation.desired = desired(unit("prod/network"), unit("prod/app", reads=["prod/network"]), unit("stage/app"))
    observer, store = installation.observer, installation.store
    observer.beat()
    observer.head_accepted("environments", HEAD)
    observer.polled("environments", True, 0.03)
    observer.polled("environments", False, 10.0, "it hangs")
    observer.commit_rejected("environments", PassError("HistoryRewritten", "rewritten"))
    asked = dispatched()
    observer.job_started(asked)
    observer.job_phase(asked, Phase.PLANNING, Load())
    ended = replace(result(asked, summary=CHANGES), refused=3)
    observer.job_ended(asked, ended)
    store.append(JobEnded(asked, ended, None, NOW + timedelta(hours=1)))
    store.append(JobDispatched(dispatched("stage/app")), Paused(pause("prod")))
    observer.queued(waiting("prod/app"), Capacity(2, 2))
    observer.admin_acted("pause", True, "root", "prod", "prod is paused")
    observer.missed_run()
    observer.trail_begins(["prod"])
    observer.trail_read({"outside": 7})
    observer.written_outside(outsider())
    observer.written_outside(outsider(break_glass=True))


def test_promtool_finds_nothing_to_say(installation: Installation) -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install Debian's package `prometheus` (apt-get install prometheus)"
    populate(installation)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=installation.metrics(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout.decode(), checked.stderr.decode()) == (0, "", "")


def test_what_was_told_is_counted(installation: Installation) -> None:
    populate(installation)
    seen = samples(installation)
    assert seen[series("loop_heartbeat_timestamp_seconds")] == NOW.timestamp()
    assert seen[series("git_polls_total", repository="environments", result="ok")] == 1
    assert seen[series("git_polls_total", repository="environments", result="failed")] == 1
    assert seen[series("git_poll_duration_seconds_count", repository="environments")] == 2
    assert seen[series("git_last_success_timestamp_seconds", repository="environments")] == NOW.timestamp()
    assert seen[series("commits_rejected_total", repository="environments", reason="HistoryRewritten")] == 1
    assert seen[series("jobs_total", environment="prod", operation="apply", outcome="Succeeded")] == 1
    assert seen[series("job_duration_seconds_sum", environment="prod", phase="Planning")] == 8
    assert seen[series("job_duration_seconds_sum", environment="prod", phase="Total")] == 8
    assert seen[series("merge_to_applied_seconds_sum", environment="prod")] == 8
    assert seen[series("egress_refused_total", environment="prod")] == 3
    assert seen[series("resources_changed_total", environment="prod", action="create")] == 1
    assert seen[series("resources_changed_total", environment="prod", action="replace")] == 1
    assert seen[series("admin_actions_total", action="pause", result="ok")] == 1
    assert seen[series("scheduler_missed_runs_total")] == 1


def test_a_commit_that_is_refused_is_counted_once_for_each_reason(installation: Installation) -> None:
    observer = installation.observer
    for reason in ("SignatureMissing", "SignatureMissing", "ForgeUnreachable", "SignerUnknown", "SignatureMissing"):
        observer.unproven("environments", Unproven(HEAD, reason, "no", HEAD))
    for _ in range(2):
        observer.commit_rejected("environments", PassError("HistoryRolledBack", "older"))
    seen = samples(installation)
    counted = {reason: seen.get(series("commits_rejected_total", repository="environments", reason=reason)) for reason in (
        "SignatureMissing", "SignerUnknown", "HistoryRolledBack", "HistoryRewritten", "ForgeUnreachable"
    )}  # fmt: skip
    assert counted == {
        "SignatureMissing": 1, "SignerUnknown": 1, "HistoryRolledBack": 1, "HistoryRewritten": 0, "ForgeUnreachable": None,
    }  # fmt: skip
    assert seen[series("unverified_head", repository="environments")] == 1
    observer.unproven("environments", None)
    assert samples(installation)[series("unverified_head", repository="environments")] == 0


def test_since_when_everything_is_frozen(installation: Installation) -> None:
    def since() -> list[float]:
        seen = samples(installation)
        return [seen[series("frozen_since_timestamp_seconds", reason=r)] for r in ("BranchMissing", "HistoryRewritten")]

    assert since() == [0, 0]
    installation.store.append(Frozen(Hold("HistoryRewritten", "see docs"), NOW))
    assert since() == [0, NOW.timestamp()]


def test_what_is_known_is_read_at_scrape_time(installation: Installation) -> None:
    populate(installation)
    seen = samples(installation)
    info = {"version": "0.1.0", "engine": "tofu", "engine_version": "1.12.3", "sandbox_tier": "none"}
    assert seen[series("build_info", **info)] == 1
    assert seen[series("units", environment="prod", sync_status="OutOfSync", health_status="Suspended")] == 2
    assert seen[series("units", environment="stage", sync_status="OutOfSync", health_status="Progressing")] == 1
    assert seen[series("queue_depth", environment="prod")] == 1
    assert seen[series("queue_oldest_timestamp_seconds", environment="prod")] == NOW.timestamp()
    assert seen[series("queue_oldest_timestamp_seconds", environment="stage")] == 0
    assert seen[series("jobs_in_progress", environment="stage")] == 1
    assert seen[series("paused", scope="prod")] == 1
    assert seen[series("paused", scope="all")] == 0
    assert seen[series("paused_since_timestamp_seconds", scope="prod")] == NOW.timestamp()
    network = {"environment": "prod", "unit": "prod/network"}
    assert seen[series("unit_info", **network, module="acme/vpc", version="1.4.2")] == 1
    assert seen[series("unit_sync_status", **network, status="OutOfSync")] == 1
    assert seen[series("unit_sync_status", **network, status="Synced")] == 0
    assert seen[series("unit_health_status", **network, status="Suspended")] == 1
    assert seen[series("unit_last_success_timestamp_seconds", **network)] == NOW.timestamp()
    assert seen[series("unit_drift_since_timestamp_seconds", **network)] == 0
    installation.clock.time += timedelta(hours=2)
    assert samples(installation)[series("paused", scope="prod")] == 0


def test_who_works_by_hand_and_what_that_left(installation: Installation) -> None:
    populate(installation)
    session = BreakGlass("prod", "ann", "the site is down", NOW, NOW + timedelta(hours=1))

    def seen() -> list[float]:
        found = samples(installation)
        names = ("break_glass_active", "break_glass_expires_timestamp_seconds")
        rows = [found[series(name, scope=scope)] for name in names for scope in ("prod", "all")]
        return [*rows, found[series("break_glass_unsettled_units", environment="prod")]]

    assert seen() == [0, 0, 0, 0, 0]
    installation.store.append(BreakGlassOpened(session))
    installation.clock.time += timedelta(hours=2)  # nobody closed it: that is what the alert is about
    assert seen() == [1, 0, session.until.timestamp(), 0, 0]
    installation.store.append(BreakGlassClosed(session, installation.clock.time, "clock"))
    assert seen() == [0, 0, 0, 0, 1]


def test_units_that_get_no_more_jobs_are_counted(installation: Installation) -> None:
    installation.desired = desired(unit("prod/network"))
    asked, deaths = dispatched(), []
    for _ in range(3):
        installation.store.append(JobEnded(asked, replace(result(asked, Outcome.FAILED), reason="JobDied"), None, None))
        deaths.append(samples(installation)[series("quarantined_units", environment="prod")])
    installation.store.append(Paused(pause("prod")))  # a pause hides the reason, and not the number
    assert (deaths, samples(installation)[series("quarantined_units", environment="prod")]) == ([0, 0, 1], 1)


def test_failures_and_pending_changes_of_a_unit(installation: Installation) -> None:
    installation.desired = desired(unit("prod/network"))
    asked = dispatched(cause=Cause.DRIFT)
    failed = replace(result(asked, Outcome.FAILED), plan=CHANGES)
    installation.store.append(JobEnded(asked, failed, NOW + timedelta(minutes=1), None))
    seen = samples(installation)
    network = {"environment": "prod", "unit": "prod/network"}
    assert seen[series("unit_consecutive_failures", **network)] == 1
    assert seen[series("unit_pending_changes", **network, action="replace")] == 1
    assert seen[series("unit_drift_since_timestamp_seconds", **network)] == (NOW + timedelta(seconds=8)).timestamp()


def test_series_start_at_zero(installation: Installation) -> None:
    installation.desired = desired(unit("prod/network"))
    seen = samples(installation)
    assert seen[series("jobs_total", environment="prod", operation="plan", outcome="Uncertain")] == 0
    assert seen[series("git_polls_total", repository="environments", result="failed")] == 0
    assert seen[series("admin_actions_total", action="resume", result="refused")] == 0
    assert seen[series("merge_to_applied_seconds_count", environment="prod")] == 0
    assert not [name for name in seen if "_created" in name]


def test_beyond_a_thousand_units_only_those_that_are_not_in_order_have_series(installation: Installation) -> None:
    many = [unit(f"prod/u{n:04}") for n in range(SERIES_FOR_ALL + 1)]
    installation.desired = desired(*many)
    expected = installation.picture().expected
    for one in many[1:]:
        fingerprint = expected[one.id]
        assert fingerprint is not None
        asked = dispatched(one.id, fingerprint)
        installation.store.append(JobEnded(asked, result(asked), None, None))
    seen = samples(installation)
    shown = {name for name in seen if name.startswith("unit_info")}
    assert shown == {series("unit_info", environment="prod", unit="prod/u0000", module="acme/vpc", version="1.4.2")}
    assert seen[series("units", environment="prod", sync_status="Synced", health_status="Healthy")] == SERIES_FOR_ALL


def test_two_observers_share_nothing(tmp_path: Path) -> None:
    one, two = (Observer("1", open_log(io.StringIO(), as_json=True), FixedClock().now, ["r"]) for _ in range(2))
    one.polled("r", True, 1)
    assert two.registry.get_sample_value("reconciler_git_polls_total", {"repository": "r", "result": "ok"}) == 0


def test_a_repository_that_never_answered_is_told_by_since_when() -> None:
    """Zero is one that is not polled at all, and no alarm."""
    clock = FixedClock()
    one = Observer("1", open_log(io.StringIO(), as_json=True), clock.now, ["r", "unpolled"])
    began = clock.now().timestamp()

    def reached(repository: str) -> float | None:
        return one.registry.get_sample_value(
            "reconciler_git_last_success_timestamp_seconds", {"repository": repository}
        )

    for ok, then in ((False, began), (False, began), (True, began + 120), (False, began + 120)):
        one.polled("r", ok, 1)
        assert reached("r") == then
        clock.time += timedelta(minutes=1)
    assert reached("unpolled") == 0


def test_a_job_without_a_seen_phase_counts_as_queued_until_it_began(installation: Installation) -> None:
    asked = dispatched()
    installation.observer.job_started(asked)
    installation.observer.job_ended(asked, result(asked, Outcome.FAILED))
    seen = samples(installation)
    assert seen[series("job_duration_seconds_sum", environment="prod", phase="Queued")] == 1
    assert seen[series("job_duration_seconds_sum", environment="prod", phase="Total")] == 8


def test_a_correction_of_drift_is_no_merge(installation: Installation) -> None:
    installation.observer.head_accepted("environments", HEAD)
    asked = dispatched(cause=Cause.DRIFT)
    installation.observer.job_ended(asked, result(asked, summary=CHANGES))
    assert series("merge_to_applied_seconds_count", environment="prod") not in samples(installation)


def test_the_commits_that_are_remembered_are_bounded(installation: Installation) -> None:
    for n in range(1100):
        installation.observer.head_accepted("environments", type(HEAD)(f"{n:040x}"))
    assert len(installation.observer._accepted) == 1000


def test_a_queue_remembers_since_when(installation: Installation) -> None:
    installation.observer.queued(waiting(NETWORK), Capacity(2, 2))
    installation.clock.time += timedelta(minutes=1)
    installation.observer.queued(waiting(NETWORK, "prod/app"), Capacity(2, 2))
    assert installation.observer.waiting() == {NETWORK: NOW, "prod/app": NOW + timedelta(minutes=1)}
    installation.observer.queued(waiting(), Capacity(2, 2))
    assert installation.observer.waiting() == {}


def test_what_one_waits_for_is_said(installation: Installation) -> None:
    observer = installation.observer
    installation.desired = desired(unit(NETWORK), unit("stage/app"))
    observer.queued(waiting(NETWORK, limit=Limit.THROTTLED), Capacity(2, 2, memory=100))
    observer.eased(dispatched("prod/app"), {"prod": Cut(3, NOW), "stage": Cut(3, NOW)})
    place = observer.place(UnitId(NETWORK))
    assert place is not None
    assert (place.since, place.limit) == (NOW, Limit.THROTTLED)
    assert "3 jobs at a time" in place.message
    assert observer.place(UnitId("prod/app")) is None
    observer.job_phase(dispatched("prod/app"), Phase.APPLYING, Load(True, 64))
    seen = samples(installation)
    assert seen[series("account_jobs_limit", environment="stage")] == 3
    assert seen[series("jobs_throttled_total", environment="prod")] == 1
    assert seen[series("queue_limit", environment="prod", limit="throttled")] == 1
    assert seen[series("queue_limit", environment="prod", limit="workers")] == 0
    assert seen[series("jobs_idle", environment="prod")] == 1
    assert (seen["jobs_memory_bytes"], seen["jobs_memory_limit_bytes"]) == (64 << 20, 100 << 20)
    installation.clock.time += timedelta(minutes=61)
    assert samples(installation)[series("account_jobs_limit", environment="stage")] == 0
    observer.job_ended(dispatched("prod/app"), replace(result(dispatched("prod/app")), used=Used(2.5, 64)))
    seen = samples(installation)
    assert seen[series("job_cpu_seconds_total", environment="prod")] == 2.5
    assert seen[series("jobs_idle", environment="prod")] == 0


def test_a_session_is_an_alarm_in_the_log(installation: Installation) -> None:
    installation.observer.admin_acted("break-glass-open", True, "ann", "prod", "prod is open")
    installation.observer.session_ended(BreakGlass("prod", "ann", "r", NOW, NOW))
    opened, ended = map(json.loads, installation.said.getvalue().splitlines())
    assert (opened["log.level"], opened["event.action"], opened["user.name"]) == (
        "warning", "admin-break-glass-open", "ann",
    )  # fmt: skip
    assert (ended["log.level"], ended["event.action"]) == ("warning", "break-glass-closed")


# --- log ---------------------------------------------------------------------------------------------------------


def test_lines_are_json_with_the_names_of_the_common_schema(installation: Installation) -> None:
    installation.observer.unit_held(Held(NETWORK, Hold("Paused", "ann paused prod")))
    installation.observer.unit_held(Held(NETWORK, None))
    installation.observer.runner_silent(PassError("RunnerUnavailable", "start it"))
    held, free, silent = map(json.loads, installation.said.getvalue().splitlines())
    assert held.pop("@timestamp").endswith("Z")
    assert held == {
        "message": "ann paused prod",
        "log.level": "info",
        "event.action": "hold-changed",
        "reconciler.unit": "prod/network",
        "reconciler.reason": "Paused",
    }
    assert free["event.action"] == "hold-ended"
    assert (silent["log.level"], silent["message"]) == ("warning", "start it")


def test_an_exception_is_logged_whole() -> None:
    out = io.StringIO()
    log = open_log(out, as_json=True)
    try:
        1 / 0  # noqa: B018 - the error is what it is for
    except ZeroDivisionError:
        log.exception("A bug", action="bug")
    assert "ZeroDivisionError" in json.loads(out.getvalue())["error.stack_trace"]


def test_people_get_readable_lines_without_colours_where_there_is_no_terminal() -> None:
    out = io.StringIO()
    open_log(out, as_json=False).info("A job was started", action="job-dispatched", unit="prod/a")
    assert "A job was started" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_a_level_silences_what_is_below() -> None:
    out = io.StringIO()
    log = open_log(out, as_json=True, level="warning")
    log.info("no")
    log.warning("yes")
    assert [json.loads(line)["message"] for line in out.getvalue().splitlines()] == ["yes"]


def test_libraries_speak_in_the_same_shape() -> None:
    out = io.StringIO()
    library = logging.Logger("some.library")  # noqa: LOG001 - registered nowhere, so that no other test hears it
    library.addHandler(LibraryLog(open_log(out, as_json=True)))
    library.warning("late by %d s", 3)
    library.info("chatter")
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert (line["message"], line["logger"], line["log.level"]) == ("late by 3 s", "some.library", "warning")


def test_what_the_daemon_tells_is_said(installation: Installation) -> None:
    installation.observer.listening("127.0.0.1", 8080)
    installation.observer.pass_failed(PassError("StoreFull", "free space 100%"))
    installation.observer.tags_moved(("acme",))
    installation.observer.config_changed(Path("/etc/reconciler/reconciler.yaml"))
    lines = [json.loads(line)["message"] for line in installation.said.getvalue().splitlines()]
    assert lines == [
        "Listening on http://127.0.0.1:8080",
        "free space 100%",
        "A tag was moved in the catalog acme: `reconciler catalog verify` says which, and pins are not affected",
        "/etc/reconciler/reconciler.yaml has changed; restart to put it into force",
    ]


def test_changes_that_are_not_told_one_by_one_are_counted_nevertheless(installation: Installation) -> None:
    asked = dispatched()
    installation.observer.job_started(asked)
    installation.observer.job_ended(asked, result(asked, summary=replace(CHANGES, more=40)))
    seen = samples(installation)
    assert seen[series("resources_changed_total", environment="prod", action="create")] == 1
    assert seen[series("resources_changed_total", environment="prod", action="unlisted")] == 40


def test_a_serial_that_nothing_explains_is_an_error_in_the_log_and_counted(installation: Installation) -> None:
    installation.observer.know(["prod"])
    assert 'unexplained_serials_total{environment="prod"} 0.0' in installation.metrics().decode()
    alarm = Unexplained(StateMark("lineage", 4), StateMark("lineage", 2))
    installation.observer.serial_unexplained(dispatched(), alarm)
    assert 'unexplained_serials_total{environment="prod"} 1.0' in installation.metrics().decode()


def test_how_the_runner_stands_to_the_branch(installation: Installation) -> None:
    def shown() -> dict[str, str]:
        lines = installation.metrics().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("reconciler_runner_"))

    since = "reconciler_runner_frozen_since_timestamp_seconds"
    assert set(shown().values()) == {"0.0"}
    installation.observer.trust_seen(TrustFacts("HistoryRewritten", NOW, "SignatureMissing"))
    assert float(shown()[since + '{reason="HistoryRewritten"}']) == NOW.timestamp()
    assert shown()[since + '{reason="BranchMissing"}'] == "0.0"
    assert shown()["reconciler_runner_unverified_head"] == "1.0"
    installation.observer.trust_seen(TrustFacts())
    assert set(shown().values()) == {"0.0"}


def test_how_far_the_audit_log_and_its_anchor_are(installation: Installation) -> None:
    def shown() -> dict[str, str]:
        lines = installation.metrics().decode().splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith("reconciler_audit_"))

    assert set(shown().values()) == {"0.0"}
    installation.observer.audit_seen(AuditFacts(12, 9, NOW, "the mount is away"))
    assert float(shown()["reconciler_audit_waiting_since_timestamp_seconds"]) == NOW.timestamp()
    assert shown()["reconciler_audit_failing"] == "1.0"
    assert shown()['reconciler_audit_records{in="anchor"}'] == "9.0"
    installation.observer.audit_seen(AuditFacts(12, 12))
    assert shown()['reconciler_audit_records{in="log"}'] == "12.0"
    assert shown()["reconciler_audit_failing"] == shown()["reconciler_audit_waiting_since_timestamp_seconds"] == "0.0"


def test_units_that_are_held_are_counted_by_what_they_want_of_a_person(installation: Installation) -> None:
    installation.desired = desired(unit("prod/network"), unit("prod/app"), unit("stage/app"), broken=["stage/typo"])
    for name, reason in (("prod/network", "StateLocked"), ("prod/app", "ProviderFetchFailed")):
        asked = dispatched(name)
        failed = replace(result(asked, Outcome.FAILED), reason=reason)
        installation.store.append(JobEnded(asked, failed, NOW + timedelta(minutes=1), None))
    seen = samples(installation)
    held = {
        (name, reason): seen[series("units_held", environment=name, reason=reason)]
        for name in ("prod", "stage")
        for reason in (*OF_THEIR_OWN, OTHER)
    }
    assert {key for key, count in held.items() if count} == {("prod", "StateLocked"), ("prod", OTHER), ("stage", OTHER)}


def test_when_the_first_look_is_due_of_what_counts_as_in_order(installation: Installation) -> None:
    installation.desired = desired(unit("prod/network"), unit("prod/app"), unit("stage/app"))
    due = {"prod/network": timedelta(hours=2), "prod/app": timedelta(hours=1)}
    expected = installation.picture().expected
    for name, after in due.items():
        fingerprint = expected[UnitId(name)]
        assert fingerprint is not None
        asked = dispatched(name, fingerprint)
        installation.store.append(JobEnded(asked, result(asked), None, NOW + after))
    seen = samples(installation)
    assert seen[series("next_check_timestamp_seconds", environment="prod")] == (NOW + timedelta(hours=1)).timestamp()
    assert seen[series("next_check_timestamp_seconds", environment="stage")] == 0
    app = dispatched("prod/app", expected[UnitId("prod/app")] or FINGERPRINT, Cause.DRIFT)
    installation.store.append(JobDispatched(app))  # a look that may never end is none yet
    seen = samples(installation)
    assert seen[series("next_check_timestamp_seconds", environment="prod")] == (NOW + timedelta(hours=1)).timestamp()


def test_what_the_daemon_needs_is_told_as_readyz_tells_it(installation: Installation) -> None:
    installation.ready = {"git": Check(False, "no answer"), "runner": Check(True)}
    seen = samples(installation)
    assert (seen[series("ready", check="git")], seen[series("ready", check="runner")]) == (0, 1)


def test_what_others_wrote_is_counted_and_logged(installation: Installation) -> None:
    populate(installation)
    seen = samples(installation)
    assert seen[series("out_of_band_changes_total", environment="prod", by="other")] == 7
    assert seen[series("out_of_band_changes_total", environment="prod", by="break-glass")] == 7
    assert seen[series("out_of_band_messages_total", result="outside")] == 7
    assert seen[series("out_of_band_messages_total", result="repeated")] == 0
    assert seen[series("out_of_band_last_answer_timestamp_seconds", queue="out_of_band")] == NOW.timestamp()

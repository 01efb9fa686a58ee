from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reconciler import status as showing
from reconciler.desired.fingerprint import fingerprint
from reconciler.model import (
    Cause,
    Desired,
    EnvironmentClass,
    Fingerprint,
    Health,
    Hold,
    HostPart,
    Ledger,
    Outcome,
    Pause,
    Phase,
    Presence,
    RunnerFacts,
    StateMark,
    Sync,
    Unexplained,
    UnitId,
    UnitRecord,
)
from reconciler.status import Outlook, Overview, UnitStatus, overview, unit_status
from tests.kit.sample import (
    FINGERPRINT,
    NETWORK,
    NOW,
    OTHER,
    FixedClock,
    applied,
    desired,
    dispatched,
    failure,
    pause,
    plan,
    planned,
    unit,
)

HERE = desired(unit("prod/network"))
GONE = desired(unit("prod/other"))
BLANK = UnitRecord(NETWORK)
APPLIED = UnitRecord(NETWORK, applied=applied())
CHANGES = plan(("file.a", ("update",)))
WAITS = Hold("DependencyNotReady", "prod/dns has not been applied yet")


def look(
    record: UnitRecord | None,
    of: Desired | None = HERE,
    expected: Fingerprint | None = FINGERPRINT,
    pauses: tuple[Pause, ...] = (),
    phase: Phase | None = None,
) -> UnitStatus:
    return unit_status(NETWORK, of, record, expected, pauses, now=NOW, phase=phase)


def words(status: UnitStatus) -> tuple[str, str, str]:
    return status.sync, status.health, status.reason


S, O, U = Sync.SYNCED, Sync.OUT_OF_SYNC, Sync.UNKNOWN  # noqa: E741
ABSENT = desired(unit("prod/network", Presence.ABSENT))
_NET = HERE.units[NETWORK]
YANKED = replace(HERE, units={NETWORK: replace(_NET, pin=replace(_NET.pin, yanked="it leaks"))})

CASES = {
    "never applied": (look(None), (O, Health.MISSING, "")),
    "in order": (look(APPLIED), (S, Health.HEALTHY, "")),
    "changed, about to start": (look(APPLIED, expected=OTHER), (O, Health.PROGRESSING, "")),
    "on a version that was yanked": (look(APPLIED, YANKED), (S, Health.HEALTHY, "Yanked")),
    "yanked before it was ever applied": (look(None, YANKED), (O, Health.MISSING, "")),
    "an input that is not known": (look(APPLIED, expected=None), (U, Health.UNKNOWN, "")),
    "first job": (look(replace(BLANK, job=dispatched())), (O, Health.PROGRESSING, "")),
    "a look for drift": (look(replace(APPLIED, job=dispatched(cause=Cause.DRIFT))), (S, Health.HEALTHY, "")),
    "drift is being put back": (
        look(replace(APPLIED, job=dispatched(cause=Cause.DRIFT), drift_since=NOW, planned=planned(CHANGES))),
        (O, Health.PROGRESSING, ""),
    ),
    "drift that is only reported": (
        look(replace(APPLIED, planned=planned(CHANGES), drift_since=NOW)),
        (O, Health.HEALTHY, ""),
    ),
    "an empty plan": (look(replace(APPLIED, planned=planned(plan()))), (S, Health.HEALTHY, "")),
    "the plan that was applied": (look(replace(APPLIED, planned=planned(CHANGES, job="j1"))), (S, Health.HEALTHY, "")),
    "a plan from before the apply": (
        look(replace(APPLIED, planned=planned(CHANGES, at=NOW - timedelta(1)))),
        (S, Health.HEALTHY, ""),
    ),
    "failed": (look(replace(APPLIED, failure=failure()), expected=OTHER), (O, Health.DEGRADED, "EngineFailed")),
    "held by the runner": (
        look(replace(APPLIED, failure=failure(Outcome.HELD, "DestroyLimit")), expected=OTHER),
        (O, Health.DEGRADED, "DestroyLimit"),
    ),
    "one more try of what failed": (
        look(replace(APPLIED, failure=failure(), job=dispatched(fingerprint=OTHER)), expected=OTHER),
        (O, Health.DEGRADED, "EngineFailed"),
    ),
    "something else than what failed is tried": (
        look(
            replace(APPLIED, failure=failure(fingerprint=FINGERPRINT), job=dispatched(fingerprint=OTHER)),
            expected=OTHER,
        ),
        (O, Health.PROGRESSING, ""),
    ),
    "overtaken": (
        look(
            replace(APPLIED, failure=failure(Outcome.SUPERSEDED, "Newer"), hold=Hold("Newer", "again soon")),
            expected=OTHER,
        ),
        (O, Health.PROGRESSING, ""),
    ),
    "paused": (look(APPLIED, pauses=(pause(),)), (S, Health.SUSPENDED, "Paused")),
    "paused while it fails": (
        look(replace(APPLIED, failure=failure()), pauses=(pause(),)),
        (S, Health.SUSPENDED, "Paused"),
    ),
    "a pause that is over": (look(APPLIED, pauses=(pause(hours=0),)), (S, Health.HEALTHY, "")),
    "a freeze window": (
        look(replace(APPLIED, hold=Hold("FreezeWindow", "weekend")), expected=OTHER),
        (O, Health.SUSPENDED, "FreezeWindow"),
    ),
    "waits, never applied": (look(replace(BLANK, hold=WAITS), expected=None), (O, Health.MISSING, WAITS.reason)),
    "waits, applied": (look(replace(APPLIED, hold=WAITS), expected=None), (U, Health.PROGRESSING, WAITS.reason)),
    "a hold for a person": (
        look(replace(APPLIED, hold=Hold("PolicyMismatch", "m")), expected=OTHER),
        (O, Health.DEGRADED, "PolicyMismatch"),
    ),
    "a broken entry": (look(APPLIED, desired(broken=["prod/network"])), (U, Health.DEGRADED, "UnknownField")),
    "an orphan": (look(APPLIED, GONE, None), (O, Health.DEGRADED, "Orphaned")),
    "an orphan, as decided": (
        look(replace(APPLIED, hold=Hold("Orphaned", "bring it back")), GONE, None),
        (O, Health.DEGRADED, "Orphaned"),
    ),
    "an orphan that was never finished": (
        look(UnitRecord(NETWORK, unfinished=frozenset()), GONE, None),
        (O, Health.DEGRADED, "Orphaned"),
    ),
    "gone for good": (
        look(UnitRecord(NETWORK, applied=applied(presence=Presence.ABSENT)), GONE, None),
        (S, Health.HEALTHY, ""),
    ),
    "to be destroyed": (look(APPLIED, ABSENT, OTHER), (O, Health.PROGRESSING, "")),
    "destroyed": (
        look(UnitRecord(NETWORK, applied=applied(presence=Presence.ABSENT)), ABSENT),
        (S, Health.HEALTHY, ""),
    ),
    "shall not exist and never did": (look(None, ABSENT), (O, Health.PROGRESSING, "")),
    "nothing is known yet": (look(None, None), (U, Health.UNKNOWN, "")),
    "no commit yet, but a record": (look(APPLIED, None), (U, Health.UNKNOWN, "")),
}


@pytest.mark.parametrize("name", CASES)
def test_words(name: str) -> None:
    status, expected = CASES[name]
    assert words(status) == expected


def test_held_means_that_waiting_does_not_help() -> None:
    assert not look(replace(APPLIED, hold=WAITS)).held
    assert look(APPLIED, pauses=(pause(),)).held
    assert look(replace(APPLIED, failure=failure())).held
    assert look(None, desired(broken=["prod/network"])).held
    assert not look(APPLIED).held


def test_messages_say_who_and_where() -> None:
    assert look(APPLIED, pauses=(pause(),)).message == "ann paused prod until 2026-11-24 11:00 UTC: migration"
    assert look(None, desired(broken=["prod/network"])).message.startswith("environments/prod/network.yaml:3:10: ")


def test_phases() -> None:
    running = replace(APPLIED, job=dispatched())
    assert look(running).phase == "Queued"
    assert look(running, phase=Phase.APPLYING).phase == "Applying"
    assert look(APPLIED).phase == "Succeeded"
    assert look(replace(APPLIED, failure=failure(Outcome.UNCERTAIN))).phase == "Uncertain"
    assert look(None).phase == ""


def test_in_order() -> None:
    assert look(APPLIED).in_order
    assert not look(None).in_order
    assert look(APPLIED).environment == "prod"


# --- the whole ---------------------------------------------------------------------------------------------------


def test_an_overview_has_entries_and_what_is_left_without_one() -> None:
    names = ["prod/orphan", "prod/destroyed", "prod/old", "stage/b"]
    orphan, destroyed, old, other = (UnitId(name) for name in names)
    ledger = Ledger(
        units={
            orphan: UnitRecord(orphan, applied=applied()),
            destroyed: UnitRecord(destroyed, applied=applied(presence=Presence.ABSENT)),
            old: UnitRecord(old, applied=applied()),
            other: UnitRecord(other, job=dispatched("stage/b")),
        }
    )
    of = desired(unit("prod/network", moved_from="prod/old"), broken=["prod/bad"])
    seen = overview(of, ledger, {}, NOW)
    assert [status.unit for status in seen.units] == ["prod/bad", "prod/network", "prod/orphan", "stage/b"]
    assert seen.troubled
    assert seen.count()["prod", Sync.UNKNOWN, Health.DEGRADED] == 1


def test_nothing_is_no_trouble() -> None:
    assert not Overview().troubled
    assert overview(None, Ledger(), {}, NOW) == Overview()


# --- the outlook -------------------------------------------------------------------------------------------------


class Known:
    """What an outlook asks for; a test sets it."""

    def __init__(self) -> None:
        self.desired: Desired | None = HERE
        self.ledger = Ledger(units={NETWORK: APPLIED})
        self.facts: RunnerFacts | None = facts()
        self.clock = FixedClock()
        self.outlook = Outlook(lambda: self.desired, lambda: self.ledger, lambda: self.facts, self.clock.now)


def facts() -> RunnerFacts:
    return RunnerFacts("tofu", "1.12.3", {"prod": HostPart(EnvironmentClass.PROTECTED, "d", {})})


def test_a_picture_has_the_expected_fingerprints() -> None:
    known = Known()
    runner = facts()
    want = fingerprint(HERE.units[NETWORK], runner, runner.environments["prod"], {})
    assert known.outlook.picture().expected == {NETWORK: want}
    found = known.outlook.picture().status(NETWORK)
    assert found is not None
    assert found.sync is Sync.OUT_OF_SYNC
    assert known.outlook.picture().status(UnitId("prod/none")) is None
    assert known.outlook.picture().status(UnitId("prod/zzz")) is None


def test_the_work_is_done_once_for_equal_facts() -> None:
    known = Known()
    first = known.outlook.picture()
    known.facts = facts()
    known.clock.time += timedelta(minutes=1)
    second = known.outlook.picture()
    assert second.overview is first.overview
    assert second.now == NOW + timedelta(minutes=1)


def test_a_pause_ends_in_the_picture_by_the_clock_alone() -> None:
    known = Known()
    known.ledger = replace(known.ledger, pauses=(pause(hours=1),))
    before = known.outlook.picture().status(NETWORK)
    known.clock.time += timedelta(hours=2)
    after = known.outlook.picture().status(NETWORK)
    assert before is not None
    assert after is not None
    assert (before.health, after.health) == (Health.SUSPENDED, Health.PROGRESSING)


def test_new_facts_make_a_new_picture() -> None:
    known = Known()
    first = known.outlook.picture()
    known.facts = None
    assert known.outlook.picture().expected == {NETWORK: None}
    known.desired = None
    assert known.outlook.picture().overview != first.overview
    assert known.outlook.picture().expected == {}


def test_a_state_that_somebody_else_made_is_shown_where_nothing_else_is_to_be_said() -> None:
    alarm = Unexplained(StateMark("lineage", 4), StateMark("lineage", 2))
    record = replace(APPLIED, unexplained=alarm)
    seen = look(record)
    assert (seen.reason, seen.health, seen.held) == ("SerialUnexplained", Health.HEALTHY, False)
    assert seen.in_order
    assert look(record, pauses=(pause(),)).reason == "Paused"


def test_a_unit_in_which_a_bug_is_found_says_so_and_every_other_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    real = showing._sync

    def broken(sight: Any) -> Any:
        return 1 / 0 if sight.unit == "prod/app" else real(sight)

    monkeypatch.setattr(showing, "_sync", broken)
    found = overview(desired(unit("prod/network"), unit("prod/app")), Ledger(), {}, NOW)
    app, network = found.units
    assert (app.unit, app.health, app.reason, app.held) == ("prod/app", Health.DEGRADED, "InternalError", True)
    assert (network.unit, network.reason) == ("prod/network", "")

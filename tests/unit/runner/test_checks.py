from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from reconciler.desired.policy import judged_with, policy_of
from reconciler.errors import HeldError
from reconciler.model import Allowances, EnvironmentClass, JobId, Operation, Presence, StateMark, Unit, UnitId, Window
from reconciler.runner import checks
from reconciler.runner.memory import Applying, Memory, UnitMemory
from reconciler.runner.terraform.state import parse_state
from tests.kit import facts
from tests.kit.plane import LINEAGE, NOW, applied, ground, note, open_host, remembered, state

MARK = StateMark(LINEAGE, 5)


def unit(version: str = "1.0.0", presence: Presence = Presence.PRESENT) -> Unit:
    return facts.unit("prod/net", version=version, presence=presence)


def held_by(call: object, *words: object) -> str:
    with pytest.raises(HeldError) as held:
        call(*words)  # type: ignore[operator]
    return f"{held.value.reason}: {held.value}"


def test_the_hosts_word_on_folder_operation_class_and_environment(tmp_path: Path) -> None:
    rules = [
        {"operations": ["plan"], "refs": "merged", "folders": ["environments/prod/**"]},
        {"operations": ["apply"], "refs": "merged", "folders": ["environments/prod/a.yaml"]},
        {"operations": ["plan"], "refs": "merged", "folders": ["environments/stage/**"]},
    ]
    host = open_host(ground(tmp_path, {"a": note()}, allow=rules))
    one = unit()
    assert checks.permitted(host, Operation.PLAN, one).name == "prod"
    refused = held_by(checks.permitted, host, Operation.APPLY, one)
    assert refused.startswith("NotAllowed: apply of environments/prod/net.yaml is not on")
    sandbox = replace(one, environment=replace(one.environment, klass=EnvironmentClass.SANDBOX))
    assert held_by(checks.permitted, host, Operation.PLAN, sandbox) == (
        "PolicyMismatch: runner.yaml says class protected, environment.yaml says sandbox; the host wins."
    )
    stage = facts.unit("stage/net")
    assert "EnvironmentNotHosted: runner.yaml does not list" in held_by(checks.permitted, host, Operation.PLAN, stage)


def test_the_hosts_word_on_modules(tmp_path: Path) -> None:
    rules = [
        {"operations": ["plan", "apply"], "refs": "merged", "folders": ["environments/**"], "modules": ["acme/n*"]}
    ]
    host = open_host(ground(tmp_path, {"a": note()}, allow=rules))
    one = facts.unit("prod/net")
    refused = held_by(checks.permitted, host, Operation.APPLY, one)
    assert refused.startswith(f"NotAllowed: apply of {one.pin.module} at environments/prod/net.yaml is not on")
    assert refused.endswith("modules for which apply is allowed there: acme/n*.")
    other = replace(one, pin=replace(one.pin, module="acme/net"))
    assert checks.permitted(host, Operation.APPLY, other).name == "prod"


def test_nothing_is_applied_in_a_window_of_before_or_since() -> None:
    day, night = (Window(f"0 {hour} * * *", timedelta(hours=12), "UTC", f"{hour}h") for hour in (8, 20))
    environment = replace(facts.environment(), freeze=(day,))
    checks.not_frozen(environment, NOW)  # midnight
    both = judged_with(environment, replace(policy_of(environment), freeze=(night,)))
    assert held_by(checks.not_frozen, both, NOW) == (
        "FreezeWindow: Frozen with no end in sight: 20h (0 20 * * *, UTC). What environments/prod/environment.yaml says of "
        "freeze since this merge counts from the next one on."
    )
    assert held_by(checks.not_frozen, environment, NOW + timedelta(hours=9)).startswith(
        "FreezeWindow: Frozen until 2026-11-24 20:00 UTC: 8h"
    )


def test_a_class_is_what_it_was_until_the_next_merge(tmp_path: Path) -> None:
    host = open_host(ground(tmp_path, {"a": note()}, environments={"prod": {"class": "sandbox"}}))
    one = unit()
    sandbox = replace(one.environment, klass=EnvironmentClass.SANDBOX)
    assert checks.permitted(host, Operation.PLAN, replace(one, environment=sandbox)).name == "prod"
    fresh = replace(one, environment=judged_with(sandbox, policy_of(one.environment)))
    other = open_host(ground(tmp_path / "other", {"a": note()}))
    assert "protected, environment.yaml says sandbox; the host wins." in held_by(
        checks.permitted, other, Operation.PLAN, fresh
    )
    assert held_by(checks.permitted, host, Operation.PLAN, fresh).endswith(
        "of class since this merge counts from the next one on."
    )


def test_nothing_goes_while_something_applied_reads_it(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    gone = unit(presence=Presence.ABSENT)
    reads = frozenset({UnitId("prod/net")})
    memory.save(remembered("prod/net", applied=applied(reads=reads)))  # itself does not count
    memory.save(remembered("prod/b", applied=applied(reads=reads, presence=Presence.ABSENT)))
    memory.save(remembered("prod/c", applied=applied(reads=reads), moved_to=UnitId("prod/d")))
    memory.save(remembered("prod/e", applied=applied(reads=frozenset({UnitId("prod/other")}))))
    memory.save(UnitMemory(UnitId("prod/f")))
    checks.still_unread(memory, gone)
    memory.save(remembered("stage/z", applied=applied(reads=reads)))
    memory.save(remembered("prod/d", applied=applied(reads=reads)))
    assert held_by(checks.still_unread, memory, gone) == "StillReferenced: prod/d, stage/z still reads prod/net."
    checks.still_unread(memory, unit())


def test_a_reader_under_a_former_name_is_a_reader(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.save(remembered("prod/net", moved_to=UnitId("prod/mid")))
    memory.save(remembered("prod/mid", moved_to=UnitId("prod/core")))
    memory.save(remembered("prod/core", applied=applied()))
    gone = replace(unit(presence=Presence.ABSENT), id=UnitId("prod/core"))
    checks.still_unread(memory, gone)
    memory.save(remembered("prod/app", applied=applied(reads=frozenset({UnitId("prod/net")}))))
    assert held_by(checks.still_unread, memory, gone) == "StillReferenced: prod/app still reads prod/core."
    memory.save(remembered("prod/net", applied=applied()))  # the name is in use again: that is another unit
    checks.still_unread(memory, gone)


@pytest.mark.parametrize("serial", [5, 6, 99])
def test_the_state_that_was_left_there_or_a_newer_one_is_ours(serial: int) -> None:
    checks.state_is_ours(remembered("prod/net", mark=MARK), parse_state(state(serial)))


def test_a_first_deploy_has_no_state_or_an_empty_one() -> None:
    checks.state_is_ours(UnitMemory(UnitId("prod/net")), None)
    empty = parse_state(b'{"version": 4, "serial": 1, "lineage": "x", "resources": []}')
    checks.state_is_ours(UnitMemory(UnitId("prod/net")), empty)


def test_an_unfinished_first_apply_may_have_left_one() -> None:
    begun = UnitMemory(UnitId("prod/net"), applying=Applying(JobId("job-1"), NOW, "plan"))
    checks.state_is_ours(begun, parse_state(state()))


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, r"the state .* serial 5\) is gone"),
        (state(4), "serial is 4, and 5 was left"),
        (state(9, lineage="other"), "lineage is other, and"),
    ],
)
def test_a_state_that_is_missing_older_or_foreign_is_lost(found: bytes | None, why: str) -> None:
    with pytest.raises(HeldError, match=why) as held:
        checks.state_is_ours(remembered("prod/net", mark=MARK), parse_state(found) if found else None)
    assert held.value.reason == "StateLost"


def test_a_state_where_there_should_be_none_is_not_taken() -> None:
    with pytest.raises(HeldError, match="this runner never wrote"):
        checks.state_is_ours(UnitMemory(UnitId("prod/net")), parse_state(state()))


@pytest.mark.parametrize(
    ("wanted", "was", "module", "allowed", "held"),
    [
        ("1.0.0", "1.1.0", facts.MODULE, False, True),
        ("1.0.0", "1.1.0", facts.MODULE, True, False),
        ("1.1.0", "1.1.0", facts.MODULE, False, False),
        ("2.0.0", "1.1.0", facts.MODULE, False, False),
        ("1.0.0", "2.0.0", "acme/other", False, False),
        ("1.0.0", "my-branch", facts.MODULE, False, False),
    ],
)
def test_an_older_version_needs_a_line(wanted: str, was: str, module: str, allowed: bool, held: bool) -> None:
    memory = remembered("prod/net", applied=applied(was, module=module))
    if held:
        said = held_by(checks.no_downgrade, unit(wanted), memory, Allowances())
        assert said.startswith("Downgrade: acme/vpc 1.0.0 is older than 1.1.0, which is applied; if that is meant")
    else:
        checks.no_downgrade(unit(wanted), memory, Allowances(downgrade=allowed))
    checks.no_downgrade(unit(wanted), UnitMemory(UnitId("prod/net")), Allowances())

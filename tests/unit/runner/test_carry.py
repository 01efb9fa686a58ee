from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.demo.forge import Files
from reconciler.demo.playground import Playground
from reconciler.errors import HeldError, UnitError
from reconciler.model import Desired, Job, JobId, Operation, Outcome, Presence, Result, Unit, UnitId
from reconciler.ports import Lost
from reconciler.runner.carry import name_again, recover, take_over, tidy
from reconciler.runner.holding import Hold
from reconciler.runner.host import Host, Hosted
from reconciler.runner.job import run_job
from reconciler.runner.memory import Applying, UnitMemory
from reconciler.runner.spool import JobFolder
from reconciler.runner.terraform.rescue import ERRORED_STATE
from reconciler.runner.terraform.state import WORK_STATE
from reconciler.runner.terraform.statelock import LockInfo
from tests.kit.modules import excused
from tests.kit.plane import (
    CATALOG,
    ENVIRONMENT,
    LINEAGE,
    NOW,
    PROD,
    applied,
    carry_out,
    ground,
    job,
    note,
    open_host,
    put,
    remembered,
    state,
)
from tests.provider.log import calls, doubled

HOLD = Hold(None, LockInfo(""))


def free(_state: UnitId) -> AbstractContextManager[Hold]:
    """A hold of a state that nobody else can reach."""
    return nullcontext(HOLD)


OLD, NEW = UnitId("prod/old"), UnitId("prod/new")
DEAD = JobId("job-dead")


@dataclass(frozen=True, slots=True)
class Place:
    """A host with a unit prod/old that was applied, and an entry prod/new that takes it over."""

    ground: Playground
    host: Host

    @property
    def hosted(self) -> Hosted:
        return self.host.environment("prod")

    @property
    def states(self) -> Path:
        return self.ground.folder / "states" / "prod"

    @property
    def dead(self) -> JobFolder:
        return self.host.spool.job(DEAD)

    def begun(self, **words: object) -> UnitMemory:
        """The memory of prod/old while the apply of a dead job stands without an end."""
        memory = remembered(OLD, applying=Applying(DEAD, NOW, "plan"), **words)
        self.host.memory.save(memory)
        return memory

    def desired(self) -> Desired:
        return self.host.history.newest(self.ground.environments.head, Operation.PLAN)

    def take_over(self) -> UnitMemory:
        desired = self.desired()
        return take_over(self.host, self.hosted, desired.units[NEW], OLD, desired, free)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = ground(tmp_path, {"new": note(more="moved_from: old\n")})
    found = Place(made, open_host(made))
    put(made.state(OLD), state(1))
    found.host.memory.save(remembered(OLD))
    yield found
    made.close()


# --- what a dead apply left


def test_where_nothing_is_unfinished_nothing_is_touched(place: Place) -> None:
    put(place.dead.work / WORK_STATE, state(9))
    memory = place.host.memory.unit(OLD)
    assert recover(place.host, place.hosted, memory, HOLD) is memory
    assert (place.dead.work / WORK_STATE).exists()


def test_the_state_comes_back_and_the_workspace_goes(place: Place) -> None:
    put(place.dead.work / WORK_STATE, state(2, tainted="broken"))
    memory = place.begun(corrected="digest", tainted=frozenset({"thing.before"}))
    after = recover(place.host, place.hosted, memory, HOLD)
    assert place.ground.state(OLD).read_bytes() == state(2, tainted="broken")
    assert after == replace(memory, corrected=None, tainted=frozenset({"thing.before", "thing.broken"}))
    assert place.host.memory.unit(OLD) == after
    assert not place.dead.work.exists()
    assert recover(place.host, place.hosted, after, HOLD) == after


def test_an_engine_that_wrote_nothing_leaves_the_state_as_it_was(place: Place) -> None:
    for files in ({}, {WORK_STATE: state(1)}):
        for name, data in files.items():
            put(place.dead.work / name, data)
        recover(place.host, place.hosted, place.begun(), HOLD)
        assert place.ground.state(OLD).read_bytes() == state(1)
        assert not place.dead.work.exists()


def test_a_state_that_only_a_person_can_place_is_kept_and_said(place: Place) -> None:
    put(place.dead.work / ERRORED_STATE, state(2, lineage="other"))
    with pytest.raises(HeldError, match=r"state push .*errored.tfstate` in .*job-dead/work\), then remove") as held:
        recover(place.host, place.hosted, place.begun(), HOLD)
    assert held.value.reason == "StateUnwritten"
    (place.dead.work / ERRORED_STATE).unlink()
    recover(place.host, place.hosted, place.begun(), HOLD)


@pytest.mark.parametrize("left", [state(2, lineage="other"), state(0)])
def test_a_state_that_is_no_successor_replaces_nothing_and_is_not_thrown_away(left: bytes, place: Place) -> None:
    put(place.dead.work / WORK_STATE, left)
    with pytest.raises(
        HeldError, match=r"no successor.*job-dead/work; if it is of no use, remove that folder"
    ) as failed:
        recover(place.host, place.hosted, place.begun(), HOLD)
    assert failed.value.reason == "StateForeign"
    assert place.ground.state(OLD).read_bytes() == state(1)
    assert (place.dead.work / WORK_STATE).read_bytes() == left


# --- a rename


def save_moved_to(place: Place) -> None:
    place.host.memory.save(remembered(OLD, moved_to=NEW))


def copy_state(place: Place) -> None:
    save_moved_to(place)
    put(place.ground.state(NEW), state(1))


def set_aside(place: Place) -> None:
    copy_state(place)
    place.ground.state(OLD).rename(place.states / f"old.tfstate.moved-{LINEAGE[:8]}-1")


def save_new(place: Place) -> None:
    set_aside(place)
    place.host.memory.save(remembered(NEW))


@pytest.mark.parametrize("got_as_far_as", [lambda _: None, save_moved_to, copy_state, set_aside, save_new])
def test_a_rename_goes_on_from_wherever_it_stopped(got_as_far_as: Callable[[Place], None], place: Place) -> None:
    got_as_far_as(place)
    moved = place.take_over()
    assert moved == remembered(NEW) == place.host.memory.unit(NEW)
    assert place.host.memory.unit(OLD) == remembered(OLD, moved_to=NEW)
    assert {p.name: p.read_bytes() for p in place.states.iterdir()} == {
        "new.tfstate": state(1),
        f"old.tfstate.moved-{LINEAGE[:8]}-1": state(1),
    }


def test_what_the_old_units_dead_apply_left_moves_too(place: Place) -> None:
    put(place.dead.work / WORK_STATE, state(2))
    place.begun()
    moved = place.take_over()
    assert place.ground.state(NEW).read_bytes() == state(2)
    assert moved.applying == Applying(DEAD, NOW, "plan")  # the next apply of the new name settles it
    assert place.take_over() == moved


def test_a_rename_waits_for_the_old_units_job(place: Place) -> None:
    with place.host.memory.unit_lock(OLD), pytest.raises(UnitError, match="another job of prod/old") as busy:
        place.take_over()
    assert (busy.value.reason, busy.value.transient) == ("UnitBusy", True)
    assert place.ground.state(OLD).exists()
    assert place.host.memory.unit(OLD) == remembered(OLD)


@pytest.mark.parametrize(
    ("memory", "why"),
    [
        (UnitMemory(OLD), "prod/old has no state to move; remove `moved_from` from environments/prod/new.yaml"),
        (remembered(OLD, applied=applied(presence=Presence.ABSENT)), "has no state to move"),
        (remembered(OLD, moved_to=UnitId("prod/else")), "has moved to prod/else already"),
    ],
)
def test_a_rename_of_what_is_not_there_is_held(memory: UnitMemory, why: str, place: Place) -> None:
    place.host.memory.save(memory)
    with pytest.raises(HeldError, match=why) as held:
        place.take_over()
    assert held.value.reason == "MoveBlocked"


@pytest.mark.parametrize("old", [note(), "broken: [\n"])
def test_a_rename_is_held_while_the_old_entry_is_there(old: str, place: Place) -> None:
    desired = place.desired()
    there: Unit = desired.units[NEW]
    place.ground.merge({f"{PROD}/old.yaml": old})
    place.host.history._stamp.unlink()
    with pytest.raises(HeldError, match=r"prod/old still has an entry") as held:
        take_over(place.host, place.hosted, there, OLD, place.desired(), free)
    assert held.value.reason == "MoveBlocked"


RENAMED: Files = {f"{PROD}/old.yaml": None, f"{PROD}/new.yaml": note(more="moved_from: old\n")}
REVERTED: Files = {f"{PROD}/old.yaml": note(), f"{PROD}/new.yaml": None}


def run(host: Host, made: Playground, unit: str, number: int) -> Result:
    host.history.newest(made.environments.head, Operation.PLAN)
    return carry_out(host, job(unit, made.environments.head, number))


def test_a_rename_that_is_taken_back_makes_nothing_a_second_time(tmp_path: Path) -> None:
    made = ground(tmp_path, {"old": note()})
    host = open_host(made)
    assert run(host, made, OLD, 1).reason == "Applied"
    lineage = json.loads(made.state(OLD).read_bytes())["lineage"]
    made.merge(RENAMED)
    assert run(host, made, NEW, 2).reason == "InSync"
    made.merge(REVERTED)
    held = run(host, made, OLD, 3)
    assert (held.outcome, held.reason) == (Outcome.HELD, "MoveBlocked")
    assert held.message.endswith("write `moved_from: new` in environments/prod/old.yaml to move it back.")
    made.merge({f"{PROD}/old.yaml": note(more="moved_from: new\n")})
    back = run(host, made, OLD, 4)
    assert (back.reason, back.moved_from) == ("InSync", NEW)
    assert json.loads(made.state(OLD).read_bytes())["lineage"] == lineage
    made.close()


def test_no_state_comes_from_a_folder_that_is_not_on_the_allow_list(tmp_path: Path) -> None:
    both = ["plan", "apply"]
    made = ground(tmp_path, {"old": note()}, allow=[{"operations": both, "folders": [f"{PROD}/**"]}])
    host = open_host(made)
    assert run(host, made, OLD, 1).reason == "Applied"
    made.merge(RENAMED)
    whole = made.runner_config.read_text()
    made.runner_config.write_text(whole.replace(f"{PROD}/**", f"{PROD}/new.yaml"))
    held = run(open_host(made), made, NEW, 2)
    assert (held.outcome, held.reason) == (Outcome.HELD, "NotAllowed")
    assert f"apply of {PROD}/old.yaml is not on" in held.message
    assert made.state(OLD).exists()
    assert run(host, made, NEW, 3).reason == "InSync"
    made.close()


@pytest.mark.parametrize("got_as_far_as", [save_moved_to, copy_state, set_aside])
def test_so_does_one_that_is_taken_back_half_way(got_as_far_as: Callable[[Place], None], place: Place) -> None:
    got_as_far_as(place)
    place.ground.merge(REVERTED)
    desired = place.desired()
    gone, unit = place.host.memory.unit(OLD), desired.units[OLD]
    with pytest.raises(HeldError, match="which has no entry any more"):
        name_again(place.host, place.hosted, unit, gone, desired, Operation.PLAN, free)
    back = name_again(place.host, place.hosted, unit, gone, desired, Operation.APPLY, free)
    assert back == remembered(OLD) == place.host.memory.unit(OLD)
    assert place.ground.state(OLD).read_bytes() == state(1)
    assert not place.ground.state(NEW).exists()


def test_a_name_whose_state_lives_on_elsewhere_or_is_gone_may_be_used_again(place: Place) -> None:
    place.ground.merge({f"{PROD}/old.yaml": note(), f"{PROD}/new.yaml": note()})
    desired = place.desired()
    unit = desired.units[OLD]
    on = UnitId("prod/on")
    for memories in (
        [remembered(OLD, moved_to=NEW), remembered(NEW)],
        [remembered(OLD, moved_to=on), remembered(on, moved_to=NEW), remembered(NEW)],
        [remembered(OLD, moved_to=on), remembered(on, applied=applied(presence=Presence.FORGOTTEN))],
    ):
        for memory in memories:
            place.host.memory.save(memory)
        found = name_again(place.host, place.hosted, unit, memories[0], desired, Operation.APPLY, free)
        assert found == UnitMemory(OLD)


# --- workspaces


def workspace(place: Place) -> JobFolder:
    """A dead job's folder with a workspace."""
    asked = Job(DEAD, Operation.APPLY, OLD, place.ground.environments.head, 1)
    lock = place.dead.create(asked)
    assert lock is not None
    lock.release()
    put(place.dead.work / "tfplan", b"secrets")
    return place.dead


def test_a_dead_jobs_workspace_goes_unless_the_next_job_has_to_look_there(place: Place) -> None:
    folder = workspace(place)
    place.begun()
    tidy(place.host.memory, folder)
    assert folder.work.exists()
    place.host.memory.save(remembered(OLD, applying=Applying(JobId("job-2"), NOW, "plan")))
    tidy(place.host.memory, folder)
    assert not folder.work.exists()
    assert folder.state() == Lost(applying=False)


def test_one_that_lives_keeps_it_and_one_that_never_began_does_not(place: Place) -> None:
    folder = workspace(place)
    with place.host.memory.unit_lock(OLD):
        lock = os.open(folder.lock, os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tidy(place.host.memory, folder)
            assert folder.work.exists()
        finally:
            os.close(lock)
    (folder.path / "job.json").unlink()
    for left in folder.work.iterdir():
        left.unlink()
    (folder.path / "events.jsonl").unlink(missing_ok=True)
    tidy(place.host.memory, folder)
    assert not folder.work.exists()
    tidy(place.host.memory, folder)


@pytest.mark.parametrize("name", [WORK_STATE, ERRORED_STATE, None])
@pytest.mark.parametrize("asked", [b"", None])
def test_a_state_of_nobody_knows_whose_job_is_left_to_a_person(
    name: str | None, asked: bytes | None, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = place.host.spool.job(DEAD)
    folder.work.mkdir(parents=True)
    if name is None:
        folder.path.joinpath("events.jsonl").write_bytes(b'{"phase": "Applying"}\n')
    else:
        (folder.work / name).write_bytes(b"{}")
    if asked is not None:
        (folder.path / "job.json").write_bytes(asked)
    tidy(place.host.memory, folder)
    assert folder.work.exists()
    assert f"runner: {folder.path}: its job.json cannot be read" in capsys.readouterr().err


# --- a disk that fails in the middle, with a real engine

BREAKING = """\
variable "states" { type = string }
resource "terraform_data" "this" {
  provisioner "local-exec" {
    interpreter = ["/bin/sh", "-c"]
    environment = { STATES = var.states }
    command     = <<-EOT
      printf '{"at": 0, "pid": 0, "op": "create", "type": "breaking", "path": "x", "outcome": "created"}\\n' >> $FILES_ROOT/calls.log
      mkdir -p $STATES/prod/app.tfstate
    EOT
  }
}
"""


def test_a_state_that_cannot_be_kept_stays_in_the_workspace_for_the_next_job(tmp_path: Path) -> None:
    releases: dict[str, Files] = {"v1.0.0": {**CATALOG["v1.0.0"], "modules/breaking/main.tf": BREAKING}}
    states = tmp_path / "ground" / "states"
    entry = f'module: acme/breaking\nversion: "1.0.0"\ninputs: {{states: {states}}}\n'
    entries = {**ENVIRONMENT, f"{PROD}/app.yaml": entry}
    made = Playground.create(tmp_path / "ground", entries, releases, runner=excused("breaking"))
    host = open_host(made)
    first, second = (job("prod/app", made.environments.head, number) for number in (1, 2))
    failed = carry_out(host, first)
    assert (failed.outcome, failed.reason) == (Outcome.FAILED, "HostFault")
    work = host.spool.job(first.id).work
    assert json.loads((work / WORK_STATE).read_bytes())["resources"]
    (states / "prod" / "app.tfstate").rmdir()
    tidy(host.memory, host.spool.job(first.id))
    assert work.exists()
    healed = carry_out(host, second)
    assert (healed.outcome, healed.reason) == (Outcome.SUCCEEDED, "InSync"), healed.message
    assert not work.exists()
    assert len(calls(made.world, op="create", outcome="created")) == 1
    assert doubled(made.world) == []
    made.close()


def test_a_job_that_cannot_write_its_result_leaves_what_the_next_one_needs(tmp_path: Path) -> None:
    made = ground(tmp_path, {"app": note()})
    host = open_host(made)
    asked = job("prod/app", made.environments.head)
    folder = host.spool.job(asked.id)
    life = folder.create(asked)
    assert life is not None
    (folder.path / "result.json").mkdir()
    with pytest.raises(IsADirectoryError):
        run_job(host, asked, folder, life)
    life.release()
    (folder.path / "result.json").rmdir()
    assert folder.state() == Lost(applying=True)
    again = carry_out(host, job("prod/app", made.environments.head, 2))
    assert isinstance(again, Result)
    assert again.reason == "InSync"
    tidy(host.memory, folder)
    assert not folder.work.exists()
    kept = host.environment("prod").backend.read(UnitId("prod/app"))
    assert kept is not None
    assert host.memory.unit(UnitId("prod/app")).mark == kept.mark
    made.close()
